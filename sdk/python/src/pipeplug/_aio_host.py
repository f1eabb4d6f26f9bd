"""A host in an event loop of asyncio."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Union

from ._aio import AsyncConnection, incoming
from ._chunks import STANDARD
from ._commands import Commands
from ._connection import Connection
from ._errors import CallError
from ._loop import LoopDriver
from ._options import Options
from ._pipe import Pipe
from ._process import Attached, Place, Process, Program
from ._session import Session
from ._setup import Setup, Started


class AsyncPlugin(Started, AsyncConnection):
    """A plugin that runs, for tasks of one event loop."""

    _driver: LoopDriver

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
            timeout=timeout,
            stop_timeout=stop_timeout,
            options=options,
        )

        def spawn() -> Process:
            return Process(program, args=args, name=name, stdio=stdio, format=format, env=env, cwd=cwd, on_line=on_line)

        process = await asyncio.to_thread(spawn)
        return await cls._meet(process, setup)

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
            timeout=timeout,
            stop_timeout=stop_timeout,
            options=options,
        )
        process = await asyncio.to_thread(Attached, place, name)
        return await cls._meet(process, setup)

    @classmethod
    async def _meet(cls, process: Union[Process, Attached], setup: Setup) -> AsyncPlugin:
        """Begins the conversation with a plugin."""
        handlers = setup.handlers()
        session = Session(setup.options, setup.format, is_host=True)
        driver = LoopDriver(session, Pipe(process.reader, process.writer), handlers)
        session.incoming = incoming(handlers)
        session.async_peer = plugin = cls(session, driver)
        session.peer = Connection(session, driver)
        plugin._begin(process, setup)
        try:
            driver.start()
            call = plugin._ask(setup)
            await driver.wait_call_async(call)
            plugin._take(setup, call)
        except BaseException as error:
            await plugin.kill()
            if isinstance(error, CallError):
                raise plugin._failure(setup, error) from None
            raise
        return plugin

    async def stop(self, timeout: Optional[float] = None) -> int:
        """Stops the plugin: it answers what is open, and exits. Returns its exit status, see `Plugin.stop`."""
        if self._status is None:
            end, driver = self._say_stop(timeout), self._driver
            while self._is_at_work(end):
                await asyncio.sleep(0.002)
            driver.cut_writer()
            rest = max(0.0, end - time.monotonic())
            if isinstance(self._process, Attached):
                await asyncio.wait([asyncio.ensure_future(driver.done.wait())], timeout=rest)
            self._status = await asyncio.to_thread(self._process.end, rest)
            driver.dispose()
        return self._status

    async def kill(self) -> int:
        """Ends the plugin at once. Returns its exit status."""
        if self._status is None:
            self._kill()
            self._status = await asyncio.to_thread(self._process.end, 0.0)
            self._driver.dispose()
        return self._status

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
