#!/usr/bin/env python3
"""TCP with all offloads on: no stall, no storm of retransmissions, no bad checksum at the receiver.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+
"""

import os
import unittest

from lab import SLOW, WIRE_V4, WIRE_V6, Lab, Site, configuration, tap_port
from traffic import RETRANSMITTED, iperf

# Far below what any machine reaches when segmentation offload works, far above what a stalling connection does.
FLOOR_GBITS = float(os.environ.get("VSWITCH_TEST_FLOOR_GBITS", "0.1" if SLOW <= 1 else "0.02"))


class Tcp(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue")

    def switch(self, **keys):
        return self.lab.daemon(self.site.host, configuration({
            "red/web": tap_port(self.site["red"], "02:00:00:00:00:11", "198.18.0.11", "fd00::11", **keys),
            "blue/db": tap_port(self.site["blue"], "02:00:00:00:00:12", "198.18.0.12", "fd00::12", **keys)}))

    def measure(self, server, address, floor=FLOOR_GBITS, retransmitted=RETRANSMITTED):
        for reverse in (False, True):
            with self.subTest(address=address, reverse=reverse):
                result = iperf(self.lab, self.site["red"], server, address, seconds=2, reverse=reverse)
                print(f"  red {'<-' if reverse else '->'} {address}: {result}")
                self.assertGreater(result.gbits, floor, str(result))
                self.assertLess(result.retransmits, retransmitted * result.segments + 50, str(result))
                self.assertEqual(result.bad_checksums, 0, str(result))

    def test_between_tenants(self):
        self.switch()
        self.measure(self.site["blue"], "198.18.0.12")
        self.measure(self.site["blue"], "fd00::12")

    def test_to_the_wire(self):
        self.switch()
        self.measure(self.site.wire, WIRE_V4)
        self.measure(self.site.wire, WIRE_V6)

    def test_without_offloads(self):
        # Frame by frame a sender outruns the switch: what does not fit is dropped, and sent again.
        self.switch(offloads=False)
        self.measure(self.site["blue"], "198.18.0.12", floor=FLOOR_GBITS / 10, retransmitted=0.1)
        self.measure(self.site.wire, WIRE_V6, floor=FLOOR_GBITS / 10, retransmitted=0.1)


if __name__ == "__main__":
    unittest.main()
