#!/usr/bin/env python3
"""Tenants on shared-memory rings, beside tenants with a netdev.

    red   (process on a ring)  --+
    blue  (process on a ring)  --+-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    green [eth0] 198.18.0.13   --+
    gray  [eth0] 198.18.0.14   --+
"""

import errno
import os
import signal
import struct
import time
import unittest

from lab import BUILD, SLOW, Lab, Site, configuration, ping, ring_port, tap_port, wait_until
from raw import RawSocket, collect, ethernet, exchange, tag
from ring import FEATURE_CSUM, FEATURE_TSO4, NEEDS_CSUM, RingClient, library
from traffic import FORK, CountedFlow

RED, BLUE, GREEN, GRAY, WIRE = (f"02:00:00:00:00:{n}" for n in ("11", "12", "13", "14", "ff"))
BROADCAST = "ff:ff:ff:ff:ff:ff"


def attach_soon(path, seconds=5):
    """Attaches as soon as the port is free."""
    def try_it():
        try:
            return RingClient(path)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOENT, errno.ECONNREFUSED):
                raise
            return None
    return wait_until(try_it, f"cannot attach to {path}", timeout=seconds)


def word_sum(data):
    """The Internet checksum's sum, not complemented: 0xffff over anything that includes its right checksum."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[:len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def tcp_frame(dst, src, payload):
    """TCP over IPv4, all but its TCP checksum."""
    ip = bytearray(struct.pack("!BBHHHBBHII", 0x45, 0, 40 + len(payload), 7, 0x4000, 64, 6, 0, 0xc612000b, 0xc612000c))
    struct.pack_into("!H", ip, 10, 0xffff ^ word_sum(ip))
    tcp = struct.pack("!HHIIHHHH", 1000, 2000, 1, 2, 0x5010, 500, 0, 0)
    return ethernet(dst, src, bytes(ip) + tcp + payload, ethertype=0x0800)


def tcp_is_right(frame):
    """Whether both checksums of a tcp_frame() are."""
    ip, tcp = frame[14:34], frame[34:]
    return word_sum(ip) == 0xffff and word_sum(ip[12:20] + struct.pack("!HH", 6, len(tcp)) + tcp) == 0xffff


def flood(path, dst, src, ready):
    """A tenant that sends without end, in a process of its own."""
    client = RingClient(path)
    frame = ethernet(dst, src, b"flood")
    ready.set()
    while True:
        try:
            client.send(frame)
        except BlockingIOError:
            pass


class Ring(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "green", "gray")
        self.red, self.blue = f"{self.lab.folder}/red.sock", f"{self.lab.folder}/blue.sock"
        self.ports = {"red/p": ring_port(self.red, RED, ips=["198.18.0.11/24", "fd00::11/64"]),
                      "blue/p": ring_port(self.blue, BLUE),
                      "green/p": tap_port(self.site["green"], GREEN, "198.18.0.13", "fd00::13"),
                      "gray/p": tap_port(self.site["gray"], GRAY, "198.18.0.14")}

    def start(self, **changes):
        for name, keys in changes.items():
            self.ports[f"{name}/p"].update(keys)
        self.daemon = self.lab.daemon(self.site.host, configuration(self.ports), folder=self.lab.folder)

    def sockets(self):
        return {"red": self.enterContext(attach_soon(self.red)), "blue": self.enterContext(attach_soon(self.blue)),
                "green": self.enterContext(RawSocket(self.site["green"], "eth0")),
                "wire": self.enterContext(RawSocket(self.site.wire, "w0"))}

    def expect(self, sockets, sender, frame, *receivers):
        got = exchange(sockets, sender, frame)
        self.assertEqual({name: frames for name, frames in got.items() if frames}, {name: [frame] for name in receivers})

    def test_frames_of_all_sizes(self):
        self.start()
        sockets = self.sockets()
        for size in (60, 61, 127, 128, 129, 1000, 1514):
            for sender, src in (("red", RED), ("green", GREEN), ("wire", WIRE)):
                payload = os.urandom(size - 14)
                self.expect(sockets, sender, ethernet(BLUE, src, payload), "blue")
            self.expect(sockets, "red", ethernet(GREEN, RED, os.urandom(size - 14)), "green")
            self.expect(sockets, "red", ethernet(WIRE, RED, os.urandom(size - 14)), "wire")

    def test_broadcast(self):
        self.start()
        sockets = self.sockets()
        self.expect(sockets, "red", ethernet(BROADCAST, RED, os.urandom(50)), "blue", "green", "wire")
        self.expect(sockets, "wire", ethernet(BROADCAST, WIRE, os.urandom(50)), "red", "blue", "green")

    def test_access_vlan(self):
        self.start(red={"vlan": 100}, blue={"vlan": 100})
        sockets = self.sockets()
        self.assertEqual(sockets["red"].info().vlan, 100)
        text = os.urandom(50)
        self.assertEqual(exchange(sockets, "red", ethernet(WIRE, RED, text))["wire"],
                         [ethernet(WIRE, RED, text, tags=tag(100))])
        self.assertEqual(exchange(sockets, "wire", ethernet(RED, WIRE, text, tags=tag(100)))["red"],
                         [ethernet(RED, WIRE, text)])
        self.expect(sockets, "red", ethernet(BLUE, RED, os.urandom(50)), "blue")
        self.expect(sockets, "wire", ethernet(RED, WIRE, os.urandom(50)))

    def test_first_frame_after_attach(self):
        """Once both have attached, the very first frame arrives."""
        self.start()
        for _ in range(30):
            with attach_soon(self.red) as red, attach_soon(self.blue) as blue:
                frame = ethernet(BLUE, RED, os.urandom(50))
                self.assertEqual(exchange({"red": red, "blue": blue}, "red", frame)["blue"], [frame])

    def test_info(self):
        self.start()
        info = self.enterContext(attach_soon(self.red)).info()
        self.assertEqual((info.name, bytes(info.mac), info.mtu, info.vlan, info.attached),
                         (b"red/p", bytes.fromhex(RED.replace(":", "")), 1500, 0, 1))
        self.assertEqual((info.address_count, bytes(info.addresses[0].bytes[:4]), info.addresses[0].prefix_length),
                         (2, bytes([198, 18, 0, 11]), 24))

    def test_who_may_attach(self):
        self.start(red={"attach": {**self.ports["red/p"]["attach"], "token": "sesame"}})
        for token in (None, "wrong", "sesam", "sesame!"):
            with self.assertRaises(OSError) as refused:
                RingClient(self.red, token=token)
            self.assertEqual(refused.exception.errno, errno.EACCES)
        with RingClient(self.red, token="sesame"):
            with self.assertRaises(OSError) as refused:
                RingClient(self.red, token="sesame")
            self.assertEqual(refused.exception.errno, errno.EBUSY)
        attach_soon(self.blue).close()
        self.assertEqual(self.as_user(65534, self.blue), errno.EACCES)

    @staticmethod
    def as_user(uid, path):
        """The errno of an attempt to attach as another user, 0 when it succeeds."""
        def attempt(result):
            os.setgroups([])
            os.setresuid(uid, uid, uid)
            try:
                RingClient(path).close()
                result.put(0)
            except OSError as error:
                result.put(error.errno)
        library()  # the other user may not be able to read the build directory
        os.chmod(os.path.dirname(path), 0o755)
        result = FORK.Queue()
        process = FORK.Process(target=attempt, args=(result,))
        process.start()
        try:
            return result.get(timeout=10 * SLOW)
        finally:
            process.join()

    def test_user_that_is_allowed(self):
        self.start(red={"attach": {**self.ports["red/p"]["attach"], "uid": 65534}})
        self.assertEqual(self.as_user(65534, self.red), 0)
        self.assertEqual(self.as_user(65533, self.red), errno.EACCES)

    def test_reattaches_after_the_daemon_was_killed(self):
        self.start()
        sockets = self.sockets()
        self.expect(sockets, "red", ethernet(BLUE, RED, os.urandom(50)), "blue")
        self.daemon.kill()
        for name in ("red", "blue"):
            wait_until(lambda n=name: not sockets[n].look().attached, f"{name} sees no end")
        sockets["green"].close()
        self.start()
        for name in ("red", "blue"):
            wait_until(lambda n=name: sockets[n].look().attachments == 2, f"{name} is not back")
        sockets["green"] = self.enterContext(RawSocket(self.site["green"], "eth0"))
        self.expect(sockets, "red", ethernet(BLUE, RED, os.urandom(50)), "blue")
        self.expect(sockets, "green", ethernet(RED, GREEN, os.urandom(50)), "red")

    def test_killed_tenant_costs_nobody_else(self):
        self.start()
        blue = self.enterContext(attach_soon(self.blue))
        with CountedFlow(self.site["green"], GREEN, self.site["gray"], GRAY) as flow:
            for _ in range(5):
                ready = FORK.Event()
                victim = FORK.Process(target=flood, args=(self.red, BLUE, RED, ready), daemon=True)
                victim.start()
                self.assertTrue(ready.wait(10 * SLOW))
                deadline = time.monotonic() + 0.2
                while time.monotonic() < deadline:
                    blue.receive()
                os.kill(victim.pid, signal.SIGKILL)
                victim.join()
                died = time.monotonic()
                attach_soon(self.red).close()
                self.assertLess(time.monotonic() - died, 1.0 * SLOW)
        self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent}")

    def test_tenant_that_never_reads(self):
        self.start()
        silent = self.enterContext(attach_soon(self.red))
        frame = ethernet(RED, WIRE, b"nobody reads this")
        with RawSocket(self.site.wire, "w0") as wire:
            with CountedFlow(self.site["green"], GREEN, self.site["gray"], GRAY) as flow:
                for _ in range(5000):
                    wire.send(frame)
                ping(self.site["green"], "198.18.0.254")
        self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent}")
        # What was dropped is gone; the port works on.
        while silent.receive() is not None:
            pass
        sockets = {"red": silent, "wire": self.enterContext(RawSocket(self.site.wire, "w0"))}
        self.expect(sockets, "wire", ethernet(RED, WIRE, os.urandom(50)), "red")

    def test_features_change_while_attached(self):
        self.start()
        red = self.enterContext(RingClient(self.red))
        blue = self.enterContext(RingClient(self.blue, features=FEATURE_CSUM | FEATURE_TSO4))
        payload = os.urandom(2500)
        sent = tcp_frame(BLUE, RED, payload)

        def received():
            red.send(sent, segment=1000)
            return [item for item in collect({"blue": blue})["blue"] if item[0][:14] == sent[:14]]

        def assert_whole(got):
            self.assertEqual([(frame[:50] + frame[52:] == sent[:50] + sent[52:], flags) for frame, flags in got],
                             [(True, NEEDS_CSUM)])

        def offloads():
            return {p["name"]: p["offloads"]["active"] for p in self.daemon.ctl("show")["ports"]}["blue/p"]

        assert_whole(received())
        blue.set_features(0)
        self.assertEqual(blue.info().features, 0)
        cut = received()
        self.assertEqual([(len(frame) - 54, flags) for frame, flags in cut], [(1000, 0), (1000, 0), (500, 0)])
        self.assertTrue(b"".join(frame[54:] for frame, _ in cut) == payload)
        self.assertTrue(all(tcp_is_right(frame) for frame, _ in cut))
        self.assertFalse(offloads()["checksum"])
        blue.set_features(FEATURE_CSUM | FEATURE_TSO4)
        self.assertTrue(offloads()["tso4"])
        assert_whole(received())
        self.assertEqual((blue.info().attachments, red.info().attachments), (1, 1))

    def test_features_outlive_the_daemon(self):
        self.start()
        blue = self.enterContext(RingClient(self.blue))
        blue.set_features(FEATURE_CSUM)
        self.daemon.kill()
        self.start()
        wait_until(lambda: blue.look().attachments == 2, "blue is not back")
        self.assertEqual(blue.info().features, FEATURE_CSUM)

    def test_ping_responder(self):
        self.start()
        self.lab.popen(self.site.host, BUILD / "examples/ping_responder", self.red)
        wait_until(lambda: self.site["green"].run("ping", "-c1", "-W1", "198.18.0.11", check=False).returncode == 0,
                   "the example does not answer")
        for netns in (self.site["green"], self.site.wire):
            ping(netns, "198.18.0.11")
            ping(netns, "198.18.0.11", size=1472, dont_fragment=True)
            ping(netns, "fd00::11")


if __name__ == "__main__":
    unittest.main()
