"""Requests, as their handlers get them."""

from __future__ import annotations

import json
import time
from typing import Any, Generic, Iterable, Mapping, Optional, TypeVar

from ._connection import Connection
from ._errors import Failure
from ._negotiation import Progress
from ._options import Data, seconds
from ._sending import Driver, Incoming
from ._streams import Parts, PartSender

_monotonic = time.monotonic
PeerT = TypeVar("PeerT")


class RequestBase(Incoming, Generic[PeerT]):
    """What a request has, however it is handled."""

    #: The other side.
    peer: PeerT

    @property
    def text(self) -> str:
        """The data as text."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise Failure("invalid_argument", f"the data is not UTF-8: {error}") from None

    def json(self) -> Any:
        """Returns the data as JSON."""
        try:
            return json.loads(self.data.decode())
        except (ValueError, RecursionError) as error:
            raise Failure("invalid_argument", f"the data is no JSON: {error}") from None

    @property
    def context(self) -> Mapping[str, str]:
        """Values that the caller has supplied."""
        return self.values or {}

    @property
    def is_cancelled(self) -> bool:
        """True once the caller has given the call up, or its deadline has passed."""
        return self.cancelled or (self.deadline is not None and self.deadline <= _monotonic())

    @property
    def time_left(self) -> Optional[float]:
        """Seconds up to the deadline of the call; None if it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - _monotonic())

    @property
    def has_parts(self) -> bool:
        """True if parts follow the request."""
        return self.source is not None

    @property
    def takes_parts(self) -> bool:
        """True if the caller takes parts of the reply."""
        return self.sink is not None


class Request(RequestBase[Connection]):
    """A request or one-way, as a handler gets it. Its methods may be called by any thread."""

    @property
    def peer(self) -> Connection:  # type: ignore[override]
        """The other side, which the handler may call."""
        found: Connection = self.session.peer
        return found

    @property
    def _driver(self) -> Driver:
        return self.peer._driver

    def progress(self, done: int, total: Optional[int] = None, message: Optional[str] = None) -> None:
        """Reports how far the work is. Costs next to nothing unless the caller wants to know."""
        if not self.wants_progress:
            return
        with self.session.lock:
            is_due = self.session.report(self, Progress(done, total, message))
        if is_due:
            self._driver.flush()

    def wait_cancelled(self, timeout: Optional[float] = None) -> bool:
        """Sleeps for `timeout` seconds, or until the caller gives the call up. Tells whether it has."""
        limit = seconds("timeout", timeout, "no limit")
        deadline = None if limit is None else _monotonic() + limit
        if self.deadline is not None:
            deadline = self.deadline if deadline is None else min(deadline, self.deadline)
        self._driver.block(self, lambda: self.cancelled, deadline)
        return self.is_cancelled

    @property
    def parts(self) -> Iterable[bytes]:
        """The parts that follow the request; none if it has none."""
        return () if self.source is None else Parts(self._driver, self.source)

    def send(self, part: Data) -> None:
        """Sends a part of the reply. Waits while the caller has a window full of parts."""
        if self.sink is None:
            raise Failure("invalid_argument", f"{self.command} answers with parts: call it by a stream")
        PartSender(self._driver, self.sink).send(part)
