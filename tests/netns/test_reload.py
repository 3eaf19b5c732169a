#!/usr/bin/env python3
"""A reload changes what it must and touches nothing else: counted frames between untouched ports, 0 lost, 0 reordered.

    red   [eth0] --+                                   red <-> blue: numbered frames, both ways, all the time
    blue  [eth0] --+-- vswitchd -- host [lan0] ------- [w0] wire
    green [eth0] --+                                   green: comes, changes, goes
"""

import copy
import json
import signal
import unittest

from lab import WIRE_V4, Lab, Site, configuration, ping, tap_port, wait_until
from traffic import CountedFlow

RED, BLUE, GREEN = "02:00:00:00:00:11", "02:00:00:00:00:12", "02:00:00:00:00:13"


class Reload(unittest.TestCase):
    def setUp(self):
        self.lab = self.enterContext(Lab())
        self.site = Site(self.lab, "red", "blue", "green")
        self.ports = {"red/p": tap_port(self.site["red"], RED, "198.18.0.11"),
                      "blue/p": tap_port(self.site["blue"], BLUE, "198.18.0.12")}
        self.green = tap_port(self.site["green"], GREEN, "198.18.0.13")
        self.daemon = self.lab.daemon(self.site.host, configuration(self.ports))

    def reload(self, **green):
        """Reloads with the green port having these keys (none at all: without the port)."""
        ports = dict(self.ports)
        if green:
            ports["green/p"] = {**self.green, **green}
        self.daemon.write_config(configuration(ports))
        self.daemon.ctl("reload")

    def flows(self):
        red, blue = self.site["red"], self.site["blue"]
        return CountedFlow(red, RED, blue, BLUE, flow_id=1), CountedFlow(blue, BLUE, red, RED, flow_id=2)

    def assert_nothing_lost(self, *flows):
        for flow in flows:
            self.assertGreater(flow.sent, 1000)
            self.assertEqual((flow.lost, flow.reordered), (0, 0), f"of {flow.sent} frames")

    def test_untouched_ports_lose_nothing(self):
        forth, back = self.flows()
        with forth, back:
            for _ in range(3):
                self.reload(mode="bridge")
                ping(self.site["green"], WIRE_V4, count=1)
                self.reload(mode="private")
                self.reload(trusted=True)
                self.reload(mac="02:00:00:00:00:23")
                self.assertEqual(self.site["green"].links()["eth0"]["address"], "02:00:00:00:00:23")
                ping(self.site["green"], "198.18.0.11", count=1)
                self.reload(mtu=1300)
                self.assertEqual(self.site["green"].links()["eth0"]["mtu"], 1300)
                self.reload()
                self.assertNotIn("eth0", self.site["green"].links())
        self.assert_nothing_lost(forth, back)

    def test_table_only_change_keeps_the_link(self):
        """A change that needs no new netdev does not make one."""
        self.reload(mode="bridge")
        index = self.site["green"].links()["eth0"]["ifindex"]
        self.reload(mode="vepa", trusted=True)
        self.assertEqual(self.site["green"].links()["eth0"]["ifindex"], index)
        ping(self.site["green"], "198.18.0.11", fails=True)
        ping(self.site["green"], WIRE_V4)

    def test_sighup(self):
        ports = {**self.ports, "green/p": self.green}
        self.daemon.write_config(configuration(ports))
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "eth0" in self.site["green"].links(), "SIGHUP added no port")
        ping(self.site["green"], "198.18.0.11")

    def bad_configurations(self):
        """(what is wrong, the text of the file, what the answer must name)"""
        good = configuration({**self.ports, "green/p": self.green})

        def changed(**keys):
            config = copy.deepcopy(good)
            for key, value in keys.items():
                config["tenants"]["green"]["ports"]["p"][key] = value
            return json.dumps(config)

        yield "not JSON", json.dumps(good)[:-3], "tenants.json"
        yield "wrong type", changed(mtu="big"), "mtu"
        yield "unknown key", changed(mdoe="bridge"), "mode"
        yield "duplicate MAC", changed(mac=RED), RED
        yield "missing namespace", changed(attach={"kind": "tap", "netns": "/run/netns/vsw-none", "name": "eth0"}), \
            "/run/netns/vsw-none"
        yield "netdev name taken", changed(attach={"kind": "tap", "netns": self.site.wire.path, "name": "w0"}), "w0"
        yield "netdev missing", json.dumps({**good, "uplinks": {**good["uplinks"], "wan": {"netdev": "nosuch0"}}}), "nosuch0"
        yield "workers changed", json.dumps({**good, "workers": {"idle": "poll"}}), "restart"

    def test_error_changes_nothing(self):
        before = self.site.snapshot()
        shown = self.shown()
        forth, back = self.flows()
        before_links = {name: self.site[name].links() for name in ("red", "blue")}
        with forth, back:
            for what, text, named in self.bad_configurations():
                with self.subTest(what):
                    self.daemon.write_config(text)
                    done = self.daemon.ctl("reload", check=False, parse=False)
                    self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                    self.assertIn(named, done.stdout + done.stderr)
                    self.assertEqual(self.shown(), shown)
                    self.assertEqual(self.site.snapshot()[self.site["green"].name], before[self.site["green"].name])
                    for name, links in before_links.items():
                        self.assertEqual(self.site[name].links()["eth0"]["ifindex"], links["eth0"]["ifindex"])
        self.assert_nothing_lost(forth, back)
        self.reload(mode="bridge")
        ping(self.site["green"], "198.18.0.12")

    def test_failed_change_brings_the_old_port_back(self):
        self.reload(mode="bridge")
        ports = {**self.ports, "green/p": copy.deepcopy(self.green)}
        ports["green/p"]["attach"]["name"] = "lo"
        self.daemon.write_config(configuration(ports))
        done = self.daemon.ctl("reload", check=False, parse=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        ping(self.site["green"], "198.18.0.11")
        ping(self.site["green"], WIRE_V4)

    def shown(self):
        """What `show` says, without anything that traffic changes."""
        def constant(value):
            if isinstance(value, dict):
                return {k: constant(v) for k, v in value.items() if not isinstance(v, (int, float)) or k in ("mtu", "vlan")}
            return [constant(v) for v in value] if isinstance(value, list) else value
        return constant(self.daemon.ctl("show"))


if __name__ == "__main__":
    unittest.main()
