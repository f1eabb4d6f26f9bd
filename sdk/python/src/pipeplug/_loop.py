"""The driver of a connection in an event loop of asyncio."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

from ._handlers import Handlers
from ._pipe import Pipe
from ._session import Session
from ._tasks import Tasks

log = logging.getLogger("pipeplug")
_monotonic = time.monotonic


class LoopDriver(Tasks):
    """Reads and writes in an event loop."""

    def __init__(self, session: Session, pipe: Pipe, handlers: Handlers) -> None:
        super().__init__(session, pipe, handlers)
        self._is_flush_due = self._waits_to_write = self._reads = False
        self.done = asyncio.Event()

    def start(self) -> None:
        """Begins to read."""
        self._reads = True
        self.loop.add_reader(self.pipe.reader, self._readable)

    # Reading.

    def _readable(self) -> None:
        session = self.session
        data = self.pipe.read(session.decoder)
        if data is None and not session.decoder.events:
            return
        broken = None if data is None else self._feed(data)
        try:
            self._take_events()
        except Exception:
            log.exception("the connection ends by a fault of this library")
            broken = "this side failed"
        if broken is not None:
            self._end(broken, data == b"" and session.decoder.is_between)
            return
        if session.out:
            self._flush()
            self._end_if_unread()
        if self._is_full():
            self._pause()

    def _take_events(self) -> None:
        session = self.session
        events = session.decoder.events
        with self.lock:
            while events:
                request = session.receive(events.popleft())
                if request is not None:
                    self._hand_over(request)
        self._run_later()

    def _pause(self) -> None:
        """Leaves the input to the pipe, for a peer that knows no flow."""
        if self._reads:
            self._stop_reading()
            self.loop.call_later(0.001, self._resume)

    def _stop_reading(self) -> None:
        if self._reads:
            self._reads = False
            self.loop.remove_reader(self.pipe.reader)

    def _resume(self) -> None:
        if self.is_finished or self.session.input_ended:
            return
        if self._is_full():
            self.loop.call_later(0.001, self._resume)
        else:
            self.start()

    # Writing.

    def write_now(self) -> None:
        """Leaves it to `flush`."""

    def flush(self, leads_next: bool = False) -> None:
        """Writes what is queued, as far as the pipe takes it."""
        if threading.get_ident() != self._thread:
            if not self._is_flush_due:
                self._is_flush_due = True
                self._at_home(self._flush)
        elif len(self.session.calls) <= 1:
            self._flush()
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        """Writes once what is runnable now has run, so that many chunks are written together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        session = self.session
        if not session.out or self._waits_to_write or self._is_writing:
            return
        with self.lock:
            all_written = self._write()
        if self.pipe.error is not None:
            self._end(f"the other side no longer reads: {self.pipe.error}", False)
        elif not all_written:
            if self.pipe.waits_for_empty:
                self.loop.call_later(0.001, self._flush)
            else:
                self._waits_to_write = True
                self.loop.add_writer(self.pipe.writer, self._writable)
        else:
            self._check_end()

    def _writable(self) -> None:
        self._waits_to_write = False
        self.loop.remove_writer(self.pipe.writer)
        self._flush()

    # The end.

    def stop_soon(self) -> None:
        """Ends once the open requests are answered, or the grace time is over."""
        if self.end_at is None:
            self.end_at = _monotonic() + self.grace
            self.loop.call_later(self.grace, self._check_end)
            self.loop.call_soon(self._check_end)

    def _end(self, reason: str, may_answer: bool) -> None:
        session = self.session
        if self.end_reason is None:
            self.end_reason = reason
        self._stop_reading()
        if not self.is_guest:
            # Its status tells why, and may take a moment.
            self._spawn(self._close_late(reason))
            return
        with self.lock:
            session.input_ended = True
            if may_answer and session.closed is None:
                session.end_input(reason)
            else:
                session.close(reason)
        if session.closed is not None:
            self._cut()
        self.on_close()
        self.stop_soon()

    async def _close_late(self, reason: str) -> None:
        reason = await asyncio.to_thread(self.on_end, reason)
        with self.lock:
            self.session.close(reason)
        self.finish()

    def _stop_writing(self) -> None:
        if self._waits_to_write:
            self._waits_to_write = False
            self.loop.remove_writer(self.pipe.writer)

    def cut_writer(self) -> None:
        """Ends the direction to the other side."""
        self._stop_writing()
        self.pipe.cut_writer()

    def _cut(self) -> None:
        self._stop_writing()
        self.pipe.cut()

    def finish(self) -> None:
        """Ends the connection."""
        if self.is_finished:
            return
        self.is_finished = True
        with self.lock:
            self.session.close(self.end_reason or "the connection was closed")
        self._stop_reading()
        self._stop_writing()
        for task in list(self._tasks):
            if task is not asyncio.current_task(self.loop):
                task.cancel()
        self.done.set()

    def dispose(self) -> None:
        """Closes the descriptors."""
        self.finish()
        self._close()
