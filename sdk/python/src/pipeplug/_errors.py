"""Errors of calls, streams and starts, and the error that a handler raises."""

from __future__ import annotations

from typing import Any, Optional


class PipeplugError(Exception):
    """Base of all errors of this package."""


class Failure(PipeplugError):
    """Error with a code for programs, which a handler raises and its caller gets.

    The codes of the protocol (`unknown_command`, `overloaded`, …) mean the same for every plugin. `data`
    is anything that JSON can hold.
    """

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class CallError(PipeplugError):
    """A call has no result."""

    def __init__(self, command: str, message: str) -> None:
        super().__init__(f"{command}: {message}")
        self.command, self.message = command, message


class CallFailed(CallError):
    """The other side has answered with an error."""

    def __init__(self, command: str, message: str, code: Optional[str] = None, data: Any = None) -> None:
        super().__init__(command, message)
        #: Code for programs; None if the error has none.
        self.code = code
        #: JSON that belongs to the code.
        self.data = data


class CallTimeout(CallError, TimeoutError):
    """There is no reply within the time of the call. The other side may have handled it."""


class CallCancelled(CallError):
    """The call was given up by its own side."""


class ConnectionClosed(CallError):
    """The connection has ended before there was a reply."""


class Unsupported(CallError):
    """The other side does not speak the feature that the call needs."""


class StreamError(PipeplugError):
    """A stream has ended before all of its parts were sent or taken."""


class EnoughParts(StreamError):
    """The receiver takes no more parts. Its reply still comes."""


class StartError(PipeplugError):
    """A plugin did not start."""


class RegisterError(PipeplugError):
    """This process cannot be a plugin: there is no host, or a descriptor cannot be used."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        #: Exit status of the process.
        self.status = status
