#!/usr/bin/env python3
"""However the daemon ends, everything is as it was found, or at least nothing stops the next start.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+
"""

import signal
import tempfile
import unittest
from pathlib import Path

from lab import WIRE_V4, Lab, Site, configuration, difference, ping, tap_port, wait_until


class Stop(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue")
        self.folder = tempfile.mkdtemp(dir=self.lab.folder)
        self.config = configuration({
            "red/p": tap_port(self.site["red"], "02:00:00:00:00:11", "198.18.0.11", "fd00::11"),
            "red/q": {"uplink": "lan", "mode": "private", "vlan": 7,
                      "attach": {"kind": "ring", "socket": f"{self.folder}/ring.sock"}},
            "blue/p": tap_port(self.site["blue"], "02:00:00:00:00:12", "198.18.0.12", mode="source",
                               source_macs=["02:00:00:00:00:ff"])})
        # The configuration is the test's own file: there before and after.
        self.daemon_files = {"tenants.json", "log"}
        self.before = self.site.snapshot()

    def start(self):
        return self.lab.daemon(self.site.host, self.config, folder=self.folder)

    def files(self):
        return {p.name for p in Path(self.folder).iterdir()} - self.daemon_files

    def assert_as_before(self):
        # The kernel takes a killed process's netdevs away in the background.
        wait_until(lambda: not difference(self.before, self.site.snapshot()) or None,
                   "things are not as before: " + "; ".join(difference(self.before, self.site.snapshot())))

    def test_something_is_there_while_it_runs(self):
        """The comparison below sees what a daemon does at all."""
        self.start()
        changes = "\n".join(difference(self.before, self.site.snapshot()))
        self.assertIn("/eth0", changes)
        self.assertIn("fdb", changes)
        self.assertIn("packet sockets", changes)
        self.assertEqual(self.files() & {"control.sock", "ring.sock"}, {"control.sock", "ring.sock"})

    def test_sigterm(self):
        daemon = self.start()
        ping(self.site["red"], WIRE_V4)
        self.assertEqual(daemon.stop(signal.SIGTERM), 0)
        self.assert_as_before()
        self.assertEqual(self.files(), set())

    def test_sigint(self):
        daemon = self.start()
        self.assertEqual(daemon.stop(signal.SIGINT), 0)
        self.assert_as_before()
        self.assertEqual(self.files(), set())

    def test_kill_9_and_restart(self):
        self.start().kill()
        self.assert_as_before()
        daemon = self.start()
        ping(self.site["red"], WIRE_V4)
        daemon.kill()
        again = self.start()
        ping(self.site["red"], WIRE_V4)
        self.assertEqual(again.stop(), 0)
        self.assert_as_before()
        self.assertEqual(self.files(), set())

    def test_start_stop_many_times(self):
        for _ in range(5):
            self.assertEqual(self.start().stop(), 0)
        self.assert_as_before()
        self.assertEqual(self.files(), set())

    def test_failed_start_leaves_nothing(self):
        self.site["blue"].ip("link", "add", "eth0", "type", "veth", "peer", "name", "v")
        self.before = self.site.snapshot()
        daemon = self.lab.daemon(self.site.host, self.config, folder=self.folder, ready=False)
        self.assertNotEqual(daemon.process.wait(timeout=20), 0)
        self.assertIn("eth0", daemon.log_text())
        self.assert_as_before()
        self.assertEqual(self.files(), set())


if __name__ == "__main__":
    unittest.main()
