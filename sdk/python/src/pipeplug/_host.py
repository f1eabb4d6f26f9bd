"""The side of a host: starts plugins, calls them, and stops them."""

from __future__ import annotations

import atexit
import json
import time
import weakref
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Union

from ._chunks import STANDARD
from ._commands import Commands
from ._connection import Connection
from ._errors import CallError
from ._options import Options
from ._pipe import Pipe
from ._process import Attached, Place, Process, Program
from ._request import Request
from ._session import Session
from ._setup import Setup, Started
from ._threads import ThreadDriver

_running: weakref.WeakSet[Plugin] = weakref.WeakSet()


class Plugin(Started, Connection):
    """A plugin that runs.

    >>> with Plugin.start("./echo") as plugin:  # doctest: +SKIP
    ...     print(plugin.call("echo", "hello"))
    """

    _driver: ThreadDriver

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
            timeout=timeout,
            stop_timeout=stop_timeout,
            options=options,
        )
        setup.check_blocking()
        process = Process(program, args=args, name=name, stdio=stdio, format=format, env=env, cwd=cwd, on_line=on_line)
        return cls._meet(process, setup)

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
            timeout=timeout,
            stop_timeout=stop_timeout,
            options=options,
        )
        setup.check_blocking()
        return cls._meet(Attached(place, name), setup)

    @classmethod
    def _meet(cls, process: Union[Process, Attached], setup: Setup) -> Plugin:
        """Begins the conversation with a plugin."""
        session = Session(setup.options, setup.format, is_host=True)
        session.incoming = Request
        driver = ThreadDriver(session, Pipe(process.reader, process.writer), setup.handlers())
        session.peer = plugin = cls(session, driver)
        plugin._begin(process, setup)
        try:
            driver.start()
            call = plugin._ask(setup)
            driver.wait_call(call)
            plugin._take(setup, call)
        except BaseException as error:
            plugin.kill()
            if isinstance(error, CallError):
                raise plugin._failure(setup, error) from None
            raise
        _running.add(plugin)
        return plugin

    def stop(self, timeout: Optional[float] = None) -> int:
        """Stops the plugin: it answers what is open, and exits. Returns its exit status.

        A plugin that has not ended after `timeout` seconds gets SIGTERM, and SIGKILL 2 s later. The status is
        negative for a signal.
        """
        if self._status is None:
            end, driver = self._say_stop(timeout), self._driver
            while self._is_at_work(end):
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
            self._kill()
            self._status = self._process.end(0.0)
            self._driver.dispose()
            _running.discard(self)
        return self._status

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
