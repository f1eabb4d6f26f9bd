"""The driver of a connection in an event loop of asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, List, Optional, Set

from ._codec import BrokenStream
from ._errors import Failure
from ._handlers import CURRENT, Handler, Handlers, answer_error, check_start, encode_result
from ._parts import Waitable
from ._pipe import Pipe
from ._pool import Pool, Waiter
from ._sending import Call, Incoming
from ._session import Session

log = logging.getLogger("pipeplug")
_monotonic = time.monotonic
#: Requests that may be handled by tasks at once.
TASKS = 65536


class LoopDriver:
    """Reads and writes in an event loop, and runs coroutines there. Other handlers run on threads."""

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        self.session, self.pipe, self.handlers = session, pipe, handlers
        self.lock = session.lock
        session.largest_write = pipe.largest_write
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._pool = Pool(session.options.handlers)
        self._tasks: Set[asyncio.Task[None]] = set()
        self.held: Optional[List[Incoming]] = None
        self.later: Deque[Callable[[], None]] = deque()
        self._is_writing = self._is_flush_due = self._waits_to_write = False
        self._reads = False
        self.is_finished = False
        self.done = asyncio.Event()
        self.end_at: Optional[float] = None
        self.end_reason: Optional[str] = None
        self.exit_status: Optional[int] = None
        self.is_guest = not session.is_host
        self.grace = 5.0
        self.on_end: Callable[[str], str] = lambda reason: reason
        self.on_close: Callable[[], None] = lambda: None
        self.on_late: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begins to read."""
        self._reads = True
        self.loop.add_reader(self.pipe.reader, self._readable)

    # Reading.

    def _readable(self) -> None:
        session = self.session
        data = self.pipe.read(session.decoder)
        if data is None and not session.decoder.events:
            return
        broken: Optional[str] = None
        try:
            if data is None:
                pass
            elif data:
                session.decoder.feed(data)
            else:
                session.decoder.end()
                broken = "the other side closed the pipe"
        except BrokenStream as error:
            broken = f"the other side broke the protocol: {error}"
        try:
            self._take_events()
        except Exception:
            log.exception("the connection ends by a fault of this library")
            broken = "this side failed"
        if broken is not None:
            self._end(broken, data == b"" and session.decoder.is_between)
            return
        if session.out:
            self._flush()
            if session.out_size > session.options.unread:
                self._end(
                    f"the other side does not read: {session.out_size} bytes of answers wait for it,"
                    f" the limit is {session.options.unread}",
                    False,
                )
        if self._is_full():
            self._pause()

    def _take_events(self) -> None:
        session = self.session
        events = session.decoder.events
        with self.lock:
            while events:
                request = session.receive(events.popleft())
                if request is not None:
                    self._hand_over(request)
        while self.later:
            self.later.popleft()()

    def _is_full(self) -> bool:
        session = self.session
        return (
            session.waiting > session.options.window
            and not session.calls
            and not session.opened
            and not session.accepted
        )

    def _pause(self) -> None:
        """Leaves the input to the pipe, for a peer that knows no flow."""
        if self._reads:
            self._reads = False
            self.loop.remove_reader(self.pipe.reader)
            self.loop.call_later(0.001, self._resume)

    def _resume(self) -> None:
        if self.is_finished or self.session.input_ended:
            return
        if self._is_full():
            self.loop.call_later(0.001, self._resume)
        else:
            self.start()

    # Handlers.

    def _hand_over(self, request: Incoming) -> None:
        """Has a request handled. The caller holds the lock, in the loop's thread."""
        session = self.session
        if self.held is not None and request.command != "GetMetadata":
            self.held.append(request)
            session.waiting += request.weight
            return
        handler = self.handlers.find(request.command)
        error: Optional[Failure] = None
        if handler is None:
            error = self.handlers.unknown(request.command)
        elif handler.is_async and len(self._tasks) >= TASKS:
            error = Failure("overloaded", f"{TASKS} requests are handled, which is the limit")
        if handler is None or error is not None:
            assert error is not None
            session.take(request.weight)
            answer_error(request, error, self.handlers)
            session.active -= 1
            return
        if handler.sequence is not None:
            session.waiting += request.weight
            handler.sequence.queue.append((handler, request))
            if not handler.sequence.is_running:
                handler.sequence.is_running = True
                self._spawn(self._run_sequence(handler))
        elif handler.is_async:
            session.take(request.weight)
            self._spawn(self._run_async(handler, request))
        else:
            session.waiting += request.weight
            found = handler
            self._pool.submit(lambda: self._run_in_pool(found, request))

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run_sequence(self, first: Handler) -> None:
        sequence = first.sequence
        assert sequence is not None
        while True:
            with self.lock:
                if not sequence.queue:
                    sequence.is_running = False
                    return
                handler, request = sequence.queue.popleft()
                self.session.waiting -= request.weight
                self.session.take(request.weight)
            if handler.is_async:
                await asyncio.wait([self._spawn(self._run_async(handler, request))])
            else:
                ended = asyncio.Event()

                def run(
                    handler: Handler = handler,
                    request: Incoming = request,
                    ended: asyncio.Event = ended,
                ) -> None:
                    try:
                        self.run(handler, request)
                    finally:
                        self._in_loop(ended.set)

                self._pool.submit(run)
                await ended.wait()

    async def _run_async(self, handler: Handler, request: Incoming) -> None:
        session = self.session
        error: Optional[BaseException] = None
        timer: Optional[asyncio.TimerHandle] = None
        data = b""
        task = asyncio.current_task()
        assert task is not None
        try:
            check_start(request)
            # Not before: a task that is cancelled before its first step would answer nothing.
            cancel = task.cancel
            request.add_waiter(lambda: self._in_loop(cancel))
            if request.deadline is not None or request.values is not None:
                CURRENT.set(request)
                if request.deadline is not None:
                    left = max(0.0, request.deadline - _monotonic())
                    timer = self.loop.call_later(left, task.cancel)
            result = await handler.function(request)
            data = result if type(result) is bytes else encode_result(request.command, result)
            if session.out_size >= session.options.outgoing:
                await self.wait(session.room, session.has_room)
        except asyncio.CancelledError:
            passed = request.deadline is not None and request.deadline <= _monotonic()
            error = Failure("deadline", "the deadline of the request has passed") if passed else Failure(
                "cancelled", "the caller has given the request up"
            )  # fmt: skip
        except Exception as found:
            error = found
        except SystemExit as end:
            self.exit_status = end.code if isinstance(end.code, int) else int(end.code is not None)
            self.finish()
        if timer is not None:
            timer.cancel()
        with self.lock:
            request.waiters = ()
            if error is not None:
                answer_error(request, error, self.handlers)
            else:
                session.respond(request, data)
            session.active -= 1
        self._flush_soon()
        if self.end_at is not None:
            self._check_end()

    def _run_in_pool(self, handler: Handler, request: Incoming) -> None:
        session = self.session
        with self.lock:
            session.waiting -= request.weight
            session.take(request.weight)
        if session.out_size >= session.options.outgoing:
            self.block(session.room, session.has_room)
        self.run(handler, request)

    def run(self, handler: Handler, request: Incoming) -> None:
        """Runs a function that is no coroutine, on a thread."""
        error: Optional[BaseException] = None
        data = b""
        token = CURRENT.set(request if request.deadline is not None or request.values is not None else None)
        try:
            check_start(request)
            data = encode_result(request.command, handler.function(request))
        except Exception as found:
            error = found
        except SystemExit as end:
            self.exit_status = end.code if isinstance(end.code, int) else int(end.code is not None)
            self._in_loop(self.finish)
        finally:
            CURRENT.reset(token)
        with self.lock:
            if error is not None:
                answer_error(request, error, self.handlers)
            else:
                self.session.respond(request, data)
            self.session.active -= 1
        self.flush()
        if self.end_at is not None:
            self._in_loop(self._check_end)

    def release_held(self) -> None:
        """Lets requests in that came before the plugin was ready."""
        with self.lock:
            held, self.held = self.held, None
            for request in held or ():
                self.session.waiting -= request.weight
                self._hand_over(request)
        self._flush()

    # Writing.

    def write_now(self) -> None:
        """Leaves it to `flush`."""

    def flush(self, leads_next: bool = False) -> None:
        """Writes what is queued, as far as the pipe takes it."""
        if threading.get_ident() != self._thread:
            if not self._is_flush_due:
                self._is_flush_due = True
                self._in_loop(self._flush)
        elif len(self.session.calls) <= 1:
            self._flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Writes once what is runnable now has run, so that many chunks are written together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        session = self.session
        if not session.out or self._waits_to_write or self._is_writing:
            return
        with self.lock:
            self._is_writing = True
            try:
                all_written = self.pipe.write(session)
            finally:
                self._is_writing = False
            if session.room.waiters and session.has_room():
                session.room.notify()
            if session.opened or session.accepted:
                for sink, _ in [*session.opened.values(), *session.accepted.values()]:
                    if sink is not None and sink.waiters and sink.may_send():
                        sink.notify()
        if self.pipe.error is not None:
            self._end(f"the other side no longer reads: {self.pipe.error}", False)
        elif not all_written:
            if self.pipe.waits_for_empty:
                self.loop.call_later(0.001, self._flush)
            else:
                self._waits_to_write = True
                self.loop.add_writer(self.pipe.writer, self._writable)
        elif self.end_at is not None:
            self._check_end()

    def _writable(self) -> None:
        self._waits_to_write = False
        self.loop.remove_writer(self.pipe.writer)
        self._flush()

    # Waiting.

    def _in_loop(self, function: Callable[[], Any]) -> None:
        """Calls a function in the loop's thread."""
        if threading.get_ident() == self._thread:
            function()
        else:
            try:
                self.loop.call_soon_threadsafe(function)
            except RuntimeError:
                # The loop has ended, and with it all that waits in it.
                pass

    async def wait(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until the state of a target is right. Returns false at the deadline."""
        while True:
            with self.lock:
                if is_ready():
                    return True
                if self.is_finished or (deadline is not None and deadline <= _monotonic()):
                    return False
                future = self.loop.create_future()

                def set_result(future: asyncio.Future[None] = future) -> None:
                    if not future.done():
                        future.set_result(None)

                def wake(set_result: Callable[[], None] = set_result) -> None:
                    self._in_loop(set_result)

                target.add_waiter(wake)
            timer = None
            if deadline is not None:
                timer = self.loop.call_later(max(0.0, deadline - _monotonic()), set_result)
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                target.remove_waiter(wake)

    async def wait_call_async(self, call: Call) -> None:
        """Waits for the reply of a call, until its deadline. A task that is cancelled gives the call up."""
        if call.done:
            return
        try:
            if await self.wait(call, lambda: call.done, call.deadline):
                return
        except asyncio.CancelledError:
            with self.lock:
                self.session.cancel(call)
            self._flush()
            raise
        self.expire(call)

    def expire(self, call: Optional[Call]) -> None:
        """Ends a call at its deadline; that of nothing has none, and the connection has ended."""
        if call is not None:
            with self.lock:
                self.session.expire(call)
            self._flush()

    def block(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits on a thread that is not the loop's."""
        if threading.get_ident() == self._thread:
            raise RuntimeError("this call blocks, and would block the event loop: use its awaited form")
        lock = self.lock
        with lock:
            while not is_ready():
                if self.is_finished or (deadline is not None and deadline <= _monotonic()):
                    return False
                waiter = Waiter()
                target.add_waiter(waiter.wake)
                lock.release()
                try:
                    # Not for ever: the end of the loop wakes no thread.
                    rest = 1.0 if deadline is None else min(1.0, deadline - _monotonic())
                    waiter.lock.acquire(timeout=max(0.0, rest))
                finally:
                    lock.acquire()
                    waiter.is_woken = True
                    target.remove_waiter(waiter.wake)
            return True

    def wait_call(self, call: Call) -> None:
        """Waits for the reply of a call on a thread that is not the loop's."""
        if not call.done and not self.block(call, lambda: call.done, call.deadline):
            with self.lock:
                self.session.expire(call)
            self.flush()

    def call_alone(self, command: str, data: bytes) -> Optional[Call]:
        """Leaves it to the usual way."""
        return None

    # The end.

    def stop_soon(self) -> None:
        """Ends once the open requests are answered, or the grace time is over."""
        if self.end_at is None:
            self.end_at = _monotonic() + self.grace
            self.loop.call_later(self.grace, self._check_end)
            self.loop.call_soon(self._check_end)

    def _end(self, reason: str, may_answer: bool) -> None:
        session = self.session
        if self.end_reason is None:
            self.end_reason = reason
        if self._reads:
            self._reads = False
            self.loop.remove_reader(self.pipe.reader)
        if not self.is_guest:
            # Its status tells why, and may take a moment.
            self._spawn(self._close(reason))
            return
        with self.lock:
            session.input_ended = True
            if may_answer and session.closed is None:
                session.end_input(reason)
            else:
                session.close(reason)
        if session.closed is not None:
            self._cut()
        self.on_close()
        self.stop_soon()

    async def _close(self, reason: str) -> None:
        reason = await asyncio.to_thread(self.on_end, reason)
        with self.lock:
            self.session.close(reason)
        self.finish()

    def _stop_writing(self) -> None:
        if self._waits_to_write:
            self._waits_to_write = False
            self.loop.remove_writer(self.pipe.writer)

    def cut_writer(self) -> None:
        """Ends the direction to the other side."""
        self._stop_writing()
        self.pipe.cut_writer()

    def _cut(self) -> None:
        self._stop_writing()
        self.pipe.cut()

    def _check_end(self) -> None:
        session = self.session
        if self.is_finished or self.end_at is None:
            return
        is_over = _monotonic() >= self.end_at - 0.001
        if (session.active == 0 and not session.out) or is_over:
            if session.active and is_over:
                self.on_late()
            self.finish()

    def finish(self) -> None:
        """Ends the connection."""
        if self.is_finished:
            return
        self.is_finished = True
        with self.lock:
            self.session.close(self.end_reason or "the connection was closed")
        if self._reads:
            self._reads = False
            self.loop.remove_reader(self.pipe.reader)
        self._stop_writing()
        for task in list(self._tasks):
            if task is not asyncio.current_task(self.loop):
                task.cancel()
        self.done.set()

    def dispose(self) -> None:
        """Closes the descriptors."""
        self.finish()
        self._pool.close()
        for descriptor in {self.pipe.reader, self.pipe.writer}:
            try:
                os.close(descriptor)
            except OSError:
                pass
