"""Tests of the plugin {{name}}: python3 -m unittest"""

import subprocess
import sys
import unittest
from pathlib import Path

import {{module}} as plugin


class Answers(unittest.TestCase):
    def test_greets(self):
        self.assertEqual(plugin.answer("hello", b"world"), b"hello, world")

    def test_other_commands_are_errors(self):
        with self.assertRaisesRegex(ValueError, "unknown command 'nonsense'"):
            plugin.answer("nonsense", b"")


class Process(unittest.TestCase):
    def test_speaks_the_protocol(self):
        # The request 1 and a stop, in the standard format: threadID, direction, len(cmd), cmd, len(buffer), buffer.
        sent = b"1\0002\0005\0hello\0005\0world" + b"0\0001\0008\0cmd.stop\0000\0"
        path = Path(__file__).with_name("{{module}}.py")
        ran = subprocess.run([sys.executable, path], input=sent, stdout=subprocess.PIPE, timeout=60)
        self.assertEqual(ran.stdout, b"1\0003\0005\0hello\00012\0hello, world")
        self.assertEqual(ran.returncode, 0)


if __name__ == "__main__":
    unittest.main()
