"""What a driver does by threads and in an event loop alike: handlers, what is held back, and the end."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Callable, List, Optional, Tuple

from ._chunks import BrokenStream
from ._errors import Failure
from ._handlers import CURRENT, ErrorAnswer, Handler, Handlers, check_start, encode_result, prepare_error
from ._parts import Waitable
from ._pipe import Pipe
from ._pool import Pool
from ._sending import Incoming
from ._session import Session

_monotonic = time.monotonic


class DriverBase:
    """Moves the bytes of a connection, and runs its handlers. Subclasses say how a thread or task waits."""

    #: Seconds that the handlers of a plugin have to end.
    grace = 5.0

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        self.session, self.pipe, self.handlers = session, pipe, handlers
        self.lock = session.lock
        session.largest_write = pipe.largest_write
        self._is_writing = False
        self._pool = Pool(session.options.handlers)
        #: Requests that came before the plugin was ready; None once it is.
        self.held: Optional[List[Incoming]] = None
        #: Call-backs to run once the lock is free.
        self.later = session.later
        self.is_guest = not session.is_host
        self.is_finished = False
        self.end_at: Optional[float] = None
        self.end_reason: Optional[str] = None
        self.exit_status: Optional[int] = None
        #: Says in other words why the connection has ended.
        self.on_end: Callable[[str], str] = lambda reason: reason
        #: Runs when the input of a plugin ends.
        self.on_close: Callable[[], None] = lambda: None
        #: Runs when the grace time is over, and handlers still run.
        self.on_late: Callable[[], None] = lambda: None

    # Of subclasses.

    def flush(self, leads_next: bool = False) -> None:
        """Writes what is queued, as far as the pipe takes it."""
        raise NotImplementedError

    def block(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until the state of a target is right. Returns false at the deadline."""
        raise NotImplementedError

    def finish(self) -> None:
        """Ends the connection."""
        raise NotImplementedError

    def _end(self, reason: str, may_answer: bool) -> None:
        """Ends the connection; answers may still be written if the input has ended between chunks."""
        raise NotImplementedError

    def _hand_over(self, request: Incoming, handler: Optional[Handler] = None) -> None:
        """Has a request handled. The caller holds the lock."""
        raise NotImplementedError

    def _has_run(self) -> None:
        """Takes notice that a handler has ended."""
        raise NotImplementedError

    def _at_home(self, function: Callable[[], Any]) -> None:
        """Calls a function where the state of the connection may be changed."""
        function()

    # Reading and writing.

    def _feed(self, data: bytes) -> Optional[str]:
        """Decodes bytes, or the end of the stream if there are none. Returns why nothing comes any more."""
        decoder = self.session.decoder
        try:
            if data:
                decoder.feed(data)
                return None
            decoder.end()
            return "the other side closed the pipe"
        except BrokenStream as error:
            return f"the other side broke the protocol: {error}"

    def _write(self) -> bool:
        """Writes as much as the pipe takes, and wakes what waits for room. The caller holds the lock."""
        session = self.session
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
        return all_written

    def _end_if_unread(self) -> None:
        """Ends a connection whose other side does not read its answers."""
        size, limit = self.session.out_size, self.session.options.unread
        if size > limit:
            reason = f"the other side does not read: {size} bytes of answers wait for it, the limit is {limit}"
            self._end(reason, False)

    def _is_full(self) -> bool:
        """Tells whether a peer that knows no flow is to be held back by the pipe."""
        session = self.session
        return (
            session.waiting > session.options.window
            and not session.calls
            and not session.opened
            and not session.accepted
        )

    def _run_later(self) -> None:
        """Calls what had to wait for the lock to be free."""
        while self.later:
            try:
                call = self.later.popleft()
            except IndexError:
                # Another thread has it.
                return
            call()

    # Handlers.

    def _find(self, request: Incoming) -> Optional[Handler]:
        """Returns the handler of a request; None if the request is held back, or is answered with an error."""
        if self.held is not None and request.command != "GetMetadata":
            self.held.append(request)
            self.session.waiting += request.weight
            return None
        handler = self.handlers.find(request.command)
        if handler is None:
            self._refuse(request, self.handlers.unknown(request.command))
        return handler

    def _refuse(self, request: Incoming, error: Failure) -> None:
        """Answers a request that no handler has. The caller holds the lock."""
        self.session.take(request.weight)
        if request.is_one_way:
            self.later.append(lambda: self.handlers.tell_failure(request, error))
        self._answer(request, b"", ErrorAnswer(error.code, error.message, error.data))

    def _run_in_pool(self, handler: Handler, request: Incoming) -> None:
        """Runs a handler on a thread of the pool."""
        session = self.session
        with self.lock:
            session.waiting -= request.weight
            session.take(request.weight)
        if session.out_size >= session.options.outgoing:
            self.block(session.room, session.has_room)
        self.run(handler, request)

    def run(self, handler: Handler, request: Incoming) -> None:
        """Runs a handler on a thread that is not the one that reads, and writes its answer."""
        data, error = self._execute(handler, request)
        with self.lock:
            self._answer(request, data, error)
        self.flush()
        self._has_run()

    def _execute(self, handler: Handler, request: Incoming) -> Tuple[bytes, Optional[ErrorAnswer]]:
        """Runs a handler. Returns its result, or the answer for its error. The caller does not hold the lock."""
        try:
            if request.deadline is None and request.values is None and not request.cancelled:
                result = handler.function(request)
            else:
                check_start(request)
                token = CURRENT.set(request)
                try:
                    result = handler.function(request)
                finally:
                    CURRENT.reset(token)
            return (result if type(result) is bytes else encode_result(request.command, result)), None
        except KeyboardInterrupt as error:
            if threading.current_thread() is threading.main_thread():
                # Ctrl-C.
                raise
            if self.is_guest:
                return b"", self._exits(128 + signal.SIGINT)
            return b"", prepare_error(request, error, self.handlers)
        except SystemExit as end:
            return b"", self._exits(end.code)
        except BaseException as error:
            return b"", prepare_error(request, error, self.handlers)

    def _exits(self, code: object) -> ErrorAnswer:
        """Ends the plugin with the status of an exit in a handler."""
        self.exit_status = int(code) if isinstance(code, int) else int(code is not None)
        self._at_home(self.finish)
        return ErrorAnswer("unanswered", "the plugin exits", None)

    def _answer(self, request: Incoming, data: bytes, error: Optional[ErrorAnswer]) -> None:
        """Queues the answer of a request. The caller holds the lock."""
        if error is None or request.is_one_way:
            self.session.respond(request, data)
        else:
            self.session.respond_error(request, *error)
        self.session.active -= 1

    def release_held(self) -> None:
        """Lets requests in that came before the plugin was ready."""
        with self.lock:
            held, self.held = self.held, None
            for request in held or ():
                self.session.waiting -= request.weight
                self._hand_over(request)
        self._run_later()
        self.flush()

    # The end.

    def _check_end(self) -> None:
        """Ends a plugin that has to end, once its handlers have, or the grace time is over."""
        session = self.session
        if self.is_finished or self.end_at is None:
            return
        is_over = _monotonic() >= self.end_at - 0.001
        if (session.active == 0 and not session.out) or is_over:
            if session.active and is_over:
                self.on_late()
            self.finish()

    def _close(self, *more: int) -> None:
        """Closes the descriptors, once nothing uses them."""
        self._pool.close()
        for descriptor in {self.pipe.reader, self.pipe.writer, *more}:
            try:
                os.close(descriptor)
            except OSError:
                pass
