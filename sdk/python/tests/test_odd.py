"""Errors and logs that are odd: each call is answered, and none of them runs under the lock of a connection."""

from __future__ import annotations

import asyncio
import sys
import time
import unittest
from pathlib import Path
from typing import Any, Callable, List, Tuple
from unittest.mock import patch

from test_asyncio import start as start_async
from test_threads import PLUGIN
from test_threads import start as start_tests

from pipeplug import AsyncPlugin, AsyncRequest, CallFailed, Commands, ConnectionClosed, Plugin, Request, StartError
from pipeplug._chunks import ONE_WAY
from pipeplug._parts import Waitable

ODD = [sys.executable, str(Path(__file__).with_name("plugin_odd.py"))]
KINDS = ((), ("async",))


def start(*args: str, **named: Any) -> Plugin:
    named.setdefault("on_line", lambda line: None)
    return Plugin.start(ODD, args=args, timeout=60, **named)


class Errors(unittest.TestCase):
    def test_each_is_answered(self) -> None:
        expected = (
            ("own_cause", "ValueError: own"),
            ("cycle", "ValueError: first: KeyError: 'second'"),
            ("many_causes", ": ".join(f"ValueError: number {it}" for it in range(4999, 4983, -1))),
            ("coded_in_a_cycle", "ValueError: first: second"),
            ("changed", "changed"),
            ("odd", "Odd: x"),
            ("generator_exit", "GeneratorExit"),
            ("cancelled", "asyncio.exceptions.CancelledError"),
            ("mute", "Mute"),
            ("mute_cause", "ValueError: x: Mute"),
        )
        for args in KINDS:
            with start(*args) as plugin:
                for command, message in expected:
                    # On the thread that reads, and on one of the pool.
                    for data in ("", "slow", "slow"):
                        with self.subTest(command, args=args, data=data):
                            with self.assertRaises(CallFailed) as caught:
                                plugin.call(command, data, timeout=20)
                            self.assertEqual(caught.exception.message, message)
                            coded = command in ("coded_in_a_cycle", "changed")
                            self.assertEqual(caught.exception.code, "not_found" if coded else None)
                    plugin.notify(command)
                self.assertEqual(plugin.call("echo", "x", timeout=20), b"x")
                self.assertEqual(plugin.stop(), 0)

    def test_those_of_a_host_too(self) -> None:
        desk = Commands()
        found: List[str] = []

        @desk.command
        def log(request: Request) -> None:
            pass

        @desk.command
        def stderr(request: Request) -> None:
            pass

        @desk.command
        def inherited(request: Request) -> None:
            try:
                int("x")
            except ValueError as error:
                raise error from error

        @desk.command("nests")
        def odd(request: Request) -> None:
            raise KeyboardInterrupt

        with start_tests(commands=desk) as plugin:
            for command in ("asks", "nests"):
                with self.assertRaises(CallFailed) as caught:
                    plugin.call(command, timeout=20)
                found.append(caught.exception.message)
            self.assertEqual(
                found,
                ["inherited: ValueError: invalid literal for int() with base 10: 'x'", "KeyboardInterrupt"],
            )
            self.assertEqual(plugin.call("echo", "x", timeout=20), b"x")

    def test_an_exit_and_an_interrupt_end_the_plugin(self) -> None:
        for args in KINDS:
            for command, data, statuses in (
                ("exit", "", (3,)),
                ("exit", "slow", (3,)),
                ("interrupt", "", (-2, 1)),
                ("interrupt", "slow", (130, -2, 1)),
            ):
                with self.subTest(command, args=args, data=data), start(*args) as plugin:
                    with self.assertRaises(ConnectionClosed):
                        plugin.call(command, data, timeout=20)
                    self.assertIn(plugin.stop(), statuses)

    def test_a_start_that_fails_by_what_is_no_exception(self) -> None:
        for args in KINDS:
            with self.subTest(args=args), self.assertRaisesRegex(StartError, "start failed: Odd: at the start"):
                start("start-fails", *args)

    def test_an_end_has_the_last_lines(self) -> None:
        text = "odd.py has ended: exit status 4, last on its stderr: line 2 | line 3 | line 4 | line 5 | line 6$"
        with start() as plugin:
            with self.assertRaisesRegex(ConnectionClosed, f"^dies: no reply, plugin_{text}"):
                plugin.call("dies", timeout=20)
            with self.assertRaisesRegex(ConnectionClosed, f"^echo: not sent, plugin_{text}"):
                plugin.call("echo", timeout=20)

        async def in_a_loop() -> None:
            async with await AsyncPlugin.start(ODD, timeout=60, on_line=lambda line: None) as plugin:
                with self.assertRaisesRegex(ConnectionClosed, text):
                    await plugin.call("dies", timeout=20)

        asyncio.run(in_a_loop())


