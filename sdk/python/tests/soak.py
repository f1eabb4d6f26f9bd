#!/usr/bin/env python3
"""10,000 seeded calls with random sizes, cancellations and kills against the Rust side. Nothing may be lost.

soak.py [--calls N] [--seed N] PIPEPLUG

First this side is the host: threads call `pipeplug`'s own echo, give calls up, and kill the plugin. Each call ends
with its own bytes, or with an error that the kill or the cancellation explains. Then `pipeplug run` calls a plugin
of this library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import List

from pipeplug import CallCancelled, CallFailed, CallTimeout, ConnectionClosed, PendingCall, Plugin

THREADS = 8
SIZES = (0, 1, 64, 1000, 4096, 5000, 70_000, 300_000)
SAMPLES = Path(__file__).parent.parent / "samples"


def payload(dice: random.Random) -> bytes:
    size = dice.choices(SIZES, (5, 10, 40, 20, 10, 10, 4, 1))[0]
    return dice.randbytes(dice.randint(size // 2, size)) if size else b""


class Soak:
    """Calls of many threads to a plugin that is killed now and then."""

    def __init__(self, pipeplug: str, seed: int) -> None:
        self.pipeplug, self.seed = pipeplug, seed
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.wrong: List[str] = []
        self.killed: set[int] = set()
        self.plugin = self.start()

    def start(self) -> Plugin:
        # The echo that is built into `pipeplug`.
        return Plugin.start(self.pipeplug, args=["__plugin", "echo"], on_line=lambda line: None)

    def current(self) -> Plugin:
        with self.lock:
            if self.plugin.is_closed:
                old, self.plugin = self.plugin, self.start()
                old.kill()
            return self.plugin

    def kill(self) -> None:
        with self.lock:
            self.killed.add(self.plugin.pid)
            os.kill(self.plugin.pid, 9)
            self.counts["killed"] += 1

    def work(self, number: int, calls: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        made = 0
        while made < calls:
            batch = min(dice.choice((1, 1, 4, 16)), calls - made)
            made += batch
            plugin = self.current()
            data = [payload(dice) for _ in range(batch)]
            fate = [dice.random() for _ in range(batch)]
            try:
                pending = []
                for it, chance in zip(data, fate):
                    if chance < 0.02:
                        pending.append(plugin.begin("sleep", "2000", timeout=dice.uniform(0.001, 0.02)))
                    else:
                        pending.append(plugin.begin("echo", it))
                        if chance < 0.05:
                            pending[-1].cancel()
            except ConnectionClosed as error:
                self.explain(plugin, error)
                self.count("not sent", batch)
                continue
            for call, it, chance in zip(pending, data, fate):
                self.end(plugin, call, it, chance)
            if dice.random() < 0.01:
                self.kill()

    def end(self, plugin: Plugin, call: PendingCall, data: bytes, chance: float) -> None:
        try:
            reply = call.wait(60)
        except CallCancelled as error:
            self.count("cancelled", 1)
            if not 0.02 <= chance < 0.05:
                self.wrong.append(f"this call was not given up: {error}")
        except (CallTimeout, CallFailed) as error:
            # The plugin notices the deadline, too, and its answer may come first.
            self.count("timed out", 1)
            if chance >= 0.02:
                self.wrong.append(f"no reply: {error}")
        except ConnectionClosed as error:
            self.count("lost with its process", 1)
            self.explain(plugin, error)
        else:
            self.count("answered", 1)
            if chance >= 0.02 and reply != data:
                self.wrong.append(f"{len(data)} bytes came back as {len(reply)} others")

    def count(self, what: str, number: int) -> None:
        with self.lock:
            self.counts[what] += number

    def explain(self, plugin: Plugin, error: Exception) -> None:
        if plugin.pid not in self.killed:
            self.wrong.append(f"the connection ended unasked: {error}")

    def run(self, calls: int) -> None:
        threads = [threading.Thread(target=self.work, args=(number, calls // THREADS)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        plugin = self.current()
        if plugin.call("echo", "end") != b"end":
            self.wrong.append("the last call brought other bytes")
        session = plugin._session
        if session.calls or session.requests or session.active:
            self.wrong.append(f"left over: {len(session.calls)} calls, {session.active} handlers")
        status = plugin.stop()
        if status != 0:
            self.wrong.append(f"the plugin ended with {status}")
        total = sum(number for what, number in self.counts.items() if what != "killed")
        if total != calls // THREADS * THREADS:
            self.wrong.append(f"{total} of {calls} calls have ended")


def as_guest(pipeplug: str, calls: int, seed: int) -> List[str]:
    """Has the Rust host call a plugin of this library, and compares each line."""
    dice = random.Random(f"{seed}/guest")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    lines = ["".join(dice.choices(letters, k=max(1, int(dice.paretovariate(0.6)) % 9000))) for _ in range(calls)]
    wrong: List[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "lines.txt")
        file.write_text("\n".join(lines) + "\n")
        for sample in ("echo.py", "echo_async.py"):
            command = [pipeplug, "run", str(SAMPLES / sample), "--sandbox", "none", "--call", "echo",
                       "--data-each", str(file), "--parallel", "64", "--timeout", "60s"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            expected = hashlib.sha256(file.read_bytes()).hexdigest()
            found = hashlib.sha256(done.stdout.encode()).hexdigest()
            if done.returncode != 0 or found != expected:
                wrong.append(f"{sample}: exit status {done.returncode}, {len(done.stdout)} bytes; {done.stderr[-500:]}")
            else:
                print(f"soak: {calls} calls of the Rust host to {sample}, none lost")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeplug")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    soak = Soak(options.pipeplug, options.seed)
    soak.run(options.calls)
    print(f"soak: seed {options.seed}:", ", ".join(f"{number} {what}" for what, number in soak.counts.items()))
    wrong = soak.wrong + as_guest(options.pipeplug, options.calls, options.seed)
    if wrong:
        sys.exit("soak: " + "\n".join(wrong[:20]))


if __name__ == "__main__":
    main()
