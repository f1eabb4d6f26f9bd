"""The driver of a connection by threads.

One thread at a time *leads*: it reads, and completes what others wait for. A thread that waits for a reply leads
if no other does, so that a call needs no hand-over between threads. While a plugin serves, its main thread leads
and runs handlers itself; a second thread *watches*, and leads in its place if a handler takes long.
"""

from __future__ import annotations

import logging
import threading

from ._leading import Leading
from ._writing import Term

log = logging.getLogger("pipeplug")

#: Time after which another thread reads in the place of one whose handler has not returned.
TICK = 0.005
#: Ticks without a handler after which the watching thread sleeps until it is woken.
QUIET = 20


class ThreadDriver(Leading):
    """Reads, writes and runs handlers by threads."""

    # Threads that serve.

    def start(self) -> None:
        """Begins to read on a thread of its own."""
        self._spawn()

    def _spawn(self) -> None:
        self._is_spawning = True
        thread = threading.Thread(target=self.loop, name="pipeplug", daemon=True)
        self._threads.append(thread)
        thread.start()

    def loop(self) -> None:
        """Leads or watches, until the end or until there are others for both."""
        lock = self.lock
        self._is_spawning = was_taken = False
        while True:
            lock.acquire()
            if self.is_finished:
                lock.release()
                return
            if self.leader is None and not (was_taken and not self._has_watcher):
                me = self.leader = Term(self, not self.is_guest)
                lock.release()
                was_taken = True
                try:
                    self._serve(me)
                except Exception:
                    log.exception("the connection ends by a fault of this library")
                    self._end("this side failed", False)
                finally:
                    with lock:
                        if self.leader is me:
                            self.leader = None
            elif not self._has_watcher:
                self._has_watcher = True
                lock.release()
                self._watch()
                was_taken = False
            else:
                lock.release()
                return

    def _serve(self, me: Term) -> None:
        session = self.session
        may_block = self.is_guest and self.pipe.may_block
        while self.leader is me and not self.is_finished:
            if may_block and not session.decoder.events and not session.decoder.wanted:
                with self.lock:
                    self._is_blind = (
                        session.active == 0
                        and session.closed is None
                        and not session.out
                        and not self._is_writing
                        and self.end_at is None
                        and self.leader is me
                    )
                if self._is_blind:
                    data = self._read_small(me)
                    if data is not None:
                        self._take(me, data, True)
                        continue
                    # There is something else, such as a byte in the wake pipe: the usual way takes notice.
            self.pump(me, self.end_at, True)
            if self.end_at is not None:
                self._check_end()

    def _watch(self) -> None:
        """Sleeps until no thread leads, or a handler takes long."""
        last_count, last_terms, quiet = -1, self._terms, 0
        lock, park = self.lock, self._park
        while True:
            if self._is_deep:
                park.acquire()
                quiet = 0
            else:
                park.acquire(timeout=TICK)
            with lock:
                is_quiet = self._inline_count == last_count and self._terms == last_terms
                if self.is_finished or (self.leader is None and self._terms == last_terms):
                    self._has_watcher = self._is_deep = False
                    return
                if self._inline is not None and self._inline_count == last_count:
                    # The thread finds out when its handler returns.
                    self._inline.was_slow()
                    self._inline = None
                    self.leader = None
                    self._has_watcher = self._is_deep = False
                    self._spawn()
                    return
                quiet = quiet + 1 if is_quiet else 0
                last_count, last_terms = self._inline_count, self._terms
                # A caller that waits for long wakes this thread when it has its reply. Between two callers
                # that read, one after the other, this thread would only wake up in vain.
                leader = self.leader
                waits_long = leader is not None and not leader.may_be_taken and not self.is_guest
                self._is_deep = leader is not None and quiet >= (2 if waits_long else QUIET)

    def _arm(self) -> None:
        """Has a thread watch how long the handler takes."""
        if self._is_deep:
            self._unpark()
        elif not self._has_watcher and not self._is_spawning:
            self._spawn()
