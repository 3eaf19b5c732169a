#!/usr/bin/env python3
"""Access VLANs: tags on the wire, none at the tenant, and no way from one VLAN into another.

    red   [eth0] VLAN 100 --+
    blue  [eth0] VLAN 100 --+-- vswitchd -- host [lan0] ------- [w0] wire
    green [eth0] VLAN 200 --+

red and green have the same MAC: the key is (VLAN, MAC). In the last test a second vswitchd runs on the wire's side:

    red [eth0] VLAN 100 -- vswitchd -- host [lan0] ------- [w0] wire -- vswitchd -- VLAN 100 [eth0] far
"""

import unittest

from lab import Lab, Site, configuration, ping, tap_port
from raw import RawSocket, ethernet, exchange, tag
from traffic import RETRANSMITTED, iperf

RED, BLUE, GREEN, WIRE = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:11", "02:00:00:00:00:ff"
BROADCAST = "ff:ff:ff:ff:ff:ff"


class Access(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue", "green", addresses=False)
        self.lab.daemon(self.site.host, configuration({
            "red/p": tap_port(self.site["red"], RED, vlan=100),
            "blue/p": tap_port(self.site["blue"], BLUE, vlan=100),
            "green/p": tap_port(self.site["green"], GREEN, vlan=200)}))
        self.sockets = {"wire": self.enterContext(RawSocket(self.site.wire, "w0"))}
        for name, netns in self.site.tenants.items():
            self.sockets[name] = self.enterContext(RawSocket(netns, "eth0"))

    def expect(self, sender, frame, **deliveries):
        """Sends `frame`; exactly those receivers get it, each in the form given."""
        got = exchange(self.sockets, sender, frame)
        self.assertEqual({name: frames for name, frames in got.items() if frames},
                         {name: [form] for name, form in deliveries.items()})

    @staticmethod
    def frame(dst, src, number, tags=b""):
        return ethernet(dst, src, f"vlan {number}".encode().ljust(46, b"."), tags=tags)

    def test_tag_added_towards_the_wire(self):
        self.expect("red", self.frame(WIRE, RED, 1), wire=self.frame(WIRE, RED, 1, tag(100)))
        self.expect("green", self.frame(WIRE, GREEN, 2), wire=self.frame(WIRE, GREEN, 2, tag(200)))

    def test_priority_kept_towards_the_wire(self):
        self.expect("red", self.frame(WIRE, RED, 3, tag(0, pcp=5)), wire=self.frame(WIRE, RED, 3, tag(100, pcp=5)))

    def test_tag_removed_towards_the_tenant(self):
        self.expect("wire", self.frame(RED, WIRE, 4, tag(100)), red=self.frame(RED, WIRE, 4))
        self.expect("wire", self.frame(RED, WIRE, 5, tag(200)), green=self.frame(RED, WIRE, 5))
        self.expect("wire", self.frame(RED, WIRE, 6, tag(100, pcp=7)), red=self.frame(RED, WIRE, 6))

    def test_other_frames_of_the_wire_do_not_enter(self):
        self.expect("wire", self.frame(RED, WIRE, 7))
        self.expect("wire", self.frame(RED, WIRE, 8, tag(0, pcp=3)))
        self.expect("wire", self.frame(RED, WIRE, 9, tag(300)))
        self.expect("wire", self.frame(BLUE, WIRE, 10, tag(200)))
        self.expect("wire", self.frame(BROADCAST, WIRE, 11))

    def test_within_a_vlan(self):
        self.expect("red", self.frame(BLUE, RED, 12), blue=self.frame(BLUE, RED, 12))
        self.expect("red", self.frame(BROADCAST, RED, 13), blue=self.frame(BROADCAST, RED, 13),
                    wire=self.frame(BROADCAST, RED, 13, tag(100)))
        self.expect("wire", self.frame(BROADCAST, WIRE, 14, tag(200)), green=self.frame(BROADCAST, WIRE, 14))

    def test_not_into_another_vlan(self):
        self.expect("green", self.frame(BLUE, GREEN, 15), wire=self.frame(BLUE, GREEN, 15, tag(200)))
        self.expect("green", self.frame(BROADCAST, GREEN, 16), wire=self.frame(BROADCAST, GREEN, 16, tag(200)))
        # A tenant cannot choose its VLAN: not by a tag, nor by a tag inside a tag.
        for number, tags in enumerate((tag(100), tag(200), tag(100) + tag(200), tag(100, tpid=0x88a8)), 17):
            self.expect("green", self.frame(BROADCAST, GREEN, number, tags))


class AcrossTwoSwitches(unittest.TestCase):
    def test_tcp_through_a_vlan(self):
        lab = self.enterContext(Lab())
        site = Site(lab, "red", "far", addresses=False)
        for name in ("red", "far"):
            site[name].sysctl("net.ipv6.conf.default.disable_ipv6", 0)
        lab.daemon(site.host, configuration({
            "red/p": tap_port(site["red"], RED, "198.18.0.11", "fd00::11", vlan=100)}))
        lab.daemon(site.wire, configuration({
            "far/p": tap_port(site["far"], BLUE, "198.18.0.12", "fd00::12", vlan=100)}, netdev="w0"))
        ping(site["red"], "198.18.0.12")
        ping(site["far"], "fd00::11")
        ping(site["red"], "198.18.0.12", size=1472, dont_fragment=True)
        for address in ("198.18.0.12", "fd00::12"):
            for reverse in (False, True):
                result = iperf(lab, site["red"], site["far"], address, seconds=1, reverse=reverse)
                print(f"  red {'<-' if reverse else '->'} {address} tagged: {result}")
                self.assertGreater(result.gbits, 0.05, str(result))
                self.assertLess(result.retransmits, RETRANSMITTED * result.segments + 50, str(result))
                self.assertEqual(result.bad_checksums, 0)


if __name__ == "__main__":
    unittest.main()
