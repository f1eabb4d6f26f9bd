"""Headers of chunks while they are read."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

#: Headers as they mostly are. What these do not match is read byte by byte.
STANDARD_HEADER = re.compile(
    rb"(0|[1-9][0-9]{0,18})\x00([123])\x00((?:0|[1-9][0-9]{0,4})\x00[^\x00]*)\x00(0|[1-9][0-9]{0,11})\x00"
)
CLASSIC_HEADER = re.compile(rb"(|0|[1-9][0-9]{0,18})\x00([123])\x00([^\x00 ]*) (|0|[1-9][0-9]{0,11})\x00")


class Incomplete(Exception):
    """More bytes are needed. Its argument is the field that is incomplete."""


class Header(NamedTuple):
    """What stands before a buffer."""

    thread_id: int
    direction: int
    #: Position behind the header; of the command, if that is discarded.
    at: int
    command_len: Optional[int]
    #: None if it is discarded.
    command: Optional[str]
    length: int
    is_reserved: bool


class LongCommand:
    """A header whose command is discarded."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.announced = header.command_len
        self.seen = 0
        self.field = "cmd"
