"""Direct mode: an RDMA NIC reads frames out of tenants' memory by itself. (What it has read from memory that is shared
with other processes, the software NIC counts: only a tenant's is.)

       wire                  nic            host
   [w0] ======= [cable0] software NIC -- [lan0] (the kernel's)
                              '--------- vswitchd -- rings: red, blue (this process)
"""

import os
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
        self.assertIn("sends directly", self.port_detail("red/p"))
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

    def test_memory_that_cannot_be_registered(self):
        self.start()
        self.red.close()
        self.nic.fault("fail", "reg_mr", "ENOMEM")
        self.red = self.enterContext(attach_soon(f"{self.lab.folder}/red.sock"))
        wait_until(lambda: "staged: " in self.port_detail("red/p"), "red is staged")
        self.assertIn("LimitMEMLOCK", self.port_detail("red/p"))
        self.assertEqual(self.shared_reads(lambda: self.arrives([ethernet(WIRE, RED, os.urandom(1000))])), 0)
        self.assertIn("sends directly", self.port_detail("blue/p"))

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
        self.assertEqual(self.nic.settled()["violations"], 0)
        self.assertEqual(self.nic.counters()["error_completions"], 0)

    def test_device_comes_back(self):
        self.start()
        self.nic.fault("fatal")
        wait_until(lambda: "times opened again" in self.daemon.ctl("show")["uplinks"][0]["detail"], "it comes back")
        frame = ethernet(WIRE, RED, os.urandom(1000))
        self.assertEqual(self.shared_reads(lambda: self.arrives([frame])), len(frame) - HEADER)


class SendsToASlowNic(Sends):
    """It reads late: what was sent must stay as it was."""

    NIC = ("--dma-delay-us", 300)


class SendsToANicThatWantsHeadersInline(Sends):
    NIC = ("--min-inline", 18)


if __name__ == "__main__":
    unittest.main()
