"""The run of handlers, on the pool and on the thread that reads."""

from __future__ import annotations

import time
from typing import Callable, Optional, Tuple

from ._errors import Failure
from ._handlers import CURRENT, Handler, answer_error, check_start, encode_result
from ._parts import Waitable
from ._sending import Incoming
from ._writing import Writing

#: Seconds after which a handler counts as slow.
SLOW = 0.001

_monotonic = time.monotonic
_now = time.perf_counter


class Running(Writing):
    """Runs handlers."""

    def _hand_over(self, request: Incoming, handler: Optional[Handler]) -> None:
        """Gives a request to the pool. The caller holds the lock."""
        if self.held is not None and request.command != "GetMetadata":
            self.held.append(request)
            self.session.waiting += request.weight
            return
        if handler is None:
            handler = self.handlers.find(request.command)
        if handler is None:
            self.session.take(request.weight)
            answer_error(request, self.handlers.unknown(request.command), self.handlers)
            self._ended()
            return
        if handler.slow_for:
            handler.slow_for -= 1
        found = handler
        self.session.waiting += request.weight
        sequence = handler.sequence
        if sequence is not None:
            sequence.queue.append((handler, request))
            if sequence.is_running:
                return
            sequence.is_running = True

            def run_sequence() -> None:
                while True:
                    with self.lock:
                        if not sequence.queue:
                            sequence.is_running = False
                            return
                        next_handler, next_request = sequence.queue.popleft()
                    self._run_in_pool(next_handler, next_request)

            self._pool.submit(run_sequence)
        else:
            self._pool.submit(lambda: self._run_in_pool(found, request))

    def _run_in_pool(self, handler: Handler, request: Incoming) -> None:
        session = self.session
        with self.lock:
            session.waiting -= request.weight
            session.take(request.weight)
        if session.out_size >= session.options.outgoing:
            self.block(session.room, session.has_room)
        self.run(handler, request)
        self.flush()
        if self.end_at is not None or session.waiting:
            self.wake()

    def run(self, handler: Handler, request: Incoming) -> None:
        """Runs a handler, and queues its answer."""
        data, error = self._execute(handler, request)
        with self.lock:
            self._answer(request, data, error)

    def _execute(self, handler: Handler, request: Incoming) -> Tuple[bytes, Optional[BaseException]]:
        """Runs a handler. Returns its result, or its error."""
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
        except Exception as error:
            return b"", error
        except SystemExit as end:
            self._exits(end)
            return b"", Failure("unanswered", "the plugin exits")

    def _exits(self, end: SystemExit) -> None:
        """Ends the plugin with the status of an exit in a handler."""
        self.exit_status = end.code if isinstance(end.code, int) else int(end.code is not None)
        self.finish()

    def _answer(self, request: Incoming, data: bytes, error: Optional[BaseException]) -> None:
        """Queues the answer of a request. The caller holds the lock."""
        if error is None:
            self.session.respond(request, data)
        else:
            answer_error(request, error, self.handlers)
        self.session.active -= 1

    def _ended(self) -> None:
        self.session.active -= 1

    def release_held(self) -> None:
        """Lets requests in that came before the plugin was ready."""
        with self.lock:
            held, self.held = self.held, None
            for request in held or ():
                self.session.waiting -= request.weight
                self._hand_over(request, None)
        self.flush()

    def block(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until the state of a target is right. Returns false at the deadline."""
        raise NotImplementedError
