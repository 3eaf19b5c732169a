"""The uplink on an RDMA NIC: what only it has. (That the other scenarios hold on it as well, tests/run.sh shows by
running them with VSWITCH_TEST_UPLINK=verbs.)

       wire                  nic            host                     red, blue
   [w0] ======= [cable0] software NIC -- [lan0] (the kernel's)
                              '--------- vswitchd -- taps ---------- [eth0]
"""

import json
import signal
import time
import unittest
from unittest import mock

import lab as lab_module
from lab import (BUILD, HOST_MAC, HOST_V4, NEUTRAL_NIC, WIRE_MAC, WIRE_V4, CommandError, Lab, Site, configuration, ping,
                 ring_port, tap_port, wait_until)
from raw import RawSocket, ethernet, tag
from traffic import CountedFlow, iperf

RED_MAC, BLUE_MAC = "02:00:00:00:00:11", "02:00:00:00:00:12"
RED_V4, BLUE_V4 = "198.18.0.11", "198.18.0.12"


class VerbsSite(unittest.TestCase):
    """Two tenants behind a NIC with the options NIC."""

    NIC = ()

    def setUp(self):
        self.enterContext(mock.patch.object(lab_module, "UPLINK", "verbs"))
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue", nic=self.NIC)
        self.nic = self.site.host.nic
        self.ports = {"red/p": tap_port(self.site["red"], RED_MAC, RED_V4, "fd00::11"),
                      "blue/p": tap_port(self.site["blue"], BLUE_MAC, BLUE_V4, "fd00::12")}

    def start(self, driver="verbs", **options):
        config = configuration(self.ports)
        config["uplinks"]["lan"]["driver"] = driver
        self.daemon = self.lab.daemon(self.site.host, config, **options)
        return self.daemon

    def uplink(self):
        """What `vswitchctl show` says of the uplink."""
        return self.daemon.ctl("show")["uplinks"][0]

    def detail_says(self, text):
        wait_until(lambda: text in self.uplink()["detail"], f"the uplink does not say {text!r}: {self.uplink()}")


class Auto(VerbsSite):
    def test_takes_verbs(self):
        self.start("auto")
        self.assertIn("verbs on mlx5_0 port 1 (lan0), 2 tenant queue pairs", self.uplink()["detail"])
        ping(self.site.wire, RED_V4)


class Refused(VerbsSite):
    """Each reason why not, and what to do, in `show`; traffic flows over af_packet."""

    def refused(self, why, fault=None):
        if fault:
            self.nic.fault(*fault)
        self.start("auto")
        detail = self.uplink()["detail"]
        self.assertIn("af_packet on lan0", detail)
        self.assertIn("not verbs", detail)
        self.assertIn(why, detail)
        ping(self.site.wire, RED_V4)

    def test_no_device(self):
        self.site.host.nic = None  # the daemon runs without it
        self.refused("no RDMA device")

    def test_no_memory(self):
        self.refused("LimitMEMLOCK", ("fail", "reg_mr", "ENOMEM"))

    def test_no_permission(self):
        self.refused("CAP_NET_RAW", ("fail", "create_qp", "EPERM"))

    def test_explicit_driver_fails(self):
        self.nic.fault("fail", "create_cq", "ENOMEM")
        with self.assertRaisesRegex(CommandError, "create a completion queue on mlx5_0 port 1"):
            self.start("verbs")


class RefusedRawPacket(Refused):
    NIC = ("--without", "raw-packet")

    def test_no_device(self):
        self.refused("no raw packet queue pairs")

    test_no_memory = test_no_permission = test_explicit_driver_fails = None


class RefusedFlow(RefusedRawPacket):
    NIC = ("--without", "flow")

    def test_no_device(self):
        self.refused("does not steer frames like that")


class RefusedShortQueues(RefusedRawPacket):
    NIC = ("--max-cqe", "1023")

    def test_no_device(self):
        self.refused("its completion queues have 1023 entries, less than the 2048 that are needed")


