"""The state of a connection, without descriptors, threads and clocks.

A driver (`_threads`, `_loop`) reads, writes and waits. It holds `lock` when it calls a method here, unless the
method says otherwise.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, Mapping, Optional, Union

from . import _negotiation as nego
from ._chunks import CLASSIC, ONE_WAY, REQUEST, RESPONSE, Chunk, Skipped
from ._errors import CallError, CallFailed, CallTimeout, ConnectionClosed
from ._parts import PartSink, PartSource
from ._sending import OVERHEAD, Call, Incoming, Sending

_ERROR_LIMIT = 64 << 10
_ABOUT_CALLS = ("cmd.progress", "cmd.part", "cmd.part.credit", "cmd.enough")


class Session(Sending):
    """One connection's state."""

    incoming: Callable[[Session, int, str, bytes, bool], Incoming] = Incoming

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
            elif call.deadline is not None and call.is_late():
                self._too_late(call)
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

    def _about_call(self, thread_id: int, command: str, data: bytes) -> None:
        call = self.calls.get(thread_id)
        if call is not None and call.is_late():
            # Its end is that of its deadline, which the thread that waits for it finds.
            return
        if command == "cmd.progress":
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
                if call is not None and call.is_late():
                    self._too_late(call)
                elif call is not None:
                    self._complete(call, CallFailed(call.command, f"the reply was skipped: {message}"))
            return
        self.was_spoken_to = True
        if not event.is_reserved:
            self.take(OVERHEAD + event.command_len + event.buffer_len)
        if direction == REQUEST:
            self._send_error(event.thread_id, "too_large", message, None)
        else:
            self.warn(f"a one-way was skipped: {message}")

    def _too_late(self, call: Call) -> None:
        """Ends a call whose reply came past its deadline, before a thread has given it up."""
        self.unasked += 1
        self._complete(call, CallTimeout(call.command, "no reply within its time"))

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
        self.reads_once = self.decoder.format == CLASSIC and "pipeplug.protocol" not in metadata
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
