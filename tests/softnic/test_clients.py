"""Programs that nobody here wrote, on the software NIC: ibv_devinfo, perftest, and rdma-core's own tests.

         netns a              netns ca, cb              netns b
     lan0 (kernel) --+                          +-- lan0 (kernel)
                     NIC --- cable0  cable0 --- NIC
     queue pairs ----+                          +-- queue pairs
"""

import gzip
import re
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from nic import DROPS, SOFTNIC, SoftNic
from lab import Lab, ping

MAC_A, MAC_B = "02:50:00:00:00:0a", "02:50:00:00:00:0b"
QP_A, QP_B = "02:50:00:00:00:11", "02:50:00:00:00:22"
RDMA_CORE_TESTS = Path("/usr/share/doc/rdma-core/tests")
SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's pyverbs is built for


class Cabled(unittest.TestCase):
    """Two NICs on one cable."""

    OPTIONS = ()
    KIND = {"name": "mlx5_0"}

    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.a, self.b = self.lab.netns("a").quiet(), self.lab.netns("b").quiet()
        end_a, end_b = self.lab.netns("ca").quiet(), self.lab.netns("cb").quiet()
        self.lab.veth(end_a, "cable0", end_b, "cable0", "02:50:00:00:01:0a", "02:50:00:00:01:0b")
        self.nic_a, self.nic_b = (
            SoftNic(self.lab, host, (end, "cable0"), "lan0", "--mac", mac, *self.OPTIONS, **self.KIND)
            for host, end, mac in ((self.a, end_a, MAC_A), (self.b, end_b, MAC_B)))
        self.lab.address(self.a, "lan0", "198.18.0.1/24")
        self.lab.address(self.b, "lan0", "198.18.0.2/24")

    def assert_sound(self):
        """No client broke the interface, and every frame is accounted for. @return the counters of both."""
        a, b = self.nic_a.settled(), self.nic_b.settled()
        self.assertEqual((a["violations"], b["violations"]), (0, 0))
        for here, there in ((a, b), (b, a)):
            self.assertEqual(here["wire_tx"], there["wire_rx"] + there["lost_wire"])
            self.assertEqual(here["delivered"], here["rx_frames"] + sum(here[d] for d in DROPS if d != "drop_rule"))
        return a, b

    def perftest(self, program, *options, seconds=60):
        """Runs server on b and client on a. @return what they printed."""
        for _ in range(5):
            done = self.perftest_once(program, *options, seconds=seconds)
            # It measures its clock, and gives up where others slow the machine down meanwhile: that is no verdict.
            if not any("Correlation coefficient" in printed for _, printed in done):
                break
        for status, printed in done:
            self.assertEqual(status, 0, printed)
        return [printed for _, printed in done]

    def perftest_once(self, program, *options, seconds):
        """(exit status, what it printed) of the client and of the server."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        common = ("-d", self.KIND["name"], "-B")
        server = self.nic_b.popen(self.lab, program, "--server", *common, QP_B, "-E", QP_A, *options, **pipes)
        time.sleep(1)  # it says nothing when it is ready
        client = self.nic_a.popen(self.lab, program, "--client", *common, QP_A, "-E", QP_B, *options, **pipes)
        printed = [end.communicate(timeout=seconds)[0] for end in (client, server)]
        return [(client.returncode, printed[0]), (server.returncode, printed[1])]


class Devinfo(Cabled):
    def test_lists_the_nic_and_what_it_offers(self):
        said = self.nic_a.run("ibv_devinfo", "-v").stdout
        for line in ("hca_id:\t" + self.KIND["name"], "RAW_IP_CSUM", "MANAGED_FLOW_STEERING", "C-VLAN stripping offload",
                     "max_tso:\t\t\t262144", "rx_hash_function:\t\t\t\t0x1", "qp_rate_limit_max", "PORT_ACTIVE (4)"):
            self.assertIn(line, said)

    def test_link_that_is_taken_down(self):
        self.nic_a.link(1, "down")
        self.assertIn("PORT_DOWN (1)", self.nic_a.run("ibv_devinfo").stdout)
        self.nic_a.link(1, "up")
        self.assertIn("PORT_ACTIVE (4)", self.nic_a.run("ibv_devinfo").stdout)


class Lacking(Cabled):
    OPTIONS = ("--without", "tso,checksum,vlan-strip,rss,pacing,flow", "--max-cqe", "4095")

    def test_what_is_left_out_is_not_offered(self):
        said = self.nic_a.run("ibv_devinfo", "-v").stdout
        for word in ("RAW_IP_CSUM", "MANAGED_FLOW_STEERING", "C-VLAN stripping", "SUPPORT_RAW_PACKET"):
            self.assertNotIn(word, said)
        self.assertIn("max_tso:\t\t\t0", said)
        self.assertRegex(said, r"max_cqe:\t+4095\n")


class WrongOptions(unittest.TestCase):
    def test_say_what_is_expected(self):
        for words, expected in ((("--max-cqe", "0"), "--max-cqe: 1 to 4194303"),
                                (("--without", "everything"), "expected some of checksum,tso,")):
            with self.subTest(words), tempfile.TemporaryDirectory() as folder:
                done = subprocess.run([SOFTNIC, "serve", folder, "--port", "cable0=lan0", *words], capture_output=True,
                                      text=True)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(expected, done.stderr)


class Perftest(Cabled):
    """The kernel keeps its netdev meanwhile: it answers pings before and after."""

    def messages(self, printed):
        """Iterations of the last line of figures."""
        return int(re.findall(r"^ \d+ +(\d+) ", printed, re.M)[-1])

    def test_bandwidth(self):
        ping(self.a, "198.18.0.2")
        sent, received = self.perftest("raw_ethernet_bw", "-s", "256", "-D", "1")
        self.assertGreater(self.messages(sent), 1000)
        self.assertGreater(self.messages(received), 1000)
        ping(self.a, "198.18.0.2")
        a, b = self.assert_sound()
        self.assertGreater(b["rx_frames"], 1000)
        self.assertLessEqual(a["doorbells"], a["tx_frames"])

    def test_bandwidth_udp_ipv4(self):
        self.perftest("raw_ethernet_bw", "-s", "512", "-D", "1", "-J", "198.18.1.2", "-j", "198.18.1.1", "-K", "2000",
                      "-k", "3000")
        self.assert_sound()

    def test_bandwidth_of_four_queue_pairs(self):
        self.perftest("raw_ethernet_bw", "-s", "1500", "-D", "1", "-q", "4")
        _, b = self.assert_sound()
        # Equal rules: each queue pair gets a copy. The server may end first: then the kernel has the rest.
        self.assertEqual(b["delivered"], 4 * (b["wire_rx"] - b["kernel_rx"]))

    def test_bandwidth_inline(self):
        self.perftest("raw_ethernet_bw", "-s", "64", "-D", "1", "-I", "64")
        a, _ = self.assert_sound()
        self.assertEqual(a["dma_read_bytes"], 0)

    def test_latency(self):
        printed, _ = self.perftest("raw_ethernet_lat", "-s", "64", "-n", "1000")
        self.assertIn(" 64      1000 ", printed)
        a, b = self.assert_sound()
        self.assertEqual((a["rx_frames"], b["rx_frames"]), (1000, 1000))

    def test_rate_of_flow_rules(self):
        printed = self.nic_a.run("raw_ethernet_fs_rate", "--client", "-d", self.KIND["name"], "-B", QP_A, "-E",
                                 QP_B).stdout
        self.assertRegex(printed, r"(?i)flows?")
        self.assert_sound()


class MinimumInline(Perftest):
    """The same on a NIC that wants 18 header bytes in each work request."""

    OPTIONS = ("--min-inline", "18")


class SlowReads(Perftest):
    """The same on a NIC that reads work requests late."""

    OPTIONS = ("--dma-delay-us", "200")


class RdmaCore(Cabled):
    """Debian's copy of rdma-core's tests. They read a receive buffer after they posted it again."""

    OPTIONS = ("--poison", "requests")
    # Modules about what a raw packet NIC does. Left out: test_addr (address handles), test_parent_domain (RC queue
    # pairs; its clean-up crashes in pyverbs where those are refused), test_mlx5_* that need firmware commands.
    MODULES = {"test_device": 10, "test_cq": 3, "test_cqex": 2, "test_mr": 1, "test_pd": 4, "test_qp": 9,
               "test_flow": 5, "test_rss_traffic": 1, "test_mlx5_cq": 1}

    def test_conformance(self):
        tests = Path(shutil.copytree(RDMA_CORE_TESTS, Path(self.lab.folder) / "rdma" / "tests"))
        for packed in tests.glob("*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        for module, least in self.MODULES.items():
            with self.subTest(module):
                done = self.nic_a.run(SYSTEM_PYTHON, "-B", tests / "run_tests.py", "--dev", self.KIND["name"], "-v",
                                      f"tests.{module}", check=False, timeout=120)
                said = done.stdout + done.stderr
                self.assertEqual(done.returncode, 0, said[-3000:])
                self.assertGreaterEqual(len(re.findall(r"\.\.\. ok$", said, re.M)), least, said[-3000:])
        self.assertEqual(self.nic_a.settled()["violations"], 0)


if __name__ == "__main__":
    unittest.main()
