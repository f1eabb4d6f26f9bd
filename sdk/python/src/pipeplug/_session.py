"""The state of a connection, without descriptors, threads and clocks.

A driver (`_threads`, `_loop`) reads, writes and waits. It holds `lock` when it calls a method here, unless the
method says otherwise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Mapping, Optional, Protocol, Tuple, Union

from . import _negotiation as nego
from ._codec import CLASSIC, LARGE, ONE_WAY, REQUEST, RESPONSE, Chunk, Decoder, Encoder, Skipped
from ._errors import CallError, CallFailed, ConnectionClosed, Unsupported
from ._options import Options
from ._parts import PartSink, PartSource, Waitable

log = logging.getLogger("pipeplug")

#: Weight of a chunk besides its command and buffer.
OVERHEAD = 64
_ERROR_LIMIT = 64 << 10
_ABOUT_CALLS = ("cmd.progress", "cmd.part", "cmd.part.credit", "cmd.enough")
_INSTEAD = {
    "cmd.ping": "ping()",
    "cmd.stop": "stop()",
    "cmd.cancel": "cancel() of a call",
    "cmd.log_level": "set_log_level()",
    "cmd.part": "stream()",
    "cmd.progress": "progress() of a request",
}


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

    def wait_call(self, call: Call, deadline: Optional[float]) -> None:
        """Waits for the reply of a call."""

    def call_alone(self, command: str, data: bytes) -> Optional[Call]:
        """Makes a call while nothing else is open. None if it takes the usual way."""


class Call(Waitable):
    """A request of this side."""

    done = False
    reply = b""
    error: Optional[CallError] = None
    on_progress: Optional[Callable[[nego.Progress], None]] = None
    sink: Optional[PartSink] = None
    source: Optional[PartSource] = None

    def __init__(self, session: Session, thread_id: int, command: str) -> None:
        self.session, self.thread_id, self.command = session, thread_id, command

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

    def __init__(self, session: Session, thread_id: int, command: str, data: bytes, is_one_way: bool) -> None:
        self.session, self.thread_id = session, thread_id
        self.command, self.data, self.is_one_way = command, data, is_one_way

    def lose_caller(self) -> None:
        """Tells a handler that looks that nothing comes any more. Its answer may still be read."""
        self.cancelled = True
        self.notify()


class Session:
    """One connection's state."""

    incoming: Callable[[Session, int, str, bytes, bool], Incoming] = Incoming

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
        self.on_stop: Callable[[], None] = _nothing
        self.on_log_level: Callable[[str], None] = _ignore
        self._context: Optional[Tuple[int, nego.Context]] = None
        self.unasked = 0
        self._warned: Dict[str, int] = {}

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
        if command.startswith("cmd."):
            instead = _INSTEAD.get(command)
            use = f": use {instead}" if instead else ""
            raise CallError(command, f"commands that begin with `cmd.` belong to the protocol{use}")

    def open_call(self, command: str, data: bytes, context: Optional[Dict[str, Any]] = None) -> Call:
        """Sends a request, for which there is room."""
        if self.closed is not None:
            raise ConnectionClosed(command, f"not sent, {self.closed}")
        self.last_id = thread_id = self.last_id + 1
        call = Call(self, thread_id, command)
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

    # What is received.

    def receive(self, event: Union[Chunk, Skipped]) -> Optional[Incoming]:
        """Takes a chunk. Returns the request or one-way that a handler is to have."""
        if isinstance(event, Skipped):
            self._context = None
            self._skipped(event)
            return None
        thread_id, direction, command, data = event
        context = None
        if self._context is not None:
            if self._context[0] == thread_id and direction != RESPONSE:
                context = self._context[1]
            self._context = None
        if direction == RESPONSE:
            if command in _ABOUT_CALLS:
                self._about_call(thread_id, command, data)
                return None
            call = self.calls.pop(thread_id, None)
            if call is None:
                self.unasked += 1
            elif command == "cmd.error" or command == "cmd.failure":
                self._complete(call, _failed(call.command, command, data))
            elif call.source is not None or call.sink is not None:
                call.reply = data
                self._complete(call, None)
            else:
                call.reply = data
                call.done = True
                if call.waiters:
                    call.notify()
            return None
        self.was_spoken_to = True
        if command.startswith("cmd."):
            if direction == ONE_WAY:
                self._notice(thread_id, command, data)
            elif command == "cmd.ping":
                self.queue(thread_id, RESPONSE, "cmd.ping", b"")
            else:
                self._send_error(thread_id, "unknown_command", f"unknown command {command!r}", None)
            return None
        is_one_way = direction == ONE_WAY
        request = self.incoming(self, thread_id, command, data, is_one_way)
        size = len(command) if command.isascii() else len(command.encode())
        request.weight = OVERHEAD + size + len(data)
        if context is not None and not self._take_context(request, context):
            self.take(request.weight)
            return None
        if self.waiting > self.options.overrun:
            self.take(request.weight)
            request.answered = True
            if is_one_way:
                self.warn(f"one-way {command!r} was dropped: too much waits for a handler")
            else:
                self._send_error(
                    thread_id,
                    "overloaded",
                    f"{self.waiting} bytes of requests wait, the limit is {self.options.overrun}",
                    None,
                )
            return None
        if is_one_way:
            self.one_ways[id(request)] = request
        else:
            self.requests[thread_id] = request
        self.active += 1
        return request

    def take(self, weight: int) -> None:
        """Counts what went to a handler, and gives credit for it."""
        self.taken += weight
        if (self.taken - self.credit_sent) * 2 >= self.options.window and self.has("flow"):
            self.credit_sent = self.taken
            self.queue(0, ONE_WAY, "cmd.credit", b"%d" % self.taken)

    def _take_context(self, request: Incoming, context: nego.Context) -> bool:
        if context.deadline_ms is not None:
            # A deadline past this is none.
            request.deadline = time.monotonic() + min(context.deadline_ms, 1 << 40) / 1000
        if context.values:
            request.values = context.values
        if context.progress and self.takes("progress") and not request.is_one_way:
            request.wants_progress = True
        if (context.sends or context.receives) and self.takes("stream"):
            if len(self.accepted) >= self.options.streams:
                message = f"{len(self.accepted)} streams are open, which is the limit"
                if request.is_one_way:
                    self.queue(request.thread_id, RESPONSE, "cmd.enough", message.encode())
                else:
                    self._send_error(request.thread_id, "overloaded", message, None)
                return False
            if context.sends:
                request.source = PartSource(self, request.thread_id, RESPONSE, False)
            if context.receives and not request.is_one_way:
                request.sink = PartSink(self, request.thread_id, RESPONSE)
            self.accepted[request.thread_id] = (request.sink, request.source)
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

    def _about_call(self, thread_id: int, command: str, data: bytes) -> None:
        if command == "cmd.progress":
            call = self.calls.get(thread_id)
            report = nego.parse_progress(data)
            if report is None:
                self.warn("a report of progress that is none was ignored")
            elif call is not None and call.on_progress is not None:
                call.on_progress(report)
            return
        sink, source = self.opened.get(thread_id, (None, None))
        self._about_stream(thread_id, command, data, sink, source)

    def _about_stream(
        self,
        thread_id: int,
        command: str,
        data: bytes,
        sink: Optional[PartSink],
        source: Optional[PartSource],
    ) -> None:
        if command == "cmd.part":
            if source is not None:
                source.put(data)
        elif command == "cmd.end":
            if source is not None:
                source.end(data.decode(errors="replace") if data else None)
                request = self.requests.get(thread_id)
                if request is None:
                    self.accepted.pop(thread_id, None)
        elif command == "cmd.enough":
            if sink is not None:
                sink.refused(data.decode(errors="replace"))
        elif sink is not None:
            total = nego.number(data.decode(errors="replace"))
            if total is None or total > sink.sent or total < sink.credited:
                self.warn("an impossible credit of a stream was ignored")
            else:
                sink.credited = total
                sink.notify()

    def _notice(self, thread_id: int, command: str, data: bytes) -> None:
        if command in ("cmd.part", "cmd.end", "cmd.enough", "cmd.part.credit"):
            sink, source = self.accepted.get(thread_id, (None, None))
            self._about_stream(thread_id, command, data, sink, source)
        elif command == "cmd.credit":
            total = nego.number(data.decode(errors="replace"))
            if total is None or total > self.sent or total < self.credited:
                self.warn("an impossible credit was ignored")
            else:
                self.credited = total
                self.room.notify()
        elif command == "cmd.context":
            context = nego.parse_context(data) if self.takes("context") else None
            if context is None:
                self.warn("a context that is none, or was not agreed on, was ignored")
            else:
                self._context = (thread_id, context)
        elif command == "cmd.cancel":
            request = self.requests.get(thread_id)
            if request is not None and self.takes("cancel"):
                self._cancel(request)
        elif command == "cmd.log_level":
            self.on_log_level(data.decode(errors="replace"))
        elif command == "cmd.stop" and not self.is_host and not self.is_stopping:
            self.is_stopping = True
            self.on_stop()

    def _cancel(self, request: Incoming) -> None:
        request.cancelled = True
        if self.accepted.pop(request.thread_id, None) is not None:
            if request.sink is not None:
                request.sink.end("the caller has given the call up")
            if request.source is not None:
                request.source.end("the caller has given the call up")
        request.notify()

    def _skipped(self, event: Skipped) -> None:
        direction = event.direction
        if direction not in (ONE_WAY, REQUEST, RESPONSE):
            return
        length, what = event.buffer_len, "buffer"
        if event.reason == "command-too-long":
            length, what = event.command_len, "command"
        message = f"the {what} is {length} bytes long, the limit is {event.limit}"
        if direction == RESPONSE or event.command in ("cmd.part", "cmd.end"):
            streams = self.opened if direction == RESPONSE else self.accepted
            source = streams.get(event.thread_id, (None, None))[1]
            if event.command == "cmd.part" and source is not None:
                source.end(f"a part was skipped: {message}")
            elif direction == RESPONSE and event.command not in _ABOUT_CALLS:
                call = self.calls.pop(event.thread_id, None)
                if call is not None:
                    self._complete(call, CallFailed(call.command, f"the reply was skipped: {message}"))
            return
        self.was_spoken_to = True
        if not event.is_reserved:
            self.take(OVERHEAD + event.command_len + event.buffer_len)
        if direction == REQUEST:
            self._send_error(event.thread_id, "too_large", message, None)
        else:
            self.warn(f"a one-way was skipped: {message}")

    # The exchange of metadata.

    def offer(self, extra: Mapping[str, str]) -> Dict[str, str]:
        """Returns what this side says of itself."""
        features = " ".join(nego.FEATURES)
        more = extra.get("pipeplug.features")
        offer = {
            "pipeplug.protocol": "1",
            "pipeplug.features": f"{features} {more}" if more else features,
            "pipeplug.window": str(self.options.window),
            "pipeplug.stream_window": str(self.options.stream_window),
        }
        offer.update((key, value) for key, value in extra.items() if key not in offer)
        return offer

    def hear(self, metadata: Mapping[str, str]) -> None:
        """Takes the features that the other side has named."""
        self.features = frozenset(metadata.get("pipeplug.features", "").split())
        self.peer_stream_window = nego.window(metadata.get("pipeplug.stream_window"), nego.DEFAULT_STREAM_WINDOW)

    def agree(self, metadata: Mapping[str, str]) -> None:
        """Begins to wait for credit, as both sides have now said what they speak."""
        self.is_agreed = True
        if self.has("flow"):
            self.peer_window = nego.window(metadata.get("pipeplug.window"), nego.DEFAULT_WINDOW)
        self.take(0)

    # The end.

    def end_input(self, reason: str) -> None:
        """Ends all that waits for something from the other side."""
        self.input_ended = True
        self._fail_calls(reason)
        for request in [*self.requests.values(), *self.one_ways.values()]:
            request.lose_caller()

    def close(self, reason: str) -> None:
        """Ends the connection."""
        if self.closed is None:
            self.closed = reason
            self.out.clear()
            self.out_size = 0
        self._fail_calls(reason)
        for request in [*self.requests.values(), *self.one_ways.values()]:
            self._cancel(request)

    def _fail_calls(self, reason: str) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            self._complete(call, ConnectionClosed(call.command, f"no reply, {reason}"))
        for sink, source in [*self.opened.values(), *self.accepted.values()]:
            if sink is not None:
                sink.end(reason)
            if source is not None and not source.has_ended:
                source.end(reason)
        self.opened.clear()
        self.room.notify()

    def warn(self, message: str) -> None:
        """Logs what a peer can cause without limit: the 1st, 2nd, 4th, 8th, … time."""
        times = self._warned[message] = self._warned.get(message, 0) + 1
        if len(self._warned) > 256:
            self._warned.clear()
        if times & (times - 1) == 0:
            log.warning("%s (%d times)", message, times)


def _failed(command: str, answer: str, data: bytes) -> CallError:
    if answer == "cmd.failure" and len(data) <= nego.FAILURE_LIMIT:
        found = nego.parse_object(data)
        if found is not None:
            code, message = found.get("code", ""), found.get("message")
            if isinstance(code, str) and isinstance(message, str):
                return CallFailed(command, message, code or None, found.get("data"))
    text = data[:_ERROR_LIMIT].decode(errors="replace")
    if len(data) > _ERROR_LIMIT:
        text = f"{text[:200]}… ({len(data)} bytes in all)"
    return CallFailed(command, text)


def _nothing() -> None:
    pass


def _ignore(_: str) -> None:
    pass
