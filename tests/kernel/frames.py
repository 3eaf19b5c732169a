"""The frame classes that tell one macvlan implementation from another, and what each scenario is made of."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "netns"))

from raw import ethernet, tag  # noqa: E402

MAC = {"A": "02:00:00:00:00:0a", "B": "02:00:00:00:00:0b", "C": "02:00:00:00:00:0c", "host": "02:00:00:00:00:01",
       "wire": "02:00:00:00:00:ff"}
BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "02:00:00:00:00:77"
SPOOFED = "02:de:ad:be:ef:00"
UNJOINED_GROUP = "01:00:5e:01:02:03"
LLDP = "01:80:c2:00:00:0e"
COLUMNS = ("wire", "host", "A", "B", "C")


@dataclass(frozen=True)
class FrameClass:
    name: str
    sender: str
    dst: str
    src: str
    tags: bytes = b""

    def frame(self, mark):
        """The frame with `mark` in its last 16 bytes, by which its copies are known."""
        head = ethernet(self.dst, self.src, b"macvlan".ljust(40, b"."), tags=self.tags)
        return head + f"{mark:>16}".encode()


FRAMES = (
    FrameClass("A unicast to B", "A", MAC["B"], MAC["A"]),
    FrameClass("A unicast to the host", "A", MAC["host"], MAC["A"]),
    FrameClass("host unicast to A", "host", MAC["A"], MAC["host"]),
    FrameClass("A broadcast", "A", BROADCAST, MAC["A"]),
    FrameClass("host broadcast", "host", BROADCAST, MAC["host"]),
    FrameClass("wire broadcast", "wire", BROADCAST, MAC["wire"]),
    FrameClass("wire reflects A's broadcast", "wire", BROADCAST, MAC["A"]),
    FrameClass("wire reflects A's unicast to B", "wire", MAC["B"], MAC["A"]),
    FrameClass("wire unicast to A", "wire", MAC["A"], MAC["wire"]),
    FrameClass("wire unicast to the host", "wire", MAC["host"], MAC["wire"]),
    FrameClass("wire unicast to nobody", "wire", NOBODY, MAC["wire"]),
    FrameClass("A to wire, spoofed source", "A", MAC["wire"], SPOOFED),
    FrameClass("A to B, spoofed source", "A", MAC["B"], SPOOFED),
    FrameClass("wire multicast nobody joined", "wire", UNJOINED_GROUP, MAC["wire"]),
    FrameClass("wire to A, tagged VLAN 5", "wire", MAC["A"], MAC["wire"], tag(5)),
    FrameClass("A to B, tagged VLAN 5", "A", MAC["B"], MAC["A"], tag(5)),
    FrameClass("A to B, priority tag", "A", MAC["B"], MAC["A"], tag(0, pcp=5)),
    FrameClass("A sends LLDP", "A", LLDP, MAC["A"]),
    FrameClass("wire sends LLDP", "wire", LLDP, MAC["wire"]),
)


@dataclass(frozen=True)
class Scenario:
    name: str
    modes: dict                                  # tenant -> mode
    source_macs: tuple = ()                      # whose frames a source-mode tenant gets
    nodst: bool = False
    trusted: bool = False                        # vswitch only: the kernel trusts everybody
    tenants: tuple = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "tenants", tuple(self.modes))


SCENARIOS = (
    Scenario("bridge", {"A": "bridge", "B": "bridge", "C": "bridge"}),
    Scenario("bridge, trusted", {"A": "bridge", "B": "bridge", "C": "bridge"}, trusted=True),
    Scenario("private", {"A": "private", "B": "private", "C": "private"}),
    Scenario("vepa", {"A": "vepa", "B": "vepa", "C": "vepa"}),
    Scenario("bridge, bridge, private", {"A": "bridge", "B": "bridge", "C": "private"}),
    Scenario("vepa, bridge, private", {"A": "vepa", "B": "bridge", "C": "private"}),
    Scenario("passthru", {"A": "passthru"}),
    Scenario("source", {"A": "bridge", "B": "bridge", "C": "source"}, source_macs=(MAC["wire"],)),
    Scenario("source nodst", {"A": "bridge", "B": "bridge", "C": "source"}, source_macs=(MAC["wire"],), nodst=True),
    Scenario("A is source", {"A": "source", "B": "bridge", "C": "bridge"}, source_macs=(MAC["wire"],)),
)
