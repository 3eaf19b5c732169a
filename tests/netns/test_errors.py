#!/usr/bin/env python3
"""What a user reads when something is missing: it names the thing, and the daemon ends with a status other than 0.

    red [eth0] -- vswitchd -- host [lan0] ------- [w0] wire
"""

import copy
import json
import tempfile
import unittest

from lab import BUILD, Lab, Site, configuration, ping, snapshot, tap_port


class Errors(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red")
        self.good = configuration({"red/p": tap_port(self.site["red"], "02:00:00:00:00:11", "198.18.0.11")})

    def changed(self, **attach):
        config = copy.deepcopy(self.good)
        config["tenants"]["red"]["ports"]["p"]["attach"].update(attach)
        return config

    def fails(self, config, *named, wrapper=(), extra=()):
        """Neither --check (where it looks) nor a start succeeds; each text given is in what the start says."""
        folder = tempfile.mkdtemp(dir=self.lab.folder)
        path = f"{folder}/tenants.json"
        with open(path, "w") as file:
            file.write(config if isinstance(config, str) else json.dumps(config))
        before = snapshot(self.site.host, self.site["red"])
        done = self.site.host.run(*wrapper, *self.site.host.with_nic(
            BUILD / "vswitch/daemon/vswitchd", "--config", path, "--control", f"{folder}/control.sock", *extra),
            check=False, timeout=20)
        said = done.stdout + done.stderr
        self.assertGreater(done.returncode, 0, said)
        for text in named:
            self.assertIn(text, said)
        self.assertEqual(snapshot(self.site.host, self.site["red"]), before)
        return said

    def check(self, config):
        """The status of `vswitchd --check` and what it says."""
        path = f"{self.lab.folder}/checked.json"
        with open(path, "w") as file:
            file.write(config if isinstance(config, str) else json.dumps(config))
        done = self.site.host.run(BUILD / "vswitch/daemon/vswitchd", "--check", "--config", path, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_check_of_a_good_file(self):
        before = snapshot(self.site.host, self.site["red"])
        self.assertEqual(self.check(self.good)[0], 0)
        self.assertEqual(snapshot(self.site.host, self.site["red"]), before)

    def test_missing_netdev(self):
        config = {**self.good, "uplinks": {"lan": {"netdev": "nosuch0"}}}
        status, said = self.check(config)
        self.assertEqual(status, 1)
        self.assertIn("nosuch0", said)
        self.fails(config, "nosuch0")

    def test_uplink_that_is_no_ethernet(self):
        config = {**self.good, "uplinks": {"lan": {"netdev": "lo"}}}
        status, said = self.check(config)
        self.assertEqual(status, 1)
        self.assertIn('lo', said)
        self.fails(config, "lo")

    def test_missing_netns(self):
        status, said = self.check(self.changed(netns="/run/netns/vsw-none"))
        self.assertEqual(status, 1)
        self.assertIn("/run/netns/vsw-none", said)
        self.fails(self.changed(netns="/run/netns/vsw-none"), "/run/netns/vsw-none")

    def test_netns_that_is_none(self):
        self.fails(self.changed(netns="/etc/passwd"), "/etc/passwd")

    def test_netdev_name_taken(self):
        self.site["red"].ip("link", "add", "eth0", "type", "veth", "peer", "name", "v")
        self.fails(self.good, "eth0", "red")

    def test_mac_of_the_host(self):
        config = copy.deepcopy(self.good)
        config["tenants"]["red"]["ports"]["p"]["mac"] = "02:00:00:00:00:01"
        self.fails(config, "02:00:00:00:00:01")

    def test_not_json(self):
        self.assertEqual(self.check("{")[0], 1)
        self.fails("{", "tenants.json", ":1:")

    def test_unknown_key(self):
        self.fails({**self.good, "uplink": {}}, "uplink", "uplinks")

    def test_missing_file(self):
        done = self.site.host.run(BUILD / "vswitch/daemon/vswitchd", "--config", "/nonexistent/t.json", check=False)
        self.assertGreater(done.returncode, 0)
        self.assertIn("/nonexistent/t.json", done.stderr)

    def test_without_permission(self):
        said = self.fails(self.good, "CAP_NET_ADMIN", wrapper=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
        self.assertIn("CAP_NET_RAW", said)

    def test_second_daemon(self):
        first = self.lab.daemon(self.site.host, self.good)
        done = self.site.host.run(BUILD / "vswitch/daemon/vswitchd", "--config", first.config_path, "--control",
                                  first.control, check=False, timeout=20)
        self.assertGreater(done.returncode, 0)
        self.assertIn(str(first.pid), done.stdout + done.stderr)
        self.assertIsNone(first.process.poll())
        ping(self.site["red"], "198.18.0.254")

    def test_ctl_without_daemon(self):
        done = self.site.host.run(BUILD / "vswitch/ctl/vswitchctl", "--control", f"{self.lab.folder}/none.sock", "show",
                                  check=False)
        self.assertEqual(done.returncode, 3)
        self.assertIn("none.sock", done.stderr)

    def test_usage(self):
        self.assertEqual(self.site.host.run(BUILD / "vswitch/ctl/vswitchctl", "frobnicate", check=False).returncode, 2)
        self.assertGreater(self.site.host.run(BUILD / "vswitch/daemon/vswitchd", check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
