#!/usr/bin/env python3
"""TCP through the uplink on an RDMA NIC, whatever that NIC can: what leaves it are segments of MSS size with right
checksums, and what enters it arrives whole.

    wire                         nic            host                  tenants
    [w0] 198.18.0.254 ==== [cable0] NIC ------- [lan0] (the kernel's)
     | ^                             '- vswitchd --+- tap ------------ red    [eth0] 198.18.0.11
     | '- what the NIC sent                        +- tap, VLAN 100 -- blue   [eth0] 198.19.0.12
     |    is captured here                         +- ring ----------- green         198.18.0.13
     |                                             '- ring, VLAN 100 - violet        198.19.0.14
     vswitchd - VLAN 100 - far [eth0] 198.19.0.254

The peer is the kernel of wire; in the VLAN, for not every kernel has tags, that of far. What is behind an eth0 is a
kernel too. On a ring talks tests/bench/ring_tcp.cpp, which has IPv4 only; over IPv6 RingStream below, which only sends.
"""

import functools
import hashlib
import json
import random
import socket
import struct
import threading
import time
import unittest
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import lab as lab_module
from lab import (BUILD, SLOW, WIRE_MAC, WIRE_V4, WIRE_V6, Lab, Site, configuration, ping, ring_port, tap_port,
                 wait_until)
from raw import RawSocket, ethernet, mac_bytes
from ring import FEATURE_CSUM, FEATURE_TSO4, RingClient

SIZE = 4 << 20
MTU = 1500
VLAN = 100
MSS = {4: MTU - 20 - 20, 6: MTU - 40 - 20}  # TCP options count as payload (RFC 6691 section 2)
SMALL_MSS = 1000
MOST = 0.9  # of the segments with payload are as long as they may be

RED_MAC, BLUE_MAC, GREEN_MAC, VIOLET_MAC, FAR_MAC = (f"02:00:00:00:00:{last}" for last in (11, 12, 13, 14, "fe"))
RED = {4: "198.18.0.11", 6: "fd00::11"}
BLUE = {4: "198.19.0.12", 6: "fd01::12"}
GREEN = {4: "198.18.0.13", 6: "fd00::13"}
VIOLET = {4: "198.19.0.14"}
WIRE = {4: WIRE_V4, 6: WIRE_V6}
FAR = {4: "198.19.0.254", 6: "fd01::fe"}

ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q = 0x0800, 0x86dd, 0x8100
FIN, SYN, PSH, ACK = 1, 2, 8, 16  # flags of TCP
FEATURE_TSO6, DATA_VALID = 4, 2  # ring.h


# -- What is sent -----------------------------------------------------------------------------------------------------

@functools.cache
def content():
    """SIZE bytes, the same ones in each run, that nowhere repeat."""
    return random.Random(1).randbytes(SIZE)


