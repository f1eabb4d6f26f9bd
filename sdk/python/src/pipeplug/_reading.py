"""The reading by the thread that leads, and what becomes of what it reads."""

from __future__ import annotations

import os
import select
import time
from typing import List, Optional, Tuple

from ._chunks import REQUEST, RESPONSE, Chunk
from ._running import SLOW, Running
from ._sending import OVERHEAD, PIPE_BUF
from ._writing import PAYS, SPIN, Term

_monotonic = time.monotonic
_now = time.perf_counter


def _milliseconds(deadline: float) -> float:
    """Returns the time up to a deadline, for poll(2), whose time is an int. The waits are repeated."""
    return min(max(0.0, (deadline - _monotonic()) * 1000), 1e9)


class Reading(Running):
    """Reads, and hands over what has come."""

    def _read(self, me: Term, deadline: Optional[float]) -> Optional[bytes]:
        """Waits for input, until the deadline. None if there is none, or this thread no longer leads."""
        session = self.session
        if session.input_ended or (session.waiting > session.options.window and self._is_full()):
            self._leave_input(deadline)
            return None
        pipe = self.pipe
        wanted = session.decoder.wanted
        if self._spin >= PAYS and not wanted and not self.followers and not session.out:
            data = self._look(me)
            if data is not None:
                return data
        poller, timeout = me.poll_reader, None
        if deadline is not None:
            timeout = _milliseconds(deadline)
        if me.may_be_taken:
            with self.lock:
                if self.leader is not me:
                    return None
                me.is_polling = True
        if session.out and not self._is_writing and not self._woken_followers:
            poller = me.poll_both
            if pipe.waits_for_empty:
                poller, timeout = me.poll_reader, 1.0 if timeout is None else min(timeout, 1.0)
        begun = _now()
        found = poller.poll(timeout)
        if self._may_spin and self._spin < PAYS:
            if _now() - begun < SPIN * 1.5:
                self._spin += 1
            elif self._spin > 0:
                self._spin = 0
        if me.may_be_taken:
            with self.lock:
                me.is_polling = False
                if self.leader is not me:
                    return None
        if len(found) != 1 or found[0][0] != pipe.reader:
            self._woken(found)
            if all(descriptor != pipe.reader for descriptor, _ in found):
                return None
        return pipe.read(session.decoder)

    def _look(self, me: Term) -> Optional[bytes]:
        """Looks for input for a short time."""
        poll, reader = me.poll_reader.poll, self.pipe.reader
        end = _now() + SPIN
        while True:
            found = poll(0)
            if found:
                if len(found) == 1 and found[0][0] == reader:
                    if self._spin < 2 * PAYS:
                        self._spin += 1
                    return self.pipe.read(self.session.decoder)
                return None
            if _now() > end:
                break
        self._spin -= PAYS
        if self._spin < PAYS:
            self._spin = -self._spin_penalty
            self._spin_penalty = min(self._spin_penalty * 2, 256)
        return None

    def _woken(self, found: List[Tuple[int, int]]) -> None:
        """Takes what another thread has to say, and writes if there is room."""
        for descriptor, _ in found:
            if descriptor == self._wake_reader and not self.is_finished:
                try:
                    os.read(self._wake_reader, 4096)
                except BlockingIOError:
                    pass
        if self.session.out:
            self.flush()

    def _leave_input(self, deadline: Optional[float]) -> None:
        """Waits for what other threads do, and for room: the input has ended, or is left to the pipe."""
        session, pipe = self.session, self.pipe
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        timeout = None if deadline is None else _milliseconds(deadline)
        if session.out and not self._is_writing:
            if pipe.waits_for_empty:
                timeout = 1.0
            else:
                poller.register(pipe.writer, select.POLLOUT)
        self._woken(poller.poll(timeout))

    def pump(self, me: Term, deadline: Optional[float], may_run: bool) -> None:
        """Reads once, and takes what has come. Handlers run here if they may."""
        if self.session.decoder.events:
            self._take_events(me, may_run)
            if self.session.out:
                self.flush()
            return
        data = self._read(me, deadline)
        if data is not None:
            self._take(me, data, may_run)

    def _take(self, me: Term, data: bytes, may_run: bool) -> None:
        """Takes bytes that have come, or the end of the input."""
        session = self.session
        decoder = session.decoder
        chunk = decoder.single(data)
        if chunk is not None:
            if chunk[1] == RESPONSE:
                with self.lock:
                    session.receive(chunk)
                self._run_later()
            elif not may_run or not self._answer_alone(me, chunk):
                decoder.events.append(chunk)
                self._take_events(me, may_run)
            if session.out:
                self.flush()
            return
        try:
            broken = self._feed(data)
        except BaseException:
            self._end("this side was interrupted while it read", False)
            raise
        self._take_events(me, may_run)
        if broken is not None:
            self._end(broken, not data and decoder.is_between)
            return
        if session.out:
            self.flush()
            self._end_if_unread()

    def _take_events(self, me: Term, may_run: bool) -> None:
        session, lock = self.session, self.lock
        events = session.decoder.events
        find = self.handlers.commands.get
        lock.acquire()
        try:
            while events and self.leader is me:
                request = session.receive(events.popleft())
                if request is None:
                    continue
                handler = find(request.command)
                if (
                    handler is not None
                    and may_run
                    and handler.slow_for == 0
                    and handler.sequence is None
                    and request.source is None
                    and request.sink is None
                    and (self.held is None or request.command == "GetMetadata")
                    and session.out_size < session.options.outgoing
                ):
                    session.take(request.weight)
                    self._inline = handler
                    self._inline_count += 1
                    lock.release()
                    try:
                        if self._is_deep or not self._has_watcher:
                            self._arm()
                        begun = _now()
                        data, error = self._execute(handler, request)
                        took = _now() - begun
                    finally:
                        lock.acquire()
                        if self.leader is me:
                            self._inline = None
                    self._answer(request, data, error)
                    if took > 1e-4:
                        if took > SLOW:
                            handler.was_slow()
                        if self.leader is me or session.out:
                            lock.release()
                            try:
                                self.flush()
                            finally:
                                lock.acquire()
                else:
                    self._hand_over(request, handler)
        finally:
            lock.release()
        self._run_later()

    def _read_small(self, me: Term) -> Optional[bytes]:
        """Waits for input, of which little is expected. None if there is something else to do.

        The caller has set `_is_blind`, as this thread takes no other notice while it waits.
        """
        begun = _now()
        if self._spin >= PAYS:
            self._is_blind = False
            return self._look(me)
        try:
            data = os.read(self.pipe.reader, PIPE_BUF)
        except OSError:
            # The usual way finds the same.
            return None
        finally:
            self._is_blind = False
        if self._may_spin:
            if _now() - begun < SPIN * 1.5:
                self._spin += 1
            elif self._spin > 0:
                self._spin = 0
        return None if self.is_finished or self.session.closed is not None else data

    def _answer_alone(self, me: Term, chunk: Chunk) -> bool:
        """Runs the handler of a request that came alone, and writes its answer, with as few steps as can be.

        False if it takes the usual way, and nothing was done.
        """
        thread_id, direction, command, data = chunk
        session, lock = self.session, self.lock
        handler = self.handlers.commands.get(command)
        if (
            direction != REQUEST
            or handler is None
            or handler.slow_for
            or handler.sequence is not None
            or self.held is not None
            or command[:4] == "cmd."
            or session._context is not None
        ):
            return False
        lock.acquire()
        if session.waiting or session.out_size or self.leader is not me:
            lock.release()
            return False
        session.was_spoken_to = True
        request = session.requests[thread_id] = session.incoming(session, thread_id, command, data, False)
        request.weight = OVERHEAD + len(data) + (len(command) if command.isascii() else len(command.encode()))
        session.active += 1
        session.take(request.weight)
        self._inline = handler
        self._inline_count += 1
        lock.release()
        begun = _now()
        if self._is_deep or not self._has_watcher:
            self._arm()
        try:
            result, error = self._execute(handler, request)
        except BaseException:
            self._inline = None
            raise
        with lock:
            if self.leader is me:
                self._inline = None
            if _now() - begun > SLOW:
                handler.was_slow()
            self._answer(request, result, error)
            self.write_now()
        return True

    def _arm(self) -> None:
        """Has a thread watch how long the handler takes."""
        raise NotImplementedError
