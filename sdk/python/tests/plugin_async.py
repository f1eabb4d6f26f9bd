#!/usr/bin/env python3
"""The plugin of the tests by coroutines, with a few functions among them."""

import asyncio
import sys
import time
from typing import Any, AsyncIterator, List

from pipeplug import AsyncHost, AsyncRequest, Guest, Request, method, service

plugin = Guest("async-tests", grace=0.5, in_order=["append"])
appended: List[str] = []


@service(version=1)
class Words:
    @method()
    async def upper(self, words: AsyncIterator[str]) -> AsyncIterator[str]:
        async for word in words:
            yield word.upper()

    async def join(self, words: AsyncIterator[str], by: str = " ") -> str:
        return by.join([word async for word in words])


@plugin.start
async def start(host: AsyncHost) -> None:
    await asyncio.sleep(0.01)


@plugin.command
async def echo(request: AsyncRequest) -> bytes:
    return request.data


@plugin.command
async def hang(request: AsyncRequest) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("the handler was cancelled", file=sys.stderr, flush=True)
        raise


@plugin.command
async def stubborn(request: AsyncRequest) -> str:
    """Answers although its caller has given up."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("the handler goes on", file=sys.stderr, flush=True)
    return "late"


@plugin.command
async def upper(request: AsyncRequest) -> str:
    count = 0
    async for part in request.parts:
        await request.send(part.upper())
        count += 1
    return str(count)


@plugin.command
async def asks(request: AsyncRequest) -> bytes:
    return await request.peer.call("inherited", timeout=60, values={"own": "1"})


@plugin.command
async def append(request: AsyncRequest) -> str:
    await asyncio.sleep(0.002 if request.text.endswith("0") else 0)
    appended.append(request.text)
    return " ".join(appended)


@plugin.command
async def ends(request: AsyncRequest) -> None:
    sys.exit(3)


@plugin.command
async def blocks(request: AsyncRequest) -> bytes:
    peer: Any = request.session.peer
    found: bytes = peer.call("inherited")
    return found


@plugin.command
def sleep(request: Request) -> None:
    time.sleep(float(request.text))


@plugin.command
def prints(request: Request) -> None:
    print("by print")


@plugin.command
def config(request: Request) -> str:
    return repr(plugin.host.config)


if __name__ == "__main__":
    plugin.service(Words())
    plugin.run()
