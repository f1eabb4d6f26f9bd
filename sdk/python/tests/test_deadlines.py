"""Replies that come past the deadline of their call, and what late handlers see."""

from __future__ import annotations

import threading
import time
import unittest

from test_asyncio import ASYNC_PLUGIN
from test_asyncio import start as start_async
from test_threads import PLUGIN, WithLines, start

from pipeplug import AsyncPlugin, CallFailed, CallTimeout, Commands, ConnectionClosed, Options, Plugin, Request
from pipeplug._chunks import RESPONSE, Skipped
from pipeplug._session import Session


class Replies(unittest.TestCase):
    def test_a_reply_past_the_deadline_is_none_whoever_looks_first(self) -> None:
        for command, data in (
            ("echo", b"late"),
            ("cmd.error", b"late"),
            ("cmd.failure", b'{"code":"a","message":"b"}'),
        ):
            session = Session(Options(), "standard", is_host=True)
            in_time, late = (session.open_call("echo", b"", None, time.monotonic() + 60) for _ in range(2))
            late.deadline = time.monotonic()
            session.receive((late.thread_id, RESPONSE, command, data))
            session.receive((in_time.thread_id, RESPONSE, "echo", b"good"))
            self.assertEqual(in_time.result(), b"good")
            with self.assertRaisesRegex(CallTimeout, "echo: no reply within its time"):
                late.result()
        session = Session(Options(), "standard", is_host=True)
        late = session.open_call("echo", b"", None, time.monotonic() + 60)
        late.deadline = time.monotonic()
        session.receive(Skipped(late.thread_id, RESPONSE, "buffer-too-long", 4, 1 << 40, 1 << 20, "echo", False))
        self.assertRaises(CallTimeout, late.result)

    def test_a_handler_that_returns_at_the_deadline_never_wins(self) -> None:
        for program in (PLUGIN, ASYNC_PLUGIN):
            with Plugin.start(program, timeout=60, on_line=lambda line: None) as plugin:
                command = "until_cancelled" if program is PLUGIN else "stubborn"
                for _ in range(12):
                    with self.assertRaises(CallTimeout):
                        plugin.call(command, timeout=0.03)
                # Callers wait for different replies: one reads for the others.
                found: list[object] = []

                def call(plugin: Plugin = plugin, command: str = command, found: list[object] = found) -> None:
                    for _ in range(10):
                        try:
                            found.append(plugin.call(command, timeout=0.03))
                        except CallTimeout:
                            pass

                threads = [threading.Thread(target=call) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual(found, [])
                pending = [plugin.begin(command, timeout=0.03) for _ in range(5)]
                time.sleep(0.2)
                for it in pending:
                    self.assertRaises(CallTimeout, it.wait)
                # The limit of a wait is a deadline as well, of which the handler does not know.
                self.assertRaises(CallTimeout, plugin.begin("sleep", "0.05").wait, 0.05)
                self.assertEqual(plugin.call("echo", "x", timeout=60), b"x")

    def test_a_call_whose_time_is_over_is_not_sent(self) -> None:
        with start() as plugin:
            for timeout in (0, -1):
                with self.assertRaisesRegex(CallTimeout, "not sent: its time"):
                    plugin.call("append", "1", timeout=timeout)
            self.assertEqual(plugin.call("append", "2"), b"2")
            self.assertEqual(plugin.call("echo", "x", timeout=float("inf")), b"x")

    def test_parts_end_at_the_deadline(self) -> None:
        with start() as plugin:
            begun = time.monotonic()
            with plugin.stream("sleep", "5", timeout=0.1) as stream, self.assertRaises(CallTimeout):
                list(stream)
            with plugin.stream("sleep", "5", timeout=0.1) as stream, self.assertRaises(CallTimeout):
                while True:
                    stream.send(bytes(100_000))
            self.assertLess(time.monotonic() - begun, 4)

    def test_what_a_late_handler_of_functions_sees(self) -> None:
        desk = Commands()
        seen: list[object] = []
        done = threading.Event()

        @desk.command
        def inherited(request: Request) -> None:
            request.wait_cancelled(60)
            seen.append(request.is_cancelled)
            # The plugin gave up at its own deadline, which may be a moment earlier.
            while request.time_left:
                time.sleep(0.001)
            try:
                request.peer.call("echo", "x")
            except CallTimeout as error:
                seen.append(error.message)
            done.set()

        with start(commands=desk) as plugin:
            self.assertRaises((CallTimeout, CallFailed), plugin.call, "asks", timeout=0.1)
            self.assertTrue(done.wait(30))
            self.assertIs(seen[0], True)
            self.assertIn("not sent: its time, or that of the request", str(seen[1]))


class InAnEventLoop(unittest.IsolatedAsyncioTestCase):
    async def test_a_handler_that_returns_at_the_deadline_never_wins(self) -> None:
        for program, command in ((PLUGIN, "until_cancelled"), (ASYNC_PLUGIN, "stubborn"), (ASYNC_PLUGIN, "hang")):
            async with await start_async(program) as plugin:
                for _ in range(12):
                    with self.assertRaises(CallTimeout):
                        await plugin.call(command, timeout=0.03)
                with self.assertRaisesRegex(CallTimeout, "not sent: its time"):
                    await plugin.call("echo", "x", timeout=0)
                self.assertEqual(await plugin.call("echo", "x"), b"x")

    async def test_a_loop_that_is_kept_busy_past_the_deadline(self) -> None:
        async with await start_async(PLUGIN) as plugin:
            # The reply and the deadline are found at once, the reply first.
            call = await plugin.stream("sleep", "0.1", timeout=0.05, send=False, receive=False)
            time.sleep(0.3)
            with self.assertRaises(CallTimeout):
                await call.reply()

    async def test_parts_end_at_the_deadline(self) -> None:
        async with await start_async(PLUGIN) as plugin:
            async with await plugin.stream("sleep", "5", timeout=0.1) as stream:
                with self.assertRaises(CallTimeout):
                    async for _ in stream:
                        pass
            async with await plugin.stream("sleep", "5", timeout=0.1) as stream:
                with self.assertRaises(CallTimeout):
                    while True:
                        await stream.send(bytes(100_000))

    async def test_a_late_coroutine_is_cancelled(self) -> None:
        lines = WithLines()
        async with await AsyncPlugin.start(ASYNC_PLUGIN, timeout=60, on_line=lines) as plugin:
            with self.assertRaises(CallTimeout):
                await plugin.call("hang", timeout=0.1)
            lines.wait_for("the handler was cancelled")
            with self.assertRaises(CallTimeout):
                await plugin.call("stubborn", timeout=0.1)
            lines.wait_for("the handler goes on")
            self.assertEqual(await plugin.stop(), 0)
        with self.assertRaises(ConnectionClosed):
            await plugin.call("echo")


if __name__ == "__main__":
    unittest.main()