@functools.cache
def pattern():
    """SIZE bytes of what the programs in tests/bench send (tcp_pattern.h)."""
    state, period = 1, bytearray()
    for _ in range(65521):
        state = (state * 1664525 + 1013904223) & 0xffffffff
        period.append(state >> 24)
    return (bytes(period) * (SIZE // len(period) + 1))[:SIZE]


class Sink:
    """A kernel socket in a namespace that receives one connection."""

    def __init__(self, netns, version):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with netns.inside():
            self.listener = socket.create_server(("", 0), family=family)
        self.listener.settimeout(10 * SLOW)
        self.port = self.listener.getsockname()[1]
        self.digest = hashlib.sha256()
        self.thread = threading.Thread(target=self._receive)
        self.thread.start()

    def _receive(self):
        try:
            with self.listener, self.listener.accept()[0] as connection:
                connection.settimeout(10 * SLOW)
                while chunk := connection.recv(1 << 20):
                    self.digest.update(chunk)
        except TimeoutError:
            pass  # the digest tells

    def hash(self):
        """Of all that came; waits for the end of it."""
        self.thread.join()
        return self.digest.hexdigest()


def send(netns, address, port, data):
    """`data` from a kernel socket."""
    with netns.inside():
        connection = socket.create_connection((address, port), timeout=10 * SLOW)
    with connection:
        connection.sendall(data)


class RingStream:
    """The half of TCP over IPv6 that sends, on a ring: in frames of up to 64 KiB, one after the other, without
    checksums."""

    PATIENCE = 0.2  # seconds without an acknowledgment; then what is missing is sent again

    def __init__(self, ring, port, mss):
        self.ring, self.mss = ring, mss
        self.ports = struct.pack("!HH", 40000, port)
        self.acknowledged, self.window, self.expected = 0, 0, 0  # the last one: what comes next from the peer
        self.deadline = time.monotonic() + 10 * SLOW

    def send(self, data):
        first = 1000
        while self.acknowledged < first:
            self.emit(first - 1, SYN, first, options=struct.pack("!BBH", 2, 4, MSS[6]))
        while (done := self.acknowledged - first) < len(data):
            # An odd segment more would be acknowledged late.
            segments = max(2, min(self.window, 65535 - 20) // self.mss // 2 * 2)
            self.emit(first + done, ACK | PSH, None, data[done:done + segments * self.mss])
        end = first + len(data)
        while self.acknowledged <= end:
            self.emit(end, FIN | ACK, end + 1)

    def emit(self, sequence, flags, until, payload=b"", options=b""):
        """Sends one frame and waits until the peer acknowledges `until` (its end), or for too long."""
        tcp = self.ports + struct.pack("!IIBBHHH", sequence, self.expected, 20 + len(options) << 2, flags, 0xffff, 0, 0)
        ip = struct.pack("!IHBB", 6 << 28, len(tcp + options + payload), socket.IPPROTO_TCP, 64)
        ip += b"".join(socket.inet_pton(socket.AF_INET6, address) for address in (GREEN[6], WIRE[6]))
        frame = ethernet(WIRE_MAC, GREEN_MAC, ip + tcp + options + payload, ETH_P_IPV6)
        wait_until(lambda: self.put(frame), "there is no room in the ring", interval=0.001)
        until = until or sequence + len(payload)
        patience = time.monotonic() + self.PATIENCE * SLOW
        while self.acknowledged < until and time.monotonic() < patience:
            self.ring.wait(10)
            while (item := self.ring.receive()) is not None:
                self.take(item[0])
        if time.monotonic() > self.deadline:
            raise TimeoutError(f"the peer acknowledges no more than {self.acknowledged}")

    def put(self, frame):
        """@return whether there was room: what was acknowledged may still be kept for the NIC"""
        try:
            self.ring.send(frame, segment=self.mss)
        except BlockingIOError:
            return False
        return True

    def take(self, frame):
        if frame[12:14] != ETH_P_IPV6.to_bytes(2, "big") or frame[54:58] != self.ports[2:] + self.ports[:2]:
            return
        sequence, acknowledged, _, flags, window = struct.unpack_from("!IIBBH", frame, 58)
        if flags & SYN:
            self.expected = sequence + 1
        self.acknowledged, self.window = max(self.acknowledged, acknowledged), window


def checksum(data):
    """RFC 1071."""
    return 0xffff - int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xffff


NOBODYS = b"a segment of no connection"


def tcp_frame(mac, source, destination, right):
    """A segment from the wire that nobody waits for; its checksum is `right` or not."""
    family, version = (socket.AF_INET6, 6) if ":" in source else (socket.AF_INET, 4)
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    tcp = bytearray(struct.pack("!HHIIBBHHH", 40001, 40002, 1, 1, 20 << 2, ACK, 1000, 0, 0) + NOBODYS)
    struct.pack_into("!H", tcp, 16, checksum(addresses + struct.pack("!II", socket.IPPROTO_TCP, len(tcp)) + tcp))
    if not right:
        tcp[16] ^= 0x55
    if version == 6:
        ip = struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + addresses
    else:
        ip = bytearray(struct.pack("!HHHHBBH", 0x4500, 20 + len(tcp), 1, 0, 64, socket.IPPROTO_TCP, 0) + addresses)
        struct.pack_into("!H", ip, 10, checksum(ip))
    return ethernet(mac, WIRE_MAC, ip + tcp, ETH_P_IPV6 if version == 6 else ETH_P_IP)


# -- What is on the wire ----------------------------------------------------------------------------------------------

@dataclass
class Segment:
    """A captured TCP segment."""
    vlan: int | None
    version: int
    right: bool  # all of its checksums
    sequence: int
    flags: int
    option_bytes: int
    payload: bytes


def sums_up(data):
    """Whether the one's complement sum of all 16-bit words, checksum included, is -0 (RFC 1071): the sum of the digits
    of a number in base 65536 is a multiple of 65535 where the number is one."""
    return int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xffff == 0


def read_segment(frame):
    """None: it is no TCP."""
    vlan, at = None, 14
    ethertype, = struct.unpack_from("!H", frame, 12)
    if ethertype == ETH_P_8021Q:
        tci, ethertype = struct.unpack_from("!HH", frame, 14)
        vlan, at = tci & 0xfff, 18
    if ethertype == ETH_P_IP and frame[at + 9] == socket.IPPROTO_TCP:
        header_bytes = (frame[at] & 15) * 4
        end = at + struct.unpack_from("!H", frame, at + 2)[0]
        addresses, version, right = frame[at + 12:at + 20], 4, sums_up(frame[at:at + header_bytes])
    elif ethertype == ETH_P_IPV6 and frame[at + 6] == socket.IPPROTO_TCP:
        header_bytes = 40
        end = at + 40 + struct.unpack_from("!H", frame, at + 4)[0]
        addresses, version, right = frame[at + 8:at + 40], 6, True
    else:
        return None
    tcp = frame[at + header_bytes:end]
    right = right and end <= len(frame) <= max(end, 60)  # nothing but padding behind it
    right = right and sums_up(addresses + struct.pack("!II", socket.IPPROTO_TCP, len(tcp)) + tcp)
    sequence, = struct.unpack_from("!I", tcp, 4)
    offset = (tcp[12] >> 4) * 4
    return Segment(vlan, version, right, sequence, tcp[13], offset - 20, tcp[offset:])


@contextmanager
def takes_segments_of(mss, peer, device, address):
    """`peer` tells `address`, which is behind its netdev `device`, that it takes so much."""
    version = 6 if ":" in address else 4
    peer.ip(f"-{version}", "route", "add", address, "dev", device, "advmss", mss)
    try:
        yield
    finally:
        peer.ip(f"-{version}", "route", "del", address, "dev", device)


class Tcp(unittest.TestCase):
    """The NIC can everything. Other classes: it lacks something, or it is used otherwise."""

    NIC = ()
    SEGMENTS = SUMS = STRIPS = True
    UPLINK = {}  # its keys in tenants.json
    RING_SAYS = ", direct"
    WHY_NOT = "segment neither UDP nor TCP with CWR"

    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(mock.patch.object(lab_module, "UPLINK", "verbs"))
        cls.lab = cls.enterClassContext(Lab())
        cls.site = Site(cls.lab, "red", "blue", "far", nic=cls.NIC)
        cls.wire, cls.nic = cls.site.wire, cls.site.host.nic
        cls.wire.run("ethtool", "-K", "w0", "gro", "off")  # or the capture would show segments put together again
        cls.wire.ip("neigh", "add", GREEN[6], "lladdr", GREEN_MAC, "dev", "w0")
        cls.green, cls.violet = (f"{cls.lab.folder}/{name}.sock" for name in ("green", "violet"))
        config = configuration({"red/p": tap_port(cls.site["red"], RED_MAC, RED[4], RED[6]),
                                "blue/p": tap_port(cls.site["blue"], BLUE_MAC, BLUE[4], BLUE[6], vlan=VLAN),
                                "green/p": ring_port(cls.green, GREEN_MAC, ips=[f"{GREEN[4]}/24"]),
                                "violet/p": ring_port(cls.violet, VIOLET_MAC, ips=[f"{VIOLET[4]}/24"], vlan=VLAN)})
        config["uplinks"]["lan"].update(cls.UPLINK)
        cls.daemon = cls.lab.daemon(cls.site.host, config)
        cls.lab.daemon(cls.wire, configuration({"far/p": tap_port(cls.site["far"], FAR_MAC, FAR[4], FAR[6], vlan=VLAN)},
                                               netdev="w0"))
        for version in (4, 6):
            ping(cls.wire, RED[version], count=1)  # neighbours are known
            ping(cls.site["far"], BLUE[version], count=1)

    def tearDown(self):
        self.assertEqual(self.nic.counters()["violations"], 0)

    def shown(self, kind, name):
        return next(entry for entry in self.daemon.ctl("show")[kind] if entry["name"] == name)

    def work(self):
        """Who has done it so far."""
        lan = next(entry for entry in self.daemon.ctl("stats")["ports"] if entry["name"] == "lan")
        return {"tso_requests": self.nic.counters()["tso_requests"], "sw_gso": lan["sw_gso"],
                "sw_checksum": lan["sw_checksum"]}

    def to_wire(self, transfer, mac, addresses, tagged=False, data=None):
        """What `transfer(version, mss)` of a tenant, who has `addresses`, puts on the wire: all of `data`, in right
        segments as long as the peer takes them, worked on where it should be."""
        peer, device = (self.site["far"], "eth0") if tagged else (self.wire, "w0")
        for version, address in addresses.items():
            for mss in (MSS[version], SMALL_MSS):
                with self.subTest(version=version, mss=mss), takes_segments_of(mss, peer, device, address):
                    before = self.work()
                    with RawSocket(self.wire, "w0") as wire:
                        transfer(version, mss)
                        frames = [frame for frame, _ in wire.read_all()]
                    did = {name: count - before[name] for name, count in self.work().items()}
                    segments = [s for f in frames if f[6:12] == mac_bytes(mac) and (s := read_segment(f))]
                    segments = [s for s in segments if s.version == version]
                    filled = self.check_segments(segments, mss, VLAN if tagged else None)
                    print(f"  IPv{version}: {len(segments)} segments, of those with payload {filled:.1%} full; {did}")
                    self.check_stream(segments, data or content())
                    self.check_work(did, version, len(segments))

    def check_segments(self, segments, mss, vlan):
        """@return the share of those with payload that are as long as may be"""
        self.assertEqual(sum(not s.right for s in segments), 0, "segments have wrong checksums or lengths")
        self.assertEqual({s.vlan for s in segments}, {vlan})
        lengths = [s.option_bytes + len(s.payload) for s in segments if s.payload]
        self.assertLessEqual(max(lengths), mss)
        filled = lengths.count(mss) / len(lengths)
        self.assertGreater(filled, MOST)
        return filled

    def check_stream(self, segments, data):
        first = next(s.sequence for s in segments if s.flags & SYN) + 1
        seen = bytearray(len(data))
        for s in segments:
            if s.payload:
                at = s.sequence - first & 0xffffffff
                self.assertEqual(s.payload, data[at:at + len(s.payload)], f"payload at {at} of the stream")
                seen[at:at + len(s.payload)] = b"\1" * len(s.payload)
        self.assertEqual(seen.count(1), len(data), "not all of it was on the wire")

    def check_work(self, did, version, segments):
        self.assertEqual(did["tso_requests"] > 0, self.SEGMENTS, did)
        self.assertEqual(did["sw_gso"] == 0, self.SEGMENTS, did)
        if not self.SEGMENTS and self.SUMS and version == 6:
            self.assertGreaterEqual(did["sw_checksum"], MOST * segments, "verbs promises checksums over IPv4 only")
        else:  # what bears no payload is not segmented
            self.assertEqual(did["sw_checksum"] == 0, self.SUMS and version == 4, did)

    def bad_checksums(self):
        return [netns.counter("Tcp", "InCsumErrors") for netns in (self.wire, *self.site.tenants.values())]

    # -- An ordinary socket in a tenant

    def socket_to_socket(self, source, sink, address, version):
        bad = self.bad_checksums()
        receiver = Sink(sink, version)
        send(source, address, receiver.port, content())
        self.assertEqual(receiver.hash(), hashlib.sha256(content()).hexdigest())
        self.assertEqual(self.bad_checksums(), bad)

    def test_tap_to_wire(self):
        self.to_wire(lambda version, _: self.socket_to_socket(self.site["red"], self.wire, WIRE[version], version),
                     RED_MAC, RED)

    def test_tagged_tap_to_wire(self):
        blue, far = self.site["blue"], self.site["far"]
        self.to_wire(lambda version, _: self.socket_to_socket(blue, far, FAR[version], version), BLUE_MAC, BLUE,
                     tagged=True)

    def test_wire_to_tap(self):
        for version in (4, 6):
            with self.subTest(version=version):
                self.socket_to_socket(self.wire, self.site["red"], RED[version], version)
                self.socket_to_socket(self.site["far"], self.site["blue"], BLUE[version], version)
        self.assertEqual("tags stripped in software" in self.shown("uplinks", "lan")["detail"], not self.STRIPS)

    # -- A process on a ring

    def program(self, name, *arguments):
        process = self.lab.popen(self.site.host, BUILD / "tests/bench" / name, *arguments, stdout=-1, stderr=-1,
                                 text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def ring(self, path, *arguments):
        return self.program("ring_tcp", "--socket", path, *arguments)

    def tcp_end(self, netns, *arguments):
        return self.program("tcp_end", "--netns", netns.path, *arguments)

    def ring_and_socket(self, sink, start_source):
        """Both programs compare every byte."""
        bad = self.bad_checksums()
        self.assertTrue(sink.stdout.readline(), "the sink is not ready")
        source = start_source()
        said = []
        for process in (source, sink):
            output, errors = process.communicate(timeout=30 * SLOW)
            self.assertEqual(process.returncode, 0, errors)
            said.append(json.loads(output.splitlines()[-1]))
        sent, received = said
        self.assertEqual((sent["sent"], received["received"], received["wrong"]), (SIZE, SIZE, 0))
        self.assertEqual((sent.get("bad_checksums", 0), received.get("bad_checksums", 0)), (0, 0))
        self.assertEqual(self.bad_checksums(), bad)

    def ring_to_socket(self, path, netns, address):
        self.ring_and_socket(self.tcp_end(netns), lambda: self.ring(path, "--connect", address, "--bytes", SIZE))

    def test_ring_to_wire(self):
        self.to_wire(lambda *_: self.ring_to_socket(self.green, self.wire, WIRE[4]), GREEN_MAC, {4: GREEN[4]},
                     data=pattern())

    def test_tagged_ring_to_wire(self):
        self.to_wire(lambda *_: self.ring_to_socket(self.violet, self.site["far"], FAR[4]), VIOLET_MAC, VIOLET,
                     tagged=True, data=pattern())

    def test_ring_to_wire_ipv6(self):
        def transfer(_, mss):
            receiver = Sink(self.wire, 6)
            with RingClient(self.green, features=FEATURE_CSUM | FEATURE_TSO4 | FEATURE_TSO6) as ring:
                self.assertIn(self.RING_SAYS, self.shown("ports", "green/p")["detail"])
                RingStream(ring, receiver.port, mss).send(content())
            self.assertEqual(receiver.hash(), hashlib.sha256(content()).hexdigest())

        self.to_wire(transfer, GREEN_MAC, {6: GREEN[6]})

    def test_wire_to_ring(self):
        for path, address, peer in ((self.green, GREEN[4], self.wire), (self.violet, VIOLET[4], self.site["far"])):
            with self.subTest(address=address):
                self.ring_and_socket(self.ring(path), lambda: self.tcp_end(peer, "--connect", address, "--bytes", SIZE))

    # -- What the NIC says of a checksum that arrives, and what `show` says of the NIC

    def test_verdict(self):
        red = self.site["red"]
        for version in (4, 6):
            for right in (True, False):
                with self.subTest(version=version, right=right), RawSocket(self.wire, "w0") as wire, \
                        RingClient(self.green, features=FEATURE_CSUM) as green:
                    before = red.counter("Tcp", "InSegs"), red.counter("Tcp", "InCsumErrors")
                    for mac, address in ((GREEN_MAC, GREEN[version]), (RED_MAC, RED[version])):
                        wire.send(tcp_frame(mac, WIRE[version], address, right))
                    got = wait_until(lambda: [flags for frame, flags in iter(green.receive, None)
                                              if frame.endswith(NOBODYS)], "green got nothing")
                    vouched = right and self.SUMS and version == 4  # again, verbs promises no more
                    self.assertEqual(got, [DATA_VALID if vouched else 0])
                    wait_until(lambda: red.counter("Tcp", "InSegs") > before[0], "red got nothing")
                    self.assertEqual(red.counter("Tcp", "InCsumErrors") - before[1], 0 if right else 1)

    def test_show(self):
        uplink = self.shown("uplinks", "lan")
        active = {"checksum": self.SUMS, "tso4": self.SEGMENTS, "tso6": self.SEGMENTS, "ecn": False, "uso": False}
        self.assertEqual(uplink["offloads"]["active"], active)
        self.assertIn(self.WHY_NOT, uplink["offloads"]["why_not"])
        rows = self.daemon.netns.run(*self.daemon.ctl_command("show")).stdout.splitlines()
        row = next(row for row in rows if row.startswith("lan ") and self.WHY_NOT in row)
        self.assertIn(",".join(sorted(kind for kind, there in active.items() if there)) or "-", row.split())


class WithoutTso(Tcp):
    NIC = ("--without", "tso")
    SEGMENTS = False
    WHY_NOT = "mlx5_0 port 1 does not segment"


class WithoutChecksum(Tcp):
    """It could segment, but then it would not sum what it makes."""
    NIC = ("--without", "checksum")
    SEGMENTS = SUMS = False
    WHY_NOT = "mlx5_0 port 1 computes no checksums"


class WithoutVlanStrip(Tcp):
    NIC = ("--without", "vlan-strip")
    STRIPS = False


class WithoutAnything(Tcp):
    NIC = ("--without", "checksum,tso,vlan-strip,rss,pacing")
    SEGMENTS = SUMS = STRIPS = False
    WHY_NOT = "mlx5_0 port 1 computes no checksums"


class MinimumInline(Tcp):
    """Its work requests bear the first bytes of a frame, and it reads the others late."""
    NIC = ("--min-inline", "18", "--dma-delay-us", "20")


class Staged(Tcp):
    """What rings send and receive is copied."""
    UPLINK = {"direct": False}
    RING_SAYS = ", staged"


if __name__ == "__main__":
    unittest.main()
