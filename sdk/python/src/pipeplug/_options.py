"""Limits and windows of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

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


def to_bytes(data: Data) -> bytes:
    """Returns data as bytes."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data is bytes or str, not {type(data).__name__}")
