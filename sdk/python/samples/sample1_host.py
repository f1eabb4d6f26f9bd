#!/usr/bin/env python3
"""The host: makes 5,000 calls at once while its plugin makes 5,000 back.

sample1_host.py [PLUGIN]
"""

import queue
import sys
import threading
from pathlib import Path
from typing import List

from pipeplug import Commands, Plugin, Request

DOCKER_HOST = "unix:///var/run/docker.sock"
CALLS, THREADS = 5000, 8
# Reached only if something hangs.
TIME_LIMIT = 50.0

desk = Commands()
done: "queue.Queue[int]" = queue.Queue()
wrong: List[str] = []


@desk.command("GetDockerHost")
def docker_host(request: Request) -> str:
    return DOCKER_HOST


@desk.command("Repeat")
def repeat(request: Request) -> str:
    return request.text * 2


@desk.command("Done")
def take_done(request: Request) -> None:
    done.put(int(request.text))


def echo(plugin: Plugin, first: int) -> None:
    """Begins all calls before it waits for the first, so that they are all in flight together."""
    texts = [f"echo {number}" for number in range(first, first + CALLS // THREADS)]
    pending = [plugin.begin("Echo", text) for text in texts]
    for call, text in zip(pending, texts):
        reply = call.wait(TIME_LIMIT).decode()
        if reply != text:
            wrong.append(f"Echo of {text!r} brought {reply!r}")


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("sample1_plugin.py")
    plugin = Plugin.start(path, commands=desk, on_line=lambda line: print(line, file=sys.stderr))
    # From here on the plugin calls back, and is answered while this side makes its own calls.
    started = plugin.begin("Start", str(CALLS))
    threads = [threading.Thread(target=echo, args=(plugin, first)) for first in range(0, CALLS, CALLS // THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    started.wait(TIME_LIMIT)
    # A one-way has no reply, so its handler signals the end.
    repeats = done.get(timeout=TIME_LIMIT)
    kept = plugin.call("DockerHost").decode()
    status = plugin.stop()
    if wrong or repeats != CALLS or kept != DOCKER_HOST or status != 0:
        sys.exit(f"sample1: {wrong[:3]}, {repeats} Repeat, docker host {kept}, exit status {status}")
    print(f"sample1: {CALLS} Echo, {repeats} Repeat, docker host {kept}, done")


if __name__ == "__main__":
    main()
