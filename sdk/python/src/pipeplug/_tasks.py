"""The run of handlers by tasks of an event loop, and the waits of such tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Callable, Optional, Set

from ._driver import DriverBase
from ._errors import Failure
from ._handlers import CURRENT, ErrorAnswer, Handler, Handlers, check_start, encode_result, prepare_error
from ._parts import Waitable
from ._pipe import Pipe
from ._pool import Waiter
from ._sending import Call, Incoming
from ._session import Session

_monotonic = time.monotonic
#: Requests that may be handled by tasks at once.
TASKS = 65536


class Tasks(DriverBase):
    """Runs coroutines in an event loop, and other handlers on threads."""

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        super().__init__(session, pipe, handlers)
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._tasks: Set[asyncio.Task[None]] = set()

    # Handlers.

    def _hand_over(self, request: Incoming, handler: Optional[Handler] = None) -> None:
        """Has a request handled. The caller holds the lock, in the loop's thread."""
        session = self.session
        handler = self._find(request)
        if handler is None:
            return
        if handler.is_async and len(self._tasks) >= TASKS:
            self._refuse(request, Failure("overloaded", f"{TASKS} requests are handled, which is the limit"))
        elif handler.sequence is not None:
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
        task: asyncio.Task[None]
        if self.loop.get_task_factory() is None:
            task = self.loop.create_task(coroutine)
        else:
            # An eager one would run the handler here, under the lock.
            task = asyncio.Task(coroutine, loop=self.loop)
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
                        self._at_home(ended.set)

                self._pool.submit(run)
                await ended.wait()

    async def _run_async(self, handler: Handler, request: Incoming) -> None:
        session = self.session
        error: Optional[ErrorAnswer] = None
        timer: Optional[asyncio.TimerHandle] = None
        data = b""
        task = asyncio.current_task()
        assert task is not None
        try:
            check_start(request)
            # Not before: a task that is cancelled before its first step would answer nothing.
            cancel = task.cancel
            with self.lock:
                request.add_waiter(lambda: self._at_home(cancel))
            if request.deadline is not None or request.values is not None:
                CURRENT.set(request)
                if request.deadline is not None:
                    left = max(0.0, request.deadline - _monotonic())
                    timer = self.loop.call_later(left, task.cancel)
            result = await handler.function(request)
            data = result if type(result) is bytes else encode_result(request.command, result)
            if session.out_size >= session.options.outgoing:
                await self.wait(session.room, session.has_room)
        except asyncio.CancelledError as found:
            if request.deadline is not None and request.deadline <= _monotonic():
                error = ErrorAnswer("deadline", "the deadline of the request has passed", None)
            elif request.cancelled:
                error = ErrorAnswer("cancelled", "the caller has given the request up", None)
            else:
                # Of the coroutine's own making.
                error = prepare_error(request, found, self.handlers)
        except KeyboardInterrupt:
            raise
        except SystemExit as end:
            error = self._exits(end.code)
        except BaseException as found:
            if isinstance(found, GeneratorExit) and (self.is_finished or self.loop.is_closed()):
                # The loop has left the task behind.
                raise
            error = prepare_error(request, found, self.handlers)
        if timer is not None:
            timer.cancel()
        with self.lock:
            request.waiters = ()
            self._answer(request, data, error)
        self._flush_soon()
        self._check_end()

    def _has_run(self) -> None:
        if self.end_at is not None:
            self._at_home(self._check_end)

    # Of the subclass.

    def _flush(self) -> None:
        """Writes now, in the loop's thread."""
        raise NotImplementedError

    def _flush_soon(self) -> None:
        """Writes once what is runnable now has run, so that many chunks are written together."""
        raise NotImplementedError

    # Waiting.

    def _at_home(self, function: Callable[[], Any]) -> None:
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
                    self._at_home(set_result)

                target.add_waiter(wake)
            timer = None
            if deadline is not None:
                timer = self.loop.call_later(max(0.0, deadline - _monotonic()), set_result)
            try:
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                with self.lock:
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
