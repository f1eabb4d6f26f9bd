"""The side of a plugin: commands, and the handle to the host."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import signal
import sys
import threading
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NoReturn,
    Optional,
    TypeVar,
    Union,
)

from . import _negotiation as nego
from ._chunks import CLASSIC, STANDARD
from ._commands import Commands
from ._connection import Connection
from ._errors import RegisterError
from ._handlers import error_text
from ._logging import JsonHandler, set_level
from ._options import Options, choice, instance, seconds, text, texts, time_limit, versions, words
from ._options import function as _check
from ._pipe import Pipe
from ._register import Ends, runs_on_pipes, take_ends
from ._request import Request
from ._sending import Driver
from ._session import Session
from ._threads import ThreadDriver

log = logging.getLogger("pipeplug")
F = TypeVar("F", bound=Callable[..., Any])


class HostInfo:
    """What a host has said of itself."""

    #: Metadata of the host, without the configuration.
    metadata: Mapping[str, str]

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.metadata = {}
        self._config: Optional[str] = None
        #: Version of the application's interface that both sides speak; None if one names none.
        self.interface_version: Optional[int] = None
        #: The plugin's own arguments, behind the numbers of the descriptors.
        self.args: List[str] = []
        self._stopping = threading.Event()

    @property
    def config(self) -> Any:
        """Configuration that the host has for the plugin, as JSON gives it; None if it has none."""
        return None if self._config is None else json.loads(self._config)

    @property
    def is_stopping(self) -> bool:
        """True once the plugin has to end: the host said stop, or is gone."""
        return self._stopping.is_set()

    def wait_stopping(self, timeout: Optional[float] = None) -> bool:
        """Sleeps for `timeout` seconds, or until the plugin has to end. Tells whether it has."""
        return self._stopping.wait(seconds("timeout", timeout, "no limit"))


class Host(Connection, HostInfo):
    """The host, as its plugin sees it."""

    def __init__(self, session: Session, driver: Driver, guest: Guest) -> None:
        Connection.__init__(self, session, driver)
        HostInfo.__init__(self, guest)


class Guest(Commands):
    """A plugin.

    >>> plugin = Guest(description="says back what it is told")
    >>> @plugin.command
    ... def echo(request: Request) -> bytes:
    ...     return request.data
    >>> plugin.run()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: Optional[str] = None,
        *,
        description: Optional[str] = None,
        metadata: Optional[Mapping[str, str]] = None,
        interface_versions: Iterable[int] = (),
        in_order: Union[bool, Iterable[str]] = False,
        options: Optional[Options] = None,
        format: Optional[str] = None,
        grace: float = 5.0,
        args: Optional[List[str]] = None,
    ) -> None:
        self.name = text("name", name) or os.path.basename(sys.argv[0] or "plugin") or "plugin"
        self.metadata: Dict[str, str] = texts("metadata", metadata)
        text("description", description)
        if description is not None:
            self.metadata.setdefault("Description", description)
        self.interface_versions = versions("interface_versions", interface_versions)
        self.format = None if format is None else choice("format", format, (STANDARD, CLASSIC))
        self.options, self.grace = instance("options", options, Options) or Options(), time_limit("grace", grace)
        self._args = None if args is None else words("args", args)
        super().__init__(self.name, in_order=in_order)
        self._start: Optional[Callable[..., Any]] = None
        self._on_stop: Optional[Callable[[], Any]] = None
        self._has_log = False
        self._host: Optional[HostInfo] = None
        self._by_hand: Optional[str] = None
        self._has_started = False
        self._start_error: Optional[str] = None
        # What a program prints between here and `run` must not reach the wire. A module that only defines
        # a plugin, as for its tests, is left alone.
        is_program = sys._getframe(1).f_globals.get("__name__") == "__main__"
        is_early = is_program and args is None and runs_on_pipes(sys.argv[1:])
        self._ends: Optional[Ends] = None
        if is_early:
            # A failure is told by `run`, which finds it again.
            with contextlib.suppress(RegisterError):
                self._ends = take_ends(sys.argv[1:], self.name)

    def start(self, function: F) -> F:
        """Registers a function that runs before any command, once the host has described itself.

        The host's start waits for it. It gets the handle to the host, and may call it. An error ends the plugin.
        """
        _check("start", function)
        self._start = function
        return function

    def on_stop(self, function: F) -> F:
        """Registers a function that runs on a thread of its own when the plugin has to end."""
        _check("on_stop", function)
        self._on_stop = function
        return function

    def setup_logging(self, level: int = logging.INFO) -> None:
        """Writes records of `logging` to standard error, as lines whose level the host knows and may set."""
        self._has_log = True
        root = logging.getLogger()
        if not any(isinstance(it, JsonHandler) for it in root.handlers):
            root.addHandler(JsonHandler())
        root.setLevel(level)

    @property
    def host(self) -> Host:
        """The host, once the plugin runs."""
        if self._host is None:
            raise RegisterError("the plugin does not run yet: there is no host", 1)
        return self._host  # type: ignore[return-value]

    # Running.

    def run(self) -> NoReturn:
        """Serves the host until the end, and exits: with 0 if the host said stop."""
        status = self.serve()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        sys.exit(status)

    def serve(self) -> int:
        """Serves the host until the end. Returns the exit status of the process."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # Ctrl-C ends a plugin as it ends other programs, without a traceback.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        is_async = self._handlers.has_async or self._is_coroutine(self._start)
        try:
            if is_async:
                import asyncio

                return asyncio.run(self.serve_async())
            return self._serve_threads()
        except RegisterError as error:
            by_hand = str(error).startswith(f"{self.name} is a plugin")
            self._say(str(error), with_name=not by_hand)
            return error.status

    async def serve_async(self) -> int:
        """Serves the host in the running event loop. Returns the exit status of the process."""
        from ._aio_guest import serve_guest

        return await serve_guest(self)

    def _connect(self) -> tuple[Session, Pipe, List[str]]:
        args = sys.argv[1:] if self._args is None else self._args
        ends = self._ends or take_ends(args, self.name)
        self._by_hand = ends.by_hand
        session = Session(self.options, self.format, is_host=False)
        session.on_log_level = lambda level: session.later.append(lambda: self._set_level(level))
        return session, Pipe(ends.reader, ends.writer), ends.args

    def _serve_threads(self) -> int:
        session, pipe, args = self._connect()
        session.incoming = Request
        driver = ThreadDriver(session, pipe, self._handlers)
        driver.grace = self.grace
        host = Host(session, driver, self)
        host.args = args
        self._host = session.peer = host

        def stopping() -> None:
            self._tell_stop()
            driver.stop_soon()

        session.on_stop = stopping
        driver.on_late = lambda: self._say(f"stopped with handlers still at work after {self.grace:g} s")
        driver.on_close = self._tell_stop
        if self._start is not None:
            driver.held = []

        def metadata(request: Request) -> bytes:
            answer = self._introduce(request.data, session)
            if answer is not None:
                if driver.held is not None:
                    driver.later.append(driver.release_held)
                return answer
            if self._start is not None and not self._has_started:
                self._has_started = True
                try:
                    self._start(*self._start_args(self._start, host))
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._fail_start(error)
                    driver.pipe.cut()
                    driver.finish()
                    return b""
            self._agree(session)
            if driver.held is not None:
                driver.later.append(driver.release_held)
            return self._answer(session)

        if "GetMetadata" not in self._handlers.commands:
            self._handlers.add("GetMetadata", metadata, False)
        self._services.register(self._handlers)
        is_main = threading.current_thread() is threading.main_thread()
        returned = threading.Event()
        if is_main:
            threading.Thread(target=self._leave_late, args=(driver, returned), name="pipeplug-end", daemon=True).start()
        driver.loop()
        driver.done.wait()
        returned.set()
        return self._status(session, driver.exit_status, driver.end_reason)

    def _leave_late(self, driver: ThreadDriver, returned: threading.Event) -> None:
        """Ends the process if its main thread is in a handler that does not return."""
        driver.done.wait()
        if not returned.wait(0.2):
            status = self._status(driver.session, driver.exit_status, driver.end_reason)
            try:
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _status(self, session: Session, status: Optional[int], reason: Optional[str]) -> int:
        if status is not None:
            return status
        if self._start_error is not None:
            return 1
        if session.is_stopping:
            return 0
        self._tell_stop()
        is_eof = reason == "the other side closed the pipe"
        if self._by_hand is not None and not session.was_spoken_to and is_eof:
            self._say(self._by_hand, with_name=False)
            return 2
        self._say(f"the host is gone: {reason}")
        if self._by_hand is not None and not session.was_spoken_to:
            self._say(self._by_hand, with_name=False)
        return 1

    def _tell_stop(self) -> None:
        host = self._host
        if host is None or host._stopping.is_set():
            return
        host._stopping.set()
        if self._on_stop is not None:
            threading.Thread(target=self._on_stop, name="pipeplug-stop", daemon=True).start()

    # The exchange of metadata.

    def _introduce(self, data: bytes, session: Session) -> Optional[bytes]:
        """Takes what the host says of itself. Returns the answer if there is no common interface."""
        host = self._host
        assert host is not None
        metadata = nego.parse_metadata(data) or {}
        if session.features is None:
            host._config = metadata.pop("pipeplug.config", None)
            host.metadata = metadata
            with session.lock:
                session.hear(metadata)
            level = metadata.get("pipeplug.log_level")
            if level is not None:
                self._set_level(level)
            theirs = nego.parse_versions(metadata.get("pipeplug.interface_versions"))
            if theirs is not None and self.interface_versions:
                common = set(theirs) & set(self.interface_versions)
                if not common:
                    message = nego.mismatch(self.interface_versions, theirs)
                    self._start_error = message
                    self._say(message)
                    return self._answer(session)
                host.interface_version = max(common)
        return None

    def _set_level(self, level: str) -> None:
        if self._has_log:
            set_level(level)

    def _agree(self, session: Session) -> None:
        host = self._host
        assert host is not None
        if not session.is_agreed:
            with session.lock:
                session.agree(host.metadata)

    def _answer(self, session: Session) -> bytes:
        extra = {"pipeplug.name": self.name, "pipeplug.features": "config"}
        if self._has_log:
            extra["pipeplug.features"] += " log"
        if self.interface_versions:
            extra["pipeplug.interface_versions"] = " ".join(map(str, self.interface_versions))
        extra.update(self._services.metadata())
        return nego.compact({**self.metadata, **session.offer(extra)})

    def _fail_start(self, error: BaseException) -> None:
        self._start_error = error_text(error)
        with contextlib.suppress(Exception):
            log.debug("the start failed", exc_info=error)
        self._say(f"the plugin's start failed: {self._start_error}")

    @staticmethod
    def _start_args(function: Callable[..., Any], host: Any) -> List[Any]:
        return [host] if inspect.signature(function).parameters else []

    @staticmethod
    def _is_coroutine(function: Optional[Callable[..., Any]]) -> bool:
        return function is not None and inspect.iscoroutinefunction(function)

    def _say(self, message: str, with_name: bool = True) -> None:
        line = f"{self.name}: {message}\n" if with_name else f"{message}\n"
        try:
            # In one write: the process may be killed between two.
            os.write(2, line.encode(errors="replace"))
        except OSError:
            pass
