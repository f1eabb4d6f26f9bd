"""The state of a connection, and what it sends: requests, one-ways and answers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Mapping, Optional, Protocol, Tuple, Union

from . import _negotiation as nego
from ._chunks import CLASSIC, LARGE, ONE_WAY, REQUEST, RESPONSE, Encoder
from ._decoder import Decoder
from ._errors import CallCancelled, CallError, CallTimeout, ConnectionClosed, Unsupported
from ._options import Options
from ._parts import PartSink, PartSource, Waitable

log = logging.getLogger("pipeplug")

#: Bytes that a pipe takes as a whole or not at all: pipe(7).
PIPE_BUF = 4096
#: Weight of a chunk besides its command and buffer.
OVERHEAD = 64
_INSTEAD = {
    "cmd.ping": "ping()",
    "cmd.stop": "stop()",
    "cmd.cancel": "cancel() of a call",
    "cmd.log_level": "set_log_level()",
    "cmd.part": "stream()",
    "cmd.progress": "progress() of a request",
}


def _warn(message: str, times: int) -> None:
    # A handler of the log that fails does not end the connection.
    with contextlib.suppress(Exception):
        log.warning("%s (%d times)", message, times)


class Driver(Protocol):
    """Moves the bytes of a connection, and waits, for threads that block."""

    lock: threading.Lock
    #: Call-backs to run once the lock is free.
    later: Deque[Callable[[], None]]

    def flush(self, leads_next: bool = False) -> None:
        """Writes what is queued, as far as the pipe takes it. `leads_next`: the caller then waits for a reply."""

    def write_now(self) -> None:
        """Writes what is queued, if that is quick. The caller holds the lock."""

    def block(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until the state of a target is right. Returns false at the deadline."""
        ...

    def wait_call(self, call: Call) -> None:
        """Waits for the reply of a call, until its deadline."""

    def call_alone(self, command: str, data: bytes) -> Optional[Call]:
        """Makes a call while nothing else is open. None if it takes the usual way."""


class Call(Waitable):
    """A request of this side."""

    done = False
    reply = b""
    error: Optional[CallError] = None
    #: Time at which the caller gives it up, whether a thread waits or not: what comes later is no answer.
    deadline: Optional[float] = None
    on_progress: Optional[Callable[[nego.Progress], None]] = None
    sink: Optional[PartSink] = None
    source: Optional[PartSource] = None

    def __init__(self, session: Sending, thread_id: int, command: str) -> None:
        self.session, self.thread_id, self.command = session, thread_id, command

    def is_late(self) -> bool:
        """Tells whether its deadline has passed."""
        return self.deadline is not None and self.deadline <= time.monotonic()

    def until(self, deadline: float) -> None:
        """Brings its deadline forward."""
        if self.deadline is None or deadline < self.deadline:
            self.deadline = deadline

    def result(self) -> bytes:
        """Returns the reply of a call that is done."""
        if self.error is not None:
            raise self.error
        return self.reply


class Incoming(Waitable):
    """A request or one-way of the other side."""

    answered = cancelled = wants_progress = False
    deadline: Optional[float] = None
    values: Optional[Mapping[str, str]] = None
    sink: Optional[PartSink] = None
    source: Optional[PartSource] = None
    last_report = 0.0
    late_report: Optional[nego.Progress] = None
    weight = 0

    def __init__(self, session: Sending, thread_id: int, command: str, data: bytes, is_one_way: bool) -> None:
        self.session, self.thread_id = session, thread_id
        self.command, self.data, self.is_one_way = command, data, is_one_way

    def lose_caller(self) -> None:
        """Tells a handler that looks that nothing comes any more. Its answer may still be read."""
        self.cancelled = True
        self.notify()


