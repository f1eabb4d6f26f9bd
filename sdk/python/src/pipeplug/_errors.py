"""Errors of calls, streams and starts, and the errors that handlers raise."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, Optional, TypeVar

_CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*\Z", re.ASCII)
#: Most characters of data in a message.
_SHOWN = 300

ErrorT = TypeVar("ErrorT", bound="MethodError")


class PipeplugError(Exception):
    """Base of all errors of this package."""


class Failure(PipeplugError):
    """Error with a code for programs, which a handler raises and its caller gets.

    The code is of lowercase words joined by `_`. Those of the protocol (`unknown_command`, `overloaded`, …) mean
    the same for every plugin. `data` is anything that JSON can hold.
    """

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        if not isinstance(code, str) or not _CODE.match(code):
            raise ValueError(f"a code is of lowercase words joined by `_`, as 'not_found'; not {code!r}")
        if not isinstance(message, str):
            raise TypeError(f"the message of {code!r} is text, not {type(message).__name__}")
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the data of {code!r} cannot be written as JSON: {error}") from None
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class MethodError(Exception):
    """Base of the errors of a service's methods, which are data like arguments and results.

    A class of them is a dataclass with fields. Or it has subclasses, of which each is a case: its JSON is
    `{"NameOfTheCase": {fields}}`, or `"NameOfTheCase"` without fields.
    """

    def with_message(self: ErrorT, message: str) -> ErrorT:
        """Sets the text that the caller reads besides the data, and returns the error."""
        # Not as a usual attribute: a field may have any name.
        self.__dict__["__message__"] = message
        return self

    def _fields(self) -> str:
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return ", ".join(f"{it.name}={getattr(self, it.name)!r}" for it in fields)

    def _message(self) -> str:
        """Returns its text for people, besides the data if it was given."""
        given: str = self.__dict__.get("__message__", "")
        if given:
            return given
        if dataclasses.is_dataclass(self):
            return f"{type(self).__name__}({self._fields()})"
        return super().__str__() or type(self).__name__

    def __str__(self) -> str:
        given: str = self.__dict__.get("__message__", "")
        fields = self._fields()
        return f"{given} ({fields})" if given and fields else self._message()


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

    def __str__(self) -> str:
        text = super().__str__()
        if self.data is None:
            return text if self.code is None else f"{text} ({self.code})"
        try:
            data = json.dumps(self.data, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            data = "data that JSON cannot show"
        return f"{text} ({self.code}: {data if len(data) <= _SHOWN else data[:_SHOWN] + '…'})"


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
