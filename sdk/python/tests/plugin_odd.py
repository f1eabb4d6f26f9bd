#!/usr/bin/env python3
"""A plugin whose handlers fail in odd ways, and whose log goes to its host. Its last argument is `async` or not."""

import asyncio
import logging
import os
import sys
import time
from typing import Any, Callable, Dict

from pipeplug import Failure, Guest, Host, Request

IS_ASYNC = "async" in sys.argv
plugin = Guest("odd", grace=0.5)


class Odd(BaseException):
    """Is no `Exception`."""


class Mute(Exception):
    def __str__(self) -> str:
        raise Odd("cannot say it")


def own_cause() -> BaseException:
    error = ValueError("own")
    error.__cause__ = error
    return error


def cycle() -> BaseException:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def many_causes() -> BaseException:
    error = ValueError("last")
    for number in range(5000):
        outer = ValueError(f"number {number}")
        outer.__cause__ = error
        error = outer
    return error


def coded_in_a_cycle() -> BaseException:
    first, second = ValueError("first"), Failure("not_found", "second")
    first.__cause__, second.__cause__ = second, first
    return first


def changed() -> BaseException:
    data: Dict[str, object] = {"a": 1}
    failure = Failure("not_found", "changed", data)
    data["b"] = object()
    return failure


def cause_of(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


FAILURES: Dict[str, Callable[[], BaseException]] = {
    "own_cause": own_cause,
    "cycle": cycle,
    "many_causes": many_causes,
    "coded_in_a_cycle": coded_in_a_cycle,
    "changed": changed,
    "odd": lambda: Odd("x"),
    "generator_exit": GeneratorExit,
    "cancelled": asyncio.CancelledError,
    "mute": Mute,
    "mute_cause": lambda: cause_of(ValueError("x"), Mute()),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
}


class ErrorsToHost:
    """Stands in for standard error, and forwards what is written."""

    def write(self, text: str) -> int:
        peer.notify("stderr", text)
        return len(text)

    def flush(self) -> None:
        pass


class Forward(logging.Handler):
    """Forwards records to the host."""

    def emit(self, record: logging.LogRecord) -> None:
        peer.notify("log", record.getMessage())
        if "breaks" in record.getMessage():
            raise ValueError("the log is broken")


peer: Any = None


@plugin.start
def start(host: Host) -> None:
    global peer
    peer = host
    if "start-fails" in sys.argv:
        raise Odd("at the start")
    if "forwards" in sys.argv:
        root = logging.getLogger()
        root.addHandler(Forward())
        root.setLevel(logging.DEBUG)
        sys.stderr = ErrorsToHost()


def register(name: str, make: Callable[[], BaseException]) -> None:
    def fail(request: Request) -> None:
        if request.text == "slow":
            time.sleep(0.02)
        raise make()

    async def fail_async(request: Any) -> None:
        raise make()

    plugin.command(name)(fail_async if IS_ASYNC else fail)


for key, failure in FAILURES.items():
    register(key, failure)


@plugin.command
def echo(request: Request) -> bytes:
    return request.data


@plugin.command
def breaks(request: Request) -> None:
    raise ValueError("x")


@plugin.command
def dies(request: Request) -> None:
    for number in range(7):
        os.write(2, b"line %d\n" % number)
    os._exit(4)


plugin.run()
