"""Limits and windows of a connection."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Type, TypeVar, Union

T = TypeVar("T")

#: Seconds that stand for a time without an end: the calls of the system do not take all numbers.
LONGEST = 1e9
#: What is sent: bytes, or text that is encoded as UTF-8.
Data = Union[bytes, bytearray, memoryview, str]


@dataclass(frozen=True)
class Options:
    """Limits of what the other side can make grow. docs/limits.md of pipeplug describes each."""

    #: Longest command, in bytes.
    command_limit: int = 64 << 10
    #: Longest buffer, in bytes.
    buffer_limit: int = 256 << 20
    #: Weight of requests and one-ways that may wait for a handler.
    window: int = 4 << 20
    #: The same while calls of this side are open: what comes past it is refused.
    overrun: int = 64 << 20
    #: Weight of the parts of a stream that were received and not taken.
    stream_window: int = 1 << 20
    #: Streams that the other side may have open.
    streams: int = 1024
    #: Handlers that run at once.
    handlers: int = 256
    #: Bytes that may wait to be written before callers and handlers wait.
    outgoing: int = 4 << 20
    #: Bytes of responses that may wait for a peer that does not read.
    unread: int = 16 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int:
                raise TypeError(f"{field.name} is a whole number, not {_kind(value)}")
            if value < 0:
                raise ValueError(f"{field.name} is a whole number from 0, not {value}")


def to_bytes(data: Data) -> bytes:
    """Returns data as bytes."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data is bytes or str, not {type(data).__name__}")


def seconds(name: str, value: Any, or_none: str = "") -> Optional[float]:
    """Returns a time that a user gives, in seconds; None for none, if `or_none` says what that means.

    Errors name the parameter: what is wrong would otherwise be told by code that the user has not called.
    """
    if value is None and or_none:
        return None
    if type(value) is not float:
        if isinstance(value, (str, bool)) or not hasattr(value, "__float__"):
            also = f", or None for {or_none}" if or_none else ""
            raise TypeError(f"{name} is a number of seconds, as 5 or 0.5{also}; not {_kind(value)}")
        value = float(value)
    if math.isnan(value):
        raise ValueError(f"{name} is a number of seconds, not nan")
    found: float = min(value, LONGEST)
    return found


def time_limit(name: str, value: Any) -> float:
    """Returns a time that a user has to give, in seconds."""
    found = seconds(name, value)
    assert found is not None
    if found < 0:
        raise ValueError(f"{name} is a number of seconds from 0, not {value!r}")
    return found


def flag(name: str, value: bool) -> bool:
    """Returns a value that is true or false, and nothing else that would count as such."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {_kind(value)}")
    return value


def instance(name: str, value: Optional[T], kind: Type[T]) -> Optional[T]:
    """Returns an object of a class, or None."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is an object of {kind.__name__}, as {kind.__name__}(…); not {_kind(value)}")
    return value


def text(name: str, value: Optional[str]) -> Optional[str]:
    """Returns a text, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is a text, not {_kind(value)}")
    return value


def path(name: str, value: Any) -> str:
    """Returns a path as text, as the system takes it."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is a path, as './plugin', or a Path; not {_kind(value)}")
    return without_nul(name, os.fsdecode(value))


def without_nul(name: str, value: str) -> str:
    """Returns a text that the system takes."""
    if "\0" in value:
        raise ValueError(f"{name} has a NUL character, which the system does not take: {value!r}")
    return value


def in_order(value: Union[bool, Iterable[str]]) -> Union[bool, List[str]]:
    """Returns which commands are handled in order."""
    return value if isinstance(value, bool) else words("in_order", value)


def texts(name: str, value: Optional[Mapping[str, str]]) -> Dict[str, str]:
    """Returns texts by name; none for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a dict of texts, not {_kind(value)}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{name}[{key!r}] is a text, not {_kind(text)}; write its name and value as str")
    return dict(value)


def words(name: str, value: Iterable[str]) -> List[str]:
    """Returns a list of texts, which is not one text."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} is a list of texts, as [{value!r}]; not {_kind(value)}")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} is a list of texts, not {_kind(value)}")
    found = list(value)
    for word in found:
        if not isinstance(word, str):
            raise TypeError(f"{name} is a list of texts, in which there is {_kind(word)}")
    return found


def versions(name: str, value: Iterable[int]) -> List[int]:
    """Returns versions of an interface, in order."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} is a list of whole numbers, as [1, 2]; not {_kind(value)}")
    found = list(value)
    for version in found:
        if type(version) is not int or not 0 <= version < 1 << 32:
            raise ValueError(
                f"{name} are whole numbers from 0 to {(1 << 32) - 1}, among which there is {_kind(version)}"
            )
    return sorted(set(found))


def function(name: str, value: Optional[Callable[..., Any]]) -> None:
    """Raises an error for what cannot be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function, not {_kind(value)}")


def choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns a word that is one of some."""
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}; not {value!r}")
    return value


def _kind(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:39] + '…'}"
