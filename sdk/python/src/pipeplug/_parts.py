"""The two directions of a stream, without threads and descriptors."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, Optional, Sequence

from ._chunks import ONE_WAY
from ._errors import EnoughParts, PipeplugError, StreamError

if TYPE_CHECKING:
    from ._sending import Sending

#: Weight of a part besides its bytes.
WEIGHT = 64 + len("cmd.part")


class Waitable:
    """State that threads and tasks wait for."""

    # Most are never waited for: a list is made by the first that waits.
    waiters: Sequence[Callable[[], None]] = ()

    def add_waiter(self, wake: Callable[[], None]) -> None:
        """Has a function called by the next `notify`."""
        self.waiters = [*self.waiters, wake]

    def remove_waiter(self, wake: Callable[[], None]) -> None:
        """Takes a function back, if it was not called."""
        if self.waiters:
            self.waiters = [it for it in self.waiters if it != wake]

    def notify(self) -> None:
        """Wakes all that wait. They look at the state again."""
        if self.waiters:
            waiters, self.waiters = self.waiters, ()
            for wake in waiters:
                wake()


class PartSink(Waitable):
    """Parts that this side sends."""

    def __init__(self, session: Sending, thread_id: int, direction: int) -> None:
        self.session, self.thread_id, self.direction = session, thread_id, direction
        self.sent = self.credited = 0
        self.is_finished = False
        #: Reason of a receiver that takes no more.
        self.enough: Optional[str] = None
        #: Reason of an end that neither side has asked for.
        self.ended: Optional[str] = None

    def may_send(self) -> bool:
        """Tells whether a part can be sent, or never will be."""
        if self.ended is not None or self.enough is not None or self.is_finished:
            return True
        session = self.session
        if self.sent - self.credited >= session.peer_stream_window:
            return False
        return session.out_size < session.options.outgoing

    def check(self) -> None:
        """Raises why no part can be sent."""
        if self.enough is not None:
            raise EnoughParts(self.enough or "the receiver takes no more parts")
        if self.ended is not None:
            raise StreamError(self.ended)
        if self.is_finished:
            raise StreamError("the parts were already complete")

    def send(self, data: bytes) -> None:
        """Sends a part, for which there is room."""
        self.check()
        self.sent += WEIGHT + len(data)
        self.session.queue(self.thread_id, self.direction, "cmd.part", data)

    def finish(self, error: Optional[str] = None) -> None:
        """Says that the parts are complete, or why they are not."""
        if self.is_finished or self.ended is not None:
            return
        self.is_finished = True
        session = self.session
        if self.direction == ONE_WAY and session.closed is None and self.enough is None:
            message = b"" if error is None else (error or "no reason").encode(errors="replace")
            session.queue(self.thread_id, ONE_WAY, "cmd.end", message)
        if self.direction == ONE_WAY and self.thread_id not in session.calls:
            session.opened.pop(self.thread_id, None)
        self.notify()

    def refused(self, reason: str) -> None:
        """Takes the receiver's word that it has enough."""
        if self.enough is None:
            self.enough = reason
        self.notify()

    def end(self, reason: Optional[str]) -> None:
        """Ends it together with its call."""
        if not self.is_finished and self.ended is None:
            if reason is None:
                self.is_finished = True
            else:
                self.ended = reason
        self.notify()


class PartSource(Waitable):
    """Parts that this side receives."""

    def __init__(self, session: Sending, thread_id: int, direction: int, is_eager: bool) -> None:
        self.session, self.thread_id, self.direction = session, thread_id, direction
        self.parts: Deque[bytes] = deque()
        self.queued = self.taken = self.credit_sent = 0
        self.has_ended = self.is_refused = self.was_asked = False
        #: True if each part needs a credit of its own: the sender does not know the window yet.
        self.is_eager = is_eager
        self.reason: Optional[str] = None
        self.error: Optional[PipeplugError] = None

    def put(self, data: bytes) -> None:
        """Takes a part that has come."""
        if self.has_ended or self.is_refused:
            return
        if self.queued > self.session.options.stream_window:
            self.session.warn("a stream was ended: its sender did not wait for credit")
            self.refuse("the window was exceeded")
            self.end("its sender did not wait for credit")
            return
        self.parts.append(data)
        self.queued += WEIGHT + len(data)
        self.notify()

    def is_ready(self) -> bool:
        """Tells whether `take` has an answer."""
        return bool(self.parts) or self.has_ended

    def take(self) -> Optional[bytes]:
        """Returns the next part, or None at the end. Raises the error behind the parts."""
        if self.parts:
            data = self.parts.popleft()
            weight = WEIGHT + len(data)
            self.queued -= weight
            self.taken += weight
            due = 1 if self.is_eager else self.session.options.stream_window / 2
            if self.taken - self.credit_sent >= due and not self.has_ended:
                self.credit_sent = self.taken
                self.session.queue(self.thread_id, self.direction, "cmd.part.credit", b"%d" % self.taken)
            return data
        if self.error is not None:
            raise self.error
        if self.reason is not None:
            raise StreamError(self.reason)
        return None

    def refuse(self, reason: str) -> None:
        """Tells the sender that no more parts are wanted."""
        if self.is_refused or self.has_ended or self.session.closed is not None:
            return
        self.is_refused = True
        self.parts.clear()
        self.queued = 0
        self.session.queue(self.thread_id, self.direction, "cmd.enough", reason.encode())

    def end(self, reason: Optional[str], error: Optional[PipeplugError] = None) -> None:
        """Ends the parts: completely, or for a reason."""
        if not self.has_ended:
            self.has_ended = True
            self.reason, self.error = reason, error
        self.notify()
