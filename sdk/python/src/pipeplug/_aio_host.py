"""A host in an event loop of asyncio."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Union

from ._aio import AsyncConnection, incoming
from ._codec import STANDARD
from ._commands import Commands
from ._connection import Connection
from ._errors import CallError, CallFailed
from ._host import Setup
from ._loop import LoopDriver
from ._options import Options, to_bytes
from ._pipe import Pipe
from ._process import Attached, Place, Process, Program
from ._session import Session


class AsyncPlugin(AsyncConnection):
    """A plugin that runs, for tasks of one event loop."""

    #: Name of the plugin, for messages.
    name: str
    #: What the plugin says of itself.
    metadata: Mapping[str, str]
    #: Version of the application's interface that both sides speak; None if one names none.
    interface_version: Optional[int]

    def __init__(
        self, session: Session, driver: LoopDriver, process: Union[Process, Attached], stop_timeout: float
    ) -> None:
        super().__init__(session, driver)
        self._process, self.name, self._stop_timeout = process, process.name, stop_timeout
        self.metadata, self.interface_version = {}, None
        self._status: Optional[int] = None

    @classmethod
    async def start(
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
    ) -> AsyncPlugin:
        """Starts a plugin, with the arguments of `Plugin.start`. Commands of the host may be coroutines."""
        setup = Setup(
            config=config,
            metadata=metadata,
            interface_versions=interface_versions,
            commands=commands,
            log_level=log_level,
            format=format,
        )

        def spawn() -> Process:
            return Process(program, args=args, name=name, stdio=stdio, format=format, env=env, cwd=cwd, on_line=on_line)

        process = await asyncio.to_thread(spawn)
        return await cls._meet(process, setup, timeout, stop_timeout, options)

    @classmethod
    async def attach(
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
    ) -> AsyncPlugin:
        """Connects to a plugin that runs already, with the arguments of `Plugin.attach`."""
        setup = Setup(
            config=config,
            metadata=metadata,
            interface_versions=interface_versions,
            commands=commands,
            log_level=log_level,
            format=format,
        )
        process = await asyncio.to_thread(Attached, place, name)
        return await cls._meet(process, setup, timeout, stop_timeout, options)

    @classmethod
    async def _meet(
        cls,
        process: Union[Process, Attached],
        setup: Setup,
        timeout: float,
        stop_timeout: float,
        options: Optional[Options],
    ) -> AsyncPlugin:
        """Begins the conversation with a plugin."""
        handlers = setup.handlers()
        session = Session(options or Options(), setup.format, is_host=True)
        driver = LoopDriver(session, Pipe(process.reader, process.writer), handlers)
        session.incoming = incoming(handlers)
        driver.on_end = lambda reason: process.end_text() if reason == "the other side closed the pipe" else reason
        plugin = cls(session, driver, process, stop_timeout)
        session.async_peer = plugin
        session.peer = Connection(session, driver)
        begun = time.monotonic()
        try:
            driver.start()
            with session.lock:
                call = session.open_call("GetMetadata", setup.request(session))
            driver.flush()
            await driver.wait_call_async(call, begun + timeout)
            try:
                reply: Optional[bytes] = call.result()
            except CallFailed:
                reply = None
            plugin.metadata = setup.take(process.name, session, reply)
            plugin.interface_version = setup.interface_version
            driver.flush()
        except BaseException as error:
            await plugin.kill()
            if isinstance(error, CallError):
                raise setup.failure(process, error, time.monotonic() - begun) from None
            raise
        return plugin

    async def stop(self, timeout: Optional[float] = None) -> int:
        """Stops the plugin: it answers what is open, and exits. Returns its exit status, see `Plugin.stop`."""
        if self._status is None:
            grace = self._stop_timeout if timeout is None else timeout
            end = time.monotonic() + grace
            session, driver = self._session, self._driver
            with session.lock:
                if session.closed is None and not session.is_stopping:
                    session.is_stopping = True
                    session.queue(0, 1, "cmd.stop", b"")
            driver._flush()
            while session.calls or session.active or session.out:
                if session.closed is not None or time.monotonic() > end:
                    break
                await asyncio.sleep(0.002)
            if driver._waits_to_write:
                driver._waits_to_write = False
                driver.loop.remove_writer(driver.pipe.writer)
            driver.pipe.cut_writer()
            rest = max(0.0, end - time.monotonic())
            if isinstance(self._process, Attached):
                await asyncio.wait([asyncio.ensure_future(driver.done.wait())], timeout=rest)
            self._status = await asyncio.to_thread(self._process.end, rest)
            driver.dispose()
        return self._status

    async def kill(self) -> int:
        """Ends the plugin at once. Returns its exit status."""
        if self._status is None:
            self._process.kill()
            self._driver.end_reason = f"{self.name} was killed by its host"
            self._driver.finish()
            self._status = await asyncio.to_thread(self._process.end, 0.0)
            self._driver.dispose()
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
        """Sets the level of the plugin's log. Returns false if the plugin has no such log."""
        session = self._session
        if not session.has("log"):
            return False
        with session.lock:
            session.queue(0, 1, "cmd.log_level", to_bytes(level))
        self._driver.flush()
        return True

    async def services(self) -> Sequence[Dict[str, Any]]:
        """Returns the description of the plugin's services, which is empty if it has none."""
        if not self.metadata.get("pipeplug.services"):
            return []
        found = json.loads(await self.call("GetServices"))
        services: Sequence[Dict[str, Any]] = found["services"]
        return services

    async def __aenter__(self) -> AsyncPlugin:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.stop(None if error is None else min(1.0, self._stop_timeout))
