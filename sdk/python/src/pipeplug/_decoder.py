"""A decoder of chunks, which takes a stream cut anywhere."""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import Deque, Dict, Optional, Tuple, Union

from ._chunks import CLASSIC, KEPT, ONE_WAY, REQUEST, RESPONSE, STANDARD, BrokenStream, Chunk, Skipped
from ._headers import CLASSIC_HEADER, STANDARD_HEADER, Header, Incomplete, LongCommand

#: Limits of a receiver, in bytes.
COMMAND_LIMIT = 64 << 10
BUFFER_LIMIT = 256 << 20

_LARGEST = (1 << 64) - 1
_DIRECTIONS = {b"1": ONE_WAY, b"2": REQUEST, b"3": RESPONSE}
#: Room that is made for a buffer before its bytes arrive.
_AHEAD = 1 << 20


class Decoder:
    """Reads chunks of a stream that arrives in pieces.

    `events` has what is complete. `feed` raises `BrokenStream` at a violation, after the events
    before it.
    """

    def __init__(
        self,
        format: Optional[str] = None,
        command_limit: int = COMMAND_LIMIT,
        buffer_limit: int = BUFFER_LIMIT,
    ) -> None:
        #: The format; None until the first chunk has shown it.
        self.format = format
        self.command_limit, self.buffer_limit = command_limit, buffer_limit
        self.events: Deque[Union[Chunk, Skipped]] = deque()
        self._rest = b""
        #: Offset of `_rest` in the stream.
        self._offset = 0
        #: Bytes that are still to be discarded of a buffer.
        self._skip = 0
        #: A large buffer that arrives: its header, and the number of bytes that complete it.
        self._head: Optional[Tuple[int, int, str]] = None
        #: Grows as bytes arrive, and gives them without a copy.
        self._buffer: Optional[BytesIO] = None
        #: Number of its bytes that have arrived.
        self._kept = 0
        self.wanted = 0
        self._texts: Dict[bytes, str] = {}
        #: The same by command, with its length as it is written.
        self._known: Dict[bytes, Tuple[bytes, str]] = {}
        #: State of a header whose command is over the limit: fields so far, bytes of it to discard.
        self._long: Optional[LongCommand] = None

    @property
    def is_between(self) -> bool:
        """True if the stream may end here."""
        return not (self._rest or self._skip or self._head or self._long)

    def single(self, data: bytes) -> Optional[Chunk]:
        """Returns the chunk that further bytes are, if they are exactly one, and takes them then."""
        if self._head is None and not self._rest and self.format == STANDARD:
            fields = data.split(b"\0", 5)
            if len(fields) == 6 and not self._skip and self._long is None:
                number, direction, announced, cmd, length, buffer = fields
                known = self._known.get(cmd)
                size = len(buffer)
                # Each number is compared as it would be written: there is only one way.
                if (
                    known is not None
                    and announced == known[0]
                    and length == b"%d" % size
                    and size <= self.buffer_limit
                    and number.isdigit()
                    and len(number) < 20
                    and direction in _DIRECTIONS
                ):
                    thread_id = int(number)
                    if number[0] != 0x30 or thread_id == 0 == len(number) - 1:
                        self._offset += len(data)
                        return thread_id, _DIRECTIONS[direction], known[1], buffer
        return None

    def reply(self, data: bytes, prefix: bytes) -> Optional[bytes]:
        """Returns the buffer that further bytes bring, if they are one chunk that begins so, and takes them then."""
        if data.startswith(prefix) and self._head is None and not self._rest and not self._skip and self._long is None:
            start = len(prefix)
            end = data.find(b"\0", start)
            buffer = data[end + 1 :]
            size = len(buffer)
            if data[start:end] == b"%d" % size and end > 0 and size <= self.buffer_limit:
                self._offset += len(data)
                return buffer
        return None

    def feed(self, data: bytes) -> None:
        """Takes further bytes of the stream."""
        if self._head is not None:
            size = len(data)
            if size < self.wanted:
                self._keep(data)
                self.wanted -= size
                self._offset += size
                return
            data = self._finish_buffer(data)
        elif self._rest:
            data = self._rest + data
            self._rest = b""
        self._parse(data)

    def end(self) -> None:
        """Takes the end of the stream."""
        if self._head is not None or self._skip:
            field, offset = "buffer", self._offset
        elif self._long is not None:
            field, offset = self._long.field, self._offset + len(self._rest)
        elif self._rest:
            offset = self._offset + len(self._rest)
            try:
                self._header(self._rest, 0)
                raise AssertionError("a complete header is not kept")
            except Incomplete as incomplete:
                field = str(incomplete)
        else:
            return
        raise BrokenStream(field, offset, "end", "the end of the stream")

    def _keep(self, data: bytes) -> None:
        if self._buffer is None:
            self._buffer = BytesIO()
        self._buffer.seek(self._kept)
        self._buffer.write(data)
        self._kept += len(data)

    def space(self) -> memoryview:
        """Returns where further bytes of the buffer that arrives belong, for `filled`."""
        kept, buffer = self._kept, self._buffer
        if buffer is None or buffer.getbuffer().nbytes == kept:
            # No more than has come already, as the length is only announced. Bytes that no other has are
            # not copied, neither here nor by `getvalue`.
            larger = BytesIO(bytes(kept + min(self.wanted, max(_AHEAD, kept))))
            if buffer is not None and kept:
                with larger.getbuffer() as view, buffer.getbuffer() as arrived:
                    view[:kept] = arrived[:kept]
            buffer = self._buffer = larger
        return buffer.getbuffer()[kept:]

    def filled(self, size: int) -> None:
        """Takes bytes that were put where `space` has told."""
        self._kept += size
        self._offset += size
        self.wanted -= size
        if self.wanted == 0:
            assert self._head is not None
            assert self._buffer is not None
            self.events.append((*self._head, self._buffer.getvalue()))
            self._head, self._buffer, self._kept = None, None, 0

    def _finish_buffer(self, data: bytes) -> bytes:
        assert self._head is not None
        missing, head = self.wanted, self._head
        buffer = data[:missing]
        if self._buffer is not None:
            self._keep(buffer)
            self._buffer.truncate(self._kept)
            buffer = self._buffer.getvalue()
        self.events.append((*head, buffer))
        self._head, self._buffer, self._kept, self.wanted = None, None, 0, 0
        self._offset += missing
        return data[missing:]

    def _parse(self, data: bytes) -> None:
        pos, size = 0, len(data)
        texts = self._texts
        append = self.events.append
        pattern = STANDARD_HEADER if self.format == STANDARD else CLASSIC_HEADER
        is_known = self.format is not None
        is_standard = self.format == STANDARD
        while True:
            if self._skip:
                step = min(self._skip, size - pos)
                pos += step
                self._skip -= step
            if self._long is not None:
                pos = self._go_on_long(data, pos)
                if self._long is not None:
                    break
                continue
            if pos >= size:
                break
            match = pattern.match(data, pos) if is_known else None
            if match is not None:
                number, direction, key, length = match.groups()
                text = texts.get(key)
                if text is None:
                    text = self._text(key, match.start(3), is_standard)
                needed = int(length) if length else 0
                if text is not None and needed <= self.buffer_limit:
                    start = match.end()
                    end = start + needed
                    thread_id = int(number) if number else 0
                    if end <= size:
                        append((thread_id, _DIRECTIONS[direction], text, data[start:end]))
                        pos = end
                        continue
                    if size > start:
                        self._keep(data[start:])
                    self._head, self.wanted = (thread_id, _DIRECTIONS[direction], text), end - size
                    self._offset += size
                    return
            try:
                pos = self._slow(data, pos)
            except Incomplete:
                break
            if not is_known and self.format is not None:
                is_known, is_standard = True, self.format == STANDARD
                pattern = STANDARD_HEADER if is_standard else CLASSIC_HEADER
            if self._head is not None:
                # All bytes behind the header belong to the buffer.
                rest = data[pos:]
                self._offset += pos
                if len(rest) >= self.wanted:
                    data = self._finish_buffer(rest)
                    self._parse(data)
                    return
                if rest:
                    self._keep(rest)
                    self.wanted -= len(rest)
                    self._offset += len(rest)
                return
        self._offset += pos
        self._rest = data[pos:]

    def _text(self, key: bytes, at: int, is_standard: bool) -> Optional[str]:
        """Returns the command of a key: with its length and NUL in the standard format.

        None if it is to be read byte by byte: over the limit, or of another length.
        """
        cmd = key
        if is_standard:
            announced, _, cmd = key.partition(b"\0")
            if int(announced) != len(cmd):
                return None
            at += len(announced) + 1
        if len(cmd) > self.command_limit:
            return None
        text = self._decode(cmd, at)
        if len(self._texts) < KEPT and len(cmd) < 256:
            self._texts[key] = text
            self._known[cmd] = (b"%d" % len(cmd), text)
        return text

    def _decode(self, cmd: bytes, at: int) -> str:
        try:
            return cmd.decode()
        except UnicodeDecodeError as error:
            offset = self._offset + at + error.start
            raise BrokenStream("cmd", offset, "not-utf8", f"0x{cmd[error.start]:02x}") from None

    def _number(self, data: bytes, pos: int, field: str, may_be_empty: bool) -> Tuple[int, int]:
        """Reads a number and its NUL. Returns it, and the position behind."""
        value, at, size = 0, pos, len(data)
        while at < size:
            byte = data[at]
            if byte == 0:
                if at == pos and not may_be_empty:
                    raise BrokenStream(field, self._offset + at, "no-digits", "NUL")
                return value, at + 1
            if not 0x30 <= byte <= 0x39:
                raise BrokenStream(field, self._offset + at, "not-a-digit", f"0x{byte:02x}")
            if at > pos and value == 0:
                raise BrokenStream(field, self._offset + at, "leading-zero", f"0x{byte:02x}")
            value = value * 10 + byte - 0x30
            if value > _LARGEST:
                raise BrokenStream(field, self._offset + at, "too-large", f"0x{byte:02x}")
            at += 1
        raise Incomplete(field)

    def _detect(self, data: bytes, pos: int) -> None:
        """Tells the formats apart by the first chunk."""
        second = data.find(0, pos)
        first_is_empty = second == pos
        if second < 0:
            return
        third = data.find(0, second + 1)
        if first_is_empty or third == second + 1:
            self.format = CLASSIC
            return
        if third < 0:
            return
        at = third + 1
        while at < len(data) and 0x30 <= data[at] <= 0x39:
            at += 1
        if at - third - 1 > 20:
            self.format = CLASSIC
        elif at < len(data):
            self.format = STANDARD if data[at] == 0 else CLASSIC

    def _header(self, data: bytes, pos: int) -> Header:
        """Reads a header byte by byte. Raises `Incomplete` if it is not complete."""
        if self.format is None:
            self._detect(data, pos)
        # Until the format is known, either may come: numbers may be empty.
        is_classic = self.format != STANDARD
        thread_id, at = self._number(data, pos, "threadID", is_classic)
        direction, at = self._number(data, at, "direction", is_classic)
        if self.format is None:
            raise Incomplete("len(cmd)")
        if self.format == STANDARD:
            announced, at = self._number(data, at, "len(cmd)", False)
            keep = direction in (1, 2, 3) and announced <= self.command_limit
            if not keep:
                reserved = data[at : at + 4] == b"cmd."
                if announced >= 4 and len(data) < at + 4:
                    raise Incomplete("cmd")
                return Header(thread_id, direction, at, announced, None, 0, reserved)
            if len(data) <= at + announced:
                raise Incomplete("cmd")
            cmd = data[at : at + announced]
            end = at + announced
            if data[end] != 0:
                raise BrokenStream("cmd", self._offset + end, "no-nul", f"0x{data[end]:02x}")
            text = self._decode(cmd, at)
        else:
            end = data.find(b" ", at)
            nul = data.find(b"\0", at, end if end >= 0 else len(data))
            if nul >= 0:
                raise BrokenStream("cmd", self._offset + nul, "nul-in-cmd", "NUL")
            so_far = (end if end >= 0 else len(data)) - at
            if direction not in (1, 2, 3) or so_far > self.command_limit:
                reserved = data[at : at + 4] == b"cmd."
                if so_far < 4 and end < 0:
                    raise Incomplete("cmd")
                return Header(thread_id, direction, at, None, None, 0, reserved)
            if end < 0:
                raise Incomplete("cmd")
            announced = end - at
            text = self._decode(data[at:end], at)
        length, at = self._number(data, end + 1, "len(buffer)", self.format == CLASSIC)
        return Header(thread_id, direction, at, announced, text, length, text.startswith("cmd."))

    def _slow(self, data: bytes, pos: int) -> int:
        """Takes a header, or what can be taken of one, and returns the position behind."""
        header = self._header(data, pos)
        if header.command is None:
            self._long = LongCommand(header)
            return header.at
        assert header.command_len is not None
        if header.length > self.buffer_limit:
            head, sizes = header, (header.command_len, header.length, self.buffer_limit)
            self.events.append(
                Skipped(head.thread_id, head.direction, "buffer-too-long", *sizes, head.command, head.is_reserved)
            )
            self._skip = header.length
            return header.at
        self._head = (header.thread_id, header.direction, header.command)
        self.wanted = header.length
        return header.at

    def _go_on_long(self, data: bytes, pos: int) -> int:
        """Discards a command, reads the length behind it, and has the buffer discarded."""
        long = self._long
        assert long is not None
        if long.field == "cmd":
            if long.announced is not None:
                step = min(long.announced - long.seen, len(data) - pos)
                long.seen += step
                pos += step
                if long.seen < long.announced or pos >= len(data):
                    return pos
                if data[pos] != 0:
                    raise BrokenStream("cmd", self._offset + pos, "no-nul", f"0x{data[pos]:02x}")
            else:
                end = data.find(b" ", pos)
                stop = end if end >= 0 else len(data)
                nul = data.find(b"\0", pos, stop)
                if nul >= 0:
                    raise BrokenStream("cmd", self._offset + nul, "nul-in-cmd", "NUL")
                long.seen += stop - pos
                pos = stop
                if end < 0:
                    return pos
            pos += 1
            long.field = "len(buffer)"
        try:
            length, pos = self._number(data, pos, "len(buffer)", self.format == CLASSIC)
        except Incomplete:
            return pos
        head, self._long = long.header, None
        if head.direction not in (1, 2, 3):
            reason, limit, reserved = "unknown-direction", None, False
        else:
            reason, limit, reserved = "command-too-long", self.command_limit, head.is_reserved
        self.events.append(Skipped(head.thread_id, head.direction, reason, long.seen, length, limit, None, reserved))
        self._skip = length
        return pos
