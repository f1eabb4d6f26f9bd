"""How a plugin finds its host: descriptors, standard input and output, or a socket to listen at."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import socket
import stat
import struct
import sys
from typing import List, NamedTuple, Optional, Tuple

from ._errors import RegisterError

_USAGE = 2
_LISTEN = "--pipeplug-listen"


class Ends(NamedTuple):
    """The descriptors of a plugin."""

    reader: int
    writer: int
    #: The plugin's own arguments.
    args: List[str]
    #: Message for a plugin whose input ends before anything has come; None if a host has told the
    #: descriptors.
    by_hand: Optional[str]


def runs_on_pipes(args: List[str]) -> bool:
    """Tells whether standard input and output seem to lead to a host."""
    if args[:1] == [_LISTEN] or (len([it for it in args[:2] if it.isdigit()]) == 2 and args[:2] != ["0", "1"]):
        return False
    try:
        kinds = [os.fstat(number).st_mode for number in (0, 1)]
    except OSError:
        return False
    return all(stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) for kind in kinds)


def take_ends(args: List[str], name: str) -> Ends:
    """Takes the descriptors, and puts something harmless in the place of standard input and output."""
    if args[:1] == [_LISTEN]:
        if len(args) < 2:
            raise RegisterError(
                f"{_LISTEN} needs the path of the socket to make, as in `{_LISTEN} /tmp/plugin.sock`",
                _USAGE,
            )
        descriptor = _listen(args[1], name)
        return Ends(descriptor, descriptor, args[2:], None)
    numbers = [it for it in args[:2] if re.fullmatch(r"[0-9]{1,9}", it, re.ASCII)]
    if len(numbers) == 2:
        reader, writer = int(numbers[0]), int(numbers[1])
        if reader == writer:
            raise RegisterError(
                f"descriptor {reader} was given for both directions; hand down a copy of it under another number",
                _USAGE,
            )
        for number, half in ((reader, "in"), (writer, "out")):
            _check(number, half)
        return Ends(_own(reader), _own(writer), args[2:], None)
    by_hand = (
        f"{name} is a plugin: a host starts it and talks to it over pipes. To try it in a terminal:"
        f"\n\n    pipeplug run {shlex.quote(sys.argv[0] or name)} --call COMMAND [DATA]\n"
    )
    if _is_by_hand():
        raise RegisterError(by_hand, _USAGE)
    for number, half in ((0, "in"), (1, "out")):
        _check(number, half, kinds=False)
    return Ends(_own(0), _own(1), args, by_hand)


def _is_by_hand() -> bool:
    try:
        return os.isatty(0) or os.isatty(1) or stat.S_ISCHR(os.fstat(0).st_mode)
    except OSError:
        return False


def _check(number: int, half: str, kinds: bool = True) -> None:
    start = f"descriptor {number}, which is to bring messages {half}, "
    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        kind = os.fstat(number).st_mode
    except OSError:
        raise RegisterError(
            f"{start}is not open: the first two arguments of a plugin are the numbers of its"
            " descriptors, which the program that starts it has to pass on (pass_fds=(3, 4) in Python);"
            " `pipeplug run --stdio` makes do with stdin and stdout",
            _USAGE,
        ) from None
    wrong, verb = (os.O_WRONLY, "read from") if half == "in" else (os.O_RDONLY, "written to")
    if mode == wrong or number == 2:
        raise RegisterError(
            f"{start}cannot be {verb}; the first argument of a plugin is the descriptor to read from, the"
            " second the one to write to",
            _USAGE,
        )
    if kinds and not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        raise RegisterError(
            f"{start}is neither a pipe nor a socket; its host has to hand down one of these, and"
            " `pipeplug run PLUGIN` does for a plugin that is started by hand",
            _USAGE,
        )


def _own(number: int) -> int:
    """Makes a descriptor this side's, and keeps it from processes that this one starts."""
    if number > 2:
        os.set_inheritable(number, False)
        return number
    copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    if number == 0:
        with open(os.devnull, "rb", buffering=0) as nothing:
            os.dup2(nothing.fileno(), 0)
    else:
        try:
            os.dup2(2, 1)
        except OSError:
            with open(os.devnull, "wb", buffering=0) as nothing:
                os.dup2(nothing.fileno(), 1)
        # What was printed before is still in the buffer, and now goes to standard error, too.
        try:
            sys.stdout.flush()
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            pass
    return copy


def _listen(path: str, name: str) -> int:
    """Waits for a host of the same user at a socket."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _remove_stale(path)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        raise RegisterError(f"cannot wait for a host at {path!r}: {error}", _USAGE) from None
    finally:
        os.umask(before)
    made = os.lstat(path)
    try:
        listener.listen(1)
        print(f"{name} waits for a host at {path}", file=sys.stderr, flush=True)
        while True:
            connection, _ = listener.accept()
            uid = peer_uid(connection)
            if uid is None or uid == os.geteuid():
                return connection.detach()
            print(
                f"{name} turned a host of user {uid} away: it has to be of user {os.geteuid()}",
                file=sys.stderr,
                flush=True,
            )
            connection.close()
    finally:
        listener.close()
        try:
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)
        except OSError:
            pass


def _remove_stale(path: str) -> None:
    """Removes a socket that a process left which has ended."""
    try:
        kind = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(kind):
        raise RegisterError(
            f"cannot wait for a host at {path!r}: there is a file that is no socket; give another path",
            _USAGE,
        )
    # Of another type, so that a listener does not take it for a host: EPROTOTYPE with a listener.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise RegisterError(f"cannot wait for a host at {path!r}: another process listens there; give another path", _USAGE)


def peer_uid(connection: socket.socket) -> Optional[int]:
    """Returns the user at the other end of a socket; None if the system cannot tell."""
    option: Optional[int] = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    found = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    credentials: Tuple[int, int, int] = struct.unpack("3i", found)
    return credentials[1]
