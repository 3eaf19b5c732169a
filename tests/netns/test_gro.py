#!/usr/bin/env python3
"""TCP segments of MTU size are merged on their way to a tenant: fewer, larger frames, the same bytes.

    wire [w0] ------- [lan0] host -- vswitchd -- [eth0] red 198.18.0.11

The wire's netdev cuts what it sends itself, as a NIC would: its frames arrive one by one. With its checksums left to
the hardware they arrive marked as good; without, they bear finished checksums that nobody has looked at yet.
"""

import hashlib
import os
import socket
import threading
import unittest

from lab import SLOW, WIRE_V4, WIRE_V6, Lab, Site, configuration, ping, tap_port

MEGABYTE = 1 << 20
SIZE = 24 * MEGABYTE
RED = {4: "198.18.0.11", 6: "fd00::11"}
WIRE = {4: WIRE_V4, 6: WIRE_V6}


def transfer(sender, receiver, address, data):
    """Sends `data` over TCP to `address`, which `receiver` has; the digest of what arrived."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.inside():
        listener = socket.create_server((address, 0), family=family)
    listener.settimeout(30 * SLOW)

    def send():
        with sender.inside():
            connection = socket.create_connection(listener.getsockname()[:2], timeout=30 * SLOW)
        with connection:
            connection.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with listener, listener.accept()[0] as connection:
            connection.settimeout(30 * SLOW)
            digest = hashlib.sha256()
            while chunk := connection.recv(MEGABYTE):
                digest.update(chunk)
            return digest.hexdigest()
    finally:
        thread.join()


class Gro(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red")
        self.data = os.urandom(MEGABYTE) * (SIZE // MEGABYTE)

    def start(self, checksums, **keys):
        """@param checksums: whether the wire leaves them to its netdev"""
        self.site.wire.run("ethtool", "-K", "w0", "tso", "off", "gso", "off", "tx", "on" if checksums else "off")
        self.daemon = self.lab.daemon(self.site.host, self.configuration(**keys))
        for version in (4, 6):
            ping(self.site.wire, RED[version], count=1)  # neighbours are known

    def configuration(self, **keys):
        return configuration({"red/web": tap_port(self.site["red"], "02:00:00:00:00:11", RED[4], RED[6], **keys)})

    def counters(self, port="red/web"):
        return {entry["name"]: entry for entry in self.daemon.ctl("stats")["ports"]}[port]

    def receive(self, version):
        """A transfer from the wire. @return frames that the switch took, how many of them red got inside another one"""
        before = self.counters("lan")["rx_frames"], self.counters()["gro_merged"]
        got = transfer(self.site.wire, self.site["red"], RED[version], self.data)
        self.assertEqual(got, hashlib.sha256(self.data).hexdigest())
        self.assertEqual(self.site["red"].counter("Tcp", "InCsumErrors"), 0)
        taken = self.counters("lan")["rx_frames"] - before[0]
        merged = self.counters()["gro_merged"] - before[1]
        print(f"  IPv{version}: {merged} of {taken} frames merged")
        return taken, merged

    def test_segments_are_merged(self):
        for checksums in (True, False):
            self.start(checksums)
            for version in (4, 6):
                with self.subTest(checksums=checksums, version=version):
                    taken, merged = self.receive(version)
                    self.assertGreater(taken, SIZE / 1500)
                    self.assertGreater(merged, taken / 10)
            self.daemon.stop()

    def test_what_was_merged_goes_out_as_segments(self):
        # The other way frames leave as they are: nobody merges for the wire.
        self.start(True)
        before = self.counters("lan")["gro_merged"]
        got = transfer(self.site["red"], self.site.wire, WIRE[4], self.data)
        self.assertEqual(got, hashlib.sha256(self.data).hexdigest())
        self.assertEqual(self.counters("lan")["gro_merged"], before)
        self.assertEqual(self.site.wire.counter("Tcp", "InCsumErrors"), 0)

    def test_switched_off_and_on_again(self):
        self.start(False, gro=False)
        self.assertEqual(self.receive(4)[1], 0)
        self.daemon.write_config(self.configuration(gro=True))
        self.assertEqual(self.daemon.ctl("reload")["changed"], ["red/web"])
        self.assertGreater(self.receive(4)[1], 0)
        self.daemon.write_config(self.configuration(offloads={"tso4": False}))
        self.daemon.ctl("reload")
        self.assertEqual(self.receive(4)[1], 0, "red takes no large frames of IPv4")
        self.assertGreater(self.receive(6)[1], 0)


if __name__ == "__main__":
    unittest.main()
