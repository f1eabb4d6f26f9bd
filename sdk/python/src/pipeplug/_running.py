"""The run of handlers by threads of the pool."""

from __future__ import annotations

from typing import Optional

from ._handlers import Handler
from ._sending import Incoming
from ._writing import Writing

#: Seconds after which a handler counts as slow.
SLOW = 0.001


class Running(Writing):
    """Runs handlers."""

    def _hand_over(self, request: Incoming, handler: Optional[Handler] = None) -> None:
        """Gives a request to the pool. The caller holds the lock."""
        if handler is None or self.held is not None:
            handler = self._find(request)
            if handler is None:
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

    def _has_run(self) -> None:
        if self.end_at is not None or self.session.waiting:
            self.wake()
