"""Calls in an event loop of asyncio: the awaited forms of connections, streams and requests."""

from __future__ import annotations

from typing import AsyncIterator, Callable, Mapping, Optional, Sequence, Type

from ._connection import ProgressHook, ServiceT, make_context
from ._errors import CallFailed, CallTimeout, Failure, StreamError
from ._handlers import Handlers, words_of
from ._loop import LoopDriver
from ._negotiation import Progress
from ._options import Data, flag, to_bytes
from ._parts import PartSink, PartSource
from ._request import Request, RequestBase
from ._sending import Call, Incoming
from ._session import Session


class AsyncConnection:
    """The other side of a connection, for tasks of one event loop."""

    def __init__(self, session: Session, driver: LoopDriver) -> None:
        self._session, self._driver = session, driver

    async def call(
        self,
        command: str,
        data: Data = b"",
        *,
        timeout: Optional[float] = None,
        values: Optional[Mapping[str, str]] = None,
        progress: Optional[ProgressHook] = None,
    ) -> bytes:
        """Makes a call, and returns its reply. A task that is cancelled gives the call up.

        `timeout` is in seconds; the other side is told of it. `values` go with the call, and with those that its
        handler makes. `progress` is called with each report of the handler.
        """
        call = await self._open(command, data, timeout, values, progress, "")
        await self._driver.wait_call_async(call)
        return call.result()

    async def notify(self, command: str, data: Data = b"", *, values: Optional[Mapping[str, str]] = None) -> None:
        """Sends a one-way. Waits for room only."""
        await self._send_one_way(command, data, values, "")

    async def stream(
        self,
        command: str,
        data: Data = b"",
        *,
        send: bool = True,
        receive: bool = True,
        timeout: Optional[float] = None,
        values: Optional[Mapping[str, str]] = None,
        progress: Optional[ProgressHook] = None,
    ) -> AsyncStream:
        """Makes a call with parts: of the request (`send`), of the reply (`receive`), or both."""
        words = " ".join(["send"] * flag("send", send) + ["receive"] * flag("receive", receive))
        return AsyncStream(self._driver, await self._open(command, data, timeout, values, progress, words))

    async def notify_stream(
        self, command: str, data: Data = b"", *, values: Optional[Mapping[str, str]] = None
    ) -> AsyncPartSender:
        """Sends a one-way with parts."""
        sink = await self._send_one_way(command, data, values, "send")
        assert sink is not None
        return AsyncPartSender(self._driver, sink)

    async def ping(self, timeout: Optional[float] = None) -> None:
        """Waits until the other side shows that it reads."""
        session = self._session
        deadline, _ = make_context(session, timeout, None, None)
        with session.lock:
            call = session.open_call("cmd.ping", b"", None, deadline)
            session.sent -= 64 + len("cmd.ping")
        self._driver.flush()
        await self._driver.wait_call_async(call)
        if call.error is not None and not isinstance(call.error, CallFailed):
            raise call.error

    @property
    def is_closed(self) -> bool:
        """True once the connection has ended."""
        return self._session.closed is not None

    def client(self, service: Type[ServiceT]) -> ServiceT:
        """Returns an object whose methods call the service of this class, and are awaited."""
        from ._clients import make_async_client

        return make_async_client(service, self)

    async def _open(
        self,
        command: str,
        data: Data,
        timeout: Optional[float],
        values: Optional[Mapping[str, str]],
        progress: Optional[ProgressHook],
        stream: str,
    ) -> Call:
        session, driver = self._session, self._driver
        encoded = data if type(data) is bytes else to_bytes(data)
        deadline, context = make_context(session, timeout, values, progress, stream)
        session.check_command(command)
        if not session.has_room() and not await driver.wait(session.room, session.has_room, deadline):
            raise CallTimeout(command, "not sent: there was no room within its time")
        with session.lock:
            call = session.open_call(command, encoded, context, deadline)
            if progress is not None:
                hook, later = progress, driver.later
                call.on_progress = lambda report: later.append(lambda: hook(report))
        driver.flush()
        return call

    async def _send_one_way(
        self, command: str, data: Data, values: Optional[Mapping[str, str]], stream: str
    ) -> Optional[PartSink]:
        session, driver = self._session, self._driver
        encoded = data if type(data) is bytes else to_bytes(data)
        _, context = make_context(session, None, values, None, stream)
        session.check_command(command)
        if not session.has_room():
            await driver.wait(session.room, session.has_room)
        with session.lock:
            sink = session.send_one_way(command, encoded, context)
        driver.flush()
        return sink


