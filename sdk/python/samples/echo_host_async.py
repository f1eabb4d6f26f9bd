#!/usr/bin/env python3
"""A host by asyncio: starts the plugin at a path, and has it say many things back at once.

echo_host_async.py PLUGIN [TEXT]
"""

import asyncio
import sys

from pipeplug import AsyncPlugin, CallError


async def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: echo_host_async.py PLUGIN [TEXT]")
    text = " ".join(sys.argv[2:]) or "hello"
    async with await AsyncPlugin.start(sys.argv[1]) as plugin:
        try:
            replies = await asyncio.gather(*(plugin.call("echo", text, timeout=10) for _ in range(10)))
            print(replies[0].decode())
        except CallError as error:
            print(f"echo_host_async.py: {error}", file=sys.stderr)


asyncio.run(main())