class ShortQueues(VerbsSite):
    """A completion queue with entries for three pairs: one that is shared, one for red, and one to replace either."""

    NIC = ("--max-cqe", "4095")

    def test_who_shares(self):
        self.start()
        self.assertIn("1 tenant queue pairs, 1 tenants on shared ones", self.uplink()["detail"])
        ping(self.site.wire, RED_V4)
        ping(self.site.wire, BLUE_V4)
        for count, number in enumerate(Faults.queue_pairs(self)[1:3], 1):
            self.nic.fault("break", number)
            self.detail_says(f"{count} queue pairs replaced")
            ping(self.site.wire, RED_V4)
            ping(self.site.wire, BLUE_V4)


class Bifurcation(VerbsSite):
    """The kernel keeps its netdev, and what is not a tenant's."""

    def test_the_hosts_tcp_goes_on(self):
        self.start()
        for reverse in (False, True):
            result = iperf(self.lab, self.site.host, self.site.wire, WIRE_V4, seconds=1, reverse=reverse)
            print(f"  host {'<-' if reverse else '->'} wire: {result}")
            self.assertGreater(result.gbits, 0.05)
        with CountedFlow(self.site.wire, WIRE_MAC, self.site["red"], RED_MAC, sender_device="w0") as flow:
            iperf(self.lab, self.site.host, self.site.wire, WIRE_V4, seconds=1)
        self.assertEqual((flow.lost, flow.reordered), (0, 0))

    def test_tenants_frames_are_not_the_kernels(self):
        self.start()
        with RawSocket(self.site.host, "lan0", promiscuous=True) as kernel:
            ping(self.site.wire, RED_V4)
            self.assertEqual([f for f, _ in kernel.read_all() if f[:6] == bytes.fromhex(RED_MAC.replace(":", ""))], [])

    def test_the_kernel_gets_group_frames_too(self):
        self.start()
        frame = ethernet("ff:ff:ff:ff:ff:ff", WIRE_MAC, b"everybody")
        with RawSocket(self.site.host, "lan0") as kernel, RawSocket(self.site["red"], "eth0") as red, \
                RawSocket(self.site["blue"], "eth0") as blue, RawSocket(self.site.wire, "w0") as wire:
            wire.send(frame)
            for name, receiver in (("kernel", kernel), ("red", red), ("blue", blue)):
                wait_until(lambda r=receiver: any(f == frame for f, _ in r.read_all()), f"{name} got no broadcast")

    def test_kill_9_gives_everything_back(self):
        self.start()
        ping(self.site.wire, RED_V4)
        self.daemon.kill()
        with RawSocket(self.site.host, "lan0", promiscuous=True) as kernel, RawSocket(self.site.wire, "w0") as wire:
            frame = ethernet(RED_MAC, WIRE_MAC, b"whose is it now")
            wait_until(lambda: (wire.send(frame), time.sleep(0.05), any(f == frame for f, _ in kernel.read_all()))[2],
                       "frames for the tenant's address do not reach the kernel")
        ping(self.site.wire, HOST_V4)

    def test_address_of_the_host_is_refused(self):
        self.ports["red/p"]["mac"] = HOST_MAC
        with self.assertRaisesRegex(CommandError, "the host's own address"):
            self.start()

    def test_host_takes_a_tenants_address(self):
        self.start()
        ping(self.site.wire, RED_V4)
        self.site.host.ip("link", "set", "lan0", "address", RED_MAC)
        self.detail_says(f"the host took a tenant's address {RED_MAC}")
        self.site.wire.ip("neigh", "flush", "dev", "w0")
        ping(self.site.wire, HOST_V4)  # by that address
        ping(self.site.wire, BLUE_V4)
        self.site.host.ip("link", "set", "lan0", "address", HOST_MAC)
        wait_until(lambda: "took" not in self.uplink()["detail"], "the address is still the host's")
        self.site.wire.ip("neigh", "flush", "dev", "w0")
        ping(self.site.wire, RED_V4)
        ping(self.site.wire, HOST_V4)


