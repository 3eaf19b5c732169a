#!/usr/bin/env python3
"""Tenants, the wire and the host, each talking at the same time.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] 198.18.0.1 ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+

Mode bridge: red and blue reach each other and the wire; the host keeps its own traffic with the wire.
"""

import subprocess
import unittest

from lab import HOST_V4, HOST_V6, WIRE_V4, WIRE_V6, Lab, Site, configuration, ping, tap_port
from traffic import iperf

RED_V4, RED_V6, BLUE_V4, BLUE_V6 = "198.18.0.11", "fd00::11", "198.18.0.12", "fd00::12"


class Ping(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue")
        self.daemon = self.lab.daemon(self.site.host, configuration({
            "red/web": tap_port(self.site["red"], "02:00:00:00:00:11", RED_V4, RED_V6),
            "blue/db": tap_port(self.site["blue"], "02:00:00:00:00:12", BLUE_V4, BLUE_V6)}))

    def test_tenant_to_tenant(self):
        for address in (BLUE_V4, BLUE_V6):
            ping(self.site["red"], address)
        for address in (RED_V4, RED_V6):
            ping(self.site["blue"], address)

    def test_tenant_to_wire_and_back(self):
        for address in (WIRE_V4, WIRE_V6):
            ping(self.site["red"], address)
            ping(self.site["blue"], address)
        for address in (RED_V4, RED_V6, BLUE_V4, BLUE_V6):
            ping(self.site.wire, address)

    def test_fragments(self):
        for address in (BLUE_V4, BLUE_V6, WIRE_V4, WIRE_V6):
            ping(self.site["red"], address, size=8000)

    def test_netdev_is_as_configured(self):
        link = self.site["red"].links()["eth0"]
        self.assertEqual(link["address"], "02:00:00:00:00:11")
        self.assertEqual(link["mtu"], 1500)
        self.assertEqual(link["linkinfo"]["info_kind"], "tun")
        self.assertIn("LOWER_UP", link["flags"])

    def test_host_keeps_its_traffic(self):
        flood = self.lab.popen(self.site["red"], "ping", "-q", "-i", "0.002", BLUE_V4, stdout=subprocess.DEVNULL)
        for address in (WIRE_V4, WIRE_V6):
            ping(self.site.host, address)
        for address in (HOST_V4, HOST_V6):
            ping(self.site.wire, address)
        for reverse in (False, True):
            result = iperf(self.lab, self.site.host, self.site.wire, WIRE_V4, seconds=1, reverse=reverse)
            self.assertGreater(result.gbits, 0.1, str(result))
            self.assertEqual(result.bad_checksums, 0)
        self.assertIsNone(flood.poll())


if __name__ == "__main__":
    unittest.main()
