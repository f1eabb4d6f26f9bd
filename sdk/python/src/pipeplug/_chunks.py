"""Chunks, and how they are written."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

ONE_WAY, REQUEST, RESPONSE = 1, 2, 3
STANDARD, CLASSIC = "standard", "classic"

#: Buffers from this size on are written from where they are.
LARGE = 32 << 10
#: Commands whose text or bytes are kept, so that they are made once.
KEPT = 512

#: A chunk that has arrived: threadID, direction, command and buffer. A plain tuple is the quickest.
Chunk = Tuple[int, int, str, bytes]


class Skipped(NamedTuple):
    """A chunk that is read and discarded: of an unknown direction, or over a limit."""

    thread_id: int
    direction: int
    reason: str
    command_len: int
    buffer_len: int
    limit: Optional[int]
    #: The command, unless it was discarded itself.
    command: Optional[str]
    is_reserved: bool


class BrokenStream(Exception):
    """The stream breaks the grammar, or ends inside a chunk."""

    def __init__(self, field: str, offset: int, kind: str, found: str) -> None:
        super().__init__(f"broken chunk at byte {offset} of the stream, in its {field}: {kind}, found {found}")
        self.field, self.offset, self.kind = field, offset, kind


class Encoder:
    """Writes chunks in one format."""

    def __init__(self, format: str) -> None:
        self.format = format
        #: What stands between the numbers, by direction and command.
        self._middles: Tuple[Dict[str, bytes], ...] = ({}, {}, {}, {})
        self._is_standard = format != CLASSIC

    def header(self, thread_id: int, direction: int, command: str, length: int) -> bytes:
        """Returns the bytes before the buffer."""
        middle = self._middles[direction].get(command)
        if middle is None:
            middle = self._middle(direction, command)
        if self._is_standard:
            return b"%d%b%d\0" % (thread_id, middle, length)
        number = b"%d" % thread_id if thread_id else b""
        return b"%b%b%b\0" % (number, middle, b"%d" % length if length else b"")

    def _middle(self, direction: int, command: str) -> bytes:
        cmd = command.encode()
        if self._is_standard:
            middle = b"\0%d\0%d\0%b\0" % (direction, len(cmd), cmd)
        elif b" " in cmd or b"\0" in cmd:
            raise ValueError(
                f"the command {command!r} has a space or NUL, which the classic format cannot carry:"
                " use the standard format"
            )
        else:
            middle = b"\0%d\0%b " % (direction, cmd)
        kept = self._middles[direction]
        if len(kept) < KEPT and len(cmd) < 256:
            kept[command] = middle
        return middle
