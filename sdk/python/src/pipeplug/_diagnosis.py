"""Reasons for which a program cannot be started, which the error of the system alone does not tell."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import sys
from typing import List, Mapping, NamedTuple, Optional, Sequence, Union

#: Interpreters of interpreters that Linux follows: execve(2).
_DEPTH = 5
#: Machines of ELF files: elf(5), e_machine.
_MACHINES = {
    3: "x86", 8: "mips", 20: "powerpc", 21: "powerpc64", 22: "s390x", 40: "arm", 43: "sparc64", 62: "x86_64",
    183: "aarch64", 243: "riscv", 258: "loongarch",
}  # fmt: skip
_START_WITH = "start a script with a line like `#!/usr/bin/env python3`"
Cwd = Union[str, "os.PathLike[str]", None]


def cannot_start(program: str, cwd: Cwd, env: Optional[Mapping[str, str]], error: OSError) -> str:
    """Returns why a program cannot be started, and what to do about it."""
    if cwd is not None and not os.path.isdir(cwd):
        there = "is no directory" if os.path.exists(cwd) else "does not exist"
        return f'the working directory "{os.fspath(cwd)}" of plugin "{program}" {there}: make it, or give another cwd'
    number = error.errno
    if number in (errno.EMFILE, errno.ENFILE):
        return f'plugin "{program}" needs more open files than this process may have: raise the limit, as by ulimit -n'
    if number in (errno.EAGAIN, errno.ENOMEM):
        return f'plugin "{program}" cannot be started now: {error.strerror}; end other processes, or raise the limit'
    if number == errno.E2BIG:
        return f'the arguments and the environment of plugin "{program}" are too long for the system: give less'
    if "/" in program:
        # A relative path is looked up where the plugin starts.
        path = program if cwd is None else os.path.join(cwd, program)
        return f'plugin "{program}" {_trouble(path, program, error)}'
    found = shutil.which(program, path=None if env is None else env.get("PATH"))
    if found is not None:
        return f'plugin "{program}", found as "{found}", {_trouble(found, found, error)}'
    if os.path.exists(program if cwd is None else os.path.join(cwd, program)):
        return f'plugin "{program}" was looked for in PATH, and is not there: write ./{program} for the file here'
    return f'plugin "{program}" was not found in PATH: install it, or write a path with a slash, as ./{program}'


def _trouble(path: str, shown: str, error: OSError) -> str:
    """Returns the words behind the name of a plugin whose file may be the trouble."""
    if error.errno == errno.ELOOP:
        return "leads through a loop of symbolic links: correct them"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return _missing(path, shown, error)
    if stat.S_ISDIR(mode):
        return "is a directory: name the executable file inside it"
    if not stat.S_ISREG(mode):
        return "is no file, but a device, pipe or socket: name the file of a program"
    if error.errno in (errno.EACCES, errno.EPERM):
        return _not_permitted(path, shown, mode, error)
    if error.errno == errno.ETXTBSY:
        return "is being written: start it when it is complete"
    try:
        chain = _interpreters(path)
        for file in chain[1:]:
            if not os.path.exists(file):
                return _no_interpreter(file)
        for file in chain:
            _check_file(file)
    except _Unusable as found:
        who = "" if found.file == path else f'has the interpreter "{found.file}", which '
        return f"{who}{found}"
    except OSError:
        # It cannot be read, so that its beginning tells nothing.
        pass
    return f"could not be started: {error.strerror or error}; try it in a terminal"


def _missing(path: str, shown: str, error: OSError) -> str:
    if os.path.islink(path):
        return f'does not exist: it is a symbolic link to "{os.readlink(path)}"'
    parent = os.path.dirname(path.rstrip("/"))
    while parent and not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if parent and not os.path.isdir(parent):
        return f'does not exist: "{parent}" is no directory'
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"cannot be reached: {error.strerror}; allow this user to enter the directories above it (chmod +x)"
    start = (
        "" if shown.startswith("/") else f", which starts at {os.path.abspath(path[: len(path) - len(shown)] or '.')}"
    )
    return f"does not exist: check the path{start}"


def _not_permitted(path: str, shown: str, mode: int, error: OSError) -> str:
    if not mode & 0o111 or not os.access(path, os.X_OK):
        return f"is not executable (mode {stat.S_IMODE(mode):04o}): run chmod +x {shown}"
    if os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0):
        return "lies in a file system that is mounted noexec: move it to another"
    for file in _interpreters(path)[1:]:
        if os.path.exists(file) and not os.access(file, os.X_OK):
            return f'needs the interpreter "{file}", which is not executable: correct its mode, or the `#!` line'
    return f"may not be executed: {error.strerror}; a rule of the system forbids it"


def _no_interpreter(file: str) -> str:
    if file.endswith("\r"):
        return f"has a `#!` line that ends with CR, so that {file!r} was looked for: save it with the line ends of Unix"
    if not file.startswith("/"):
        return f'has a `#!` line with "{file}", which is no path from /: write it in full, or `#!/usr/bin/env {file}`'
    return f'needs the interpreter "{file}", which does not exist: install it, or correct its `#!` line or build'


class _Unusable(Exception):
    """A file that is no program for this machine."""

    def __init__(self, file: str, text: str) -> None:
        super().__init__(text)
        self.file = file


class _Elf(NamedTuple):
    bits: int
    order: str
    machine: int

    def words(self) -> str:
        """Says for which machine it is."""
        order = "little" if self.order == "<" else "big"
        return f"{_MACHINES.get(self.machine, f'machine {self.machine}')}, {self.bits} bits, {order}-endian"


def _elf(head: bytes) -> _Elf:
    order = ">" if head[5:6] == b"\2" else "<"
    return _Elf(64 if head[4:5] == b"\2" else 32, order, struct.unpack(f"{order}H", head[18:20])[0])


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(256)


def _interpreters(path: str) -> List[str]:
    """Returns a file and what the kernel loads to run it: its interpreter, that one's, and so on."""
    chain = [path]
    while len(chain) <= _DEPTH:
        try:
            head = _head(chain[-1])
        except OSError:
            break
        if not head.startswith(b"#!"):
            break
        # A CR belongs to the word: the kernel takes it for a part of the name.
        line = head[2:].split(b"\n", 1)[0].strip(b" \t")
        if not line:
            break
        chain.append(os.fsdecode(line.replace(b"\t", b" ").split(b" ", 1)[0]))
    return chain


