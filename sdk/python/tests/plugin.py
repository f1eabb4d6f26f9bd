#!/usr/bin/env python3
"""The plugin of the tests. Its first argument says how it is to be odd."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Iterator, List, Optional

from pipeplug import Failure, Guest, Host, MethodError, Request, method, service

MODE = sys.argv[-1]
plugin = Guest("tests", grace=0.5, metadata={"Help": "tests"}, interface_versions=[2, 3], in_order=["append"])
appended: List[str] = []
print("printed before the start")


class WordError(MethodError):
    """Reason that there is no word."""


@dataclass(eq=False)
class Unknown(WordError):
    word: str


@dataclass
class Entry:
    word: str
    count: int = 1
    about: Optional[str] = None


@service(version=2, oldest=1)
class Words:
    """Words and their counts."""

    @method(error=WordError)
    def look_up(self, word: str) -> Entry:
        """Looks a word up."""
        raise NotImplementedError

    def count(self, words: Iterator[str]) -> int:
        """Counts words as they come."""
        raise NotImplementedError

    def repeat(self, entry: Entry) -> Iterator[Entry]:
        """Gives an entry as often as it says."""
        raise NotImplementedError

    def upper(self, words: Iterator[str]) -> Iterator[str]:
        """Makes words upper case, as they come."""
        raise NotImplementedError

    @method(one_way=True)
    def learn(self, entry: Entry) -> None:
        """Takes a word."""
        raise NotImplementedError


class OwnWords(Words):
    def __init__(self) -> None:
        self.known = {"a": Entry("a", 3)}

    def look_up(self, word: str) -> Entry:
        if word not in self.known:
            raise Unknown(word)
        return self.known[word]

    def count(self, words: Iterator[str]) -> int:
        return sum(1 for _ in words)

    def repeat(self, entry: Entry) -> Iterator[Entry]:
        return (entry for _ in range(entry.count))

    def upper(self, words: Iterator[str]) -> Iterator[str]:
        for word in words:
            yield word.upper()

    def learn(self, entry: Entry) -> None:
        self.known[entry.word] = entry


@plugin.start
def start(host: Host) -> None:
    if MODE == "start-fails":
        raise ValueError("there is no database")
    if MODE == "asks-at-start":
        print("the host says", host.call("name").decode(), file=sys.stderr)


@plugin.command
def echo(request: Request) -> bytes:
    return request.data


@plugin.command
def prints(request: Request) -> str:
    print("by print")
    os.write(1, b"by write\n")
    subprocess.run(["echo", "by a child"], check=True)
    sys.stdout.write("without an end")
    return "printed"


@plugin.command
def sleep(request: Request) -> None:
    time.sleep(float(request.text))


@plugin.command
def spin(request: Request) -> None:
    end = time.monotonic() + float(request.text)
    while time.monotonic() < end:
        pass


@plugin.command
def until_cancelled(request: Request) -> str:
    begun = time.monotonic()
    request.wait_cancelled(20)
    print(f"cancelled after {time.monotonic() - begun:.1f}", file=sys.stderr)
    return "cancelled"


@plugin.command
def leaks(request: Request) -> str:
    """Leaves a process behind that has the pipe to the host open, and that no signal to this one reaches."""
    writer = plugin.host._driver.pipe.writer  # type: ignore[attr-defined]
    child = subprocess.Popen(["sleep", "30"], pass_fds=(writer,), start_new_session=True, stderr=subprocess.DEVNULL)
    return str(child.pid)


@plugin.command
def append(request: Request) -> str:
    number = request.text
    time.sleep(0.002 if number.endswith("0") else 0)
    appended.append(number)
    return " ".join(appended)


@plugin.command
def fails(request: Request) -> None:
    raise {"failure": Failure("not_found", "no such page", {"name": "x"}), "error": KeyError("x")}[request.text]


@plugin.command
def chained(request: Request) -> None:
    try:
        raise Failure("not_found", "no such page")
    except Failure as failure:
        raise ValueError("cannot open") from failure


@plugin.command
def config(request: Request) -> str:
    return f"{plugin.host.config!r} {plugin.host.interface_version} {plugin.host.args}"


@plugin.command
def asks(request: Request) -> bytes:
    """Calls the host, which sees the deadline and the values of this call."""
    return request.peer.call("inherited", timeout=60, values={"own": "1"})


@plugin.command
def asks_same(request: Request) -> bytes:
    """Has the host call back."""
    return request.peer.call(request.text)


@plugin.command
def nests(request: Request) -> bytes:
    return request.peer.call("nests")


@plugin.command
def upper(request: Request) -> str:
    count = 0
    for part in request.parts:
        request.send(part.upper())
        count += 1
    return str(count)


@plugin.command
def first(request: Request) -> bytes:
    return next(iter(request.parts))


@plugin.command
def many(request: Request) -> None:
    count, size = map(int, request.text.split())
    for number in range(count):
        request.send(b"%d" % number + bytes(size))


@plugin.command
def index(request: Request) -> None:
    for done in range(100):
        request.progress(done, 100, "indexing")
        time.sleep(0.002)


@plugin.command
def ends(request: Request) -> None:
    how = request.text
    if how == "exit":
        sys.exit(3)
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
        # Another thread may be the one that takes the signal.
        time.sleep(60)
    if how == "_exit":
        os._exit(7)


if __name__ == "__main__":
    plugin.service(OwnWords())
    if MODE == "logs":
        plugin.setup_logging()
    plugin.run()
