#!/usr/bin/env python3
"""Speed of the library beside multiprocessing.connection and grpcio, in one run.

bench.py [--rounds N] [--seconds S] [--json FILE] [SUBJECT...]

Each figure is the median of the rounds, and comes from two processes that are started only for it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from pipeplug import AsyncPlugin, Plugin

GUESTS = [sys.executable, str(Path(__file__).with_name("guests.py"))]
SMALL, LARGE = b"x" * 64, b"x" * (1 << 20)
CALLERS = 64
IN_FLIGHT = 256

Work = Callable[[int], None]


class Subject:
    """A way to call another process: one of the loads is run with a number of calls."""

    name = ""
    is_available: Optional[str] = None

    def open(self) -> Any:
        raise NotImplementedError

    def sequential(self, peer: Any, calls: int, data: bytes) -> None:
        for _ in range(calls):
            if len(self.call(peer, data)) != len(data):
                raise AssertionError(f"{self.name} lost bytes")

    def call(self, peer: Any, data: bytes) -> bytes:
        raise NotImplementedError

    def concurrent(self, peer: Any, calls: int) -> None:
        def work() -> None:
            for _ in range(calls // CALLERS):
                self.call(peer, SMALL)

        threads = [threading.Thread(target=work) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def pipelined(self, peer: Any, calls: int) -> None:
        raise NotImplementedError


class Pipeplug(Subject):
    name = "pipeplug"

    @contextmanager
    def open(self) -> Iterator[Plugin]:
        with Plugin.start(GUESTS, args=["pipeplug"]) as plugin:
            yield plugin

    def call(self, peer: Plugin, data: bytes) -> bytes:
        return peer.call("echo", data)

    def pipelined(self, peer: Plugin, calls: int) -> None:
        for _ in range(calls // IN_FLIGHT):
            pending = [peer.begin("echo", SMALL) for _ in range(IN_FLIGHT)]
            for call in pending:
                call.wait()


class Multiprocessing(Subject):
    """The least that can be written: bytes there and back. It has no commands, errors and numbers for replies.

    Threads share a connection by a lock, which it needs, for the whole of a call.
    """

    name = "multiprocessing.connection"
    guest = "mp"

    def __init__(self) -> None:
        self.lock = threading.Lock()

    @contextmanager
    def open(self) -> Iterator[Connection]:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        process = subprocess.Popen([*GUESTS, self.guest, str(number)], pass_fds=(number,))
        theirs.close()
        connection = Connection(ours.detach())
        try:
            yield connection
        finally:
            # A thread that reads keeps it open beyond close().
            with socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
            connection.close()
            process.wait()

    def call(self, peer: Connection, data: bytes) -> bytes:
        with self.lock:
            peer.send_bytes(data)
            return peer.recv_bytes()

    def pipelined(self, peer: Connection, calls: int) -> None:
        for _ in range(calls // IN_FLIGHT):
            for _ in range(IN_FLIGHT):
                peer.send_bytes(SMALL)
            for _ in range(IN_FLIGHT):
                peer.recv_bytes()


class MultiprocessingCalls(Multiprocessing):
    """What `pipeplug` gives, written for a connection: commands, errors, numbers for replies, handlers at once."""

    name = "multiprocessing.connection, with numbers"
    guest = "mp-calls"

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.waiting: Dict[int, SimpleQueue[Tuple[bool, bytes]]] = {}

    @contextmanager
    def open(self) -> Iterator[Connection]:
        with super().open() as connection:
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()
            yield connection

    def _read(self, connection: Connection) -> None:
        try:
            while True:
                number, is_right, data = connection.recv()
                self.waiting.pop(number).put((is_right, data))
        except (EOFError, OSError, TypeError):
            pass

    def begin(self, peer: Connection, data: bytes) -> SimpleQueue[Tuple[bool, bytes]]:
        queue: SimpleQueue[Tuple[bool, bytes]] = SimpleQueue()
        number = next(self.numbers)
        self.waiting[number] = queue
        with self.lock:
            peer.send((number, "echo", data))
        return queue

    def call(self, peer: Connection, data: bytes) -> bytes:
        is_right, reply = self.begin(peer, data).get()
        if not is_right:
            raise RuntimeError(reply)
        return reply

    def pipelined(self, peer: Connection, calls: int) -> None:
        for _ in range(calls // IN_FLIGHT):
            pending = [self.begin(peer, SMALL) for _ in range(IN_FLIGHT)]
            for queue in pending:
                queue.get()


class Grpc(Subject):
    name = "grpcio"
    guest = "grpc"

    @contextmanager
    def _server(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            process = subprocess.Popen([*GUESTS, self.guest, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            try:
                yield path
            finally:
                process.stdin.close()
                process.wait()

    @contextmanager
    def open(self) -> Iterator[Any]:
        import grpc

        big = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with self._server() as path, grpc.insecure_channel(f"unix:{path}", options=big) as channel:
            yield channel.unary_unary("/bench.Bench/Echo")

    def call(self, peer: Any, data: bytes) -> bytes:
        found: bytes = peer(data)
        return found

    def pipelined(self, peer: Any, calls: int) -> None:
        for _ in range(calls // IN_FLIGHT):
            pending = [peer.future(SMALL) for _ in range(IN_FLIGHT)]
            for call in pending:
                call.result()


class Async(Subject):
    """Subjects of asyncio: callers are tasks."""

    async def go(self, load: str, data: bytes, count: Callable[[Callable[[int], Any]], Any]) -> float:
        raise NotImplementedError

    async def run(self, call: Callable[[bytes], Any], load: str, calls: int, data: bytes) -> None:
        if load == "concurrent":

            async def work() -> None:
                for _ in range(calls // CALLERS):
                    await call(data)

            await asyncio.gather(*(work() for _ in range(CALLERS)))
        elif load == "pipelined":
            for _ in range(calls // IN_FLIGHT):
                await asyncio.gather(*(call(data) for _ in range(IN_FLIGHT)))
        else:
            for _ in range(calls):
                await call(data)

    async def with_call(self, use: Callable[[Callable[[bytes], Any]], Any]) -> float:
        raise NotImplementedError


class PipeplugAsync(Async):
    name = "pipeplug, asyncio"

    async def with_call(self, use: Callable[[Callable[[bytes], Any]], Any]) -> float:
        async with await AsyncPlugin.start(GUESTS, args=["asyncio"]) as plugin:
            found: float = await use(lambda data: plugin.call("echo", data))
            return found


class GrpcAsync(Async, Grpc):
    name = "grpcio, asyncio"
    guest = "grpc-aio"

    async def with_call(self, use: Callable[[Callable[[bytes], Any]], Any]) -> float:
        import grpc.aio

        big = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        with self._server() as path:
            async with grpc.aio.insecure_channel(f"unix:{path}", options=big) as channel:
                found: float = await use(channel.unary_unary("/bench.Bench/Echo"))
                return found


LOADS = ("sequential", "concurrent", "pipelined", "1 MiB")
STEP = {"sequential": 1, "concurrent": CALLERS, "pipelined": IN_FLIGHT, "1 MiB": 1}


def measure(subject: Subject, load: str, seconds: float) -> float:
    """Returns the calls a second."""
    data = LARGE if load == "1 MiB" else SMALL
    step = STEP[load]

    def plan(took: float, calls: int) -> int:
        return max(step, int(calls * seconds / max(took, 1e-6)) // step * step)

    if isinstance(subject, Async):

        async def use(call: Callable[[bytes], Any]) -> float:
            await subject.run(call, load, step * 4, data)
            begun = time.perf_counter()
            first = step * 8
            await subject.run(call, load, first, data)
            calls = plan(time.perf_counter() - begun, first)
            begun = time.perf_counter()
            await subject.run(call, load, calls, data)
            return calls / (time.perf_counter() - begun)

        return asyncio.run(subject.with_call(use))

    def run(peer: Any, calls: int) -> None:
        if load == "concurrent":
            subject.concurrent(peer, calls)
        elif load == "pipelined":
            subject.pipelined(peer, calls)
        else:
            subject.sequential(peer, calls, data)

    with subject.open() as peer:
        run(peer, step * 4)
        begun = time.perf_counter()
        first = step * 8
        run(peer, first)
        calls = plan(time.perf_counter() - begun, first)
        begun = time.perf_counter()
        run(peer, calls)
        return calls / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json")
    parser.add_argument("--load", choices=LOADS, action="append")
    parser.add_argument("subject", nargs="*")
    options = parser.parse_args()
    subjects: List[Subject] = [Pipeplug(), PipeplugAsync(), Multiprocessing(), MultiprocessingCalls()]
    try:
        import grpc

        subjects += [Grpc(), GrpcAsync()]
        print(f"grpcio {grpc.__version__}, Python {sys.version.split()[0]}")
    except ImportError:
        print("grpcio is not there: pip install grpcio")
    subjects = [it for it in subjects if not options.subject or it.name in options.subject]
    loads = options.load or LOADS
    found: Dict[Tuple[str, str], List[float]] = {}
    for _ in range(options.rounds):
        plan = [(subject, load) for subject in subjects for load in loads]
        # Anew in each round, so that a drift of the machine's speed affects all.
        random.shuffle(plan)
        for subject, load in plan:
            found.setdefault((subject.name, load), []).append(measure(subject, load, options.seconds))
    print("| calls a second |", " | ".join(loads), "|")
    print("| --- |", " --- |" * len(loads))
    for subject in subjects:
        cells = []
        for load in loads:
            rates = found[subject.name, load]
            cells.append(f"{statistics.median(rates):,.0f} ({min(rates):,.0f} … {max(rates):,.0f})")
        print(f"| {subject.name} |", " | ".join(cells), "|")
    if options.json:
        rows = [{"subject": key[0], "load": key[1], "rates": rates} for key, rates in found.items()]
        Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