def _check_file(path: str) -> None:
    head = _head(path)
    if not head:
        raise _Unusable(path, f"is empty: {_START_WITH}")
    if head.startswith(b"#!"):
        if not head[2:].split(b"\n", 1)[0].strip():
            raise _Unusable(path, f"has a `#!` line that names no interpreter: {_START_WITH}")
        return
    if not head.startswith(b"\x7fELF"):
        if sys.platform == "linux":
            raise _Unusable(path, f"is no program, as it begins neither with `#!` nor as an ELF file: {_START_WITH}")
        return
    if len(head) < 20:
        raise _Unusable(path, "is damaged: build or copy it again")
    own = _elf(_head(os.path.realpath(sys.executable)))
    if _elf(head) != own:
        text = f"is built for another machine ({_elf(head).words()}), this one is {own.words()}: build it for this one"
        raise _Unusable(path, text)


#: Words that shells and env(1) put behind the name of a command that they cannot run.
_ENDINGS = (
    ": not found", ": command not found", ": No such file or directory", ": Permission denied",
    ": cannot execute: required file not found", ": Exec format error", ": Is a directory",
)  # fmt: skip


def command_hint(status: Optional[int], lines: Sequence[str]) -> str:
    """Returns the next step for a plugin that ended as a shell or env(1) does that cannot run a command."""
    if status not in (126, 127):
        return ""
    for line in reversed(lines):
        if "shared librar" in line or "shared object" in line:
            # Of a dynamic loader, which ends with 127, too.
            continue
        ending = next((it for it in _ENDINGS if line.rstrip().endswith(it)), None)
        if ending is None:
            continue
        name = line.rstrip()[: -len(ending)].rsplit(": ", 1)[-1].strip("'\"` \u2018\u2019")
        if name.endswith(("\r", "\\r")):
            return "; its `#!` line ends with CR: save it with the line ends of Unix"
        if status == 126:
            return (
                f'; command "{name}" may not be executed: is it a program for this machine, and executable (chmod +x)?'
            )
        if "/" in name:
            return f'; command "{name}" does not exist: install it, or correct its path'
        return f'; command "{name}" was not found: install it, or have its directory in PATH (env={{"PATH": …}})'
    return ""
