#!/usr/bin/env python3
"""TCP between a process on a ring and an ordinary socket behind a tap: every byte, with offloads and without, and when
segments get lost.

    green (tests/bench/ring_tcp.cpp) ring --+
                                            +-- vswitchd -- host [lan0] ------- [w0] wire
    blue  [eth0] 198.18.0.12 ---------------+
"""

import json
import unittest

from lab import BUILD, SLOW, Lab, Site, configuration, ping, ring_port, tap_port

MEGABYTE = 1 << 20
SIZE = 16 * MEGABYTE
RING_V4, TAP_V4 = "198.18.0.13", "198.18.0.12"


class RingAndTap(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "blue")
        self.socket = f"{self.lab.folder}/green.sock"

    def start(self, offloads):
        self.offloads = offloads
        self.daemon = self.lab.daemon(self.site.host, configuration({
            "green/app": ring_port(self.socket, "02:00:00:00:00:13", ips=[f"{RING_V4}/24"]),
            "blue/db": tap_port(self.site["blue"], "02:00:00:00:00:12", TAP_V4, offloads=offloads)}))
        ping(self.site.wire, TAP_V4, count=1)

    def program(self, name, *arguments, size=SIZE):
        sends = "--connect" in arguments
        return self.lab.popen(self.site.host, BUILD / "tests/bench" / name, *arguments,
                              *(["--bytes", size] if sends else []), stdout=-1, stderr=-1, text=True)

    def ring(self, *arguments, **keys):
        return self.program("ring_tcp", "--socket", self.socket, "--offloads", "yes" if self.offloads else "no",
                            *arguments, **keys)

    def tap(self, *arguments, **keys):
        return self.program("tcp_end", "--netns", self.site["blue"].path, *arguments, **keys)

    def transfer(self, sink, start_source, size=SIZE):
        """@return what source and sink have to say"""
        self.assertTrue(sink.stdout.readline(), "the sink is not ready")
        source = start_source()
        said = []
        for process in (source, sink):
            output, errors = process.communicate(timeout=40 * SLOW)
            self.assertEqual(process.returncode, 0, errors)
            said.append(json.loads(output.splitlines()[-1]))
        sent, received = said
        self.assertEqual((sent["sent"], received["received"], received["wrong"]), (size, size, 0))
        self.assertEqual((sent.get("bad_checksums", 0), received.get("bad_checksums", 0)), (0, 0))
        self.assertEqual(self.site["blue"].counter("Tcp", "InCsumErrors"), 0)
        return sent, received

    def both_ways(self, *loss, size=SIZE):
        to_tap = self.transfer(self.tap(), lambda: self.ring("--connect", TAP_V4, *loss, size=size), size)
        to_ring = self.transfer(self.ring(*loss), lambda: self.tap("--connect", RING_V4, size=size), size)
        return to_tap[0], to_ring[1]

    def sw(self):
        stats = {entry["name"]: entry for entry in self.daemon.ctl("stats")["ports"]}
        return [stats[name][what] for name in ("green/app", "blue/db") for what in ("sw_checksum", "sw_gso")]

    def test_with_offloads(self):
        self.start(True)
        self.both_ways()
        self.assertEqual(self.sw(), [0, 0, 0, 0], "both ends take what the other one leaves undone")

    def test_without_offloads(self):
        self.start(False)
        self.both_ways()
        self.assertEqual(self.sw(), [0, 0, 0, 0], "neither end leaves anything undone")

    def test_what_only_one_end_has_is_done_in_software(self):
        self.start(True)
        self.offloads = False  # of the ring
        self.both_ways()
        self.assertGreater(self.sw()[1], SIZE / 65536, "GSO frames of the tap were cut for the ring")

    def test_lost_segments_are_sent_again(self):
        self.start(False)
        sender, receiver = self.both_ways("--drop", 97, size=MEGABYTE)
        self.assertGreater(sender["bytes_again"], 0)
        self.assertGreater(min(sender["dropped"], receiver["dropped"]), 0)

    def test_lost_frames_are_sent_again(self):
        # The other way a socket would send single segments after the first losses.
        self.start(True)
        sender, _ = self.transfer(self.tap(), lambda: self.ring("--connect", TAP_V4, "--drop", 7))
        self.assertGreater(sender["dropped"], 10)
        self.assertGreater(sender["bytes_again"], MEGABYTE)


if __name__ == "__main__":
    unittest.main()
