#!/usr/bin/env python3
"""TCP between a ring port and a netdev: every byte arrives, whole frames of 64 KiB or finished ones, with losses too.

    red  (a TCP of its own, on a ring) --+
                                         +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12            --+

The programs are those of tests/bench/offload_tcp.py: both compare every byte they receive, and the ring's end verifies
each checksum that nobody vouches for.
"""

import json
import subprocess
import unittest

from lab import BUILD, SLOW, Lab, Site, configuration, ring_port, tap_port

RED_V4, BLUE_V4 = "198.18.0.11", "198.18.0.12"
PROGRAMS = BUILD / "tests/bench"
MEGABYTE = 1 << 20


@unittest.skipUnless((PROGRAMS / "ring_tcp").exists(), "this build has no benchmarks")
class OffloadTcp(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "blue")
        self.red = f"{self.lab.folder}/red.sock"

    def switch(self, offloads):
        """Both ends with offloads, or neither."""
        self.offloads = "yes" if offloads else "no"
        return self.lab.daemon(self.site.host, configuration({
            "red/p": ring_port(self.red, "02:00:00:00:00:11", ips=[f"{RED_V4}/24"]),
            "blue/p": tap_port(self.site["blue"], "02:00:00:00:00:12", BLUE_V4, tap={"offloads": offloads})}))

    def program(self, name, *arguments):
        return self.lab.popen(self.site.host, PROGRAMS / name, *arguments, stdout=subprocess.PIPE, text=True)

    def ring(self, *arguments):
        return self.program("ring_tcp", "--socket", self.red, "--offloads", self.offloads, *arguments)

    def socket(self, *arguments):
        return self.program("tcp_end", "--netns", self.site["blue"].path, *arguments)

    def result(self, process):
        output, _ = process.communicate(timeout=20 * SLOW)
        self.assertEqual(process.returncode, 0)
        return json.loads(output.splitlines()[-1])

    def ring_to_tap(self, *arguments, size):
        sink = self.socket()
        self.assertIn("ready", sink.stdout.readline())
        source = self.ring("--connect", BLUE_V4, "--bytes", size, *arguments)
        return self.check(source, sink, size)

    def tap_to_ring(self, *arguments, size):
        sink = self.ring(*arguments)
        self.assertIn("ready", sink.stdout.readline())
        source = self.socket("--connect", RED_V4, "--bytes", size)
        return self.check(source, sink, size)

    def check(self, source, sink, size):
        """@return what the ring's end found"""
        sent, received = self.result(source), self.result(sink)
        self.assertEqual((sent["sent"], received["received"], received["wrong"]), (size, size, 0), (sent, received))
        ring = sent if "bad_checksums" in sent else received
        self.assertEqual(ring["bad_checksums"], 0, ring)
        self.assertEqual(self.site["blue"].counter("Tcp", "InCsumErrors"), 0)
        return ring

    def both_ways(self, offloads):
        self.switch(offloads)
        # Odd, and no whole number of segments.
        self.ring_to_tap(size=8 * MEGABYTE + 1)
        self.tap_to_ring(size=8 * MEGABYTE + 1)
        self.ring_to_tap(size=1)
        self.tap_to_ring(size=1)

    def both_ways_with_losses(self, offloads, drop, size):
        self.switch(offloads)
        found = self.ring_to_tap("--drop", drop, size=size)
        self.assertGreaterEqual(found["dropped"], 3, found)
        self.assertGreater(found["bytes_again"], 0, found)
        found = self.tap_to_ring("--drop", drop, size=size)
        self.assertGreaterEqual(found["dropped"], 3, found)
        self.assertGreater(found["out_of_order"], 0, found)

    def test_whole_frames(self):
        self.both_ways(True)

    def test_finished_frames(self):
        self.both_ways(False)

    def test_whole_frames_with_losses(self):
        self.both_ways_with_losses(True, 17, 4 * MEGABYTE)

    def test_finished_frames_with_losses(self):
        self.both_ways_with_losses(False, 101, 4 * MEGABYTE)


if __name__ == "__main__":
    unittest.main()