class Logs(unittest.TestCase):
    def test_a_log_that_goes_to_the_host(self) -> None:
        for args in KINDS:
            with self.subTest(args=args):
                self.forward(args)

    def forward(self, args: Tuple[str, ...]) -> None:
        desk = Commands()
        logged: List[str] = []
        written: List[str] = []

        @desk.command
        def log(request: Request) -> None:
            logged.append(request.text)

        @desk.command
        def stderr(request: Request) -> None:
            written.append(request.text)

        with start("forwards", *args, commands=desk) as plugin:
            for command, data in (("cycle", ""), ("mute", ""), ("odd", "slow"), ("breaks", "")):
                with self.assertRaises(CallFailed):
                    plugin.call(command, data, timeout=20)
            # One-ways that fail, of which one has no handler, and a chunk that makes no sense.
            plugin.notify("cycle")
            plugin.notify("nope")
            with plugin._session.lock:
                plugin._session.queue(0, ONE_WAY, "cmd.credit", b"99999999")
            self.assertEqual(plugin.call("echo", "x", timeout=20), b"x")
            expected = [f"the handler of '{it}' failed" for it in ("cycle", "mute", "odd", "breaks")]
            end = time.monotonic() + 20
            while time.monotonic() < end and not (
                {*expected, "an impossible credit was ignored (1 times)"} <= set(logged)
                and all(any(it in line for line in written) for it in ("one-way 'cycle'", "one-way 'nope'"))
            ):
                time.sleep(0.01)
            self.assertLessEqual({*expected, "an impossible credit was ignored (1 times)"}, set(logged))
            self.assertIn("odd: one-way 'cycle' failed: ValueError: first: KeyError: 'second'", written)
            self.assertTrue(any("one-way 'nope' failed: unknown command 'nope'" in it for it in written), written)
            self.assertEqual(plugin.call("echo", "x", timeout=20), b"x")

    def test_waits_end_under_the_lock(self) -> None:
        async def in_a_loop() -> None:
            async with await start_async(PLUGIN) as plugin:
                held: List[bool] = []
                remove = Waitable.remove_waiter

                def look(target: Waitable, wake: Callable[[], None]) -> None:
                    held.append(plugin._session.lock.locked())
                    remove(target, wake)

                with patch.object(Waitable, "remove_waiter", look):
                    self.assertEqual(await plugin.call("echo", "x", timeout=20), b"x")
                self.assertEqual(held, [True])

        asyncio.run(in_a_loop())

    @unittest.skipUnless(hasattr(asyncio, "eager_task_factory"), "tasks begin late in this version")
    def test_tasks_that_begin_at_once(self) -> None:
        desk = Commands()

        @desk.command
        async def inherited(request: AsyncRequest) -> bytes:
            return await request.peer.call("echo", "x")

        async def in_a_loop() -> None:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
            async with await start_async(PLUGIN, commands=desk) as plugin:
                self.assertEqual(await plugin.call("asks", timeout=20), b"x")

        asyncio.run(in_a_loop())


if __name__ == "__main__":
    unittest.main()
