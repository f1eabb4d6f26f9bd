#!/usr/bin/env python3
"""Hosts and plugins that compete for the processors: every call is answered, and every plugin ends.

stress.py [--hosts N] [--seconds N] [--seed N]

Calls in a row, in batches and from several threads at once follow each other, so that the ways in which a side looks
for input change often. What goes wrong only when a process loses the processor in between shows here.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from pipeplug import Plugin

ECHO = Path(__file__).parent.parent / "samples" / "echo.py"
#: No call takes this long, unless it is lost.
LONG = 30


def host(seconds: float, seed: int) -> None:
    dice = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Plugin.start(ECHO) as plugin:
            for _ in range(10):
                exercise(plugin, dice)
            status = plugin.stop()
        if status != 0:
            raise SystemExit(f"seed {seed}: the plugin ended with {status}")


def exercise(plugin: Plugin, dice: random.Random) -> None:
    size, count = dice.choice(((0, 1000), (10, 256), (3000, 64), (70_000, 16)))
    batch = [plugin.begin("echo", bytes(size)) for _ in range(count)]
    for call in batch:
        if len(call.wait(LONG)) != size:
            raise SystemExit("another reply")
    lost = []

    def calls(size: int) -> None:
        try:
            for _ in range(10):
                plugin.call("echo", bytes(size), timeout=LONG)
        except Exception as error:
            lost.append(error)

    threads = [
        threading.Thread(target=calls, args=(dice.choice((1, 5000, 200_000)),)) for _ in range(dice.choice((1, 4, 16)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if lost:
        raise lost[0]
    for _ in range(50):
        plugin.call("echo", "x", timeout=LONG)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--hosts", type=int, default=0, help="how many at once; 0: this process is the only one")
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    if options.hosts == 0:
        host(options.seconds, options.seed)
        return
    hosts = [
        subprocess.Popen([sys.executable, __file__, "--seconds", str(options.seconds), "--seed", str(options.seed + n)])
        for n in range(options.hosts)
    ]
    # The grace time of a plugin, and what a busy machine takes for a start.
    end = time.monotonic() + options.seconds + 60
    failed = []
    for process in hosts:
        try:
            if process.wait(max(0, end - time.monotonic())) != 0:
                failed.append(process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            failed.append(None)
    if failed:
        raise SystemExit(f"hosts that failed: {failed}; None stands for one that does not end")


if __name__ == "__main__":
    main()
