"""Direct mode: an RDMA NIC reads frames out of tenants' memory, and writes frames into it, by itself. (What it reads and
writes there, the software NIC counts: only tenants' memory is shared with other processes.)

       wire                  nic            host
   [w0] ======= [cable0] software NIC -- [lan0] (the kernel's)
                              '--------- vswitchd -- rings: red, blue (this process)
"""

import os
import time
import unittest
from unittest import mock

import lab as lab_module
from lab import Lab, Site, configuration, ring_port, wait_until
from raw import RawSocket, collect, ethernet, exchange, tag
from test_ring import attach_soon

RED, BLUE, WIRE = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:ff"
HEADER = 128  # bytes of each frame that are judged, and copied


class Direct(unittest.TestCase):
    NIC = ()

    def setUp(self):
        self.enterContext(mock.patch.object(lab_module, "UPLINK", "verbs"))
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, addresses=False, nic=self.NIC)
        self.nic = self.site.host.nic
        self.ports = {"red/p": ring_port(f"{self.lab.folder}/red.sock", RED),
                      "blue/p": ring_port(f"{self.lab.folder}/blue.sock", BLUE)}

    def start(self, **uplink):
        config = configuration(self.ports)
        config["uplinks"]["lan"].update(uplink)
        self.daemon = self.lab.daemon(self.site.host, config)
        self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))
        self.blue = self.enterContext(attach_soon(f"{self.lab.folder}/blue.sock"))
        self.wire = self.enterContext(RawSocket(self.site.wire, "w0"))

    def port_detail(self, name):
        return next(port["detail"] for port in self.daemon.ctl("show")["ports"] if port["name"] == name)

    def arrives(self, frames, client=None):
        """Sends them as fast as there is room; all must be on the wire, as they were."""
        client = client or self.red
        got = []
        for frame in frames:
            def sent():
                try:
                    client.send(frame)
                    return True
                except BlockingIOError:
                    got.extend(self.wire.read_all())
                    return False
            wait_until(sent, "room in the ring", interval=0.001)
        got += collect({"wire": self.wire})["wire"]
        got = [frame for frame, _ in got]
        self.assertEqual([len(frame) for frame in got], [len(frame) for frame in frames])
        self.assertEqual([n for n, frame in enumerate(frames) if got[n] != frame], [])

    def shared_reads(self, work):
        """Bytes that the NIC reads from shared memory while `work` is done."""
        before = self.nic.settled()["dma_read_shared_bytes"]
        work()
        return self.nic.settled()["dma_read_shared_bytes"] - before


class Sends(Direct):
    def test_payload_is_read_by_the_nic(self):
        self.start()
        self.assertTrue(self.port_detail("red/p").endswith(", direct"))
        sizes = (60, 127, 128, 129, 130, 256, 1000, 1514)
        frames = [ethernet(WIRE, RED, os.urandom(size - 14)) for size in sizes]
        shared = self.shared_reads(lambda: self.arrives(frames))
        self.assertEqual(shared, sum(max(0, size - HEADER) for size in sizes))
        self.assertEqual(self.nic.counters()["violations"], 0)

    def test_ring_runs_round(self):
        """Thousands of frames, more than ring, arena and send queue hold."""
        self.start()
        frames = [ethernet(WIRE, RED, n.to_bytes(4, "big") + os.urandom(1000)) for n in range(5000)]
        shared = self.shared_reads(lambda: self.arrives(frames))
        self.assertGreater(shared, sum(len(frame) for frame in frames) / 3)  # some are copied when half the ring is kept
        self.assertEqual(self.nic.counters()["violations"], 0)

    def test_tenants_have_it_too(self):
        """A frame for everybody is gathered for the wire and copied for the others."""
        self.start()
        frame = ethernet("ff:ff:ff:ff:ff:ff", RED, os.urandom(500))
        got = exchange({"red": self.red, "blue": self.blue, "wire": self.wire}, "red", frame)
        self.assertEqual((got["blue"], got["wire"]), ([frame], [frame]))
        local = ethernet(BLUE, RED, os.urandom(500))
        self.assertEqual(self.shared_reads(lambda: exchange({"red": self.red, "blue": self.blue}, "red", local)), 0)

    def test_access_vlan(self):
        self.ports["red/p"]["vlan"] = 100
        self.start()
        text = os.urandom(700)
        self.shared = self.shared_reads(lambda: self.red.send(ethernet(WIRE, RED, text)))
        self.assertEqual([frame for frame, _ in self.wire.read_all()], [ethernet(WIRE, RED, text, tags=tag(100))])
        self.assertEqual(self.shared, 14 + 700 - HEADER)

    def test_off(self):
        self.start(direct=False)
        self.assertIn('staged: uplink lan has "direct": false', self.port_detail("red/p"))
        self.assertEqual(self.shared_reads(lambda: self.arrives([ethernet(WIRE, RED, os.urandom(1000))])), 0)

    def test_another_uplink_takes_over(self):
        """The tenant stays attached while its uplink is replaced; what its memory was not made for stays staged."""
        self.start(direct=False)
        config = configuration(self.ports)
        config["uplinks"]["lan"]["driver"] = "verbs"
        self.daemon.write_config(config)
        self.daemon.ctl("reload")
        self.assertIn("sends direct, receives staged: it attached before", self.port_detail("red/p"))
        frames = [ethernet(WIRE, RED, os.urandom(1000)) for _ in range(100)]
        self.assertEqual(self.shared_reads(lambda: self.arrives(frames)), 100 * (1014 - HEADER))
        config["uplinks"]["lan"]["direct"] = False
        self.daemon.write_config(config)
        self.daemon.ctl("reload")
        self.assertIn("staged: ", self.port_detail("red/p"))
        self.assertEqual(self.shared_reads(lambda: self.arrives(frames)), 0)

    def test_memory_that_cannot_be_registered(self):
        self.start()
        self.red.close()
        self.nic.fault("fail", "reg_mr", "ENOMEM")
        self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))
        wait_until(lambda: "staged: " in self.port_detail("red/p"), "red is staged")
        self.assertIn("LimitMEMLOCK", self.port_detail("red/p"))
        self.assertEqual(self.shared_reads(lambda: self.arrives([ethernet(WIRE, RED, os.urandom(1000))])), 0)
        self.assertTrue(self.port_detail("blue/p").endswith(", direct"))

    def test_tenant_goes_in_the_middle(self):
        """Its memory is unregistered only when the NIC has read what was sent; the others do not notice."""
        self.start()
        for _ in range(20):
            for _ in range(200):
                self.red.send(ethernet(WIRE, RED, os.urandom(1000)))
            self.red.close()
            self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))
            frame = ethernet(WIRE, BLUE, os.urandom(900))
            self.blue.send(frame)
            wait_until(lambda frame=frame: frame in [got for got, _ in self.wire.read_all()], "blue's frame")
        counters = self.nic.settled()
        self.assertEqual((counters["violations"], counters["drop_protection"]), (0, 0))

    def test_device_comes_back(self):
        self.start()
        self.nic.fault("fatal")
        wait_until(lambda: "times opened again" in self.daemon.ctl("show")["uplinks"][0]["detail"], "it comes back")
        frame = ethernet(WIRE, RED, os.urandom(1000))
        self.assertEqual(self.shared_reads(lambda: self.arrives([frame])), len(frame) - HEADER)


