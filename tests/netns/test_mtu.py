#!/usr/bin/env python3
"""A port has its uplink's MTU unless it says otherwise, and nothing longer reaches it.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+
"""

import unittest

from lab import WIRE_V4, Lab, Site, configuration, ping, tap_port
from raw import RawSocket, ethernet, exchange

RED, BLUE, WIRE = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:ff"
ICMP_V4_HEADERS = 28


class Mtu(unittest.TestCase):
    def start(self, uplink_mtu, **blue):
        lab = self.enterContext(Lab())
        self.site = Site(lab, "red", "blue", mtu=uplink_mtu)
        lab.daemon(self.site.host, configuration({
            "red/p": tap_port(self.site["red"], RED, "198.18.0.11"),
            "blue/p": tap_port(self.site["blue"], BLUE, "198.18.0.12", **blue)}))

    def mtu_of(self, tenant):
        return self.site[tenant].links()["eth0"]["mtu"]

    def test_default(self):
        self.start(1500)
        self.assertEqual(self.mtu_of("red"), 1500)
        for address in ("198.18.0.12", WIRE_V4):
            ping(self.site["red"], address, size=1500 - ICMP_V4_HEADERS, dont_fragment=True)

    def test_jumbo(self):
        self.start(9000)
        self.assertEqual(self.mtu_of("red"), 9000)
        for address in ("198.18.0.12", WIRE_V4):
            ping(self.site["red"], address, size=9000 - ICMP_V4_HEADERS, dont_fragment=True)

    def test_smaller_port(self):
        self.start(1500, mtu=1400)
        self.assertEqual(self.mtu_of("blue"), 1400)
        ping(self.site["red"], "198.18.0.12", size=1400 - ICMP_V4_HEADERS, dont_fragment=True)
        with RawSocket(self.site["red"], "eth0") as red, RawSocket(self.site["blue"], "eth0") as blue, \
                RawSocket(self.site.wire, "w0") as wire:
            sockets = {"red": red, "blue": blue, "wire": wire}
            for sender, src in (("red", RED), ("wire", WIRE)):
                fits = ethernet(BLUE, src, b"f" * 1400)
                # Two VLAN tags more than the MTU are let through, as every Ethernet device does.
                longer = ethernet(BLUE, src, b"l" * (1400 + 2 * 4 + 1))
                self.assertEqual(exchange(sockets, sender, fits)["blue"], [fits])
                self.assertEqual(exchange(sockets, sender, longer)["blue"], [])


if __name__ == "__main__":
    unittest.main()