class Sending:
    """A connection's state, of which this part queues what is to be written."""

    def __init__(self, options: Options, format: Optional[str], is_host: bool) -> None:
        self.lock = threading.Lock()
        self.options, self.is_host = options, is_host
        self.decoder = Decoder(format, options.command_limit, options.buffer_limit)
        self.encoder: Optional[Encoder] = Encoder(format) if format else None
        self.calls: Dict[int, Call] = {}
        #: Requests and one-ways of the other side that have no answer, by threadID.
        self.requests: Dict[int, Incoming] = {}
        self.one_ways: Dict[int, Incoming] = {}
        #: The handle of the other side that users have.
        self.peer: Any = None
        #: The same for coroutines.
        self.async_peer: Any = None
        #: Handlers that run or wait, those of one-ways too.
        self.active = 0
        #: Streams that this side has opened, and those of the other side.
        self.opened: Dict[int, Tuple[Optional[PartSink], Optional[PartSource]]] = {}
        self.accepted: Dict[int, Tuple[Optional[PartSink], Optional[PartSource]]] = {}
        self.out: Deque[Union[bytes, memoryview]] = deque()
        self.out_size = 0
        self.last_id = 0
        #: Features of the other side; None until it has named them.
        self.features: Optional[frozenset[str]] = None
        #: True once both have said what they speak.
        self.is_agreed = False
        self.peer_window: Optional[int] = None
        self.peer_stream_window = 1
        self.sent = self.credited = 0
        self.taken = self.credit_sent = 0
        #: Weight of what waits for a handler.
        self.waiting = 0
        self.room = Waitable()
        self.is_stopping = False
        self.was_spoken_to = False
        self.closed: Optional[str] = None
        self.input_ended = False
        self.on_stop: Callable[[], None] = lambda: None
        self.on_log_level: Callable[[str], None] = lambda level: None
        self._context: Optional[Tuple[int, nego.Context]] = None
        self.unasked = 0
        self._warned: Dict[str, int] = {}
        #: Calls of users' code, as of hooks and of the log, to make once the lock is free.
        self.later: Deque[Callable[[], None]] = deque()
        #: True for a peer of the classic format that may read a buffer by one read(2), and lose what comes later.
        self.reads_once = False
        #: Most bytes of a chunk that the pipe takes in one write, if it is made larger where it can be.
        self.largest_write: Callable[[int], int] = lambda size: size

    # What is sent.

    def queue(self, thread_id: int, direction: int, command: str, data: bytes) -> None:
        """Puts a chunk behind what is to be written."""
        encoder = self.encoder
        if encoder is None:
            encoder = self.encoder = Encoder(self.decoder.format or "standard")
        size = len(data)
        header = encoder.header(thread_id, direction, command, size)
        if size < LARGE or encoder.format == CLASSIC:
            self.out.append(header + data)
        else:
            self.out.append(header)
            self.out.append(data)
        self.out_size += len(header) + size

    def has_room(self) -> bool:
        """Tells whether a request or one-way may be sent now."""
        if self.closed is not None:
            return True
        window = self.peer_window
        if window is not None and self.sent - self.credited >= window:
            return False
        return self.out_size < self.options.outgoing

    def has(self, feature: str) -> bool:
        """Tells whether this side may use a feature."""
        return self.features is not None and feature in self.features

    def takes(self, feature: str) -> bool:
        """Tells whether the other side may use a feature. A plugin may before it has named its own."""
        return self.features is None if self.is_host and not self.is_agreed else self.has(feature)

    def check_command(self, command: str) -> None:
        """Raises an error for a command that belongs to the protocol."""
        if not isinstance(command, str):
            raise TypeError(f"a command is text, as 'echo'; not {command!r}")
        if command.startswith("cmd."):
            instead = _INSTEAD.get(command)
            use = f": use {instead}" if instead else ""
            raise CallError(command, f"commands that begin with `cmd.` belong to the protocol{use}")

    def check_size(self, command: str, data: bytes) -> Optional[str]:
        """Returns why a peer cannot read a chunk; None if it can."""
        # At most: two numbers of 20 digits, a direction and four separators.
        size = len(command.encode()) + len(data) + 45
        if size <= PIPE_BUF or size <= (limit := self.largest_write(size)):
            return None
        return (
            f"the buffer is {len(data)} bytes long, and a chunk of the classic format is cut past {limit} bytes: the"
            " other side may read a buffer all at once, as its metadata has no `pipeplug.protocol`; use the standard"
            " format, smaller buffers, or that key in the metadata if it reads them to their end"
        )

    def open_call(
        self, command: str, data: bytes, context: Optional[Dict[str, Any]] = None, deadline: Optional[float] = None
    ) -> Call:
        """Sends a request, for which there is room."""
        if self.closed is not None:
            raise ConnectionClosed(command, f"not sent, {self.closed}")
        if deadline is not None and deadline <= time.monotonic():
            raise CallTimeout(
                command, "not sent: its time, or that of the request whose handler makes the call, has passed already"
            )
        if self.reads_once:
            self._refuse_large(command, data)
        self.last_id = thread_id = self.last_id + 1
        call = Call(self, thread_id, command)
        call.deadline = deadline
        if context:
            self._send_context(call.command, thread_id, context)
            words = context.get("stream", "")
            if words:
                sink = PartSink(self, thread_id, ONE_WAY) if "send" in words else None
                source = PartSource(self, thread_id, ONE_WAY, not self.is_agreed) if "receive" in words else None
                call.sink, call.source = sink, source
                self.opened[thread_id] = (sink, source)
        self.queue(thread_id, REQUEST, command, data)
        self.sent += OVERHEAD + len(command if command.isascii() else command.encode()) + len(data)
        self.calls[thread_id] = call
        return call

    def send_one_way(self, command: str, data: bytes, context: Optional[Dict[str, Any]] = None) -> Optional[PartSink]:
        """Sends a one-way, for which there is room. Returns the sender of its parts, if it has any."""
        if self.closed is not None:
            raise ConnectionClosed(command, f"not sent, {self.closed}")
        if self.reads_once:
            self._refuse_large(command, data)
        thread_id, sink = 0, None
        if context:
            self.last_id = thread_id = self.last_id + 1
            self._send_context(command, thread_id, context)
            if "stream" in context:
                sink = PartSink(self, thread_id, ONE_WAY)
                self.opened[thread_id] = (sink, None)
        self.queue(thread_id, ONE_WAY, command, data)
        self.sent += OVERHEAD + len(command if command.isascii() else command.encode()) + len(data)
        return sink

    def _refuse_large(self, command: str, data: bytes) -> None:
        problem = self.check_size(command, data)
        if problem is not None:
            raise CallError(command, f"not sent: {problem}")

    def _send_context(self, command: str, thread_id: int, context: Dict[str, Any]) -> None:
        if not self.has("context"):
            if "stream" in context:
                raise Unsupported(command, "the other side has no streams")
            return
        if not self.has("stream") and "stream" in context:
            raise Unsupported(command, "the other side has no streams")
        if not self.has("progress"):
            context.pop("progress", None)
        encoded = nego.compact(context)
        if len(encoded) > nego.CONTEXT_LIMIT:
            raise CallError(
                command,
                f"its context has {len(encoded)} bytes, the limit is {nego.CONTEXT_LIMIT}:"
                " give fewer or shorter values",
            )
        self.queue(thread_id, ONE_WAY, "cmd.context", encoded)

    def cancel(self, call: Call) -> None:
        """Ends a call that its own side no longer wants."""
        self.give_up(call, CallCancelled(call.command, "given up by the caller"))

    def expire(self, call: Call) -> None:
        """Ends a call at its deadline."""
        self.give_up(call, CallTimeout(call.command, "no reply within its time"))

    def give_up(self, call: Call, error: CallError) -> None:
        """Ends a call without its reply, and tells the other side."""
        if call.done:
            return
        self.calls.pop(call.thread_id, None)
        if self.closed is None and self.has("cancel"):
            self.queue(call.thread_id, ONE_WAY, "cmd.cancel", b"")
        self._complete(call, error)

    # Answers.

    def respond(self, request: Incoming, data: bytes) -> None:
        """Answers a request with its result."""
        if request.answered:
            return
        if self.reads_once and not request.is_one_way:
            problem = self.check_size(request.command, data)
            if problem is not None:
                self.respond_error(request, "too_large", problem, None)
                return
        if request.sink is None and request.source is None and request.late_report is None:
            # Most requests.
            request.answered = True
            if request.is_one_way:
                self.one_ways.pop(id(request), None)
                return
            self.requests.pop(request.thread_id, None)
            if self.closed is None:
                self.queue(request.thread_id, RESPONSE, request.command, data)
            return
        self._before_answer(request)
        if not request.is_one_way and self.closed is None:
            self.queue(request.thread_id, RESPONSE, request.command, data)

    def respond_error(self, request: Incoming, code: Optional[str], message: str, data: Any) -> None:
        """Answers a request with an error."""
        if request.answered:
            return
        self._before_answer(request)
        if not request.is_one_way and self.closed is None:
            self._send_error(request.thread_id, code, message, data)

    def _before_answer(self, request: Incoming) -> None:
        request.answered = True
        if request.is_one_way:
            self.one_ways.pop(id(request), None)
        else:
            self.requests.pop(request.thread_id, None)
        if request.late_report is not None:
            self.queue(
                request.thread_id,
                RESPONSE,
                "cmd.progress",
                nego.encode_progress(request.late_report),
            )
        source, sink = request.source, request.sink
        if source is None and sink is None:
            return
        if source is not None and not source.was_asked and not source.has_ended:
            source.refuse("the handler takes no parts")
        if not request.is_one_way:
            self.accepted.pop(request.thread_id, None)
            if sink is not None:
                sink.end(None)
            if source is not None:
                source.end("the request was answered")
        elif source is not None and not source.has_ended:
            source.refuse("the handler has ended")
            self.accepted.pop(request.thread_id, None)

    def _send_error(self, thread_id: int, code: Optional[str], message: str, data: Any) -> None:
        if code is not None and self.has("failure"):
            self.queue(thread_id, RESPONSE, "cmd.failure", nego.encode_failure(code, message, data))
        else:
            encoded = message.encode(errors="replace")
            self.queue(thread_id, RESPONSE, "cmd.error", encoded[: 1 << 20])

    def report(self, request: Incoming, report: nego.Progress) -> bool:
        """Takes a report of progress. Tells whether something is to be written."""
        if not request.wants_progress or request.answered:
            return False
        now = time.monotonic()
        if now - request.last_report < 0.05 or self.out_size >= self.options.outgoing:
            request.late_report = report
            return False
        request.last_report, request.late_report = now, None
        self.queue(request.thread_id, RESPONSE, "cmd.progress", nego.encode_progress(report))
        return True

    def _complete(self, call: Call, error: Optional[CallError]) -> None:
        call.error = error
        call.done = True
        if self.opened and self.opened.pop(call.thread_id, None) is not None:
            if call.sink is not None:
                call.sink.end("the call has ended" if error is None else str(error))
            if call.source is not None:
                call.source.end(None if error is None else str(error), error)
        call.notify()

    def warn(self, message: str) -> None:
        """Logs what a peer can cause without limit: the 1st, 2nd, 4th, 8th, … time."""
        times = self._warned[message] = self._warned.get(message, 0) + 1
        if len(self._warned) > 256:
            self._warned.clear()
        if times & (times - 1) == 0:
            # Not here: a handler of the log may send, which takes the lock.
            self.later.append(lambda: _warn(message, times))