class Receives(Direct):
    def setUp(self):
        super().setUp()
        self.sent = 0

    def frames(self, count, size=1000):
        """Frames for red, all different."""
        self.sent += count
        return [ethernet(RED, WIRE, n.to_bytes(4, "big") + os.urandom(size - 18))
                for n in range(self.sent - count, self.sent)]

    def send(self, frames):
        """From the wire, not faster than the NIC and the switch take them."""
        for n, frame in enumerate(frames):
            self.wire.send(frame)
            if n % 32 == 31:
                time.sleep(0.002)

    def read(self, client=None):
        return [frame for frame, _ in collect({"ring": client or self.red})["ring"]]

    def shared_writes(self, work):
        """Bytes that the NIC writes into shared memory while `work` is done."""
        before = self.nic.settled()["dma_write_shared_bytes"]
        work()
        return self.nic.settled()["dma_write_shared_bytes"] - before

    def same(self, got, frames):
        self.assertEqual(len(got), len(frames))
        self.assertEqual([n for n, frame in enumerate(frames) if got[n] != frame], [])

    def dropped(self):
        port = next(port for port in self.daemon.ctl("stats")["ports"] if port["name"] == "red/p")
        return port["drops"]

    def warm_up(self):
        """What the pair's own buffers still wait for comes first: as many frames as it has."""
        for _ in range(5):
            frames = self.frames(250, 60)
            self.send(frames)
            self.same(self.read(), frames)

    def test_frames_are_written_by_the_nic(self):
        self.start()
        self.warm_up()
        sizes = (60, 127, 128, 129, 130, 256, 1000, 1514)
        frames = [frame for size in sizes for frame in self.frames(1, size)]
        shared = self.shared_writes(lambda: self.send(frames))
        self.same(self.read(), frames)
        self.assertEqual(shared, sum(sizes))
        self.assertEqual(self.nic.counters()["violations"], 0)

    def test_tenant_that_does_not_read(self):
        """What it has not read stays as it was, whatever comes; the rest is lost at its full ring, and counted there."""
        self.start()
        self.warm_up()
        frames = self.frames(3000)
        self.send(frames)
        self.nic.settled()
        got = self.read()
        self.same(got, frames[:len(got)])
        self.assertGreaterEqual(len(got), 1024)
        self.assertEqual(self.dropped(), {"dest_full": len(frames) - len(got)})
        self.warm_up()  # and all is well again
        again = self.frames(100)
        self.assertEqual(self.shared_writes(lambda: self.send(again)), sum(len(frame) for frame in again))
        self.same(self.read(), again)

    def test_two_tenants_at_once(self):
        self.start()
        red = self.frames(200)
        blue = [ethernet(BLUE, WIRE, frame[14:]) for frame in red]
        self.send([frame for both in zip(red, blue) for frame in both])
        got = collect({"red": self.red, "blue": self.blue})
        self.same([frame for frame, _ in got["red"]], red)
        self.same([frame for frame, _ in got["blue"]], blue)

    def unread_frames_outlive(self, trouble):
        """What a tenant has not read when the device starts anew is not written over."""
        self.start()
        self.warm_up()
        unread = self.frames(200)
        self.send(unread)
        self.nic.settled()
        trouble()
        more = self.frames(200)
        self.send(more)
        self.same(self.read(), unread + more)
        self.warm_up()
        self.assertEqual(self.nic.counters()["violations"], 0)

    def test_device_comes_back(self):
        def trouble():
            self.nic.fault("fatal")
            wait_until(lambda: "times opened again" in self.daemon.ctl("show")["uplinks"][0]["detail"], "it comes back")
        self.unread_frames_outlive(trouble)

    def test_queue_pair_breaks(self):
        def trouble():
            # Of the numbers from 64 on, one a queue pair and worker, red's is one.
            for number in range(64, 72):
                self.nic.fault("break", number)
            wait_until(lambda: "queue pairs replaced" in self.daemon.ctl("show")["uplinks"][0]["detail"], "replaced")
            time.sleep(0.2)
        self.unread_frames_outlive(trouble)

    def test_tenants_come_and_go(self):
        self.start()
        for _ in range(10):
            frames = self.frames(100)
            self.send(frames)
            self.same(self.read(), frames)
            self.send(self.frames(50))
            self.red.close()
            self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))
            wait_until(lambda: self.port_detail("red/p").endswith(", direct"), "red is direct again")
            blue = ethernet(BLUE, WIRE, os.urandom(900))
            self.wire.send(blue)
            self.assertEqual(self.read(self.blue), [blue])
            self.read()
        self.assertEqual(self.nic.settled()["violations"], 0)

    def no_room_when_the_tenant_goes(self, *fault):
        self.start()
        self.warm_up()
        self.nic.fault("fail", *fault)
        self.red.close()
        wait_until(lambda: "nobody attached" in self.port_detail("red/p"), "red is gone")
        self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))

    def test_no_room_for_another_queue_pair(self):
        """The tenant that went and came shares one then; its neighbour notices nothing."""
        self.no_room_when_the_tenant_goes("create_qp_ex", "ENOMEM", "1")
        detail = self.daemon.ctl("show")["uplinks"][0]["detail"]
        self.assertIn("1 tenants on shared ones", detail)
        self.assertNotIn("opened again", detail)
        self.assertIn("it shares a queue pair", self.port_detail("red/p"))
        frames = self.frames(100)
        self.send(frames)
        self.same(self.read(), frames)

    def test_no_room_for_a_rule_either(self):
        """Then the device is opened anew; nothing of the tenant that went is in use any more."""
        self.no_room_when_the_tenant_goes("create_flow", "ENOMEM", "2")
        wait_until(lambda: "times opened again" in self.daemon.ctl("show")["uplinks"][0]["detail"], "it comes back")
        wait_until(lambda: self.port_detail("red/p").endswith(", direct"), "red is direct again")
        frames = self.frames(100)
        self.send(frames)
        self.same(self.read(), frames)
        self.assertEqual(self.nic.counters()["violations"], 0)

    def test_access_vlan(self):
        self.ports["red/p"]["vlan"] = 100
        self.start()
        self.warm_up_tagged()

    def warm_up_tagged(self):
        frames = self.frames(1500, 200)
        tagged = [frame[:12] + tag(100) + frame[12:] for frame in frames]
        for at in range(0, 1500, 250):
            self.send(tagged[at:at + 250])
            self.same(self.read(), frames[at:at + 250])
        one = self.frames(1)[0]
        shared = self.shared_writes(lambda: self.wire.send(one[:12] + tag(100) + one[12:]))
        self.assertEqual(self.read(), [one])
        self.assertEqual(shared, len(one))

    def test_several_queue_pairs(self):
        self.ports["red/p"]["attach"]["queues"] = 2
        self.start()
        self.assertIn("sends direct, receives staged: it has several queue pairs", self.port_detail("red/p"))
        frames = self.frames(10)
        self.assertEqual(self.shared_writes(lambda: self.send(frames)), 0)


class SlowNic(Direct):
    """It reads late, and wants headers inline: what was sent must stay as it was."""

    NIC = ("--dma-delay-us", 300, "--min-inline", 18)

    def test_ring_runs_round(self):
        self.start()
        self.arrives([ethernet(WIRE, RED, n.to_bytes(4, "big") + os.urandom(1000)) for n in range(3000)])
        self.assertEqual(self.nic.counters()["violations"], 0)


if __name__ == "__main__":
    unittest.main()
