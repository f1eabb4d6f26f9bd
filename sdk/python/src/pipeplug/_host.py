"""The side of a host: starts plugins, calls them, and stops them."""

from __future__ import annotations

import atexit
import json
import time
import weakref
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Union

from . import _negotiation as nego
from ._codec import STANDARD
from ._commands import Commands
from ._connection import Connection, Request
from ._errors import CallError, CallFailed, CallTimeout, StartError
from ._handlers import Handlers
from ._options import Options, to_bytes
from ._pipe import Pipe
from ._process import Attached, Place, Process, Program
from ._session import Session
from ._threads import ThreadDriver

_running: weakref.WeakSet[Plugin] = weakref.WeakSet()


class Setup:
    """What a host asks and says at the start of a plugin, by threads and in an event loop alike."""

    def __init__(
        self,
        *,
        config: Any,
        metadata: Optional[Mapping[str, str]],
        interface_versions: Iterable[int],
        commands: Optional[Commands],
        log_level: Optional[str],
        format: str,
    ) -> None:
        self.commands = commands or Commands()
        self.versions = sorted(set(interface_versions))
        self.log_level, self.format = log_level, format
        self.own = dict(metadata or {})
        self.config: Optional[str] = None
        if config is not None:
            self.config = json.dumps(config, ensure_ascii=False)
            if len(self.config.encode()) > nego.CONFIG_LIMIT:
                raise StartError(f"the configuration is longer than {nego.CONFIG_LIMIT} bytes of JSON")
        self.interface_version: Optional[int] = None

    def handlers(self) -> Handlers:
        """Returns the commands that the plugin may call."""
        self.commands._services.register(self.commands._handlers)
        return self.commands._handlers

    def check_blocking(self) -> None:
        """Raises an error if a command needs an event loop."""
        if self.handlers().has_async:
            raise StartError("a command of the host is a coroutine: start the plugin by AsyncPlugin")

    def request(self, session: Session) -> bytes:
        """Returns the buffer of the first request."""
        extra: Dict[str, str] = {"pipeplug.name": "pipeplug-python"}
        if self.versions:
            extra["pipeplug.interface_versions"] = " ".join(map(str, self.versions))
        if self.log_level is not None:
            extra["pipeplug.log_level"] = self.log_level
        extra.update(self.commands._services.metadata())
        said = {**self.own, **session.offer(extra)}
        if self.config is not None:
            said["pipeplug.config"] = self.config
        return nego.compact(said)

    def take(self, name: str, session: Session, reply: Optional[bytes]) -> Dict[str, str]:
        """Takes the answer of the plugin; None if it has no metadata. Raises why the start has failed."""
        metadata: Optional[Dict[str, str]] = {}
        if reply is not None:
            metadata = nego.parse_metadata(reply) if len(reply) <= nego.METADATA_LIMIT else None
            if metadata is None:
                raise StartError(
                    f'plugin "{name}" answered GetMetadata with what is no JSON object of at most'
                    f" {nego.METADATA_LIMIT} bytes: {reply[:60]!r}"
                )
        assert metadata is not None
        with session.lock:
            session.hear(metadata)
            session.agree(metadata)
        if self.config is not None and not session.has("config"):
            raise StartError(
                f'plugin "{name}" cannot take its configuration: it does not name the feature `config`;'
                " use a newer version of it, or start it without a configuration"
            )
        theirs = nego.parse_versions(metadata.get("pipeplug.interface_versions"))
        if theirs is not None and self.versions:
            common = set(theirs) & set(self.versions)
            if not common:
                raise StartError(f'plugin "{name}": {nego.mismatch(theirs, self.versions)}')
            self.interface_version = max(common)
        return metadata

    def failure(self, process: Union[Process, Attached], error: CallError, seconds: float) -> StartError:
        """Returns the error of a plugin that has not answered."""
        name = process.name
        tail = " | ".join(process.tail()[-5:])
        said = f", last on its stderr: {tail}" if tail else ", nothing on its stderr"
        if isinstance(error, CallTimeout):
            return StartError(
                f'plugin "{name}" did not answer GetMetadata within {seconds:g} s{said}; is it a plugin?'
                " A slow one needs a longer timeout"
            )
        if "broke the protocol" in str(error):
            other = "classic" if self.format == STANDARD else "standard"
            return StartError(
                f'plugin "{name}" wrote what is no message: {error.message}{said}; a plugin on stdin and'
                f" stdout must print nothing of its own there; if it speaks the other format use"
                f' format="{other}"'
            )
        return StartError(f'plugin "{name}" ended before it answered: {error.message}{said}')


