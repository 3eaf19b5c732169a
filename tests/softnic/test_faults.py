"""The NIC broken on request: set-up commands that fail, error completions, queue pairs and devices in error, links."""

import unittest

from test_verbs import OnNic as _OnNic


class Faults(_OnNic):
    def test_commands_and_device(self):
        self.suites("Fault")

    def test_broken_queue_pairs(self):
        self.suites("Broken")

    def test_link(self):
        self.suites("LinkState")


if __name__ == "__main__":
    unittest.main()
