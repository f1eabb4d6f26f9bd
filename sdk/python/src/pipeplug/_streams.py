"""Parts of requests and replies, for threads."""

from __future__ import annotations

import time
from typing import Iterator, Optional

from ._errors import StreamError
from ._handlers import words_of
from ._options import Data, seconds, to_bytes
from ._parts import PartSink, PartSource
from ._sending import Call, Driver


def wait(driver: Driver, call: Call, timeout: Optional[float]) -> bytes:
    """Waits for the reply of a call, at most for `timeout` seconds, and returns it."""
    limit = seconds("timeout", timeout, "no limit of its own")
    if not call.done:
        if limit is not None:
            call.until(time.monotonic() + limit)
        driver.wait_call(call)
    return call.result()


def give_up(driver: Driver, call: Call) -> None:
    """Gives a call up for its caller."""
    with driver.lock:
        call.session.cancel(call)
    driver.flush()


class PartSender:
    """Sends the parts of a request, one-way or reply."""

    #: The call that the parts belong to, whose deadline ends them.
    _call: Optional[Call] = None

    def __init__(self, driver: Driver, sink: PartSink) -> None:
        self._driver, self._sink = driver, sink

    def send(self, part: Data) -> None:
        """Sends a part. Waits while the receiver has a window full of parts."""
        data, sink, driver, call = to_bytes(part), self._sink, self._driver, self._call
        lock = driver.lock
        lock.acquire()
        try:
            while not sink.may_send():
                lock.release()
                try:
                    driver.block(sink, sink.may_send, None if call is None else call.deadline)
                finally:
                    lock.acquire()
                if call is not None and call.is_late():
                    call.session.expire(call)
                    call.result()
            sink.send(data)
        finally:
            lock.release()
        driver.flush()

    def finish(self) -> None:
        """Says that the parts are complete."""
        with self._driver.lock:
            if not self._sink.is_finished and self._sink.enough is None:
                self._sink.check()
            self._sink.finish()
        self._driver.flush()

    def abort(self, reason: str) -> None:
        """Ends the parts early; the receiver gets the reason as an error."""
        with self._driver.lock:
            self._sink.finish(reason or "aborted")
        self._driver.flush()

    def __enter__(self) -> PartSender:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if error is not None:
            self.abort(words_of(error))
        elif not self._sink.is_finished and self._sink.enough is None:
            self.finish()


class Parts(Iterator[bytes]):
    """Receives the parts of a request or reply, in order."""

    def __init__(self, driver: Driver, source: PartSource, call: Optional[Call] = None) -> None:
        self._driver, self._source, self._call = driver, source, call
        source.was_asked = True

    def __iter__(self) -> Parts:
        return self

    def __next__(self) -> bytes:
        source, driver, call = self._source, self._driver, self._call
        lock = driver.lock
        lock.acquire()
        try:
            while not source.is_ready():
                lock.release()
                try:
                    driver.block(source, source.is_ready, None if call is None else call.deadline)
                finally:
                    lock.acquire()
                if call is not None and call.is_late():
                    # Ends the source, too.
                    call.session.expire(call)
            part = source.take()
        finally:
            lock.release()
        if source.session.out:
            driver.flush()
        if part is None:
            raise StopIteration
        return part

    def enough(self, reason: str = "") -> None:
        """Tells the sender that no more parts are wanted."""
        with self._driver.lock:
            self._source.refuse(reason)
            self._source.end(None)
        self._driver.flush()


class Stream(PartSender):
    """A call with parts: sends those of the request, iterates over those of the reply."""

    _call: Call

    def __init__(self, driver: Driver, call: Call) -> None:
        self._driver, self._call = driver, call
        if call.sink is not None:
            self._sink = call.sink
        self._parts = None if call.source is None else Parts(driver, call.source, call)

    def send(self, part: Data) -> None:
        """Sends a part of the request. Waits while the receiver has a window full of parts."""
        if self._call.sink is None:
            raise StreamError("the stream was opened without parts of the request")
        super().send(part)

    def finish(self) -> None:
        """Says that the parts of the request are complete."""
        if self._call.sink is not None:
            with self._driver.lock:
                self._sink.finish()
            self._driver.flush()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts if self._parts is not None else ())

    def enough(self, reason: str = "") -> None:
        """Takes no more parts of the reply. The reply itself still comes."""
        if self._parts is not None:
            self._parts.enough(reason)

    @property
    def refusal(self) -> Optional[str]:
        """Reason for which the handler takes no more parts of the request, if it has said so."""
        return None if self._call.sink is None else self._call.sink.enough

    def reply(self, timeout: Optional[float] = None) -> bytes:
        """Waits for the reply behind the parts."""
        return wait(self._driver, self._call, timeout)

    def cancel(self) -> None:
        """Gives the call up, and ends both directions."""
        give_up(self._driver, self._call)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        if not self._call.done:
            self.cancel()
