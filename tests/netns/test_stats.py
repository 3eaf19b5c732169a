#!/usr/bin/env python3
"""Every frame is accounted for: what `stats` counts and what `trace` foretells is what happens.

    red   [eth0] --+
    blue  [eth0] --+                                        mode bridge
    gray  [eth0] --+-- vswitchd -- host [lan0] ------- [w0] wire
    green [eth0] --+                                        access VLAN 100, MTU 1400; pink has the same VLAN
    pink  (ring) --+
"""

import unittest

from lab import Lab, Site, configuration, ring_port, tap_port
from raw import RawSocket, ethernet, exchange, tag
from ring import RingClient

MAC = {"red": "02:00:00:00:00:11", "blue": "02:00:00:00:00:12", "gray": "02:00:00:00:00:13",
       "green": "02:00:00:00:00:14", "pink": "02:00:00:00:00:15", "wire": "02:00:00:00:00:ff"}
BROADCAST, NOBODY = "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:77"
COUNT = 10


class Stats(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue", "gray", "green", addresses=False)
        self.ring = f"{self.lab.folder}/pink.sock"
        ports = {f"{name}/p": tap_port(self.site[name], MAC[name]) for name in ("red", "blue", "gray")}
        ports["gray/p"]["mode"] = "private"
        ports["green/p"] = tap_port(self.site["green"], MAC["green"], vlan=100, mtu=1400)
        ports["pink/p"] = ring_port(self.ring, MAC["pink"], vlan=100)
        self.daemon = self.lab.daemon(self.site.host, configuration(ports))
        self.sockets = {name: self.enterContext(RawSocket(netns, "eth0")) for name, netns in self.site.tenants.items()}
        self.sockets["wire"] = self.enterContext(RawSocket(self.site.wire, "w0"))

    def stats(self):
        return {port["name"].split("/")[0]: port for port in self.daemon.ctl("stats")["ports"]}

    def changes(self, sender, frame):
        """{port: {counter: growth}} of COUNT such frames."""
        before = self.stats()
        for _ in range(COUNT - 1):
            self.sockets[sender].send(frame)
        exchange(self.sockets, sender, frame)
        after = self.stats()
        growth = {}
        for port, counters in after.items():
            flat = {**{k: v for k, v in counters.items() if k.endswith(("_frames", "_bytes"))}, **counters["drops"]}
            was = {**before[port], **before[port]["drops"]}
            grown = {k: v - was.get(k, 0) for k, v in flat.items() if v != was.get(k, 0)}
            if grown:
                growth[port] = grown
        return growth

    @staticmethod
    def rx(size=60, **drops):
        return {"rx_frames": COUNT, "rx_bytes": COUNT * size, **drops}

    @staticmethod
    def tx(size=60):
        return {"tx_frames": COUNT, "tx_bytes": COUNT * size}

    def test_forwarded(self):
        frame = ethernet(MAC["blue"], MAC["red"])
        self.assertEqual(self.changes("red", frame), {"red": self.rx(), "blue": self.tx()})
        frame = ethernet(MAC["red"], MAC["wire"], b"x" * 1000)
        self.assertEqual(self.changes("wire", frame), {"lan": self.rx(1014), "red": self.tx(1014)})
        frame = ethernet(BROADCAST, MAC["red"])
        self.assertEqual(self.changes("red", frame), {"red": self.rx(), "blue": self.tx(), "lan": self.tx()})

    def test_dropped_where_they_came_from(self):
        for name, sender, frame, reason in (
                ("spoofed", "red", ethernet(MAC["wire"], NOBODY), "spoofed_mac"),
                ("tag from an access port", "green", ethernet(MAC["wire"], MAC["green"], tags=tag(7)), "vlan_not_allowed"),
                ("reflected to a private port", "wire", ethernet(MAC["gray"], MAC["red"]), "isolated"),
                ("reflected broadcast", "wire", ethernet(BROADCAST, MAC["red"]), "reflected")):
            with self.subTest(name):
                port = "lan" if sender == "wire" else sender
                self.assertEqual(self.changes(sender, frame)[port].get(reason), COUNT)

    def test_unknown_destination(self):
        """Frames for somebody else do not even reach vswitchd, or are counted as nobody's."""
        growth = self.changes("wire", ethernet(NOBODY, MAC["wire"]))
        self.assertEqual(set(growth) - {"lan"}, set())
        self.assertEqual(set(growth.get("lan", {})) - {"rx_frames", "rx_bytes", "unknown_destination"}, set())

    def test_dropped_where_they_go_to(self):
        # What was sent to a ring that nobody attached to, and what is too long for its destination.
        self.assertEqual(self.changes("green", ethernet(MAC["pink"], MAC["green"]))["pink"], {"dest_detached": COUNT})
        with RingClient(self.ring) as pink:
            sockets, self.sockets = self.sockets, {**self.sockets, "pink": pink}
            growth = self.changes("pink", ethernet(MAC["green"], MAC["pink"], b"l" * 1500))
            self.assertEqual(growth["green"], {"too_long": COUNT})
            self.sockets = sockets
            # A ring of 1,024 descriptors that nobody empties.
            self.site["green"].ip("link", "set", "eth0", "txqueuelen", 10000)
            before = self.stats()["pink"]
            for _ in range(1500):
                self.sockets["green"].send(ethernet(MAC["pink"], MAC["green"]))
            exchange(self.sockets, "green", ethernet(MAC["pink"], MAC["green"]))
            after = self.stats()["pink"]
            delivered = after["tx_frames"] - before["tx_frames"]
            dropped = after["drops"].get("dest_full", 0) - before["drops"].get("dest_full", 0)
            self.assertEqual(delivered, 1024)
            self.assertEqual(dropped, 1501 - 1024)

    def test_trace_foretells_what_happens(self):
        for sender, dst, src in (("red", MAC["blue"], MAC["red"]), ("red", BROADCAST, MAC["red"]),
                                 ("red", NOBODY, MAC["red"]), ("red", MAC["wire"], NOBODY),
                                 ("red", MAC["gray"], MAC["red"]), ("gray", BROADCAST, MAC["gray"]),
                                 ("green", BROADCAST, MAC["green"]), ("wire", MAC["gray"], MAC["wire"]),
                                 ("wire", BROADCAST, MAC["wire"]), ("wire", BROADCAST, MAC["red"]),
                                 ("wire", MAC["gray"], MAC["blue"])):
            port = "lan" if sender == "wire" else f"{sender}/p"
            trace = self.daemon.ctl("trace", port, "--dst", dst, "--src", src, "--ethertype", "0x88b5")
            foretold = {d["port"].split("/")[0] for d in trace.get("destinations", [])} - {"pink"}
            got = exchange(self.sockets, sender, ethernet(dst, src))
            happened = {"lan" if name == "wire" else name for name, frames in got.items() if frames}
            with self.subTest(sender=sender, dst=dst, src=src):
                self.assertEqual(foretold, happened)
                self.assertEqual(trace["verdict"] == "drop", not happened)


if __name__ == "__main__":
    unittest.main()