class AsyncPartSender:
    """Sends the parts of a request, one-way or reply."""

    #: The call that the parts belong to, whose deadline ends them.
    _call: Optional[Call] = None

    def __init__(self, driver: LoopDriver, sink: PartSink) -> None:
        self._driver, self._sink = driver, sink

    async def send(self, part: Data) -> None:
        """Sends a part. Waits while the receiver has a window full of parts."""
        data, sink, driver, call = to_bytes(part), self._sink, self._driver, self._call
        while not sink.may_send():
            if not await driver.wait(sink, sink.may_send, None if call is None else call.deadline):
                driver.expire(call)
                if call is not None:
                    call.result()
        with driver.lock:
            sink.send(data)
        driver.flush()

    async def finish(self) -> None:
        """Says that the parts are complete."""
        with self._driver.lock:
            if not self._sink.is_finished and self._sink.enough is None:
                self._sink.check()
            self._sink.finish()
        self._driver.flush()

    async def abort(self, reason: str) -> None:
        """Ends the parts early; the receiver gets the reason as an error."""
        with self._driver.lock:
            self._sink.finish(reason or "aborted")
        self._driver.flush()

    async def __aenter__(self) -> AsyncPartSender:
        return self

    async def __aexit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if error is not None:
            await self.abort(words_of(error))
        elif not self._sink.is_finished and self._sink.enough is None:
            await self.finish()


class AsyncParts(AsyncIterator[bytes]):
    """Receives the parts of a request or reply, in order."""

    def __init__(self, driver: LoopDriver, source: PartSource, call: Optional[Call] = None) -> None:
        self._driver, self._source, self._call = driver, source, call
        source.was_asked = True

    def __aiter__(self) -> AsyncParts:
        return self

    async def __anext__(self) -> bytes:
        source, driver, call = self._source, self._driver, self._call
        if not source.is_ready() and not await driver.wait(
            source, source.is_ready, None if call is None else call.deadline
        ):
            driver.expire(call)
        with driver.lock:
            part = source.take()
        if source.session.out:
            driver.flush()
        if part is None:
            raise StopAsyncIteration
        return part

    def enough(self, reason: str = "") -> None:
        """Tells the sender that no more parts are wanted."""
        with self._driver.lock:
            self._source.refuse(reason)
            self._source.end(None)
        self._driver.flush()


class AsyncStream(AsyncPartSender):
    """A call with parts: sends those of the request, iterates over those of the reply."""

    _call: Call

    def __init__(self, driver: LoopDriver, call: Call) -> None:
        self._driver, self._call = driver, call
        if call.sink is not None:
            self._sink = call.sink
        self._parts = None if call.source is None else AsyncParts(driver, call.source, call)

    async def send(self, part: Data) -> None:
        """Sends a part of the request. Waits while the receiver has a window full of parts."""
        if self._call.sink is None:
            raise StreamError("the stream was opened without parts of the request")
        await super().send(part)

    async def finish(self) -> None:
        """Says that the parts of the request are complete."""
        if self._call.sink is not None:
            with self._driver.lock:
                self._sink.finish()
            self._driver.flush()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._parts is not None:
            async for part in self._parts:
                yield part

    def enough(self, reason: str = "") -> None:
        """Takes no more parts of the reply. The reply itself still comes."""
        if self._parts is not None:
            self._parts.enough(reason)

    @property
    def refusal(self) -> Optional[str]:
        """Reason for which the handler takes no more parts of the request, if it has said so."""
        return None if self._call.sink is None else self._call.sink.enough

    async def reply(self) -> bytes:
        """Waits for the reply behind the parts."""
        await self._driver.wait_call_async(self._call)
        return self._call.result()

    def cancel(self) -> None:
        """Gives the call up, and ends both directions."""
        with self._driver.lock:
            self._call.session.cancel(self._call)
        self._driver.flush()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if not self._call.done:
            self.cancel()


class AsyncRequest(RequestBase[AsyncConnection]):
    """A request or one-way, as a coroutine gets it. The task is cancelled if the caller gives up."""

    def lose_caller(self) -> None:
        """Lets the coroutine go on to its answer, for the grace time."""

    @property
    def peer(self) -> AsyncConnection:  # type: ignore[override]
        """The other side, which the handler may call."""
        found: AsyncConnection = self.session.async_peer
        return found

    @property
    def _driver(self) -> LoopDriver:
        return self.peer._driver

    def progress(self, done: int, total: Optional[int] = None, message: Optional[str] = None) -> None:
        """Reports how far the work is. Costs next to nothing unless the caller wants to know."""
        if self.wants_progress:
            with self.session.lock:
                is_due = self.session.report(self, Progress(done, total, message))
            if is_due:
                self._driver.flush()

    @property
    def parts(self) -> AsyncIterator[bytes]:
        """The parts that follow the request; none if it has none."""
        return _none() if self.source is None else AsyncParts(self._driver, self.source)

    async def send(self, part: Data) -> None:
        """Sends a part of the reply. Waits while the caller has a window full of parts."""
        if self.sink is None:
            raise Failure("invalid_argument", f"{self.command} answers with parts: call it by a stream")
        await AsyncPartSender(self._driver, self.sink).send(part)


async def _none() -> AsyncIterator[bytes]:
    nothing: Sequence[bytes] = ()
    for part in nothing:
        yield part


def incoming(handlers: Handlers) -> Callable[[Session, int, str, bytes, bool], Incoming]:
    """Returns the constructor of requests, whose handlers are coroutines or functions."""

    def make(session: Session, thread_id: int, command: str, data: bytes, is_one_way: bool) -> Incoming:
        handler = handlers.find(command)
        kind = AsyncRequest if handler is not None and handler.is_async else Request
        return kind(session, thread_id, command, data, is_one_way)

    return make
