#!/usr/bin/env python3
"""The echo plugin by coroutines; `sleep` ends early if its caller gives up."""

import asyncio

from pipeplug import AsyncRequest, Guest

plugin = Guest("echo_async", description="says back what it is told")


@plugin.command
async def echo(request: AsyncRequest) -> bytes:
    async for part in request.parts:
        await request.send(part)
    return request.data


@plugin.command
async def sleep(request: AsyncRequest) -> None:
    milliseconds = int(request.text)
    for done in range(0, milliseconds, 10):
        request.progress(done, milliseconds, "sleeping")
        await asyncio.sleep(min(10, milliseconds - done) / 1000)


if __name__ == "__main__":
    plugin.run()