class Tcp(VerbsSite):
    """TCP from and to a tenant, whatever the NIC can."""

    SAYS = "verbs on mlx5_0 port 1"

    def test_tcp_both_ways(self):
        self.start()
        self.assertIn(self.SAYS, json.dumps(self.uplink()))
        for address in (WIRE_V4, "fd00::fe"):
            for reverse in (False, True):
                result = iperf(self.lab, self.site["red"], self.site.wire, address, seconds=1, reverse=reverse)
                print(f"  red {'<-' if reverse else '->'} {address}: {result}")
                self.assertGreater(result.gbits, 0.02)
                self.assertEqual(result.bad_checksums, 0)
        self.assertEqual(self.nic.counters()["tso_requests"] > 0, "tso" not in "".join(self.NIC))


class TcpWithoutTso(Tcp):
    NIC = ("--without", "tso")
    SAYS = "does not segment"


class TcpWithoutChecksum(Tcp):
    NIC = ("--without", "checksum,tso,vlan-strip")
    SAYS = "computes no checksums"


class TcpWithPlainCompletions(Tcp):
    """Only the NIC that is not mlx5 knows them; on mlx5 the completion queues are extended."""

    NIC = ("--without", "extended-cq")
    SAYS = "plain completion queues" if NEUTRAL_NIC else "verbs on"

    def test_tags_are_taken_out_in_software(self):
        self.ports["red/p"]["vlan"] = 100
        self.start()
        with RawSocket(self.site["red"], "eth0") as red, RawSocket(self.site.wire, "w0") as wire:
            payload = bytes(100)
            wire.send(ethernet(RED_MAC, WIRE_MAC, payload, tags=tag(100)))
            plain = ethernet(RED_MAC, WIRE_MAC, payload)
            wait_until(lambda: any(f == plain for f, _ in red.read_all()), "red did not get the frame")
        self.assertEqual("1 tags stripped in software" in self.uplink()["detail"], NEUTRAL_NIC)


class TcpWithMinimumInline(Tcp):
    NIC = ("--min-inline", "18", "--dma-delay-us", "20")


