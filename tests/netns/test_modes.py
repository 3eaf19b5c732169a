#!/usr/bin/env python3
"""What the modes of a port mean to those who use it. (Frame by frame: tests/kernel/.)

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+

For vepa and private, w0 is a port of a bridge that can send frames back where they came from (hairpin), as the switch
that an 802.1Qbg port expects; the wire's address is the bridge's then.
"""

import unittest

from lab import WIRE_V4, Lab, Site, configuration, ping, tap_port
from raw import RawSocket, ethernet, exchange

RED, BLUE, WIRE, OTHER = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:ff", "02:00:00:00:00:ee"
RED_V4, BLUE_V4 = "198.18.0.11", "198.18.0.12"


class Modes(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())

    def pair(self, red, blue, **site):
        """red and blue with the given keys of their ports."""
        self.site = Site(self.lab, "red", "blue", **site)
        self.lab.daemon(self.site.host, configuration({
            "red/p": tap_port(self.site["red"], RED, RED_V4, **red),
            "blue/p": tap_port(self.site["blue"], BLUE, BLUE_V4, **blue)}))

    def hairpin(self, on):
        """Makes w0 a port of a bridge on the wire's side."""
        wire = self.site.wire
        if "br0" not in wire.links():
            wire.ip("link", "add", "br0", "type", "bridge", "forward_delay", 0)
            wire.ip("addr", "del", f"{WIRE_V4}/24", "dev", "w0")
            wire.ip("addr", "add", f"{WIRE_V4}/24", "dev", "br0")
            wire.ip("link", "set", "w0", "master", "br0")
            wire.ip("link", "set", "br0", "up")
        wire.run("bridge", "link", "set", "dev", "w0", "hairpin", "on" if on else "off")

    def test_private(self):
        self.pair({"mode": "private"}, {"mode": "private"})
        self.hairpin(True)
        ping(self.site["red"], WIRE_V4)
        ping(self.site["blue"], WIRE_V4)
        ping(self.site["red"], BLUE_V4, fails=True)
        ping(self.site["blue"], RED_V4, fails=True)

    def test_private_holds_against_known_neighbours(self):
        self.pair({"mode": "private"}, {"mode": "private"})
        self.hairpin(True)
        self.site["red"].ip("neigh", "replace", BLUE_V4, "lladdr", BLUE, "dev", "eth0", "nud", "permanent")
        self.site["blue"].ip("neigh", "replace", RED_V4, "lladdr", RED, "dev", "eth0", "nud", "permanent")
        ping(self.site["red"], BLUE_V4, fails=True)

    def test_vepa(self):
        self.pair({"mode": "vepa"}, {"mode": "vepa"})
        self.hairpin(False)
        ping(self.site["red"], WIRE_V4)
        ping(self.site["red"], BLUE_V4, fails=True)
        self.hairpin(True)
        ping(self.site["red"], BLUE_V4)
        ping(self.site["blue"], RED_V4)

    def test_bridge_does_not_use_the_wire(self):
        self.pair({"mode": "bridge"}, {})
        ping(self.site["red"], BLUE_V4)
        self.site.wire.ip("link", "set", "w0", "down")
        ping(self.site["red"], BLUE_V4)

    def test_bridge_and_private_do_not_mix(self):
        self.pair({"mode": "bridge"}, {"mode": "private"})
        ping(self.site["red"], BLUE_V4, fails=True)
        ping(self.site["red"], WIRE_V4)
        ping(self.site["blue"], WIRE_V4)

    def test_source(self):
        self.pair({"mode": "source", "source_macs": [OTHER]}, {}, addresses=False)
        with RawSocket(self.site.wire, "w0") as wire, RawSocket(self.site["red"], "eth0") as red, \
                RawSocket(self.site["blue"], "eth0") as blue:
            sockets = {"wire": wire, "red": red, "blue": blue}

            def who_gets(src, dst):
                frame = ethernet(dst, src, f"{src} to {dst}".encode().ljust(46, b"."))
                return sorted(name for name, copies in exchange(sockets, "wire", frame).items() if copies)

            self.assertEqual(who_gets(OTHER, BLUE), ["blue", "red"])
            self.assertEqual(who_gets(OTHER, "02:00:00:00:00:01"), ["red"])
            self.assertEqual(who_gets(WIRE, RED), [])
            self.assertEqual(who_gets(WIRE, BLUE), ["blue"])

    def test_passthru(self):
        self.site = Site(self.lab, "red")
        self.lab.daemon(self.site.host, configuration({
            "red/p": tap_port(self.site["red"], RED, RED_V4, mode="passthru")}))
        ping(self.site["red"], WIRE_V4)
        with RawSocket(self.site.wire, "w0") as wire, RawSocket(self.site["red"], "eth0") as red:
            frame = ethernet("02:00:00:00:00:77", WIRE, b"for a machine behind red".ljust(46, b"."))
            self.assertEqual(exchange({"wire": wire, "red": red}, "wire", frame)["red"], [frame])

    def test_spoofing(self):
        self.pair({}, {"trusted": True}, addresses=False)
        with RawSocket(self.site.wire, "w0") as wire, RawSocket(self.site["red"], "eth0") as red, \
                RawSocket(self.site["blue"], "eth0") as blue:
            sockets = {"wire": wire, "red": red, "blue": blue}
            frame = ethernet(WIRE, OTHER, b"spoofed".ljust(46, b"."))
            self.assertEqual(exchange(sockets, "red", frame)["wire"], [])
            self.assertEqual(exchange(sockets, "blue", frame)["wire"], [frame])

    def test_several_macs(self):
        self.pair({"macs": [OTHER]}, {}, addresses=False)
        with RawSocket(self.site.wire, "w0") as wire, RawSocket(self.site["red"], "eth0") as red:
            sockets = {"wire": wire, "red": red}
            out = ethernet(WIRE, OTHER, b"from the second MAC".ljust(46, b"."))
            back = ethernet(OTHER, WIRE, b"to the second MAC".ljust(46, b"."))
            self.assertEqual(exchange(sockets, "red", out)["wire"], [out])
            self.assertEqual(exchange(sockets, "wire", back)["red"], [back])


if __name__ == "__main__":
    unittest.main()
