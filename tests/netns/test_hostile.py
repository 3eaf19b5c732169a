#!/usr/bin/env python3
"""A tenant that writes garbage wherever it can costs only itself. Meant for the build with sanitizers, too.

    evil  (process on a ring)  --+
    blue  (process on a ring)  --+-- vswitchd -- host [lan0] ------- [w0] wire
    green [eth0]               --+
    gray  [eth0]               --+         green <-> gray: numbered frames, all the time, none may be lost
"""

import ctypes
import os
import random
import re
import signal
import socket
import struct
import time
import unittest
from pathlib import Path

from lab import SLOW, Lab, Site, configuration, ping, ring_port, tap_port
from raw import RawSocket, ethernet, exchange
from ring import Frame, RingClient, library
from test_ring import attach_soon
from traffic import FORK, CountedFlow

EVIL, BLUE, GREEN, GRAY, WIRE = (f"02:00:00:00:00:{n}" for n in ("11", "12", "13", "14", "ff"))
SECONDS = 3
PAGE = 4096
OFFLOAD_DROPS = {"bad_offload_headers", "bad_checksum_range", "bad_checksum_place", "bad_gso_type", "bad_gso_checksum",
                 "bad_gso_length", "bad_gso_size", "bad_gso_segments"}
EXTREMES = (0, 1, 13, 14, 60, 64, 1514, 4096, 65535, 65600, 65601, 1 << 16, 1 << 31, (1 << 32) - 1, (1 << 32) - 64)


def shared_memory():
    """(address, bytes) of what this process shares with the switch and may write to."""
    maps = Path("/proc/self/maps").read_text()
    found = re.findall(r"^(\w+)-(\w+) rw-s \S+ \S+ \S+ +/memfd:", maps, flags=re.M)
    return [(int(start, 16), int(end, 16) - int(start, 16)) for start, end in found]


