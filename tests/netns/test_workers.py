#!/usr/bin/env python3
"""Several workers: queues are spread over them, a flow keeps its order, and everybody reaches everybody.

    red   [eth0] --+
    blue  [eth0] --+-- vswitchd, one worker on each of two CPUs -- host [lan0] ------- [w0] wire
    green (ring) --+
"""

import os
import time
import unittest

from lab import WIRE_V4, WIRE_V6, Lab, Site, configuration, ping, ring_port, tap_port
from raw import RawSocket, ethernet, exchange
from ring import RingClient
from traffic import RETRANSMITTED, CountedFlow, iperf

RED, BLUE, GREEN, WIRE = (f"02:00:00:00:00:{n}" for n in ("11", "12", "13", "ff"))
CPUS = sorted(os.sched_getaffinity(0))[:2]


class Workers(unittest.TestCase):
    def start(self, **workers):
        lab = self.enterContext(Lab())
        self.lab, self.site = lab, Site(lab, "red", "blue")
        self.ring = f"{lab.folder}/green.sock"
        ports = {"red/p": tap_port(self.site["red"], RED, "198.18.0.11", "fd00::11"),
                 "blue/p": tap_port(self.site["blue"], BLUE, "198.18.0.12", "fd00::12"),
                 "green/p": ring_port(self.ring, GREEN)}
        self.daemon = lab.daemon(self.site.host, configuration(ports, **workers))

    def everybody_reaches_everybody(self):
        for address in ("198.18.0.12", "fd00::12", WIRE_V4, WIRE_V6):
            ping(self.site["red"], address)
        ping(self.site.wire, "198.18.0.12")
        with RingClient(self.ring) as green, RawSocket(self.site.wire, "w0") as wire, \
                RawSocket(self.site["red"], "eth0") as red:
            sockets = {"green": green, "wire": wire, "red": red}
            for sender, src, receiver, dst in (("green", GREEN, "wire", WIRE), ("wire", WIRE, "green", GREEN),
                                               ("green", GREEN, "red", RED), ("red", RED, "green", GREEN)):
                frame = ethernet(dst, src, os.urandom(50))
                self.assertEqual(exchange(sockets, sender, frame)[receiver], [frame], f"{sender} to {receiver}")

    def test_one_on_each_cpu(self):
        self.start(cpus=CPUS)
        self.everybody_reaches_everybody()
        workers = self.daemon.ctl("show")["workers"]
        self.assertEqual([w["cpu"] for w in workers], CPUS)
        affinity = [os.sched_getaffinity(int(t)) for t in os.listdir(f"/proc/{self.daemon.pid}/task")]
        for cpu in CPUS:
            self.assertIn({cpu}, affinity)

    def test_a_flow_keeps_its_order(self):
        self.start(cpus=CPUS)
        red, blue = self.site["red"], self.site["blue"]
        with CountedFlow(red, RED, blue, BLUE, flow_id=1) as forth, CountedFlow(blue, BLUE, red, RED, flow_id=2) as back:
            time.sleep(2)
        for flow in (forth, back):
            self.assertGreater(flow.sent, 1000)
            self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent}")
        for server, address in ((blue, "198.18.0.12"), (self.site.wire, WIRE_V6)):
            result = iperf(self.lab, red, server, address, seconds=1)
            self.assertLess(result.retransmits, RETRANSMITTED * result.segments + 50, str(result))
            self.assertEqual(result.bad_checksums, 0)

    def test_idle_policies(self):
        for idle in ("sleep", "poll"):
            with self.subTest(idle):
                self.start(cpus=CPUS[:1], idle=idle)
                self.everybody_reaches_everybody()
                self.assertEqual(self.daemon.stop(), 0)


if __name__ == "__main__":
    unittest.main()
