"""The process of a plugin: its start, its standard error, and its end."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import Callable, Deque, Iterable, List, Mapping, Optional, Protocol, Sequence, Tuple, Union

from ._chunks import CLASSIC
from ._diagnosis import cannot_start
from ._errors import StartError
from ._options import flag, function, path, text, texts, without_nul, words
from ._register import peer_uid

Program = Union[str, "os.PathLike[str]", Sequence[str]]


class HasFileno(Protocol):
    """A file object or socket."""

    def fileno(self) -> int:
        """Returns its descriptor."""
        ...


End = Union[int, HasFileno]
#: Where a plugin waits: the path of its socket, a connected socket, or what is read from and what is written to.
Place = Union[str, "os.PathLike[str]", HasFileno, Tuple[End, End]]
_LINE_LIMIT = 16 << 10
_TAIL = 20


class Process:
    """A plugin's process, and this side's ends of its pipes."""

    def __init__(
        self,
        program: Program,
        *,
        args: Sequence[str],
        name: Optional[str],
        stdio: bool,
        format: str,
        env: Optional[Mapping[str, str]],
        cwd: Union[str, os.PathLike[str], None],
        on_line: Optional[Callable[[str], None]],
    ) -> None:
        command = _command(program)
        if not command or not command[0]:
            raise StartError("the command of the plugin is empty: give the path of a program")
        own = [without_nul("args", it) for it in words("args", args)]
        flag("stdio", stdio)
        text("name", name)
        if cwd is not None:
            cwd = path("cwd", cwd)
        function("on_line", on_line)
        environment = None if env is None else texts("env", env)
        for key, value in (environment or {}).items():
            if not key or "=" in key:
                raise ValueError(
                    f"env has the name {key!r}, which cannot be that of a variable: it is empty, or has a ="
                )
            without_nul(f"env[{key!r}]", key + value)
        self.name = name or os.path.basename(command[-1])
        self.on_line = on_line
        self._tail: Deque[str] = deque(maxlen=_TAIL)
        reader, their_writer = os.pipe()
        their_reader, self_writer = os.pipe()
        errors, their_errors = os.pipe()
        if stdio:
            look_alike = len(own) > 1 and all(re.fullmatch("[0-9]+", it) for it in own[:2])
            numbers = ["0", "1"] if look_alike or format == CLASSIC else []
        else:
            numbers = [str(their_reader), str(their_writer)]
        try:
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(
                [*command, *numbers, *own],
                stdin=their_reader if stdio else subprocess.DEVNULL,
                stdout=their_writer if stdio else their_errors,
                stderr=their_errors,
                pass_fds=() if stdio else (their_reader, their_writer),
                # Of its own: Ctrl-C is for the host, which then stops its plugins.
                start_new_session=True,
                env=environment,
                cwd=cwd,
            )
        except OSError as error:
            for descriptor in (reader, self_writer, errors):
                os.close(descriptor)
            raise StartError(cannot_start(command[0], cwd, environment, error)) from None
        finally:
            for descriptor in (their_reader, their_writer, their_errors):
                os.close(descriptor)
        self.reader, self.writer = reader, self_writer
        self._errors = threading.Thread(target=self._read_lines, args=(errors,), name="pipeplug-stderr", daemon=True)
        self._errors.start()

    def _read_lines(self, descriptor: int) -> None:
        rest = b""
        while True:
            try:
                data = os.read(descriptor, 65536)
            except OSError:
                break
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._line(line)
            if len(rest) > _LINE_LIMIT:
                self._line(rest)
                rest = b""
        if rest:
            self._line(rest)
        os.close(descriptor)

    def _line(self, line: bytes) -> None:
        for start in range(0, max(1, len(line)), _LINE_LIMIT):
            said = line[start : start + _LINE_LIMIT].decode(errors="replace")
            self._tail.append(said)
            try:
                if self.on_line is not None:
                    self.on_line(said)
                else:
                    print(f"{self.name}: {said}", file=sys.stderr, flush=True)
            except Exception as error:
                # The plugin must not wait for a reader that has failed.
                print(f"{self.name}: on_line failed: {error!r}", file=sys.stderr, flush=True)

    @property
    def pid(self) -> int:
        """Process id."""
        return self.popen.pid

    def poll(self) -> Optional[int]:
        """Returns the status, negative for a signal; None while it runs."""
        return self.popen.poll()

    def tail(self) -> List[str]:
        """Returns the last lines of its standard error."""
        return list(self._tail)

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Waits for the end. Returns the status, negative for a signal; None at the time-out."""
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._errors.join(0.5)
        return status

    def end_text(self) -> str:
        """Says how it ended, in words."""
        status = self.wait(0.25)
        if status is None:
            return f"{self.name} has closed the pipe"
        return f"{self.name} has ended: {status_text(status)}{self.said()}"

    def said(self) -> str:
        """Returns the words for the last lines of its standard error, as the end of a message."""
        tail = " | ".join(self.tail()[-5:])
        return f", last on its stderr: {tail}" if tail else ", nothing on its stderr"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it and to what it has started."""
        if self.popen.poll() is None:
            try:
                os.killpg(self.popen.pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    def end(self, grace: float) -> int:
        """Waits for its end, and asks more and more firmly."""
        status = self.wait(grace)
        if status is None:
            self.kill(signal.SIGTERM)
            status = self.wait(2.0)
        if status is None:
            self.kill()
            status = self.wait()
        assert status is not None
        return status


class Attached:
    """A plugin that some other process has started: this side has the connection only."""

    def __init__(self, place: Place, name: Optional[str]) -> None:
        text("name", name)
        if isinstance(place, (str, os.PathLike)):
            address = path("place", place)
            self.name = name or os.path.basename(address)
            connection = _connect(address, self.name)
            self.reader = connection.detach()
            # A number of its own, as poll(2) takes each once.
            self.writer = fcntl.fcntl(self.reader, fcntl.F_DUPFD_CLOEXEC, 3)
            return
        self.name = name or "plugin"
        pair = place if isinstance(place, tuple) else (place, place)
        if len(pair) != 2 or not all(isinstance(it, int) or hasattr(it, "fileno") for it in pair):
            raise TypeError(f"place is the path of a socket, a socket, or a pair of open files; not {place!r}")
        reader, writer = (it if isinstance(it, int) else it.fileno() for it in pair)
        # Of its own, so that the caller may close what it has given.
        self.reader = fcntl.fcntl(reader, fcntl.F_DUPFD_CLOEXEC, 3)
        self.writer = fcntl.fcntl(writer, fcntl.F_DUPFD_CLOEXEC, 3)

    def tail(self) -> List[str]:
        """Returns nothing: its standard error is not this side's."""
        return []

    def said(self) -> str:
        """Returns nothing to add to a message."""
        return ""

    def end_text(self) -> str:
        """Says how it ended, in words."""
        return f"{self.name} has closed the connection"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Leaves the process alone, which belongs to another."""

    def wait(self, timeout: Optional[float] = None) -> Optional[int]:
        """Returns nothing at once: the status is not known."""
        return None

    def end(self, grace: float) -> int:
        """Waits for nothing, as the status is its parent's."""
        return 0

    @property
    def pid(self) -> int:
        """0, as the process is not this side's."""
        return 0

    def poll(self) -> Optional[int]:
        """Returns nothing: the status is not known."""
        return None


def _command(program: Program) -> List[str]:
    """Returns the words of a command."""
    if isinstance(program, (str, os.PathLike)):
        return [path("program", program)]
    if isinstance(program, bytes) or not isinstance(program, Iterable):
        raise TypeError(f"program is a path, or a list such as [sys.executable, 'plugin.py']; not {program!r}")
    return [path("program", it) for it in program]


def _connect(address: str, name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError as error:
        connection.close()
        raise StartError(
            f'no plugin waits at "{address}": {error.strerror or error}; start it with --pipeplug-listen {address}'
        ) from error
    uid = peer_uid(connection)
    if uid is not None and uid != os.geteuid():
        connection.close()
        raise StartError(f'plugin "{name}" at "{address}" runs as user {uid}: it has to be of user {os.geteuid()}')
    return connection


def status_text(status: int) -> str:
    """Returns an exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
