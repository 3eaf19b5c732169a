#!/usr/bin/env python3
"""A switch without traffic burns no core, before the first frame and after the last.

    red  [eth0] 198.18.0.11 --+
                              +-- vswitchd -- host [lan0] ------- [w0] 198.18.0.254 wire
    blue [eth0] 198.18.0.12 --+
"""

import time
import unittest

from lab import WIRE_V4, Lab, Site, configuration, ping, tap_port

SECONDS = 4
SHARE = 0.01


class Idle(unittest.TestCase):
    def test_cpu(self):
        lab = self.enterContext(Lab())
        site = Site(lab, "red", "blue")
        ports = {f"{name}/p": tap_port(site[name], f"02:00:00:00:00:1{i}", f"198.18.0.1{i}")
                 for i, name in enumerate(("red", "blue"), 1)}
        for i in range(20):
            ports[f"more/p{i}"] = {"uplink": "lan", "mac": f"02:00:00:00:01:{i:02x}",
                                   "attach": {"kind": "ring", "socket": f"{lab.folder}/r{i}"}}
        daemon = lab.daemon(site.host, configuration(ports))
        for when in ("before the first frame", "after traffic"):
            time.sleep(1)
            before = daemon.cpu_seconds()
            time.sleep(SECONDS)
            used = (daemon.cpu_seconds() - before) / SECONDS
            print(f"  idle {when}: {used:.2%} of a core")
            self.assertLess(used, SHARE, when)
            ping(site["red"], WIRE_V4, count=20)
            ping(site["red"], "198.18.0.12", count=20)


if __name__ == "__main__":
    unittest.main()
