"""The two descriptors of a connection: reads, and writes that never wait."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import sys
import termios
from typing import TYPE_CHECKING, List, Optional, Union

from ._chunks import CLASSIC, LARGE
from ._decoder import Decoder
from ._sending import PIPE_BUF

if TYPE_CHECKING:
    from ._session import Session

Piece = Union[bytes, memoryview]
_SET_SIZE, _GET_SIZE = 1031, 1032  # F_SETPIPE_SZ, F_GETPIPE_SZ: fcntl(2) on Linux
_LARGEST_PIPE = 1 << 20
#: Bytes that a pipe holds unless it is grown.
DEFAULT_PIPE = 64 << 10
_READ = 64 << 10
_BATCH = 512 << 10


class Pipe:
    """Reads and writes without waiting."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        #: True if a thread may wait in a read: the other direction is another file, and `interrupt` can end the wait.
        self.may_block = stat.S_ISFIFO(os.fstat(reader).st_mode) and os.path.exists(f"/proc/self/fd/{reader}")
        os.set_blocking(reader, self.may_block)
        os.set_blocking(writer, False)
        self._is_socket = stat.S_ISSOCK(os.fstat(writer).st_mode)
        self._capacity: Optional[int] = None
        self._may_grow = sys.platform == "linux"
        #: True if a write of the classic format waits until the pipe is empty, which poll(2) does not tell.
        self.waits_for_empty = False
        self.error: Optional[OSError] = None

    def read(self, decoder: Decoder) -> Optional[bytes]:
        """Returns bytes, empty at the end of the stream, or None if the decoder has them, or there are none yet.

        Comes after a poll, as it may wait for bytes.
        """
        try:
            if decoder.wanted < LARGE:
                return os.read(self.reader, _READ)
            with decoder.space() as view:
                size = os.readv(self.reader, [view])
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""
        if size == 0:
            return b""
        decoder.filled(size)
        return None

    def write(self, session: Session) -> bool:
        """Writes what the session has queued, as far as the pipe takes it.

        The caller holds the session's lock, which is not held during a write. Returns true if nothing is left.
        A failed write is kept as `error`.
        """
        out, lock = session.out, session.lock
        is_classic = session.encoder is not None and session.encoder.format == CLASSIC
        while out:
            if is_classic:
                batch = self._classic_batch(session)
                if not batch:
                    return False
                size = len(batch[0])
            elif len(out) == 1:
                batch = [out.popleft()]
                size = len(batch[0])
            else:
                batch = []
                size = 0
                while out and size < _BATCH and len(batch) < 512:
                    batch.append(out.popleft())
                    size += len(batch[-1])
            if size > 65536 and self._may_grow:
                self._grow(size)
            lock.release()
            try:
                one = len(batch) == 1
                written = os.write(self.writer, batch[0]) if one else os.writev(self.writer, batch)
            except BlockingIOError:
                written = 0
            except OSError as error:
                self.error = error
                written = size
            finally:
                lock.acquire()
            if self.error is not None:
                out.clear()
                session.out_size = 0
                return True
            session.out_size -= written
            if written < size:
                if session.closed is None or written:
                    _put_back(session, batch, written)
                return False
        self.waits_for_empty = False
        return True

    def interrupt(self) -> None:
        """Ends the wait of a read, by a byte that means nothing. The connection has ended."""
        # This side has no descriptor for the other end of the pipe: it would never see the end of the stream.
        try:
            writer = os.open(f"/proc/self/fd/{self.reader}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # No other process has it open, so the stream has ended, or the descriptor is no pipe any more.
            return
        try:
            os.write(writer, b"\0")
        except OSError:
            # It is full: there is something to read.
            pass
        finally:
            os.close(writer)

    def cut(self) -> None:
        """Ends the connection, and keeps the numbers of the descriptors, which other threads may use."""
        self._replace(self.reader)
        self._replace(self.writer)

    def cut_writer(self) -> None:
        """Ends the direction to the other side."""
        if not self._is_socket:
            self._replace(self.writer)
            return
        # Both directions are one socket, of which only this one ends.
        with socket.socket(fileno=os.dup(self.writer)) as connection:
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                # The other side has closed it.
                pass

    @staticmethod
    def _replace(descriptor: int) -> None:
        with open(os.devnull, "r+b", buffering=0) as nothing:
            os.dup2(nothing.fileno(), descriptor, inheritable=False)

    def _grow(self, size: int) -> None:
        """Makes room for a large chunk, so that it takes fewer system calls."""
        if self._capacity is None:
            try:
                self._capacity = fcntl.fcntl(self.writer, _GET_SIZE)
            except OSError:
                self._may_grow = False
                return
        if self._capacity < min(size, _LARGEST_PIPE):
            try:
                self._capacity = fcntl.fcntl(self.writer, _SET_SIZE, _LARGEST_PIPE)
            except OSError:
                # The user has too many such pipes: fs.pipe-user-pages-soft, proc_sys_fs(5).
                self._may_grow = False

    def largest_write(self, size: int) -> int:
        """Returns how many bytes one write can take at most, after making room for that many where it can."""
        if self._is_socket:
            # Its room cannot be told: it is that of the receiver as well.
            return size
        if self._may_grow and size > DEFAULT_PIPE:
            self._grow(min(size, _LARGEST_PIPE))
        return DEFAULT_PIPE if self._capacity is None else max(DEFAULT_PIPE, self._capacity)

    def _classic_batch(self, session: Session) -> List[Piece]:
        """Takes what may be written at once, by "Writes of the classic format" of the protocol."""
        out = session.out
        first = out[0]
        if len(first) <= PIPE_BUF:
            size = 0
            pieces: List[Piece] = []
            while out and size + len(out[0]) <= PIPE_BUF:
                size += len(out[0])
                pieces.append(out.popleft())
            return [b"".join(pieces)]
        if not self._is_socket and len(first) <= self.largest_write(len(first)) and self._unread():
            self.waits_for_empty = True
            return []
        self.waits_for_empty = False
        return [out.popleft()]

    def _unread(self) -> int:
        try:
            answer = fcntl.ioctl(self.writer, termios.FIONREAD, b"\0\0\0\0")
        except OSError:
            return 0
        return int(struct.unpack("i", answer)[0])


def _put_back(session: Session, batch: List[Piece], written: int) -> None:
    for index, piece in enumerate(batch):
        if written < len(piece):
            rest = batch[index:]
            if written:
                # Not a copy, of which each partial write of a large buffer would make one.
                rest[0] = memoryview(piece)[written:]
            session.out.extendleft(reversed(rest))
            return
        written -= len(piece)
