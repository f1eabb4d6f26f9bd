"""What all threads of a connection share: its state, the writing, and the end."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

from ._driver import DriverBase
from ._handlers import Handler, Handlers
from ._pipe import Pipe
from ._pool import Turns, Waiter
from ._sending import PIPE_BUF
from ._session import Session

#: Time for which a thread looks for input before it sleeps, if that has paid lately.
SPIN = 100e-6
#: Short waits in a row after which looking pays. A miss costs as many, and each time twice as many.
PAYS = 8

_monotonic = time.monotonic
_now = time.perf_counter


def _cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class Term:
    """The time in which a thread leads."""

    __slots__ = ("is_polling", "may_be_taken", "poll_both", "poll_reader", "thread")

    def __init__(self, driver: Writing, may_be_taken: bool) -> None:
        self.may_be_taken, self.is_polling = may_be_taken, False
        self.thread = threading.get_ident()
        self.poll_reader, self.poll_both = driver.pollers()


class Writing(DriverBase):
    """Writes for threads, and ends a connection."""

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        super().__init__(session, pipe, handlers)
        self.leader: Optional[Term] = None
        self.followers: Dict[Waiter, None] = {}
        #: Those that were woken and do not run yet. The last one has another lead, if none does.
        self._turns = Turns()
        self._woken_followers = self._turns.woken
        self._local = threading.local()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        #: True while the leading thread is in a read, and sees nothing else.
        self._is_blind = False
        #: What calls that are alone need of their command.
        self._alone: Dict[str, Tuple[bytes, int, bytes]] = {}
        # The watching thread.
        self._park = threading.Lock()
        self._park.acquire()
        self._has_watcher = self._is_deep = self._is_spawning = False
        self._inline: Optional[Handler] = None
        self._inline_count = 0
        #: Number of times that a caller has led.
        self._terms = 0
        self._threads: List[threading.Thread] = []
        self.done = threading.Event()
        # Spinning.
        self._spin = 0
        self._spin_penalty = PAYS
        self._may_spin = _cpus() > 1

    def pollers(self) -> Any:
        """The poll objects of this thread, which may not be shared."""
        found = getattr(self._local, "pollers", None)
        if found is None:
            reader, both = select.poll(), select.poll()
            for poller in (reader, both):
                poller.register(self.pipe.reader, select.POLLIN)
                poller.register(self._wake_reader, select.POLLIN)
            both.register(self.pipe.writer, select.POLLOUT)
            found = self._local.pollers = (reader, both)
        return found

    # Writing.

    def write_now(self) -> None:
        """Writes the only chunk that is queued, if it is small. The caller holds the lock."""
        session = self.session
        out = session.out
        if self._woken_followers:
            # They are about to send as well: the last one writes for all.
            return
        if len(out) == 1 and len(out[0]) <= PIPE_BUF and not self._is_writing:
            try:
                # All or nothing: pipe(7), PIPE_BUF. A socket may take a part.
                written = os.write(self.pipe.writer, out[0])
            except OSError:
                # `flush` finds the same, and says so.
                return
            session.out_size -= written
            if written == len(out[0]):
                out.clear()
            else:
                out[0] = memoryview(out[0])[written:]

    def flush(self, leads_next: bool = False) -> None:
        """Writes what is queued, as far as the pipe takes it."""
        session = self.session
        lock = self.lock
        while True:
            with lock:
                if self._woken_followers and session.out_size < 65536 and not self.is_finished:
                    return
                self.write_now()
                if self._is_writing or not session.out:
                    if session.room.waiters and session.has_room():
                        session.room.notify()
                    return
                all_written = self._write()
                is_led = self.leader is None and leads_next
                is_blind = self._is_blind
            if self.pipe.error is not None:
                self._end(f"the other side no longer reads: {self.pipe.error}", False)
                return
            if all_written or is_led:
                return
            if not is_blind:
                self.wake()
                return
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Waits until the pipe takes more, for a short time: the thread that leads is in a read."""
        if self.pipe.waits_for_empty:
            # poll(2) does not tell.
            time.sleep(0.001)
            return
        poller = select.poll()
        poller.register(self.pipe.writer, select.POLLOUT)
        poller.poll(100)

    def wake(self) -> None:
        """Has the leading thread look at the state again."""
        try:
            os.write(self._wake_writer, b"\0")
        except (BlockingIOError, OSError):
            pass
        if self._is_deep:
            self._unpark()

    def _unpark(self) -> None:
        with self.lock:
            if self._is_deep:
                self._is_deep = False
                self._park.release()

    # The end.

    def _end(self, reason: str, may_answer: bool) -> None:
        """Ends the connection; answers may still be written if the input has ended between chunks."""
        session = self.session
        if self.end_reason is None:
            self.end_reason = reason
        if self.is_guest and may_answer and session.closed is None:
            with self.lock:
                session.end_input(reason)
                grace = _monotonic() + self.grace
                self.end_at = grace if self.end_at is None else min(self.end_at, grace)
            self.on_close()
            self.wake()
            return
        reason = self.on_end(reason)
        with self.lock:
            session.close(reason)
        if self.is_guest:
            with self.lock:
                grace = _monotonic() + self.grace
                self.end_at = grace if self.end_at is None else min(self.end_at, grace)
                session.input_ended = True
                if self._is_blind:
                    self.pipe.interrupt()
                self.pipe.cut()
            self.on_close()
            self.wake()
        else:
            self.finish()

    def stop_soon(self) -> None:
        """Ends once the open requests are answered, or the grace time is over. Needs the lock."""
        if self.end_at is None:
            self.end_at = _monotonic() + self.grace

    def finish(self) -> None:
        """Ends all threads."""
        with self.lock:
            self.is_finished = True
            self.session.close(self.end_reason or "the connection was closed")
            for waiter in list(self.followers):
                waiter.wake()
            if self._is_blind:
                self.pipe.interrupt()
        self.done.set()
        self.wake()

    def dispose(self) -> None:
        """Closes the descriptors, once no thread uses them."""
        self.finish()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(1.0)
        self._close(self._wake_reader, self._wake_writer)
