"""A plugin in an event loop of asyncio."""

from __future__ import annotations

import asyncio

from ._aio import AsyncConnection, AsyncRequest, incoming
from ._guest import Guest, Host, HostInfo
from ._loop import LoopDriver
from ._session import Session


class AsyncHost(AsyncConnection, HostInfo):
    """The host, as a plugin of coroutines sees it."""

    def __init__(self, session: Session, driver: LoopDriver, guest: Guest) -> None:
        AsyncConnection.__init__(self, session, driver)
        HostInfo.__init__(self, guest)


async def serve_guest(guest: Guest) -> int:
    """Serves a host in the running event loop."""
    session, pipe, args = guest._connect()
    handlers = guest._handlers
    driver = LoopDriver(session, pipe, handlers)
    session.incoming = incoming(handlers)
    driver.grace = guest.grace
    host = AsyncHost(session, driver, guest)
    blocking = Host(session, driver, guest)
    host.args = blocking.args = args
    blocking._stopping = host._stopping
    session.async_peer, session.peer = host, blocking
    # The handle that `Guest.host` gives is the one of coroutines.
    guest._host = host

    def stopping() -> None:
        guest._tell_stop()
        driver.stop_soon()

    session.on_stop = stopping
    driver.on_close = guest._tell_stop
    driver.on_late = lambda: guest._say(f"stopped with handlers still at work after {guest.grace:g} s")
    start = guest._start
    if start is not None:
        driver.held = []

    async def metadata(request: AsyncRequest) -> bytes:
        answer = guest._introduce(request.data, session)
        blocking.metadata, blocking._config = host.metadata, host._config
        blocking.interface_version = host.interface_version
        if answer is None:
            if start is not None and not guest._has_started:
                guest._has_started = True
                try:
                    if guest._is_coroutine(start):
                        await start(*guest._start_args(start, host))
                    else:
                        await asyncio.to_thread(start, *guest._start_args(start, blocking))
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    if isinstance(error, (asyncio.CancelledError, GeneratorExit)) and (
                        request.is_cancelled or driver.is_finished
                    ):
                        raise
                    guest._fail_start(error)
                    driver._cut()
                    driver.finish()
                    return b""
            guest._agree(session)
            answer = guest._answer(session)
        if driver.held is not None:
            driver.loop.call_soon(driver.release_held)
        return answer

    if "GetMetadata" not in handlers.commands:
        handlers.add("GetMetadata", metadata, True)
    guest._services.register(handlers)
    driver.start()
    await driver.done.wait()
    return guest._status(session, driver.exit_status, driver.end_reason)