class Faults(VerbsSite):
    """Nothing that the NIC does wrong ends the daemon or costs another tenant its traffic."""

    def queue_pairs(self):
        """Numbers of the queue pairs, in the order of their making: sender, shared, red's and blue's."""
        return range(64, 64 + 4)

    def test_broken_queue_pairs_are_replaced(self):
        self.start()
        ping(self.site.wire, RED_V4)
        for count, number in enumerate(self.queue_pairs(), 1):
            with self.subTest(queue_pair=number):
                self.nic.fault("break", number)
                self.detail_says(f"{count} queue pairs replaced")
                for address in (RED_V4, BLUE_V4):
                    ping(self.site.wire, address)
                ping(self.site["red"], WIRE_V4)
        self.assertIn("into the error state; they were replaced", self.daemon.log_text())
        self.assertEqual(self.nic.counters()["faults"], 4)

    def test_other_tenants_lose_nothing(self):
        self.start()
        red_pair = self.queue_pairs()[3] if self.ports["blue/p"]["mac"] < RED_MAC else self.queue_pairs()[2]
        with CountedFlow(self.site.wire, WIRE_MAC, self.site["blue"], BLUE_MAC, sender_device="w0") as flow:
            time.sleep(0.2)
            self.nic.fault("break", red_pair)
            self.detail_says("1 queue pairs replaced")
        self.assertEqual((flow.lost, flow.reordered), (0, 0))
        ping(self.site.wire, RED_V4)

    def test_dead_device_comes_back(self):
        self.start()
        ping(self.site.wire, RED_V4)
        self.nic.fault("fatal")
        self.detail_says("1 times opened again")
        ping(self.site.wire, RED_V4)
        ping(self.site["blue"], WIRE_V4)
        self.assertIn("the device reports that it is dead; everything on the device is closed", self.daemon.log_text())

    def test_device_that_does_not_come_back_at_once(self):
        self.start()
        self.nic.fault("fail", "create_qp", "ENOMEM", "3")
        self.nic.fault("fatal")
        self.detail_says("without a device: create a raw packet queue pair")
        ping(self.site["red"], BLUE_V4)  # tenants reach each other meanwhile
        self.detail_says("1 times opened again")
        ping(self.site.wire, RED_V4)

    def test_nic_is_unplugged_and_plugged_in_again(self):
        self.start()
        ping(self.site.wire, RED_V4)
        self.nic.unplug()
        self.detail_says("without a device")
        self.assertEqual(self.uplink()["link"], "down")
        ping(self.site["red"], BLUE_V4)
        self.nic.plug()  # with a new netdev of the same name
        self.detail_says("1 times opened again")
        for address in (RED_V4, BLUE_V4):
            ping(self.site.wire, address)
        self.assertIn("netdev lan0 is gone", self.daemon.log_text())

    def test_link(self):
        self.start()
        self.assertEqual(self.uplink()["link"], "up")
        self.nic.link(1, "down")
        wait_until(lambda: self.uplink()["link"] == "down", "the uplink is still up")
        ping(self.site.wire, RED_V4, fails=True)
        ping(self.site["red"], BLUE_V4)
        self.nic.link(1, "up")
        wait_until(lambda: self.uplink()["link"] == "up", "the uplink is still down")
        ping(self.site.wire, RED_V4)

    def test_lost_interrupts(self):
        self.start()
        ping(self.site.wire, RED_V4)
        self.nic.fault("lose-interrupts", 3)
        for _ in range(4):
            time.sleep(0.2)  # the worker sleeps
            self.site.wire.run("ping", "-n", "-c", 1, "-W", 2, RED_V4)
        self.detail_says("interrupts lost")
        self.assertEqual(self.nic.counters()["interrupts_lost"], 3)

    def test_no_room_for_a_queue_pair(self):
        self.ports.pop("blue/p")
        self.start()
        self.nic.fault("fail", "create_qp_ex", "ENOMEM", 5)
        self.ports["blue/p"] = tap_port(self.site["blue"], BLUE_MAC, BLUE_V4)
        self.reload()
        self.assertIn("1 tenant queue pairs, 1 tenants on shared ones", self.uplink()["detail"])
        ping(self.site.wire, BLUE_V4)
        self.nic.fault("fail", "create_qp_ex", "ENOMEM", 0)
        self.ports["third/p"] = ring_port(f"{self.lab.folder}/third.sock", "02:00:00:00:00:13")
        self.reload()
        self.assertIn("3 tenant queue pairs", self.uplink()["detail"])  # blue moved to one of its own
        ping(self.site.wire, BLUE_V4)

    def test_no_room_for_a_rule(self):
        self.ports.pop("blue/p")
        self.start()
        self.nic.fault("fail", "create_flow", "ENOMEM")
        self.ports["blue/p"] = tap_port(self.site["blue"], BLUE_MAC, BLUE_V4)
        with self.assertRaisesRegex(CommandError, "add a flow rule to 02:00:00:00:00:12 on mlx5_0 port 1.*no more rules"):
            self.reload()
        ping(self.site.wire, RED_V4)
        self.reload()
        ping(self.site.wire, BLUE_V4)

    def reload(self):
        config = configuration(self.ports)
        self.daemon.write_config(config)
        return self.daemon.ctl("reload")


class Many(VerbsSite):
    """More tenants than queue pairs of their own: 1,024 of them, coming and going."""

    TENANTS = 1024

    def test_1024_tenants(self):
        for i in range(self.TENANTS):
            mac = f"02:00:00:01:{i >> 8:02x}:{i & 255:02x}"
            self.ports[f"many/p{i}"] = ring_port(f"{self.lab.folder}/{i}", mac)
        self.start()
        detail = self.uplink()["detail"]
        self.assertRegex(detail, r"125 tenant queue pairs, 901 tenants on shared ones")
        with CountedFlow(self.site.wire, WIRE_MAC, self.site["red"], RED_MAC, sender_device="w0") as flow:
            for turn in range(4):
                for i in range(100):
                    self.ports[f"many/p{i}"]["mac"] = f"02:00:00:{turn + 2:02x}:00:{i:02x}"
                self.daemon.write_config(configuration(self.ports))
                started = time.monotonic()
                self.daemon.ctl("reload")
                print(f"  100 rules replaced in {time.monotonic() - started:.2f} s")
        self.assertEqual((flow.lost, flow.reordered), (0, 0))
        self.assertEqual(self.nic.counters()["violations"], 0)


if __name__ == "__main__":
    unittest.main()
