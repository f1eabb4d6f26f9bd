"""The commands that a side answers, and the run of their handlers."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import json
import logging
import sys
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ._errors import CallError, Failure, PipeplugError
from ._options import to_bytes
from ._sending import Incoming

log = logging.getLogger("pipeplug")

#: The request whose handler runs: calls of the handler inherit its deadline and values.
CURRENT: contextvars.ContextVar[Optional[Incoming]] = contextvars.ContextVar("pipeplug_request", default=None)
#: Commands that no user's handler takes.
RESERVED = ("GetMetadata", "GetServices")
#: Most errors of a chain of causes that are told.
_CAUSES = 16


class Sequence:
    """Commands that are handled one at a time, in the order in which they came."""

    def __init__(self) -> None:
        self.queue: Deque[Tuple[Handler, Incoming]] = deque()
        self.is_running = False


class Handler:
    """The function of a command."""

    __slots__ = ("function", "is_async", "penalty", "sequence", "slow_for")

    def __init__(self, function: Callable[..., Any], is_async: bool, sequence: Optional[Sequence] = None) -> None:
        self.function, self.is_async, self.sequence = function, is_async, sequence
        #: Number of requests that go to a thread of the pool, since the function was slow.
        self.slow_for = 0
        self.penalty = 8

    def was_slow(self) -> None:
        """Has the next requests handled beside the thread that reads."""
        self.penalty = min(self.penalty * 2, 4096)
        self.slow_for = self.penalty


class Handlers:
    """All commands of a side."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.commands: Dict[str, Handler] = {}
        #: The handler of commands that have none.
        self.fallback: Optional[Handler] = None
        self._in_order: Optional[Sequence] = None
        self._sequences: Dict[str, Sequence] = {}
        self._failed_one_ways = itertools.count(1)

    def order(self, commands: Optional[Iterable[str]]) -> None:
        """Has commands handled in order; None: all that have no sequence yet."""
        if commands is None:
            self._in_order = Sequence()
            for command, handler in self.commands.items():
                if handler.sequence is None and command not in RESERVED:
                    handler.sequence = self._in_order
            if self.fallback is not None:
                self.fallback.sequence = self._in_order
            return
        sequence = Sequence()
        for command in commands:
            self._sequences[command] = sequence
            if command in self.commands:
                self.commands[command].sequence = sequence

    def add(self, command: str, function: Callable[..., Any], is_async: bool) -> None:
        """Adds the function of a command."""
        if command.startswith("cmd."):
            raise ValueError(f"{command}: commands that begin with `cmd.` belong to the protocol")
        if command in self.commands:
            raise ValueError(f"the command {command!r} has a handler already")
        sequence = None
        if command not in RESERVED:
            sequence = self._sequences.get(command, self._in_order)
        self.commands[command] = Handler(function, is_async, sequence)

    def find(self, command: str) -> Optional[Handler]:
        """Returns the handler of a command."""
        handler = self.commands.get(command)
        if handler is None and command not in RESERVED:
            return self.fallback
        return handler

    @property
    def has_async(self) -> bool:
        """True if a function is a coroutine."""
        found = list(self.commands.values())
        if self.fallback is not None:
            found.append(self.fallback)
        return any(handler.is_async for handler in found)

    def unknown(self, command: str) -> Failure:
        """Returns the error of a command that does not exist."""
        known = sorted(it for it in self.commands if it not in RESERVED)
        return Failure("unknown_command", f"unknown command {command!r}", {"commands": known})

    def tell_failure(self, request: Incoming, error: BaseException) -> None:
        """Writes why a one-way failed, as it has no answer. The caller does not hold the session's lock."""
        times = next(self._failed_one_ways)
        if times <= 16 or times & (times - 1) == 0:
            counted = f" ({times} have failed)" if times > 16 else ""
            text = f"{self.name}: one-way {request.command!r} failed: {error_text(error)}{counted}"
            # No reader of these lines ends a connection.
            with contextlib.suppress(Exception):
                print(text, file=sys.stderr, flush=True)


def encode_result(command: str, result: object) -> bytes:
    """Returns what a handler has returned as bytes."""
    if result is None:
        return b""
    if isinstance(result, (bytes, str, bytearray, memoryview)):
        return to_bytes(result)
    raise TypeError(f"the handler of {command!r} returned {type(result).__name__}: it returns bytes, str or None")


def check_start(request: Incoming) -> None:
    """Raises an error for a request that need not be handled any more."""
    if request.cancelled and not request.session.input_ended:
        raise Failure("cancelled", "the caller has given the request up")
    if request.deadline is not None and request.deadline <= time.monotonic():
        raise Failure("deadline", "the deadline of the request had passed before its handler began")


def own_text(error: BaseException) -> str:
    """Returns the message of an error alone; the name of its type if it cannot say it."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except BaseException:
        # Code of a user, which may raise anything.
        return name
    if isinstance(error, PipeplugError):
        return text
    return f"{name}: {text}" if text else name


def words_of(error: BaseException) -> str:
    """Returns what an error says, without the name of its type if it says something."""
    try:
        return str(error) or type(error).__name__
    except BaseException:
        return type(error).__name__


def causes(error: BaseException) -> List[BaseException]:
    """Returns an error and its causes: each once, as they may form a cycle, and a few."""
    found: List[BaseException] = []
    cause: Optional[BaseException] = error
    while cause is not None and len(found) < _CAUSES and all(it is not cause for it in found):
        found.append(cause)
        cause = cause.__cause__
    return found


def error_text(error: BaseException) -> str:
    """Returns the message of an error, with those of its causes."""
    return ": ".join(own_text(it) for it in causes(error))


class ErrorAnswer(NamedTuple):
    """An error as it is sent, for which no code of users is called any more."""

    code: Optional[str]
    message: str
    data: Any


def prepare_error(request: Incoming, error: BaseException, handlers: Handlers) -> ErrorAnswer:
    """Returns the answer for an error, and logs it. The caller does not hold the session's lock.

    Errors, log handlers and `sys.stderr` are objects of users, which may call the other side.
    """
    if request.is_one_way:
        handlers.tell_failure(request, error)
        return ErrorAnswer(None, "", None)
    failure = next((it for it in causes(error) if isinstance(it, Failure)), None)
    text = error_text(error)
    if failure is None:
        with contextlib.suppress(Exception):
            log.debug("the handler of %r failed", request.command, exc_info=error)
        prefix = f"{request.command}: "
        if isinstance(error, CallError) and error.command == request.command and text.startswith(prefix):
            # The caller puts the command before it.
            text = text[len(prefix) :]
        return ErrorAnswer(None, text, None)
    data = failure.data
    if data is not None:
        try:
            # As it is now: the one who has raised it may still change it.
            data = json.loads(json.dumps(data))
        except Exception:
            data = None
    return ErrorAnswer(failure.code, text, data)


def describe(handlers: Iterable[str]) -> List[str]:
    """Returns the commands of a user."""
    return sorted(it for it in handlers if it not in RESERVED)


def loads(data: bytes) -> Any:
    """Returns the value of some JSON."""
    return json.loads(data.decode())