class Plugin(Connection):
    """A plugin that runs.

    >>> with Plugin.start("./echo") as plugin:  # doctest: +SKIP
    ...     print(plugin.call("echo", "hello"))
    """

    _driver: ThreadDriver
    #: Name of the plugin, for messages.
    name: str
    #: What the plugin says of itself.
    metadata: Mapping[str, str]
    #: Version of the application's interface that both sides speak; None if one names none.
    interface_version: Optional[int]

    def __init__(
        self, session: Session, driver: ThreadDriver, process: Union[Process, Attached], stop_timeout: float
    ) -> None:
        super().__init__(session, driver)
        self._process, self.name, self._stop_timeout = process, process.name, stop_timeout
        self.metadata, self.interface_version = {}, None
        self._status: Optional[int] = None

    @classmethod
    def start(
        cls,
        program: Program,
        *,
        args: Sequence[str] = (),
        stdio: bool = False,
        format: str = STANDARD,
        timeout: float = 10.0,
        stop_timeout: float = 5.0,
        config: Any = None,
        metadata: Optional[Mapping[str, str]] = None,
        interface_versions: Iterable[int] = (),
        commands: Optional[Commands] = None,
        name: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[str] = None,
        on_line: Optional[Callable[[str], None]] = None,
        log_level: Optional[str] = None,
        options: Optional[Options] = None,
    ) -> Plugin:
        """Starts a plugin: a path, or a list such as `[sys.executable, "plugin.py"]`.

        `args` are its own arguments. `commands` answers what the plugin asks. `config` is anything that JSON can
        hold. `on_line` gets each line of the plugin's standard error, which goes to that of this program otherwise.
        `stdio` and `format` are for plugins that need them. `timeout` is for the start, in seconds, and
        `stop_timeout` for `stop`.
        """
        setup = Setup(
            config=config,
            metadata=metadata,
            interface_versions=interface_versions,
            commands=commands,
            log_level=log_level,
            format=format,
        )
        setup.check_blocking()
        process = Process(program, args=args, name=name, stdio=stdio, format=format, env=env, cwd=cwd, on_line=on_line)
        return cls._meet(process, setup, timeout, stop_timeout, options)

    @classmethod
    def attach(
        cls,
        place: Place,
        *,
        format: str = STANDARD,
        timeout: float = 10.0,
        stop_timeout: float = 5.0,
        config: Any = None,
        metadata: Optional[Mapping[str, str]] = None,
        interface_versions: Iterable[int] = (),
        commands: Optional[Commands] = None,
        name: Optional[str] = None,
        log_level: Optional[str] = None,
        options: Optional[Options] = None,
    ) -> Plugin:
        """Connects to a plugin that runs already, as in a debugger: `PLUGIN --pipeplug-listen PATH`.

        `place` is the path of its socket. It may also be a socket that is connected, or a pair of open files or
        descriptors, to read from and to write to; the caller keeps
        and closes its own. `stop` tells the plugin to end, `kill` only closes the connection; both
        return 0, as the exit status is not known.
        """
        setup = Setup(
            config=config,
            metadata=metadata,
            interface_versions=interface_versions,
            commands=commands,
            log_level=log_level,
            format=format,
        )
        setup.check_blocking()
        return cls._meet(Attached(place, name), setup, timeout, stop_timeout, options)

    @classmethod
    def _meet(
        cls,
        process: Union[Process, Attached],
        setup: Setup,
        timeout: float,
        stop_timeout: float,
        options: Optional[Options],
    ) -> Plugin:
        """Begins the conversation with a plugin."""
        handlers = setup.handlers()
        session = Session(options or Options(), setup.format, is_host=True)
        session.incoming = Request
        driver = ThreadDriver(session, Pipe(process.reader, process.writer), handlers)
        driver.on_end = lambda reason: process.end_text() if reason == "the other side closed the pipe" else reason
        plugin = cls(session, driver, process, stop_timeout)
        session.peer = plugin
        begun = time.monotonic()
        try:
            driver.start()
            plugin.metadata = setup.take(process.name, session, plugin._ask(setup, timeout))
            plugin.interface_version = setup.interface_version
            driver.flush()
        except BaseException as error:
            plugin.kill()
            if isinstance(error, CallError):
                raise setup.failure(process, error, time.monotonic() - begun) from None
            raise
        _running.add(plugin)
        return plugin

    def _ask(self, setup: Setup, timeout: float) -> Optional[bytes]:
        session = self._session
        with session.lock:
            call = session.open_call("GetMetadata", setup.request(session))
        self._driver.flush()
        self._driver.wait_call(call, time.monotonic() + timeout)
        try:
            return call.result()
        except CallFailed:
            # It has no metadata, which is no failure.
            return None

    def stop(self, timeout: Optional[float] = None) -> int:
        """Stops the plugin: it answers what is open, and exits. Returns its exit status.

        A plugin that has not ended after `timeout` seconds gets SIGTERM, and SIGKILL 2 s later. The status is
        negative for a signal.
        """
        if self._status is None:
            grace = self._stop_timeout if timeout is None else timeout
            end = time.monotonic() + grace
            session, driver = self._session, self._driver
            with session.lock:
                if session.closed is None and not session.is_stopping:
                    session.is_stopping = True
                    session.queue(0, 1, "cmd.stop", b"")
            driver.flush()
            # What the plugin still works on may call back. Its own input ends when nothing is open.
            while session.calls or session.active or session.out:
                if session.closed is not None or time.monotonic() > end:
                    break
                time.sleep(0.002)
            driver.pipe.cut_writer()
            if isinstance(self._process, Attached):
                driver.done.wait(max(0.0, end - time.monotonic()))
            self._status = self._process.end(max(0.0, end - time.monotonic()))
            driver.dispose()
            _running.discard(self)
        return self._status

    def kill(self) -> int:
        """Ends the plugin at once. Returns its exit status."""
        if self._status is None:
            self._process.kill()
            self._driver.end_reason = f"{self.name} was killed by its host"
            self._driver.finish()
            self._status = self._process.end(0.0)
            self._driver.dispose()
            _running.discard(self)
        return self._status

    @property
    def pid(self) -> int:
        """Process id of the plugin."""
        return self._process.pid

    @property
    def status(self) -> Optional[int]:
        """Exit status of the plugin, negative for a signal; None while it runs."""
        return self._process.poll()

    def set_log_level(self, level: str) -> bool:
        """Sets the level of the plugin's log: off, error, warn, info, debug or trace.

        Returns false if the plugin has no such log.
        """
        session = self._session
        if not session.has("log"):
            return False
        with session.lock:
            session.queue(0, 1, "cmd.log_level", to_bytes(level))
        self._driver.flush()
        return True

    def services(self) -> Sequence[Dict[str, Any]]:
        """Returns the description of the plugin's services, which is empty if it has none."""
        if not self.metadata.get("pipeplug.services"):
            return []
        found = json.loads(self.call("GetServices"))
        services: Sequence[Dict[str, Any]] = found["services"]
        return services

    def __enter__(self) -> Plugin:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.stop(None if error is None else min(1.0, self._stop_timeout))


@atexit.register
def _stop_all() -> None:
    """Stops what still runs: a plugin does not outlive its host."""
    for plugin in list(_running):
        plugin.stop(min(1.0, plugin._stop_timeout))
