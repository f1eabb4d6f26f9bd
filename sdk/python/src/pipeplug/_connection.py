"""Calls by threads: connections, open calls, streams, and what a handler is given."""

from __future__ import annotations

import json
import time
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Type,
    TypeVar,
)

from ._errors import CallCancelled, CallTimeout, Failure, StreamError
from ._handlers import CURRENT
from ._negotiation import Progress
from ._options import Data, to_bytes
from ._parts import PartSink, PartSource
from ._sending import Call, Driver, Incoming
from ._session import Session

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
    deadline = None if timeout is None else _monotonic() + timeout
    current = CURRENT.get()
    context: Dict[str, Any] = {}
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
        context["values"] = dict(values)
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
            if CURRENT.get() is None and not command.startswith("cmd."):
                alone = self._driver.call_alone(command, data)
            if alone is not None:
                if not alone.done:
                    self._driver.wait_call(alone, None)
                if alone.error is None:
                    return alone.reply
                raise alone.error
        call, deadline = self._open(command, data, timeout, values, progress, "", leads=True)
        try:
            self._driver.wait_call(call, deadline)
        except BaseException:
            # Ctrl-C: the handler learns that its work is not wanted.
            self._give_up(call)
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
        return PendingCall(self, *self._open(command, data, timeout, values, progress, ""))

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
        words = " ".join(["send"] * send + ["receive"] * receive)
        return Stream(self, *self._open(command, data, timeout, values, progress, words))

    def notify_stream(
        self, command: str, data: Data = b"", *, values: Optional[Mapping[str, str]] = None
    ) -> PartSender:
        """Sends a one-way with parts."""
        sink = self._send_one_way(command, data, values, "send")
        assert sink is not None
        return PartSender(self._driver, sink)

    def ping(self, timeout: Optional[float] = None) -> None:
        """Waits until the other side shows that it reads."""
        call, deadline = self._open("cmd.ping", b"", timeout, None, None, "", True)
        self._driver.wait_call(call, deadline)
        if call.error is not None and type(call.error).__name__ != "CallFailed":
            raise call.error

    @property
    def is_closed(self) -> bool:
        """True once the connection has ended."""
        return self._session.closed is not None

    def client(self, service: Type[ServiceT]) -> ServiceT:
        """Returns an object whose methods call the service of this class."""
        from ._service import make_client

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
    ) -> tuple[Call, Optional[float]]:
        session, driver = self._session, self._driver
        encoded = data if type(data) is bytes else to_bytes(data)
        deadline: Optional[float] = None
        context: Optional[Dict[str, Any]] = None
        if timeout is not None or values or stream or progress is not None or CURRENT.get() is not None:
            deadline, context = make_context(session, timeout, values, progress, stream)
        if not is_own and command.startswith("cmd."):
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
            call = session.open_call(command, encoded, context)
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
        return call, deadline

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

    def _give_up(self, call: Call) -> None:
        with self._session.lock:
            self._session.give_up(call, CallCancelled(call.command, "given up by the caller"))
        self._driver.flush()


ServiceT = TypeVar("ServiceT")


class PendingCall:
    """A call whose reply is still to come."""

    def __init__(self, connection: Connection, call: Call, deadline: Optional[float]) -> None:
        self._connection, self._call, self._deadline = connection, call, deadline

    def wait(self, timeout: Optional[float] = None) -> bytes:
        """Waits for the reply. A call without a reply within `timeout` seconds is given up."""
        call = self._call
        if not call.done:
            deadline = self._deadline
            if timeout is not None:
                end = _monotonic() + timeout
                deadline = end if deadline is None else min(deadline, end)
            self._connection._driver.wait_call(call, deadline)
        return call.result()

    def is_done(self) -> bool:
        """Tells whether `wait` returns at once."""
        return self._call.done

    def cancel(self) -> None:
        """Gives the call up. The handler learns of it, and `wait` raises `CallCancelled`."""
        self._connection._give_up(self._call)


class PartSender:
    """Sends the parts of a request, one-way or reply."""

    def __init__(self, driver: Driver, sink: PartSink) -> None:
        self._driver, self._sink = driver, sink

    def send(self, part: Data) -> None:
        """Sends a part. Waits while the receiver has a window full of parts."""
        data, sink, driver = to_bytes(part), self._sink, self._driver
        lock = driver.lock
        lock.acquire()
        try:
            while not sink.may_send():
                lock.release()
                try:
                    driver.block(sink, sink.may_send)
                finally:
                    lock.acquire()
            sink.send(data)
        finally:
            lock.release()
        driver.flush()

    def finish(self) -> None:
        """Says that the parts are complete."""
        with self._driver.lock:
            if not self._sink.is_finished and self._sink.enough is None:
                self._sink.check()
            self._sink.finish()
        self._driver.flush()

    def abort(self, reason: str) -> None:
        """Ends the parts early; the receiver gets the reason as an error."""
        with self._driver.lock:
            self._sink.finish(reason or "aborted")
        self._driver.flush()

    def __enter__(self) -> PartSender:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if error is not None:
            self.abort(str(error) or type(error).__name__)
        elif not self._sink.is_finished and self._sink.enough is None:
            self.finish()


