"""The driver of a connection by threads.

One thread at a time *leads*: it reads, and completes what others wait for. A thread that waits for a reply leads
if no other does, so that a call needs no hand-over between threads. While a plugin serves, its main thread leads
and runs handlers itself; a second thread *watches*, and leads in its place if a handler takes long.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from ._codec import CLASSIC, REQUEST, RESPONSE, BrokenStream, Chunk
from ._errors import CallCancelled, CallTimeout, Failure
from ._handlers import CURRENT, Handler, Handlers, answer_error, check_start, encode_result
from ._parts import Waitable
from ._pipe import PIPE_BUF, Pipe
from ._pool import Pool, Turns, Waiter
from ._session import OVERHEAD, Call, Incoming, Session

log = logging.getLogger("pipeplug")

#: Time after which a handler counts as slow, and another thread reads in its place.
TICK = 0.005
SLOW = 0.001
#: Ticks without a handler after which the watching thread sleeps until it is woken.
QUIET = 20
#: Time for which a thread looks for input before it sleeps, if that has paid lately.
SPIN = 100e-6
#: Short waits in a row after which looking pays. A miss costs as many, and each time twice as many.
PAYS = 8

#: Largest buffer of a call that takes the short way: its chunk is written at once, or not at all.
_SMALL = 2048

_monotonic = time.monotonic
_now = time.perf_counter


def _cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class _Term:
    """The time in which a thread leads."""

    __slots__ = ("is_polling", "may_be_taken", "poll_both", "poll_reader", "thread")

    def __init__(self, driver: ThreadDriver, may_be_taken: bool) -> None:
        self.may_be_taken, self.is_polling = may_be_taken, False
        self.thread = threading.get_ident()
        self.poll_reader, self.poll_both = driver.pollers()


class ThreadDriver:
    """Reads, writes and runs handlers by threads."""

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        self.session, self.pipe, self.handlers = session, pipe, handlers
        self.lock = session.lock
        self.leader: Optional[_Term] = None
        self.followers: Dict[Waiter, None] = {}
        #: Those that were woken and do not run yet. The last one has another lead, if none does.
        self._turns = Turns()
        self._woken_followers = self._turns.woken
        self._local = threading.local()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._is_writing = False
        #: True while the leading thread is in a read, and sees nothing else.
        self._is_blind = False
        #: What calls that are alone need of their command.
        self._alone: Dict[str, Tuple[bytes, int, bytes]] = {}
        self._pool = Pool(session.options.handlers)
        self.held: Optional[List[Incoming]] = None
        # The watching thread.
        self._park = threading.Lock()
        self._park.acquire()
        self._has_watcher = self._is_deep = self._is_spawning = False
        self._inline: Optional[Handler] = None
        self._inline_count = 0
        #: Number of times that a caller has led.
        self._terms = 0
        self._threads: List[threading.Thread] = []
        # The end.
        self.is_finished = False
        self.done = threading.Event()
        self.end_at: Optional[float] = None
        self.end_reason: Optional[str] = None
        self.on_end: Callable[[str], str] = lambda reason: reason
        self.is_guest = not session.is_host
        self.exit_status: Optional[int] = None
        #: Call-backs to run once the lock is free.
        self.later: Deque[Callable[[], None]] = deque()
        # Spinning.
        self._spin = 0
        self._spin_penalty = PAYS
        self._may_spin = _cpus() > 1

    # Reading.

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

    def _read(self, me: _Term, deadline: Optional[float]) -> Optional[bytes]:
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
            timeout = max(0.0, (deadline - _monotonic()) * 1000)
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

    def _look(self, me: _Term) -> Optional[bytes]:
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
        timeout = None if deadline is None else max(0.0, (deadline - _monotonic()) * 1000)
        if session.out and not self._is_writing:
            if pipe.waits_for_empty:
                timeout = 1.0
            else:
                poller.register(pipe.writer, select.POLLOUT)
        self._woken(poller.poll(timeout))

    def _is_full(self) -> bool:
        """Tells whether a peer that knows no flow is to be held back by the pipe."""
        session = self.session
        return (
            session.waiting > session.options.window
            and not session.calls
            and not session.opened
            and not session.accepted
        )

    def pump(self, me: _Term, deadline: Optional[float], may_run: bool) -> None:
        """Reads once, and takes what has come. Handlers run here if they may."""
        if self.session.decoder.events:
            self._take_events(me, may_run)
            if self.session.out:
                self.flush()
            return
        data = self._read(me, deadline)
        if data is not None:
            self._take(me, data, may_run)

    def _take(self, me: _Term, data: bytes, may_run: bool) -> None:
        """Takes bytes that have come, or the end of the input."""
        session = self.session
        decoder = session.decoder
        chunk = decoder.single(data)
        if chunk is not None:
            if chunk[1] == RESPONSE:
                with self.lock:
                    session.receive(chunk)
                while self.later:
                    self.later.popleft()()
            elif not may_run or not self._answer_alone(me, chunk):
                decoder.events.append(chunk)
                self._take_events(me, may_run)
            if session.out:
                self.flush()
            return
        broken: Optional[str] = None
        try:
            if data:
                decoder.feed(data)
            else:
                decoder.end()
                broken = "the other side closed the pipe"
        except BrokenStream as error:
            broken = f"the other side broke the protocol: {error}"
        except BaseException:
            self._end("this side was interrupted while it read", False)
            raise
        self._take_events(me, may_run)
        if broken is not None:
            self._end(broken, not data and decoder.is_between)
            return
        if session.out:
            self.flush()
            if session.out_size > session.options.unread:
                self._end(
                    f"the other side does not read: {session.out_size} bytes of answers wait for it,"
                    f" the limit is {session.options.unread}",
                    False,
                )

    def _take_events(self, me: _Term, may_run: bool) -> None:
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
        while self.later:
            self.later.popleft()()

    def _answer_alone(self, me: _Term, chunk: Chunk) -> bool:
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

    # Handlers.

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

    # Waiting.

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
            me: _Term = self._local.term
        except AttributeError:
            me = self._local.term = _Term(self, False)
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

    def _step_down(self, me: _Term) -> None:
        """Leaves the reading to another thread. The caller holds the lock."""
        if self.leader is me:
            self.leader = None
            if self.followers:
                self._promote()
            elif self._is_deep:
                self._is_deep = False
                self._park.release()

    def _go_on_leading(self, me: _Term, is_ready: Callable[[], bool], deadline: Optional[float]) -> None:
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

    def wait_call(self, call: Call, deadline: Optional[float]) -> None:
        """Waits for the reply of a call."""
        if call.done:
            return
        lock = self.lock
        lock.acquire()
        leader = self.leader
        if call.done or deadline is not None or leader is not None:
            lock.release()
        else:
            # As `block` does, for most calls.
            try:
                me: _Term = self._local.term
            except AttributeError:
                me = self._local.term = _Term(self, False)
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
        if not self.block(call, lambda: call.done, deadline):
            with lock:
                self.session.give_up(call, CallTimeout(call.command, "no reply within its time"))
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
            me: _Term = self._local.term
        except AttributeError:
            me = self._local.term = _Term(self, False)
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
                session.give_up(call, CallCancelled(command, "given up by the caller"))
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

    def _read_small(self, me: _Term) -> Optional[bytes]:
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
                me = self.leader = _Term(self, not self.is_guest)
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

    def _serve(self, me: _Term) -> None:
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

    grace = 5.0

    def stop_soon(self) -> None:
        """Ends once the open requests are answered, or the grace time is over. Needs the lock."""
        if self.end_at is None:
            self.end_at = _monotonic() + self.grace

    def _check_end(self) -> None:
        session = self.session
        is_over = self.end_at is not None and _monotonic() >= self.end_at
        if (session.active == 0 and not session.out) or is_over:
            if session.active and is_over:
                self.on_late()
            self.finish()

    #: Runs when the input of a plugin ends.
    on_close: Callable[[], None] = staticmethod(lambda: None)
    #: Runs when the grace time is over, and handlers still run.
    on_late: Callable[[], None] = staticmethod(lambda: None)

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
        self._pool.close()
        for descriptor in {
            self.pipe.reader, self.pipe.writer, self._wake_reader, self._wake_writer
        }:  # fmt: skip
            try:
                os.close(descriptor)
            except OSError:
                pass
