"""Hosts and plugins by asyncio, and each with the other kind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any, AsyncIterator, List

from test_threads import PLUGIN, WithLines

from pipeplug import (
    AsyncPlugin,
    AsyncRequest,
    CallFailed,
    CallTimeout,
    Commands,
    ConnectionClosed,
    Plugin,
    Progress,
    StartError,
    method,
    service,
)

ASYNC_PLUGIN = [sys.executable, str(Path(__file__).with_name("plugin_async.py"))]


async def start(program: List[str] = ASYNC_PLUGIN, *args: str, **named: Any) -> AsyncPlugin:
    named.setdefault("on_line", lambda line: None)
    return await AsyncPlugin.start(program, args=args, timeout=60, **named)


class Hosts(unittest.IsolatedAsyncioTestCase):
    async def test_each_kind_of_plugin(self) -> None:
        for program in (PLUGIN, ASYNC_PLUGIN):
            for stdio in (False, True):
                for kind in ("standard", "classic"):
                    async with await start(program, stdio=stdio, format=kind) as plugin:
                        for size in (0, 1, 70_000, 3_000_000):
                            data = bytes(range(256)) * (size // 256 + 1)
                            self.assertEqual(await plugin.call("echo", data), data)
                        self.assertEqual(await plugin.stop(), 0)

    async def test_many_tasks(self) -> None:
        for program in (PLUGIN, ASYNC_PLUGIN):
            async with await start(program) as plugin:
                calls = [plugin.call("echo", str(number)) for number in range(2000)]
                self.assertEqual(await asyncio.gather(*calls), [b"%d" % number for number in range(2000)])

    async def test_a_cancelled_task_cancels_the_handler(self) -> None:
        lines = WithLines()
        async with await start(on_line=lines) as plugin:
            task = asyncio.ensure_future(plugin.call("hang"))
            await asyncio.sleep(0.1)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            while "the handler was cancelled" not in lines.lines:
                await asyncio.sleep(0.01)
            with self.assertRaises((CallTimeout, CallFailed)):
                await plugin.call("hang", timeout=0.1)
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(plugin.call("hang"), 0.1)
            self.assertEqual(await plugin.call("echo", "x"), b"x")

    async def test_streams(self) -> None:
        for program in (PLUGIN, ASYNC_PLUGIN):
            async with await start(program) as plugin, await plugin.stream("upper") as stream:

                async def send(stream: Any = stream) -> None:
                    for _ in range(500):
                        await stream.send(b"x" * 5000)
                    await stream.finish()

                task = asyncio.ensure_future(send())
                self.assertEqual(sum([len(part) async for part in stream]), 2_500_000)
                await task
                self.assertEqual(await stream.reply(), b"500")

    async def test_a_coroutine_of_the_host_answers(self) -> None:
        desk = Commands()

        @desk.command
        async def inherited(request: AsyncRequest) -> str:
            await asyncio.sleep(0.01)
            assert request.time_left is not None
            return f"{request.time_left < 6} {sorted(request.context.items())}"

        for program in (PLUGIN, ASYNC_PLUGIN):
            async with await start(program, commands=desk) as plugin:
                found = await plugin.call("asks", timeout=5, values={"user": "ann"})
                self.assertEqual(found, b"True [('own', '1'), ('user', 'ann')]")
        with self.assertRaisesRegex(StartError, "start the plugin by AsyncPlugin"):
            Plugin.start(PLUGIN, commands=desk)

    async def test_progress_errors_and_ends(self) -> None:
        reports: List[Progress] = []
        async with await start(PLUGIN) as plugin:
            await plugin.call("index", progress=reports.append)
            self.assertEqual(reports[-1].done, 99)
            await plugin.ping()
            with self.assertRaisesRegex(CallFailed, "no such page"):
                await plugin.call("fails", "failure")
            with self.assertRaisesRegex(ConnectionClosed, "SIGSEGV"):
                await plugin.call("ends", "crash")
            self.assertEqual(await plugin.stop(), -11)
        with self.assertRaisesRegex(StartError, "there is no database"):
            await start(PLUGIN, "start-fails")

    async def test_a_service_of_coroutines(self) -> None:
        @service(version=1)
        class Words:
            @method()
            async def upper(self, words: AsyncIterator[str]) -> AsyncIterator[str]:
                raise NotImplementedError
                yield ""

            async def join(self, words: AsyncIterator[str], by: str = " ") -> str:
                raise NotImplementedError

        async def some() -> AsyncIterator[str]:
            for word in ("a", "b"):
                yield word

        async with await start() as plugin:
            words = plugin.client(Words)
            self.assertEqual(await words.join(some(), by="-"), "a-b")
            self.assertEqual([word async for word in words.upper(some())], ["A", "B"])

    async def test_a_plugin_that_was_started_elsewhere(self) -> None:
        for program in (PLUGIN, ASYNC_PLUGIN):
            ours, theirs = socket.socketpair()
            number, copy = theirs.fileno(), os.dup(theirs.fileno())
            process = subprocess.Popen(
                [*program, str(number), str(copy)], pass_fds=(number, copy), stderr=subprocess.DEVNULL
            )
            theirs.close()
            os.close(copy)
            with ours:
                async with await AsyncPlugin.attach(ours, timeout=60) as plugin:
                    self.assertEqual(await plugin.call("echo", bytes(3_000_000)), bytes(3_000_000))
                    self.assertEqual(plugin.pid, 0)
            self.assertEqual(await asyncio.to_thread(process.wait, 20), 0)


class Guests(unittest.TestCase):
    def test_functions_and_coroutines_in_one_plugin(self) -> None:
        lines = WithLines()
        with Plugin.start(ASYNC_PLUGIN, timeout=60, on_line=lines, config={"a": 1}) as plugin:
            busy = plugin.begin("sleep", "0.5")
            begun = time.monotonic()
            plugin.ping()
            self.assertEqual(plugin.call("echo", "x"), b"x")
            self.assertLess(time.monotonic() - begun, 0.45)
            busy.wait()
            self.assertEqual(plugin.call("config"), b"{'a': 1}")
            pending = [plugin.begin("append", str(number)) for number in range(50)]
            self.assertEqual(pending[-1].wait().split(), [str(it).encode() for it in range(50)])
            plugin.call("prints")
            self.assertEqual(plugin.stop(), 0)
        lines.wait_for("by print")

    def test_the_ends(self) -> None:
        plugin = Plugin.start(ASYNC_PLUGIN, timeout=60, on_line=lambda line: None)
        pending = plugin.begin("hang")
        time.sleep(0.1)
        self.assertEqual(plugin.stop(), 0)
        self.assertRaises((CallFailed, ConnectionClosed), pending.wait)
        plugin = Plugin.start(ASYNC_PLUGIN, timeout=60, on_line=lambda line: None)
        with self.assertRaisesRegex(ConnectionClosed, "exit status 3"):
            plugin.call("ends")
        self.assertEqual(plugin.stop(), 3)
        lines = WithLines()
        plugin = Plugin.start(ASYNC_PLUGIN, timeout=60, on_line=lines)
        plugin._driver.pipe.cut()
        self.assertEqual(plugin._process.wait(20), 1)
        lines.wait_for("the host is gone")
        plugin.stop()

    def test_a_call_that_blocks_the_loop_is_refused(self) -> None:
        plugin = Plugin.start(ASYNC_PLUGIN, timeout=60, on_line=lambda line: None)
        with plugin, self.assertRaisesRegex(CallFailed, "would block the event loop"):
            plugin.call("blocks")


if __name__ == "__main__":
    unittest.main()
