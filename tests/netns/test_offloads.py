#!/usr/bin/env python3
"""Which offloads a port has: what the configuration says, what the tenant's kernel shows, what `show` tells; changed
under TCP without the tenant noticing anything but the speed.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] wire
    blue [eth0] 198.18.0.12 --+
"""

import threading
import unittest

from lab import SLOW, Lab, Site, configuration, ring_port, tap_port
from ring import FEATURE_CSUM, FEATURE_TSO4, RingClient
from traffic import iperf

ALL = {"checksum", "tso4", "tso6", "ecn", "uso"}
# What ethtool(8) calls them.
FEATURES = {"checksum": "tx-checksum-ip-generic", "tso4": "tx-tcp-segmentation", "tso6": "tx-tcp6-segmentation",
            "ecn": "tx-tcp-ecn-segmentation", "uso": "tx-udp-segmentation"}


class Offloads(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue")
        self.ring = f"{self.lab.folder}/green.sock"

    def configuration(self, offloads):
        return configuration({
            "red/web": tap_port(self.site["red"], "02:00:00:00:00:11", "198.18.0.11", offloads=offloads),
            "blue/db": tap_port(self.site["blue"], "02:00:00:00:00:12", "198.18.0.12", offloads=offloads),
            "green/app": ring_port(self.ring, "02:00:00:00:00:13", offloads=offloads)})

    def start(self, offloads):
        self.daemon = self.lab.daemon(self.site.host, self.configuration(offloads))

    def reload(self, offloads):
        self.daemon.write_config(self.configuration(offloads))
        return self.daemon.ctl("reload")

    def shown(self, name):
        entries = self.daemon.ctl("show")
        offloads = {e["name"]: e["offloads"] for e in entries["ports"] + entries["uplinks"]}[name]
        return (*({kind for kind, there in offloads[which].items() if there} for which in ("requested", "active")),
                offloads["why_not"])

    def in_the_kernel(self, netns):
        """Those of ours that the device of a tenant has on."""
        text = self.site[netns].run("ethtool", "-k", "eth0").stdout
        states = dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)
        return {kind for kind, name in FEATURES.items() if states[name].startswith("on")}

    def expect(self, wanted):
        for name, netns in (("red/web", "red"), ("blue/db", "blue")):
            self.assertEqual(self.shown(name), (wanted, wanted, None))
            self.assertEqual(self.in_the_kernel(netns), wanted)

    def test_the_device_has_what_was_asked_for(self):
        for offloads, wanted in ((True, ALL), (False, set()), ({"uso": False, "tso6": False}, {"checksum", "tso4", "ecn"}),
                                 ({"checksum": False}, set()), ({"tso4": False, "tso6": False}, {"checksum", "uso"})):
            with self.subTest(offloads=offloads):
                self.start(offloads)
                self.expect(wanted)
                self.daemon.stop()

    def test_changed_without_reopening(self):
        self.start(True)
        index = self.site["red"].links()["eth0"]["ifindex"]
        for offloads, wanted in ((False, set()), ({"tso4": False}, ALL - {"tso4"}), (True, ALL)):
            report = self.reload(offloads)
            self.assertEqual(report["changed"], ["blue/db", "green/app", "red/web"])
            self.assertEqual((report["reopened"], report["untouched"]), ([], 0))
            self.expect(wanted)
        self.assertEqual(self.site["red"].links()["eth0"]["ifindex"], index)

    def test_changed_under_tcp(self):
        self.start(True)
        changes, stop = [], threading.Event()

        def change():
            while not stop.wait(0.1):
                changes.append(self.reload((False, {"tso4": False}, {"checksum": False}, True)[len(changes) % 4]))

        changer = threading.Thread(target=change)
        changer.start()
        try:
            result = iperf(self.lab, self.site["red"], self.site["blue"], "198.18.0.12", seconds=3)
        finally:
            stop.set()
            changer.join()
        print(f"  {len(changes)} changes: {result}")
        self.assertGreater(len(changes), 5 / SLOW)
        self.assertEqual(result.bad_checksums, 0)
        self.assertGreater(result.gbits, 0.02)

    def test_a_ring_gets_what_it_asks_for_and_may_have(self):
        self.start({"uso": False})
        permitted = ALL - {"uso"}
        self.assertEqual(self.shown("green/app"), (permitted, set(), "nobody is attached"))
        green = self.enterContext(RingClient(self.ring, features=FEATURE_CSUM | FEATURE_TSO4))
        self.assertEqual(self.shown("green/app"),
                         (permitted, {"checksum", "tso4"}, "the tenant does not ask for tso6, ecn"))
        self.reload({"tso4": False})
        self.assertEqual(green.info().features, FEATURE_CSUM)
        self.assertEqual(self.shown("green/app")[1], {"checksum"})
        self.reload(True)
        self.assertEqual(green.info().features, FEATURE_CSUM | FEATURE_TSO4)
        self.assertEqual(green.info().attachments, 1)

    def test_show_as_a_table(self):
        self.start({"uso": False})
        text = self.daemon.netns.run(*self.daemon.ctl_command("show")).stdout
        rows = [line.split() for line in text.splitlines()]
        self.assertIn(["PORT", "OFFLOADS-REQUESTED", "OFFLOADS-ACTIVE", "WHY-NOT"], rows)
        self.assertIn(["red/web", "checksum,ecn,tso4,tso6", "checksum,ecn,tso4,tso6", "-"], rows)
        self.assertIn(["green/app", "checksum,ecn,tso4,tso6", "-", "nobody", "is", "attached"], rows)


if __name__ == "__main__":
    unittest.main()
