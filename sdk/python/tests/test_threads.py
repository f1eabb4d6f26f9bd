"""Hosts and plugins by threads: calls, streams, errors, ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Iterator, List

from plugin import Entry, Unknown, Words

from pipeplug import (
    CallCancelled,
    CallError,
    CallFailed,
    CallTimeout,
    Commands,
    ConnectionClosed,
    EnoughParts,
    Options,
    Plugin,
    Progress,
    Request,
    StartError,
    StreamError,
    Unsupported,
    service,
)

HERE = Path(__file__).parent
PLUGIN = [sys.executable, str(HERE / "plugin.py")]


class WithLines:
    """Lines of a plugin's standard error."""

    def __init__(self) -> None:
        self.lines: List[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def wait_for(self, text: str) -> str:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            for line in self.lines:
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line with {text!r}: {self.lines}")


def start(*args: str, **named: Any) -> Plugin:
    named.setdefault("on_line", lambda line: None)
    return Plugin.start(PLUGIN, args=args, timeout=60, **named)


class Calls(unittest.TestCase):
    def test_each_way_to_connect_brings_all_bytes(self) -> None:
        data = bytes(range(256))
        for stdio in (False, True):
            for kind in ("standard", "classic"):
                with self.subTest(stdio=stdio, format=kind), start(stdio=stdio, format=kind) as plugin:
                    for size in (0, 1, 4096, 70_000, 3_000_000):
                        sent = (data * (size // 256 + 1))[:size]
                        self.assertEqual(plugin.call("echo", sent), sent)
                    self.assertEqual(plugin.metadata["Help"], "tests")
                    self.assertEqual(plugin.stop(), 0)

    def test_what_is_printed_never_reaches_the_wire(self) -> None:
        for stdio in (False, True):
            lines = WithLines()
            with self.subTest(stdio=stdio), start(stdio=stdio, on_line=lines) as plugin:
                self.assertEqual(plugin.call("prints"), b"printed")
                self.assertEqual(plugin.call("echo", "x"), b"x")
                for text in ("printed before the start", "by print", "by write", "by a child"):
                    lines.wait_for(text)
                plugin.stop()
                lines.wait_for("without an end")

    def test_many_calls_at_once(self) -> None:
        with start() as plugin:
            pending = [plugin.begin("echo", str(number)) for number in range(5000)]
            self.assertEqual([it.wait() for it in pending], [str(it).encode() for it in range(5000)])
            wrong: List[object] = []

            def work(number: int) -> None:
                for call in range(50):
                    text = f"{number} {call}".encode()
                    if plugin.call("echo", text) != text:
                        wrong.append(text)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong, [])

    def test_handlers_run_beside_each_other_and_pings_are_answered(self) -> None:
        with start() as plugin:
            for command in ("sleep", "spin"):
                busy = plugin.begin(command, "1")
                begun = time.monotonic()
                plugin.ping()
                self.assertLess(time.monotonic() - begun, 0.9)
                self.assertFalse(busy.is_done())
                busy.wait()
            begun = time.monotonic()
            pending = [plugin.begin("sleep", "0.2") for _ in range(64)]
            for call in pending:
                call.wait()
            self.assertLess(time.monotonic() - begun, 6)

    def test_commands_in_order(self) -> None:
        with start() as plugin:
            pending = [plugin.begin("append", str(number)) for number in range(100)]
            self.assertEqual(pending[-1].wait().split(), [str(it).encode() for it in range(100)])

    def test_errors_have_codes(self) -> None:
        with start() as plugin:
            for command, data, code, message in (
                ("fails", "failure", "not_found", "no such page"),
                ("fails", "error", None, "KeyError: 'x'"),
                ("chained", "", "not_found", "ValueError: cannot open: no such page"),
                ("nope", "", "unknown_command", "unknown command 'nope'"),
            ):
                with self.assertRaises(CallFailed) as caught:
                    plugin.call(command, data)
                self.assertEqual((caught.exception.code, caught.exception.message), (code, message))
            with self.assertRaises(CallFailed) as caught:
                plugin.call("fails", "failure")
            self.assertEqual(caught.exception.data, {"name": "x"})
            with self.assertRaisesRegex(CallError, r"use stop\(\)"):
                plugin.notify("cmd.stop")

    def test_timeouts_and_cancellations_reach_the_handler(self) -> None:
        lines = WithLines()
        with start(on_line=lines) as plugin:
            with self.assertRaises(CallTimeout):
                plugin.call("sleep", "5", timeout=0.1)
            call = plugin.begin("until_cancelled")
            time.sleep(0.05)
            call.cancel()
            with self.assertRaises(CallCancelled):
                call.wait()
            lines.wait_for("cancelled after")

    def test_a_handler_call_inherits_deadline_and_values(self) -> None:
        desk = Commands()

        @desk.command
        def inherited(request: Request) -> str:
            assert request.time_left is not None
            return f"{request.time_left < 6} {sorted(request.context.items())}"

        with start(commands=desk) as plugin:
            found = plugin.call("asks", timeout=5, values={"user": "ann"}).decode()
            self.assertEqual(found, "True [('own', '1'), ('user', 'ann')]")

    def test_progress(self) -> None:
        reports: List[Progress] = []
        with start() as plugin:
            plugin.call("index", progress=reports.append)
            self.assertEqual(reports[0], Progress(0, 100, "indexing"))
            self.assertEqual(reports[-1], Progress(99, 100, "indexing"))
            self.assertLess(len(reports), 60)

    def test_configuration_versions_and_arguments(self) -> None:
        with start("own", config={"port": 80}, interface_versions=[1, 2]) as plugin:
            self.assertEqual(plugin.interface_version, 2)
            self.assertEqual(plugin.call("config"), b"{'port': 80} 2 ['own']")
            self.assertNotIn("port", str(plugin.metadata))
        with self.assertRaisesRegex(StartError, "the plugin speaks 2 3, the host 4; upgrade the plugin"):
            start(interface_versions=[4])

    def test_a_small_window_holds_the_sender_back(self) -> None:
        with start(options=Options(window=1, stream_window=1)) as plugin:
            self.assertEqual([plugin.call("echo", str(it)) for it in range(20)], [b"%d" % it for it in range(20)])
            with plugin.stream("upper") as stream:
                stream.send("a")
                stream.finish()
                self.assertEqual(list(stream), [b"A"])

    def test_what_is_too_large_is_refused(self) -> None:
        with start(options=Options(buffer_limit=1000)) as plugin:
            with self.assertRaisesRegex(CallFailed, "the buffer is 2000 bytes long, the limit is 1000"):
                plugin.call("echo", bytes(2000))
            self.assertEqual(plugin.call("echo", "x"), b"x")
            with self.assertRaisesRegex(CallFailed, "the command is 70000 bytes long, the limit is 65536"):
                plugin.call("x" * 70000)

    def test_the_level_of_a_log(self) -> None:
        with start() as plugin:
            self.assertFalse(plugin.set_log_level("debug"))
        with start("logs") as plugin:
            self.assertTrue(plugin.set_log_level("debug"))


class Streams(unittest.TestCase):
    def test_parts_in_both_directions(self) -> None:
        with start() as plugin, plugin.stream("upper") as stream:
            for word in ("one", "two"):
                stream.send(word)
                self.assertEqual(next(iter(stream)), word.upper().encode())
            stream.finish()
            self.assertEqual(list(stream), [])
            self.assertEqual(stream.reply(), b"2")

    def test_more_than_the_windows(self) -> None:
        with start() as plugin, plugin.stream("many", "3000 4000", send=False) as stream:
            for number, part in enumerate(stream):
                self.assertEqual(part, b"%d" % number + bytes(4000))
            self.assertEqual(number, 2999)
        with start() as plugin, plugin.stream("upper") as stream:

            def send() -> None:
                for _ in range(1000):
                    stream.send(b"x" * 5000)
                stream.finish()

            thread = threading.Thread(target=send)
            thread.start()
            self.assertEqual(sum(len(part) for part in stream), 5_000_000)
            thread.join()

    def test_a_handler_that_takes_no_parts_says_so(self) -> None:
        with start() as plugin, plugin.stream("echo", "x", receive=False) as stream:
            self.assertEqual(stream.reply(), b"x")
            self.assertEqual(stream.refusal, "the handler takes no parts")
            with self.assertRaises(EnoughParts):
                stream.send("y")

    def test_an_early_end_reaches_the_other_side(self) -> None:
        with start() as plugin:
            with plugin.stream("upper") as stream:
                stream.send("a")
                stream.abort("the file is gone")
                with self.assertRaisesRegex(CallFailed, "the file is gone"):
                    stream.reply()
            with plugin.stream("many", "100000 1000", send=False) as stream:
                next(iter(stream))
                stream.cancel()
                with self.assertRaises((StreamError, CallCancelled)):
                    list(stream)
            with plugin.stream("first", receive=False) as stream:
                stream.send("a")
                self.assertEqual(stream.reply(), b"a")
            self.assertEqual(plugin.call("echo", "x"), b"x")


class Services(unittest.TestCase):
    def test_a_client_calls_each_kind_of_method(self) -> None:
        with start() as plugin:
            words = plugin.client(Words)
            self.assertEqual(words.look_up("a"), Entry("a", 3))
            with self.assertRaises(Unknown) as caught:
                words.look_up("z")
            self.assertEqual(caught.exception.word, "z")
            self.assertEqual(words.count(iter("abc")), 3)
            self.assertEqual(list(words.repeat(Entry("b", 2))), [Entry("b", 2), Entry("b", 2)])
            self.assertEqual(list(words.upper(iter(["a", "b"]))), ["A", "B"])
            words.learn(Entry("new", about="it"))
            while True:
                try:
                    self.assertEqual(words.look_up("new"), Entry("new", 1, "it"))
                    break
                except Unknown:
                    # A one-way may be overtaken.
                    time.sleep(0.01)

    def test_arguments_that_do_not_fit_name_the_field(self) -> None:
        with start() as plugin:
            for data, field in (
                ('{"entry":{"word":3}}', "entry.word"),
                ('{"entry":{}}', "entry.word"),
                ("{}", "entry"),
                ('{"entry":{"word":"a","count":true}}', "entry.count"),
            ):
                with self.assertRaises(CallFailed) as caught:
                    plugin.call("words.repeat", data)
                self.assertEqual(caught.exception.code, "invalid_argument")
                self.assertEqual(caught.exception.data, {"field": field})
            (found,) = plugin.services()
            self.assertEqual((found["name"], found["version"], found["oldest"]), ("words", 2, 1))

    def test_a_version_that_is_not_served_is_told(self) -> None:
        @service(version=3, name="words")
        class Newer:
            def count(self, words: Iterator[str]) -> int:
                raise NotImplementedError

        @service(version=1)
        class Other:
            pass

        with start() as plugin:
            with self.assertRaisesRegex(Unsupported, "has the versions 1-2, the caller needs 3"):
                plugin.client(Newer)
            with self.assertRaisesRegex(Unsupported, "does not have this service; it has words/1-2"):
                plugin.client(Other)


class Ends(unittest.TestCase):
    def test_exit_statuses(self) -> None:
        for how, status, text in (("exit", 3, "exit status 3"), ("_exit", 7, "exit status 7"),
                                  ("crash", -11, "SIGSEGV")):  # fmt: skip
            with self.subTest(how=how):
                plugin = start()
                with self.assertRaisesRegex(ConnectionClosed, text):
                    plugin.call("ends", how, timeout=30)
                self.assertEqual(plugin.stop(), status)

    def test_signals_end_a_plugin_as_any_program(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # As SIGINT is in a background job of a script: children inherit that.
            lines = WithLines()
            plugin = start(on_line=lines)
            plugin.call("echo", "x")
            os.kill(plugin.pid, number)
            self.assertEqual(plugin._process.wait(20), -number)
            plugin.stop()
            self.assertNotIn("Traceback", str(lines.lines))

    def test_a_lost_host_ends_the_plugin_with_1(self) -> None:
        lines = WithLines()
        plugin = start(on_line=lines)
        plugin._driver.pipe.cut()
        self.assertEqual(plugin._process.wait(20), 1)
        lines.wait_for("the host is gone: the other side closed the pipe")
        plugin.stop()

    def test_handlers_have_the_grace_time(self) -> None:
        plugin = start()
        call = plugin.begin("sleep", "0.2")
        time.sleep(0.05)
        self.assertEqual(plugin.stop(), 0)
        self.assertEqual(call.wait(), b"")
        lines = WithLines()
        plugin = start(on_line=lines)
        pending = plugin.begin("sleep", "30")
        time.sleep(0.05)
        begun = time.monotonic()
        with plugin._session.lock:
            plugin._session.queue(0, 1, "cmd.stop", b"")
        plugin._driver.flush()
        self.assertEqual(plugin._process.wait(20), 0)
        self.assertLess(time.monotonic() - begun, 5)
        lines.wait_for("stopped with handlers still at work after 0.5 s")
        with self.assertRaises(ConnectionClosed):
            pending.wait()
        plugin.stop()

    def test_a_start_that_fails_says_why(self) -> None:
        with self.assertRaisesRegex(StartError, "there is no database"):
            start("start-fails")
        with self.assertRaisesRegex(StartError, "did not answer GetMetadata within .*is it a plugin"):
            Plugin.start(["sleep", "60"], stdio=True, timeout=0.2)
        with self.assertRaisesRegex(StartError, "wrote what is no message"):
            Plugin.start(["sh", "-c", "echo hello; cat >/dev/null"], stdio=True, on_line=lambda line: None)

    def test_a_plugin_may_ask_its_host_at_the_start(self) -> None:
        desk = Commands()

        @desk.command
        def name(request: Request) -> str:
            return "desk"

        lines = WithLines()
        with start("asks-at-start", commands=desk, on_line=lines):
            lines.wait_for("the host says desk")

    def test_by_hand_it_says_how_to_start_it(self) -> None:
        for args, stdin, text in (
            ([], subprocess.DEVNULL, "is a plugin: a host starts it"),
            ([], subprocess.PIPE, "is a plugin: a host starts it"),
            (["8", "9"], subprocess.PIPE, "descriptor 8, which is to bring messages in, is not open"),
            (["0", "0"], subprocess.PIPE, "was given for both directions"),
            (["1", "0"], subprocess.PIPE, "cannot be read from"),
            (["--pipeplug-listen"], subprocess.PIPE, "needs the path of the socket"),
        ):
            with subprocess.Popen([*PLUGIN, *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as it:
                _, errors = it.communicate()
            with self.subTest(args=args, stdin=stdin):
                self.assertEqual(it.returncode, 2, errors)
                self.assertIn(text, errors.decode())
                self.assertNotIn(b"Traceback", errors)

    def test_it_waits_for_a_host_at_a_socket(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            process = subprocess.Popen([*PLUGIN, "--pipeplug-listen", path], stderr=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL)  # fmt: skip
            assert process.stderr is not None
            self.assertIn(b"waits for a host", process.stderr.readline())
            with socket.socket(socket.AF_UNIX) as host:
                host.connect(path)
                host.sendall(b"1\x002\x0011\x00GetMetadata\x002\x00{}2\x002\x004\x00echo\x001\x00x")
                host.shutdown(socket.SHUT_WR)
                found = b""
                while data := host.recv(4096):
                    found += data
            self.assertTrue(found.endswith(b"2\x003\x004\x00echo\x001\x00x"), found)
            self.assertFalse(os.path.exists(path))
            self.assertEqual(process.wait(20), 1)
            process.stderr.close()

    @unittest.skipIf(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, "SIGINT is ignored here")
    def test_ctrl_c_ends_a_host_that_waits_and_its_plugin(self) -> None:
        script = (
            "import sys; from pipeplug import Plugin\n"
            "with Plugin.start(sys.argv[1:], on_line=lambda line: None) as plugin:\n"
            "    print(plugin.pid, flush=True); plugin.call('until_cancelled')\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script, *PLUGIN], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)  # fmt: skip
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertIn(b"KeyboardInterrupt", errors)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))

    def test_no_descriptor_or_thread_is_left(self) -> None:
        def state() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        with start() as plugin:
            plugin.call("echo", "x")
        before = state()
        for _ in range(5):
            with start() as plugin:
                plugin.call("echo", "x")
        plugin = start()
        plugin.kill()
        end = time.monotonic() + 5
        while state()[1] > before[1] and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(state(), before)


class Interrupted(unittest.TestCase):
    def test_a_kill_ends_a_call_whose_pipe_another_process_has_open(self) -> None:
        plugin = start()
        child = int(plugin.call("leaks"))
        found: List[BaseException] = []

        def call() -> None:
            try:
                plugin.call("until_cancelled")
            except ConnectionClosed as error:
                found.append(error)

        try:
            caller = threading.Thread(target=call, daemon=True)
            caller.start()
            time.sleep(0.3)
            plugin.kill()
            caller.join(10)
            self.assertEqual(len(found), 1)
        finally:
            os.kill(child, signal.SIGKILL)


class Attached(unittest.TestCase):
    def test_a_plugin_that_waits_at_a_socket(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s")
            with self.assertRaisesRegex(StartError, "no plugin waits at .* start it with --pipeplug-listen"):
                Plugin.attach(path)
            for kind in ("standard", "classic"):
                with self.subTest(format=kind):
                    process = self.listen(path)
                    with Plugin.attach(path, timeout=60, format=kind) as plugin:
                        for size in (0, 5, 70_000, 3_000_000):
                            self.assertEqual(plugin.call("echo", bytes(size)), bytes(size))
                        pending = [plugin.begin("echo", str(it)) for it in range(500)]
                        self.assertEqual([it.wait() for it in pending], [b"%d" % it for it in range(500)])
                        self.assertEqual((plugin.pid, plugin.status), (0, None))
                    self.assertEqual(process.wait(20), 0)

    def test_a_kill_leaves_the_process_to_its_parent(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            process = self.listen(os.path.join(folder, "s"))
            plugin = Plugin.attach(os.path.join(folder, "s"), timeout=60)
            pending = plugin.begin("until_cancelled")
            plugin.kill()
            self.assertRaises(ConnectionClosed, pending.wait)
            # The plugin finds that its host is gone, and is not sent a signal.
            self.assertEqual(process.wait(20), 1)

    def test_open_sockets_and_descriptors(self) -> None:
        ours, theirs = socket.socketpair()
        number, copy = theirs.fileno(), os.dup(theirs.fileno())
        process = subprocess.Popen(
            [*PLUGIN, str(number), str(copy)], pass_fds=(number, copy), stderr=subprocess.DEVNULL
        )
        theirs.close()
        os.close(copy)
        with ours, Plugin.attach(ours, timeout=60) as plugin:
            self.assertEqual(plugin.call("echo", "x"), b"x")
        self.assertEqual(process.wait(20), 0)
        process = subprocess.Popen(PLUGIN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        assert process.stdout is not None
        with Plugin.attach((process.stdout, process.stdin), timeout=60) as plugin:
            process.stdin.close()
            self.assertEqual(plugin.call("echo", bytes(3_000_000)), bytes(3_000_000))
        self.assertEqual(process.wait(20), 0)
        process.stdout.close()

    def listen(self, path: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([*PLUGIN, "--pipeplug-listen", path], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        return process


if __name__ == "__main__":
    unittest.main()
