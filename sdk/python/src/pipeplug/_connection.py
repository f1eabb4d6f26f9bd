"""Calls by threads: connections and open calls."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Mapping, Optional, Type, TypeVar

from ._errors import CallFailed, CallTimeout
from ._handlers import CURRENT
from ._negotiation import Progress
from ._options import Data, flag, function, seconds, texts, to_bytes
from ._parts import PartSink
from ._sending import Call, Driver
from ._session import Session
from ._streams import PartSender, Stream, give_up, wait

_monotonic = time.monotonic
ProgressHook = Callable[[Progress], None]


def make_context(
    session: Session,
    timeout: Optional[float],
    values: Optional[Mapping[str, str]],
    progress: Optional[ProgressHook],
    stream: str = "",
) -> tuple[Optional[float], Optional[Dict[str, Any]]]:
    """Returns the deadline of a call, and its context, both with what the handler's own call has."""
    limit = seconds("timeout", timeout, "no limit")
    function("progress", progress)
    deadline = None if limit is None else _monotonic() + limit
    current = CURRENT.get()
    context: Dict[str, Any] = {}
    if values:
        values = texts("values", values)
    if current is not None:
        if current.deadline is not None and (deadline is None or current.deadline < deadline):
            deadline = current.deadline
        if current.values:
            values = {**current.values, **(values or {})}
    if deadline is not None:
        context["deadline_ms"] = max(0, int((deadline - _monotonic()) * 1000 + 0.999))
    if stream:
        context["stream"] = stream
    if progress is not None:
        context["progress"] = True
    if values:
        context["values"] = values
    return deadline, context or None


class Connection:
    """The other side of a connection. Its methods may be called by any thread."""

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session, self._driver = session, driver

    def call(
        self,
        command: str,
        data: Data = b"",
        *,
        timeout: Optional[float] = None,
        values: Optional[Mapping[str, str]] = None,
        progress: Optional[ProgressHook] = None,
    ) -> bytes:
        """Makes a call, and returns its reply.

        `timeout` is in seconds; the other side is told of it. `values` go with the call, and with those that its
        handler makes. `progress` is called with each report of the handler, and should return soon.
        """
        if timeout is None and values is None and progress is None and type(data) is bytes:
            alone = None
            if CURRENT.get() is None and type(command) is str and not command.startswith("cmd."):
                alone = self._driver.call_alone(command, data)
            if alone is not None:
                if not alone.done:
                    self._driver.wait_call(alone)
                if alone.error is None:
                    return alone.reply
                raise alone.error
        call = self._open(command, data, timeout, values, progress, "", leads=True)
        try:
            self._driver.wait_call(call)
        except BaseException:
            # Ctrl-C: the handler learns that its work is not wanted.
            give_up(self._driver, call)
            raise
        return call.result()

    def begin(
        self,
        command: str,
        data: Data = b"",
        *,
        timeout: Optional[float] = None,
        values: Optional[Mapping[str, str]] = None,
        progress: Optional[ProgressHook] = None,
    ) -> PendingCall:
        """Sends a request, and does not wait for its reply: for many calls at once."""
        return PendingCall(self._driver, self._open(command, data, timeout, values, progress, ""))

    def notify(self, command: str, data: Data = b"", *, values: Optional[Mapping[str, str]] = None) -> None:
        """Sends a one-way. Waits for room only."""
        self._send_one_way(command, data, values, "")

    def stream(
        self,
        command: str,
        data: Data = b"",
        *,
        send: bool = True,
        receive: bool = True,
        timeout: Optional[float] = None,
        values: Optional[Mapping[str, str]] = None,
        progress: Optional[ProgressHook] = None,
    ) -> Stream:
        """Makes a call with parts: of the request (`send`), of the reply (`receive`), or both."""
        words = " ".join(["send"] * flag("send", send) + ["receive"] * flag("receive", receive))
        return Stream(self._driver, self._open(command, data, timeout, values, progress, words))

    def notify_stream(
        self, command: str, data: Data = b"", *, values: Optional[Mapping[str, str]] = None
    ) -> PartSender:
        """Sends a one-way with parts."""
        sink = self._send_one_way(command, data, values, "send")
        assert sink is not None
        return PartSender(self._driver, sink)

    def ping(self, timeout: Optional[float] = None) -> None:
        """Waits until the other side shows that it reads."""
        call = self._open("cmd.ping", b"", timeout, None, None, "", True)
        self._driver.wait_call(call)
        if call.error is not None and not isinstance(call.error, CallFailed):
            raise call.error

    @property
    def is_closed(self) -> bool:
        """True once the connection has ended."""
        return self._session.closed is not None

    def client(self, service: Type[ServiceT]) -> ServiceT:
        """Returns an object whose methods call the service of this class."""
        from ._clients import make_client

        return make_client(service, self)

    def _open(
        self,
        command: str,
        data: Data,
        timeout: Optional[float],
        values: Optional[Mapping[str, str]],
        progress: Optional[ProgressHook],
        stream: str,
        is_own: bool = False,
        leads: bool = False,
    ) -> Call:
        session, driver = self._session, self._driver
        encoded = data if type(data) is bytes else to_bytes(data)
        deadline: Optional[float] = None
        context: Optional[Dict[str, Any]] = None
        if timeout is not None or values or stream or progress is not None or CURRENT.get() is not None:
            deadline, context = make_context(session, timeout, values, progress, stream)
        if not is_own and (type(command) is not str or command.startswith("cmd.")):
            session.check_command(command)
        lock = session.lock
        lock.acquire()
        try:
            while not session.has_room() and not is_own:
                lock.release()
                try:
                    if not driver.block(session.room, session.has_room, deadline):
                        raise CallTimeout(command, "not sent: there was no room within its time")
                finally:
                    lock.acquire()
            call = session.open_call(command, encoded, context, deadline)
            if is_own:
                session.sent -= 64 + len(command) + len(encoded)
            if progress is not None:
                hook, later = progress, driver.later
                call.on_progress = lambda report: later.append(lambda: hook(report))
            driver.write_now()
        finally:
            lock.release()
        if session.out:
            driver.flush(leads)
        return call

    def _send_one_way(
        self, command: str, data: Data, values: Optional[Mapping[str, str]], stream: str
    ) -> Optional[PartSink]:
        session, driver = self._session, self._driver
        encoded = data if type(data) is bytes else to_bytes(data)
        _, context = make_context(session, None, values, None, stream)
        session.check_command(command)
        lock = session.lock
        lock.acquire()
        try:
            while not session.has_room():
                lock.release()
                try:
                    driver.block(session.room, session.has_room)
                finally:
                    lock.acquire()
            sink = session.send_one_way(command, encoded, context)
        finally:
            lock.release()
        driver.flush()
        return sink


ServiceT = TypeVar("ServiceT")


class PendingCall:
    """A call whose reply is still to come."""

    def __init__(self, driver: Driver, call: Call) -> None:
        self._driver, self._call = driver, call

    def wait(self, timeout: Optional[float] = None) -> bytes:
        """Waits for the reply. A call without a reply within `timeout` seconds is given up."""
        return wait(self._driver, self._call, timeout)

    def is_done(self) -> bool:
        """Tells whether `wait` returns at once."""
        return self._call.done

    def cancel(self) -> None:
        """Gives the call up. The handler learns of it, and `wait` raises `CallCancelled`."""
        give_up(self._driver, self._call)
