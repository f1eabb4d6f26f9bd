"""Threads that wait, and threads that run handlers."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Callable, Deque, Optional, Set

log = logging.getLogger("pipeplug")


class Waiter:
    """A thread that sleeps."""

    __slots__ = ("is_woken", "lock", "turns")

    def __init__(self, turns: Optional[Turns] = None) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.is_woken = False
        self.turns = turns

    def wake(self) -> None:
        """Wakes it. The caller holds the session's lock."""
        if not self.is_woken:
            self.is_woken = True
            if self.turns is None:
                self.lock.release()
            else:
                self.turns.wake(self)


class Turns:
    """Threads that are woken, one after the other: all at once would only wait for the interpreter's lock."""

    __slots__ = ("due", "woken")

    def __init__(self) -> None:
        #: Those that were woken, and do not run yet.
        self.woken: Set[Waiter] = set()
        #: Those whose turn is still to come.
        self.due: Deque[Waiter] = deque()

    def wake(self, waiter: Waiter) -> None:
        """Wakes a thread, when those before it run."""
        if self.woken:
            self.due.append(waiter)
        else:
            waiter.lock.release()
        self.woken.add(waiter)

    def runs(self, waiter: Waiter) -> None:
        """Takes a thread out that runs, and wakes the next one."""
        woken, due = self.woken, self.due
        if waiter not in woken:
            return
        woken.discard(waiter)
        while due:
            following = due.popleft()
            if following in woken:
                following.lock.release()
                return


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
