"""Where vswitch delivers differently from kernel macvlan, and why. Anything else is a bug.

Each entry must occur at least once in a run: a difference that has gone away must leave this list too."""

from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Difference:
    scenario: str   # patterns of fnmatch
    frame: str
    column: str
    kernel: str     # as in the table: "1", "-"
    vswitch: str
    why: str

    def matches(self, scenario, frame, column, kernel, vswitch):
        return (fnmatch(scenario, self.scenario) and fnmatch(frame, self.frame) and fnmatch(column, self.column)
                and kernel == self.kernel and vswitch == self.vswitch)


DIFFERENCES = (
    Difference("*", "A to wire, spoofed source", "wire", "1", "-",
               "a tenant may send only from its own MACs unless it is trusted"),
    Difference("*", "A to B, spoofed source", "[!h]*", "1", "-",
               "a tenant may send only from its own MACs unless it is trusted"),
    Difference("*", "wire multicast nobody joined", "[ABC]", "-", "1",
               "what a tenant's stack joined is its own business: groups are flooded, as a switch without snooping does"),
    Difference("*", "wire sends LLDP", "[ABC]", "-", "1",
               "what a tenant's stack joined is its own business: groups are flooded, as a switch without snooping does"),
    Difference("*", "A sends LLDP", "[BC]", "-", "1",
               "what a tenant's stack joined is its own business: groups are flooded, as a switch without snooping does"),
    Difference("private", "wire reflects A's unicast to B", "B", "1", "-",
               "private holds even when an outside switch sends a tenant's unicast back"),
    Difference("passthru", "wire *", "host", "-", "1",
               "the uplink is shared with the host, which keeps every frame addressed to it"),
    Difference("private", "wire reflects A's broadcast", "host", "-", "1",
               "the uplink is shared with the host, which hears every broadcast of the wire"),
    Difference("A is source", "wire reflects A's broadcast", "host", "-", "1",
               "the uplink is shared with the host, which hears every broadcast of the wire"),
    Difference("source nodst", "wire *", "host", "-", "1",
               "nodst keeps a frame from other tenants; the host keeps every frame addressed to it"),
)