class Parts(Iterator[bytes]):
    """Receives the parts of a request or reply, in order."""

    def __init__(self, driver: Driver, source: PartSource) -> None:
        self._driver, self._source = driver, source
        source.was_asked = True

    def __iter__(self) -> Parts:
        return self

    def __next__(self) -> bytes:
        source, driver = self._source, self._driver
        lock = driver.lock
        lock.acquire()
        try:
            while not source.is_ready():
                lock.release()
                try:
                    driver.block(source, source.is_ready)
                finally:
                    lock.acquire()
            part = source.take()
        finally:
            lock.release()
        if source.session.out:
            driver.flush()
        if part is None:
            raise StopIteration
        return part

    def enough(self, reason: str = "") -> None:
        """Tells the sender that no more parts are wanted."""
        with self._driver.lock:
            self._source.refuse(reason)
            self._source.end(None)
        self._driver.flush()


class Stream(PartSender):
    """A call with parts: sends those of the request, iterates over those of the reply."""

    def __init__(self, connection: Connection, call: Call, deadline: Optional[float]) -> None:
        self._driver = connection._driver
        self._pending = PendingCall(connection, call, deadline)
        self._call = call
        if call.sink is not None:
            self._sink = call.sink
        self._parts = None if call.source is None else Parts(self._driver, call.source)

    def send(self, part: Data) -> None:
        """Sends a part of the request. Waits while the receiver has a window full of parts."""
        if self._call.sink is None:
            raise StreamError("the stream was opened without parts of the request")
        super().send(part)

    def finish(self) -> None:
        """Says that the parts of the request are complete."""
        if self._call.sink is not None:
            with self._driver.lock:
                self._sink.finish()
            self._driver.flush()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts if self._parts is not None else ())

    def enough(self, reason: str = "") -> None:
        """Takes no more parts of the reply. The reply itself still comes."""
        if self._parts is not None:
            self._parts.enough(reason)

    @property
    def refusal(self) -> Optional[str]:
        """Reason for which the handler takes no more parts of the request, if it has said so."""
        return None if self._call.sink is None else self._call.sink.enough

    def reply(self, timeout: Optional[float] = None) -> bytes:
        """Waits for the reply behind the parts."""
        return self._pending.wait(timeout)

    def cancel(self) -> None:
        """Gives the call up, and ends both directions."""
        self._pending.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if not self._call.done:
            self.cancel()


PeerT = TypeVar("PeerT")


class RequestBase(Incoming, Generic[PeerT]):
    """What a request has, however it is handled."""

    #: The other side.
    peer: PeerT

    @property
    def text(self) -> str:
        """The data as text."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise Failure("invalid_argument", f"the data is not UTF-8: {error}") from None

    def json(self) -> Any:
        """Returns the data as JSON."""
        try:
            return json.loads(self.data.decode())
        except (ValueError, RecursionError) as error:
            raise Failure("invalid_argument", f"the data is no JSON: {error}") from None

    @property
    def context(self) -> Mapping[str, str]:
        """Values that the caller has supplied."""
        return self.values or {}

    @property
    def is_cancelled(self) -> bool:
        """True once the caller has given the call up, or its deadline has passed."""
        return self.cancelled or (self.deadline is not None and self.deadline <= _monotonic())

    @property
    def time_left(self) -> Optional[float]:
        """Seconds up to the deadline of the call; None if it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - _monotonic())

    @property
    def has_parts(self) -> bool:
        """True if parts follow the request."""
        return self.source is not None

    @property
    def takes_parts(self) -> bool:
        """True if the caller takes parts of the reply."""
        return self.sink is not None


class Request(RequestBase[Connection]):
    """A request or one-way, as a handler gets it. Its methods may be called by any thread."""

    @property
    def peer(self) -> Connection:  # type: ignore[override]
        """The other side, which the handler may call."""
        found: Connection = self.session.peer
        return found

    @property
    def _driver(self) -> Driver:
        return self.peer._driver

    def progress(self, done: int, total: Optional[int] = None, message: Optional[str] = None) -> None:
        """Reports how far the work is. Costs next to nothing unless the caller wants to know."""
        if not self.wants_progress:
            return
        with self.session.lock:
            is_due = self.session.report(self, Progress(done, total, message))
        if is_due:
            self._driver.flush()

    def wait_cancelled(self, timeout: Optional[float] = None) -> bool:
        """Sleeps for `timeout` seconds, or until the caller gives the call up. Tells whether it has."""
        deadline = None if timeout is None else _monotonic() + timeout
        if self.deadline is not None:
            deadline = self.deadline if deadline is None else min(deadline, self.deadline)
        self._driver.block(self, lambda: self.cancelled, deadline)
        return self.is_cancelled

    @property
    def parts(self) -> Iterable[bytes]:
        """The parts that follow the request; none if it has none."""
        return () if self.source is None else Parts(self._driver, self.source)

    def send(self, part: Data) -> None:
        """Sends a part of the reply. Waits while the caller has a window full of parts."""
        if self.sink is None:
            raise Failure("invalid_argument", f"{self.command} answers with parts: call it by a stream")
        PartSender(self._driver, self.sink).send(part)
