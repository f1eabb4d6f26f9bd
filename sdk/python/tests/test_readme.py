"""The programs of the README and the guide, as a reader would copy them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import pipeplug

ROOT = Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


class Programs(unittest.TestCase):
    def test_what_is_printed_there_runs(self) -> None:
        shout, host, notes = blocks("README.md")
        notes_plugin, notes_host = blocks("GUIDE.md")
        # Where the package is, for the plugins as well, and the Python of this test before others.
        environment = dict(os.environ, PYTHONPATH=str(Path(pipeplug.__file__).parent.parent))
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("shout.py", shout), ("notes.py", notes), ("notes_plugin.py", notes_plugin)):
                path = Path(folder, name)
                path.write_text(text)
                path.chmod(0o755)
            for text, expected in (
                (host, "HELLO!\nb'999!'\n"),
                (notes_host, "write a plugin\ntomorrow is not there: NotFound(name='tomorrow')\n"),
            ):
                Path(folder, "host.py").write_text(text)
                found = subprocess.run(
                    [sys.executable, "host.py"],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                self.assertEqual((found.stdout, found.stderr, found.returncode), (expected, "", 0))

    def test_the_readme_is_one_screen(self) -> None:
        self.assertLessEqual(len((ROOT / "README.md").read_text().splitlines()), 65)


if __name__ == "__main__":
    unittest.main()
