"""The process of a plugin: its start, its standard error, and its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from typing import Callable, Deque, List, Mapping, Optional, Sequence, Union

from ._codec import CLASSIC
from ._errors import StartError

Program = Union[str, "os.PathLike[str]", Sequence[str]]
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
        single = isinstance(program, (str, os.PathLike))
        command = [os.fspath(program)] if single else [os.fspath(it) for it in program]  # type: ignore[arg-type,union-attr]
        if not command:
            raise StartError("the command of the plugin is empty")
        self.name = name or os.path.basename(command[-1])
        self.on_line = on_line
        self._tail: Deque[str] = deque(maxlen=_TAIL)
        reader, their_writer = os.pipe()
        their_reader, self_writer = os.pipe()
        errors, their_errors = os.pipe()
        own = list(args)
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
                env=None if env is None else dict(env),
                cwd=cwd,
            )
        except OSError as error:
            for descriptor in (reader, self_writer, errors):
                os.close(descriptor)
            raise StartError(self._cannot_start(command[0], error)) from error
        finally:
            for descriptor in (their_reader, their_writer, their_errors):
                os.close(descriptor)
        self.reader, self.writer = reader, self_writer
        self._errors = threading.Thread(target=self._read_lines, args=(errors,), name="pipeplug-stderr", daemon=True)
        self._errors.start()

    def _cannot_start(self, path: str, error: OSError) -> str:
        if isinstance(error, FileNotFoundError):
            if "/" not in path and os.path.exists(path):
                return f'plugin "{path}" was looked for on PATH: write ./{path} for the file here'
            if shutil.which(path) is None:
                return f'there is no plugin "{path}": {error.strerror}'
        if isinstance(error, PermissionError):
            return f'plugin "{path}" is not executable: chmod +x {path}'
        return f'plugin "{path}" could not be started: {error}'

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
            text = line[start : start + _LINE_LIMIT].decode(errors="replace")
            self._tail.append(text)
            try:
                if self.on_line is not None:
                    self.on_line(text)
                else:
                    print(f"{self.name}: {text}", file=sys.stderr, flush=True)
            except Exception as error:
                # The plugin must not wait for a reader that has failed.
                print(f"{self.name}: on_line failed: {error!r}", file=sys.stderr, flush=True)

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
        return f"{self.name} has ended: {status_text(status)}"

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


def status_text(status: int) -> str:
    """Returns an exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"
