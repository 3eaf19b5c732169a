"""The NIC as applications see it: softnic_client on the real libibverbs and libmlx5.

    netns host: lan0 (kernel), softnic_client      netns nic: cable0 ---- netns wire: w0 (a kernel, packet sockets)
"""

import os
import re
import unittest

from nic import SOFTNIC, SoftNic
from lab import BUILD, Lab, run

CLIENT = BUILD / "tests" / "softnic" / "softnic_client"


class OnNic(unittest.TestCase):
    """One NIC for the whole class. Each test runs one or more suites of the client."""

    OPTIONS = ()

    @classmethod
    def setUpClass(cls):
        lab = cls.enterClassContext(Lab())
        host, cable, wire = (lab.netns(name).quiet() for name in ("host", "nic", "wire"))
        lab.veth(cable, "cable0", wire, "w0", "02:50:00:00:01:01", "02:50:00:00:02:02")
        # Datagrams of the far kernel arrive whole: what it leaves to a NIC is no subject here.
        wire.run("ethtool", "-K", "w0", "tx", "off", "tso", "off", "gso", "off")
        cls.nic = SoftNic(lab, host, (cable, "cable0"), "lan0", *cls.OPTIONS)
        lab.address(host, "lan0", "198.18.0.1/24")
        lab.address(wire, "w0", "198.18.0.2/24")
        cls.environment = {**os.environ, "SOFTNIC_COMMAND": str(SOFTNIC), "SOFTNIC_WIRE": wire.path}

    def suites(self, *names):
        wanted = ":".join(f"{name}.*" for name in names)
        command = self.nic.command(CLIENT, f"--gtest_filter={wanted}", "--gtest_brief=1")
        done = run(*command, env=self.environment, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-3000:])
        self.assertGreater(int(re.search(r"PASSED +\] (\d+) test", done.stdout)[1]), 0)


class Verbs(OnNic):
    def test_steering(self):
        self.suites("Steering")

    def test_completion_queues(self):
        self.suites("Completion")

    def test_offloads(self):
        self.suites("Offload")

    def test_memory_regions(self):
        self.suites("Memory", "MemoryLimit")

    def test_order_of_destroying(self):
        self.suites("Destroying")

    def test_processes(self):
        self.suites("Processes")

    def test_direct_verbs(self):
        self.suites("Direct")

    def test_a_thousand_queue_pairs(self):
        self.suites("Many")


class Calm(OnNic):
    """Completions at once, one by one; nothing is overwritten."""

    OPTIONS = ("--seed", "0", "--poison", "none")

    def test_suites(self):
        self.suites("Steering", "Completion", "Memory")


class SlowReads(OnNic):
    """Work requests are read late."""

    OPTIONS = ("--dma-delay-us", "2000", "--seed", "7")

    def test_suites(self):
        self.suites("Completion", "Memory", "Broken", "Destroying")


class MinimumInline(OnNic):
    OPTIONS = ("--min-inline", "18")

    def test_suites(self):
        self.suites("OnMinInline", "Steering", "Memory")


class NoChecksum(OnNic):
    OPTIONS = ("--without", "checksum")

    def test_suites(self):
        self.suites("OnNoChecksum")


if __name__ == "__main__":
    unittest.main()
