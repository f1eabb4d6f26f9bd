"""Threads that wait for a reply: one of them leads and reads for all."""

from __future__ import annotations

import os
import threading
import time
from typing import Callable, Optional, Tuple

from ._chunks import CLASSIC, REQUEST, RESPONSE
from ._parts import Waitable
from ._pool import Waiter
from ._reading import Reading
from ._sending import OVERHEAD, Call
from ._writing import Term

#: Largest buffer of a call that takes the short way: its chunk is written at once, or not at all.
_SMALL = 2048

_monotonic = time.monotonic
_now = time.perf_counter


class Leading(Reading):
    """Waits, and leads while no other thread does."""

    def block(self, target: Waitable, is_ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until the state of a target is right. Returns false at the deadline."""
        lock, session = self.lock, self.session
        lock.acquire()
        try:
            while not is_ready():
                if self.is_finished or (deadline is not None and deadline <= _monotonic()):
                    return False
                leader = self.leader
                if leader is None or (leader.may_be_taken and leader.is_polling):
                    self._lead(is_ready, deadline)
                    continue
                if leader.thread == threading.get_ident():
                    self._go_on_leading(leader, is_ready, deadline)
                    continue
                waiter = Waiter(self._turns)
                self.followers[waiter] = None
                target.add_waiter(waiter.wake)
                lock.release()
                try:
                    if deadline is None:
                        waiter.lock.acquire()
                    else:
                        waiter.lock.acquire(timeout=max(0.0, deadline - _monotonic()))
                finally:
                    lock.acquire()
                    waiter.is_woken = True
                    self.followers.pop(waiter, None)
                    self._turns.runs(waiter)
                    if session.out and not self._woken_followers and not self._is_writing:
                        lock.release()
                        try:
                            self.flush()
                        finally:
                            lock.acquire()
                    target.remove_waiter(waiter.wake)
            return True
        finally:
            if self.leader is None and self.followers:
                self._promote()
            lock.release()

    def _lead(self, is_ready: Callable[[], bool], deadline: Optional[float]) -> None:
        """Leads until a state is right. The caller holds the lock."""
        lock = self.lock
        try:
            me: Term = self._local.term
        except AttributeError:
            me = self._local.term = Term(self, False)
        self.leader = me
        self._terms += 1
        try:
            while not is_ready() and self.leader is me:
                if deadline is not None and deadline <= _monotonic():
                    break
                lock.release()
                try:
                    self.pump(me, deadline, False)
                finally:
                    lock.acquire()
        finally:
            self._step_down(me)

    def _step_down(self, me: Term) -> None:
        """Leaves the reading to another thread. The caller holds the lock."""
        if self.leader is me:
            self.leader = None
            if self.followers:
                self._promote()
            elif self._is_deep:
                self._is_deep = False
                self._park.release()

    def _go_on_leading(self, me: Term, is_ready: Callable[[], bool], deadline: Optional[float]) -> None:
        """Reads for a handler that waits on the thread that leads. The caller holds the lock."""
        lock = self.lock
        handler, self._inline = self._inline, None
        try:
            while not is_ready() and self.leader is me:
                if deadline is not None and deadline <= _monotonic():
                    break
                lock.release()
                try:
                    self.pump(me, deadline, False)
                finally:
                    lock.acquire()
        finally:
            if self.leader is me:
                self._inline = handler
                self._inline_count += 1

    def _promote(self) -> None:
        """Wakes a thread that waits, so that it leads. The caller holds the lock."""
        if self._woken_followers:
            return
        for waiter in self.followers:
            if not waiter.is_woken:
                waiter.wake()
                return

    def wait_call(self, call: Call) -> None:
        """Waits for the reply of a call, until its deadline."""
        if call.done:
            return
        lock = self.lock
        lock.acquire()
        leader = self.leader
        if call.done or call.deadline is not None or leader is not None:
            lock.release()
        else:
            # As `block` does, for most calls.
            try:
                me: Term = self._local.term
            except AttributeError:
                me = self._local.term = Term(self, False)
            self.leader = me
            self._terms += 1
            lock.release()
            try:
                while not call.done and self.leader is me:
                    self.pump(me, None, False)
            finally:
                with lock:
                    self._step_down(me)
            if call.done:
                return
        if not self.block(call, lambda: call.done, call.deadline):
            with lock:
                self.session.expire(call)
            self.flush()

    def call_alone(self, command: str, data: bytes) -> Optional[Call]:
        """Makes a call while nothing else is open, with as few steps as can be: most calls are such.

        Returns a call that is sent, and mostly done. None if it takes the usual way, and nothing was sent.
        """
        session, lock, pipe = self.session, self.lock, self.pipe
        known = self._alone.get(command) or self._know(command)
        lock.acquire()
        if (
            known is None
            or self.leader is not None
            or session.calls
            or session.out
            or session.closed is not None
            or len(data) > _SMALL
            or self._is_writing
            or session.decoder.events
            or not session.has_room()
        ):
            lock.release()
            return None
        middle, weight, answer = known
        try:
            me: Term = self._local.term
        except AttributeError:
            me = self._local.term = Term(self, False)
        try:
            session.last_id = thread_id = session.last_id + 1
            call = session.calls[thread_id] = Call(session, thread_id, command)
            chunk = b"%d%b%d\0%b" % (thread_id, middle, len(data), data)
            session.sent += weight + len(data)
            self.leader = me
            self._terms += 1
            try:
                # All or nothing: pipe(7), PIPE_BUF. A socket may take a part.
                written = os.write(pipe.writer, chunk)
            except OSError:
                written = 0
            if written == len(chunk):
                self._is_blind = pipe.may_block
            else:
                # `flush` finds what is wrong, and says so.
                session.out.append(chunk[written:])
                session.out_size += len(chunk) - written
        finally:
            lock.release()
        try:
            if self._is_blind:
                received = self._read_small(me)
                if received:
                    reply = session.decoder.reply(received, b"%d%b" % (thread_id, answer))
                    if reply is None:
                        self._take(me, received, False)
                    elif not call.done:
                        lock.acquire()
                        session.calls.pop(thread_id, None)
                        call.reply, call.done = reply, True
                        if self.followers or self._is_deep or self.leader is not me:
                            self._step_down(me)
                        else:
                            self.leader = None
                        lock.release()
                        return call
            while not call.done and self.leader is me:
                self.pump(me, None, False)
        except BaseException:
            with lock:
                session.cancel(call)
            raise
        finally:
            if self.leader is me:
                with lock:
                    self._step_down(me)
        return call

    def _know(self, command: str) -> Optional[Tuple[bytes, int, bytes]]:
        """Returns the fixed bytes of a request with its weight, and those of its response."""
        encoder, cmd = self.session.encoder, command.encode()
        if encoder is None or encoder.format == CLASSIC or len(cmd) > 256 or len(self._alone) >= 512:
            return None
        found = b"\0%d\0%d\0%b\0" % (REQUEST, len(cmd), cmd), OVERHEAD + len(cmd), b"\0%d\0%d\0%b\0" % (
            RESPONSE, len(cmd), cmd
        )  # fmt: skip
        self._alone[command] = found
        return found