def eventfds():
    """The descriptors by which this process wakes the switch, and is woken."""
    fds = (int(name) for name in os.listdir("/proc/self/fd"))
    return [fd for fd in fds if _target(fd) == "anon_inode:[eventfd]"]


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def scribble(path, seed, ready):
    """Writes extreme numbers to random places of its rings, most of all to the index lines and the descriptors, and wakes
    the switch to look at them."""
    chance = random.Random(seed)
    before = set(eventfds())
    client = RingClient(path)
    memory, bells = shared_memory(), [fd for fd in eventfds() if fd not in before]
    assert memory and bells, "nothing to write to"
    ready.set()
    turn = 0
    while True:
        turn += 1
        for _ in range(chance.randrange(100)):
            address, size = chance.choice(memory)
            # A page of consumer lines, then the head of a TX ring, then its descriptors.
            low, high = chance.choice(((0, 256), (PAGE, PAGE + 4), (PAGE + 64, PAGE + 64 + 2048), (0, size)))
            where = chance.randrange(low // 4, high // 4) * 4
            value = chance.choice((chance.choice(EXTREMES), chance.getrandbits(32), turn, turn + chance.randrange(64)))
            ctypes.c_uint32.from_address(address + where).value = value
        if turn % 3 == 0:
            try:
                client.send(ethernet(BLUE, EVIL, chance.randbytes(100)))
            except BlockingIOError:
                pass
            client.receive()
        for bell in bells:
            os.eventfd_write(bell, 1)
        time.sleep(0.0005)


def lie(path, seed, ready):
    """Sends well-formed descriptors with impossible offload requests."""
    chance = random.Random(seed)
    client = RingClient(path, features=31)
    frames = (Frame * 8)()
    ready.set()
    while True:
        for frame in frames:
            frame.length = chance.choice((14, 60, 1514, 9000, 65600))
        count = library().vswitch_tx_reserve(client.port, 0, frames, 8)
        for frame in frames[:count]:
            head = ethernet(chance.choice((BLUE, "ff:ff:ff:ff:ff:ff", WIRE, GREEN)), EVIL,
                            chance.choice((b"\x45", b"\x60", b"")) + chance.randbytes(80),
                            ethertype=chance.choice((0x0800, 0x86dd, 0x8100, 0x88b5)))
            ctypes.memmove(frame.data, head, min(len(head), frame.length))
            frame.offload.flags = chance.getrandbits(8)
            frame.offload.gso_type = chance.choice((0, 1, 3, 4, 5, 0x81, 0xff))
            frame.offload.gso_size = chance.choice((0, 1, 100, 1448, 65535))
            frame.offload.csum_start = chance.choice((0, 14, 34, 54, 1500, 65535))
            frame.offload.csum_offset = chance.choice((0, 6, 16, 65535))
        library().vswitch_tx_commit(client.port, 0, frames, count)
        time.sleep(0.0005)


class Hostile(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "green", "gray")
        self.evil, self.blue = f"{self.lab.folder}/evil.sock", f"{self.lab.folder}/blue.sock"
        self.daemon = self.lab.daemon(self.site.host, configuration({
            "evil/p": ring_port(self.evil, EVIL), "blue/p": ring_port(self.blue, BLUE),
            "green/p": tap_port(self.site["green"], GREEN, "198.18.0.13"),
            "gray/p": tap_port(self.site["gray"], GRAY, "198.18.0.14")}))
        self.seed = random.randrange(1 << 30)

    def run_beside_others(self, attack):
        """Runs `attack` in processes of its own, killed and started again, while green and gray talk."""
        with RingClient(self.blue) as blue, \
                CountedFlow(self.site["green"], GREEN, self.site["gray"], GRAY, flow_id=1) as forth, \
                CountedFlow(self.site["gray"], GRAY, self.site["green"], GREEN, flow_id=2) as back:
            for turn in range(3):
                ready = FORK.Event()
                process = FORK.Process(target=attack, args=(self.evil, self.seed + turn, ready), daemon=True)
                process.start()
                self.assertTrue(ready.wait(10 * SLOW))
                deadline = time.monotonic() + SECONDS / 3
                while time.monotonic() < deadline:
                    blue.receive()
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                attach_soon(self.evil).close()
        for flow in (forth, back):
            self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent} frames, seed {self.seed}")
        self.assert_all_is_well()

    def assert_all_is_well(self):
        self.assertIsNone(self.daemon.process.poll(), self.daemon.log_text())
        ping(self.site["green"], "198.18.0.254")
        with attach_soon(self.evil) as evil, RawSocket(self.site.wire, "w0") as wire:
            frame = ethernet(WIRE, EVIL, os.urandom(50))
            self.assertEqual(exchange({"evil": evil, "wire": wire}, "evil", frame)["wire"], [frame])

    def test_garbage_in_the_rings(self):
        self.run_beside_others(scribble)
        stats = {p["name"]: p["drops"] for p in self.daemon.ctl("stats")["ports"]}["evil/p"]
        self.assertTrue(stats.keys() & {"bad_descriptor", "ring_corrupt", *OFFLOAD_DROPS}, f"nothing was refused: {stats}")

    def test_impossible_offloads(self):
        self.run_beside_others(lie)
        stats = {p["name"]: p["drops"] for p in self.daemon.ctl("stats")["ports"]}["evil/p"]
        self.assertTrue(stats.keys() & OFFLOAD_DROPS, f"no offload header was refused: {stats}")

    def test_garbage_at_the_attach_socket(self):
        chance = random.Random(self.seed)
        hello = struct.pack("=IHHII64s", 0x76727767, 1, 1, 0, 0, b"")
        held = []
        with CountedFlow(self.site["green"], GREEN, self.site["gray"], GRAY) as flow:
            for turn in range(300):
                knock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                knock.connect(self.evil)
                message = bytearray(hello)
                for _ in range(chance.randrange(4)):
                    message[chance.randrange(len(message))] = chance.getrandbits(8)
                message = message[:chance.choice((0, 1, 40, 79, 80, 80))] + chance.randbytes(chance.choice((0, 0, 1, 5000)))
                if turn % 10:
                    try:
                        knock.send(message)
                    except OSError:
                        pass  # hung up on already: its right
                held.append(knock)
                if len(held) > 20:
                    held.pop(chance.randrange(len(held))).close()
            for knock in held:
                knock.close()
        self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent} frames, seed {self.seed}")
        self.assert_all_is_well()

    def test_garbage_after_the_hello(self):
        chance = random.Random(self.seed)
        hello = struct.pack("=IHHII64s", 0x76727767, 2, 2, 31, 0, b"")
        attached = 0
        with CountedFlow(self.site["green"], GREEN, self.site["gray"], GRAY) as flow:
            for _ in range(200):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as talker:
                    talker.connect(self.evil)
                    talker.settimeout(5 * SLOW)
                    talker.send(hello)
                    welcome, fds, _, _ = socket.recv_fds(talker, 4096, 4)
                    for fd in fds:
                        os.close(fd)
                    attached += len(fds) == 4
                    try:
                        for _ in range(chance.choice((1, 1, 2, 500))):
                            request = struct.pack("=III", 0x76726665, chance.getrandbits(32), chance.getrandbits(32))
                            garbage = (request[:chance.randrange(1, 12)], request + b"x", chance.randbytes(12),
                                       chance.randbytes(5000))
                            talker.send(chance.choice((request, request, request, *garbage)), socket.MSG_DONTWAIT)
                    except OSError:
                        pass  # hung up on, or not heard so fast: its right
        self.assertEqual((attached, flow.lost, flow.reordered), (200, 0, 0), f"of {flow.sent} frames, seed {self.seed}")
        self.assert_all_is_well()

    def test_garbage_at_the_control_socket(self):
        chance = random.Random(self.seed)
        requests = (b'{"jsonrpc":"2.0","id":1,"method":"show"}\n', b'{"jsonrpc":"2.0","id":1', b"\n\n\n", b"[" * 5000 + b"\n",
                    b"\xff\xfe\n", b'{"jsonrpc":"2.0","id":1,"method":"trace","params":[1]}\n', b"x" * 100000)
        for _ in range(200):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.connect(str(self.daemon.control))
            client.settimeout(5 * SLOW)
            try:
                for _ in range(chance.randrange(5)):
                    client.send(chance.choice(requests))
            except OSError:
                pass  # hung up on: its right
            client.close()
        self.assert_all_is_well()
        self.daemon.ctl("show")


if __name__ == "__main__":
    unittest.main()
