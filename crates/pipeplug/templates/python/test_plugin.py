"""Tests of the plugin {{name}}: python3 -m unittest"""

import unittest
from pathlib import Path

from pipeplug import CallFailed, Plugin


class Process(unittest.TestCase):
    def setUp(self):
        self.plugin = Plugin.start(Path(__file__).with_name("{{module}}.py"))
        self.addCleanup(self.plugin.stop)

    def test_greets(self):
        self.assertEqual(self.plugin.call("hello", "world", timeout=60), b"hello, world")

    def test_other_commands_are_errors(self):
        with self.assertRaises(CallFailed) as failed:
            self.plugin.call("nonsense", timeout=60)
        self.assertEqual(failed.exception.code, "unknown_command")


if __name__ == "__main__":
    unittest.main()
