"""Threads that wait, and threads that run handlers."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable, Deque, Optional, Set

log = logging.getLogger("pipeplug")


class Waiter:
    """A thread that sleeps."""

    __slots__ = ("is_woken", "lock", "woken")

    def __init__(self, woken: Optional[Set[Waiter]] = None) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.is_woken = False
        self.woken = woken

    def wake(self) -> None:
        """Wakes it. The caller holds the session's lock."""
        if not self.is_woken:
            self.is_woken = True
            if self.woken is not None:
                self.woken.add(self)
            self.lock.release()


class Pool:
    """Threads that run handlers."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count, self._idle = limit, 0, 0
        self._jobs: Deque[Optional[Callable[[], None]]] = deque()
        self._condition = threading.Condition(threading.Lock())
        self._is_closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Runs a job on an idle thread, a new one, or later."""
        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
                return
            if self._count >= self._limit:
                return
            self._count += 1
        threading.Thread(target=self._work, name="pipeplug-handler", daemon=True).start()

    def _work(self) -> None:
        condition = self._condition
        while True:
            with condition:
                while not self._jobs:
                    if self._is_closed:
                        self._count -= 1
                        return
                    self._idle += 1
                    condition.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            assert job is not None
            try:
                job()
            except Exception:
                log.exception("a handler's thread failed")

    def close(self) -> None:
        """Ends the threads that are idle."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
