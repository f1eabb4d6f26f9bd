"""Mistakes of users: each is told where it is made, with its cause and the next step."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import unittest
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from plugin import Unknown, Words
from test_threads import PLUGIN, start

from pipeplug import (
    AsyncPlugin,
    CallFailed,
    Commands,
    Failure,
    Guest,
    MethodError,
    Options,
    Plugin,
    Request,
    StartError,
    Unsupported,
    method,
    service,
)


@dataclass(eq=False)
class NotFound(MethodError):
    """There is no such note."""

    name: str


class Arguments(unittest.TestCase):
    def test_a_time_that_is_none_is_refused_at_the_call(self) -> None:
        wrong = "timeout is a number of seconds, as 5 or 0.5.*not str '5'"
        five: Any = "5"
        with start() as plugin:
            peer: Any = plugin
            for make in (
                lambda: peer.call("echo", timeout="5"),
                lambda: peer.begin("echo", timeout="5"),
                lambda: peer.begin("echo").wait("5"),
                lambda: peer.stream("echo", timeout="5"),
                lambda: peer.stream("echo").reply("5"),
                lambda: peer.ping("5"),
                lambda: peer.stop("5"),
                lambda: Plugin.start(PLUGIN, timeout=five),
                lambda: Plugin.attach("/nowhere", timeout=five),
            ):
                with self.assertRaisesRegex(TypeError, wrong):
                    make()
            with self.assertRaisesRegex(TypeError, "timeout is a number of seconds.*not bool True"):
                peer.call("echo", timeout=True)
            with self.assertRaisesRegex(ValueError, "timeout is a number of seconds, not nan"):
                plugin.call("echo", timeout=float("nan"))
            self.assertEqual(plugin.call("echo", "x", timeout=60), b"x")
        for name, made in (
            ("stop_timeout", lambda: Plugin.start(PLUGIN, stop_timeout=five)),
            ("grace", lambda: Guest(grace=five)),
        ):
            with self.assertRaisesRegex(TypeError, f"^{name} is a number of seconds, as 5 or 0.5; not str '5'"):
                made()

        async def in_a_loop() -> None:
            with self.assertRaisesRegex(TypeError, wrong):
                await AsyncPlugin.start(PLUGIN, timeout=five)
            async with await AsyncPlugin.start(PLUGIN, timeout=60, on_line=lambda line: None) as plugin:
                for made in (
                    plugin.call("echo", timeout=five),
                    plugin.stream("echo", timeout=five),
                    plugin.ping(five),
                    plugin.stop(five),
                ):
                    with self.assertRaisesRegex(TypeError, wrong):
                        await made

        asyncio.run(in_a_loop())

    def test_other_arguments_are_refused_by_their_names(self) -> None:
        start_: Any = Plugin.start
        guest: Any = Guest
        attach: Any = Plugin.attach
        cases: List[Tuple[str, Callable[[], Any]]] = [
            ("args is a list of texts, as \\['own'\\]", lambda: start_(PLUGIN, args="own")),
            ("args is a list of texts, in which there is int 3", lambda: start_(PLUGIN, args=[3])),
            ("format is one of standard, classic; not 'json'", lambda: start_(PLUGIN, format="json")),
            ("log_level is one of off, error, .*; not 'loud'", lambda: start_(PLUGIN, log_level="loud")),
            ("metadata\\['a'\\] is a text, not int 1", lambda: start_(PLUGIN, metadata={"a": 1})),
            ("env\\['A'\\] is a text, not int 1", lambda: start_(PLUGIN, env={"A": 1})),
            ("config cannot be written as JSON: .*set", lambda: start_(PLUGIN, config={1, 2})),
            ("interface_versions are whole numbers", lambda: start_(PLUGIN, interface_versions=["2"])),
            ("on_line is a function, not str", lambda: start_(PLUGIN, on_line="x")),
            ("metadata\\['a'\\] is a text, not int 1", lambda: guest(metadata={"a": 1})),
            ("window is a whole number, not str", lambda: Options(window=str(1))),  # type: ignore[arg-type]
            ("handlers is a whole number from 0, not -1", lambda: Options(handlers=-1)),
            ("service\\(\\) takes the object that answers, as Words\\(\\)", lambda: guest().service(Words)),
            ("program is a path, or a list .*; not 5$", lambda: start_(5)),
            ("program is a path, or a list .*; not b'x'$", lambda: start_(b"x")),
            ("program is a path, as './plugin', or a Path; not int 5$", lambda: start_([5])),
            ("program has a NUL character, .*: 'a.x00b'$", lambda: start_("a\0b")),
            ("args has a NUL character", lambda: start_(PLUGIN, args=["a\0b"])),
            ("args is a list of texts, not int 5", lambda: start_(PLUGIN, args=5)),
            ("env\\['A'\\] has a NUL character", lambda: start_(PLUGIN, env={"A": "\0"})),
            ("env has the name 'A=B', which cannot be", lambda: start_(PLUGIN, env={"A=B": ""})),
            ("cwd is a path, .*; not int 5", lambda: start_(PLUGIN, cwd=5)),
            ("name is a text, not int 5", lambda: start_(PLUGIN, name=5)),
            ("stdio is True or False, not str 'yes'", lambda: start_(PLUGIN, stdio="yes")),
            (
                "options is an object of Options, as .*; not dict",
                lambda: start_(PLUGIN, options={"window": 1}),
            ),
            ("commands is an object of Commands, .*; not dict {'a': 1}", lambda: start_(PLUGIN, commands={"a": 1})),
            ("commands is an object of Commands, .*; not dict {}", lambda: start_(PLUGIN, commands={})),
            (
                "interface_versions is a list of whole numbers, .*; not int 5",
                lambda: start_(PLUGIN, interface_versions=5),
            ),
            ("timeout is a number of seconds from 0, not -1", lambda: start_(PLUGIN, timeout=-1)),
            ("stop_timeout is a number of seconds from 0, not -0.5", lambda: start_(PLUGIN, stop_timeout=-0.5)),
            ("grace is a number of seconds from 0, not -1", lambda: guest(grace=-1)),
            ("place is the path of a socket, .*; not 3.5", lambda: attach(3.5)),
            ("place is the path of a socket, .*; not \\(1,\\)", lambda: attach((1,))),
            ("place has a NUL character", lambda: attach("a\0b")),
            ("in_order is a list of texts, in which there is int 5", lambda: guest(in_order=[5])),
            ("in_order is a list of texts, as \\['append'\\]", lambda: guest(in_order="append")),
            ("in_order is a list of texts, not int 1", lambda: guest(in_order=1)),
            ("in_order is a list of texts, in which there is int 5", lambda: guest().in_order(5)),
            ("options is an object of Options", lambda: guest(options={"window": 1})),
            ("name is a text, not int 5", lambda: guest(5)),
            ("description is a text, not int 5", lambda: guest(description=5)),
            ("the name of a command is a text, not int 5", lambda: guest().command(5)),
            ("the handler of 'x' is a function, not int 5", lambda: guest().command("x")(5)),
            ("fallback is a function, not int 5", lambda: guest().fallback(5)),
            ("start is a function, not int 5", lambda: guest().start(5)),
            ("on_stop is a function, not int 5", lambda: guest().on_stop(5)),
            ("a subclass of MethodError, not <class 'KeyError'>", lambda: method(error=KeyError)),  # type: ignore[arg-type]
        ]
        for wrong, make in cases:
            with self.subTest(wrong), self.assertRaisesRegex((TypeError, ValueError, StartError), f"^.*{wrong}"):
                make()
        with start() as plugin:
            peer: Any = plugin
            for wrong, make in (
                ("values\\['n'\\] is a text, not int 1", lambda: peer.call("echo", values={"n": 1})),
                ("progress is a function", lambda: peer.call("echo", progress=3)),
                ("a command is text, as 'echo'; not b'echo'", lambda: peer.call(b"echo")),
                ("a command is text, as 'echo'; not b'echo'", lambda: peer.begin(b"echo")),
                ("data is bytes or str, not dict", lambda: peer.call("echo", {"a": 1})),
                ("send is True or False, not str 'no'", lambda: peer.stream("echo", send="no")),
                ("level is one of off", lambda: peer.set_log_level("loud")),
                ("client\\(\\) takes the class of a service", lambda: peer.client(Words())),
            ):
                with self.subTest(wrong), self.assertRaisesRegex((TypeError, ValueError), f"^{wrong}"):
                    make()


class Starts(unittest.TestCase):
    def test_a_start_that_fails_says_why_and_what_to_do(self) -> None:
        elf = bytearray(Path(os.path.realpath(sys.executable)).read_bytes()[:4096])
        files: Dict[str, Tuple[bytes, int]] = {
            "no-line": (b"print(1)\n", 0o755),
            "empty": (b"", 0o755),
            "no-name": (b"#!\nprint(1)\n", 0o755),
            "interpreter": (b"#!/nowhere/python3\n", 0o755),
            "relative": (b"#!python3\n", 0o755),
            "by-env": (b"#!/usr/bin/env no-such-python\n", 0o755),
            "cr": (b"#!/bin/sh\r\necho\r\n", 0o755),
            "cr-by-env": (b"#!/usr/bin/env sh\r\necho\r\n", 0o755),
            "mode": (b"#!/bin/sh\n", 0o644),
        }
        if elf.startswith(b"\x7fELF"):
            # s390x, unless this is one.
            elf[18] = elf[19] = 0
            elf[18 if elf[5] == 1 else 19] = 22
            files["machine"] = (bytes(elf), 0o755)
        expected = {
            "no-line": "is no program, as it begins neither with `#!` nor as an ELF file: start a script",
            "empty": "is empty: start a script with a line like `#!/usr/bin/env python3`",
            "no-name": "has a `#!` line that names no interpreter: start a script",
            "interpreter": 'needs the interpreter "/nowhere/python3", which does not exist: install it',
            "relative": "`#!/usr/bin/env python3`",
            "by-env": 'exit status 127.*; command "no-such-python" was not found: install it',
            "cr": "`#!` line that ends with CR, .*: save it with the line ends of Unix",
            "cr-by-env": "`#!` line ends with CR: save it with the line ends of Unix",
            "mode": "is not executable \\(mode 0644\\): run chmod \\+x .*/mode",
            "machine": "is built for another machine \\(s390x, .*\\), this one is .*: build it for this one",
            "folder": "is a directory: name the executable file inside it",
            "link": 'does not exist: it is a symbolic link to "gone"',
            "loop": "leads through a loop of symbolic links",
            "missing": "does not exist: check the path$",
            "mode/x": 'does not exist: ".*/mode" is no directory',
        }
        # The limit that was given, and not the time that has passed.
        for limit in (0.25, 0):
            with self.assertRaisesRegex(StartError, f"did not answer GetMetadata within {limit} s, nothing"):
                Plugin.start(["sleep", "30"], timeout=limit)
        with tempfile.TemporaryDirectory() as folder:
            for name, (data, mode) in files.items():
                path = Path(folder, name)
                path.write_bytes(data)
                path.chmod(mode)
            Path(folder, "folder").mkdir()
            Path(folder, "link").symlink_to("gone")
            Path(folder, "loop").symlink_to("loop")
            for name, text in expected.items():
                if name == "machine" and name not in files:
                    continue
                with self.subTest(name), self.assertRaisesRegex(StartError, f"^plugin .*{name}.*{text}"):
                    Plugin.start(os.path.join(folder, name), on_line=lambda line: None)
            for named, text in (
                ({"program": "mode", "cwd": folder}, "was looked for in PATH.*write ./mode for the file here"),
                ({"program": "./gone", "cwd": folder}, f"does not exist: check the path, which starts at {folder}$"),
                ({"program": PLUGIN, "cwd": "/nowhere"}, 'working directory "/nowhere" of plugin .* does not exist'),
                ({"program": "no-such-plugin"}, "was not found in PATH: install it, or write a path with a slash"),
                ({"program": "no-line", "env": {"PATH": folder}}, "found as .*, is no program"),
                ({"program": ""}, "the command of the plugin is empty"),
                ({"program": []}, "the command of the plugin is empty"),
            ):
                starts: Any = Plugin.start
                with self.subTest(named), self.assertRaisesRegex(StartError, text):
                    starts(**named)


class Errors(unittest.TestCase):
    def test_a_code_that_is_none_is_refused_where_it_is_written(self) -> None:
        failure: Any = Failure
        for code in ("", "Not Found", "not-found", "NotFound", "_x", "x_", "a__b", "1a", "ä", "a\n", None, 404):
            with (
                self.subTest(code=code),
                self.assertRaisesRegex(ValueError, "a code is of lowercase words joined by `_`"),
            ):
                failure(code, "message")
        for code in ("not_found", "e42", "unknown_command", "a_1"):
            self.assertEqual(Failure(code, "message").code, code)
        with self.assertRaisesRegex(TypeError, "the message of 'a' is text, not NoneType"):
            failure("a", None)
        for data in ({1, 2}, float("nan"), object()):
            with self.assertRaisesRegex(ValueError, "the data of 'a' cannot be written as JSON"):
                Failure("a", "message", data)

    def test_errors_show_their_data(self) -> None:
        self.assertEqual(str(NotFound("x")), "NotFound(name='x')")
        self.assertEqual(str(NotFound(name="x")), "NotFound(name='x')")
        self.assertEqual(str(NotFound("x").with_message("no such note")), "no such note (name='x')")
        self.assertEqual(str(MethodError("in words")), "in words")
        with start() as plugin:
            with self.assertRaises(CallFailed) as caught:
                plugin.call("fails", "failure")
            self.assertEqual(str(caught.exception), 'fails: no such page (not_found: {"name": "x"})')
            with self.assertRaises(CallFailed) as caught:
                plugin.call("fails", "error")
            self.assertEqual(str(caught.exception), "fails: KeyError: 'x'")
            with self.assertRaises(Unknown) as unknown:
                plugin.client(Words).look_up("z")
            self.assertEqual(str(unknown.exception), "Unknown(word='z')")
            with self.assertRaises(CallFailed) as caught:
                plugin.call("words.look_up", '{"word":"z"}')
            self.assertEqual(caught.exception.message, "Unknown(word='z')")

    def test_a_command_is_named_once_although_handlers_pass_errors_on(self) -> None:
        desk = Commands()

        @desk.command
        def inherited(request: Request) -> None:
            raise Failure("not_found", "no such page")

        @desk.command
        def fails(request: Request) -> bytes:
            return request.peer.call("fails", "failure")

        with start(commands=desk) as plugin:
            with self.assertRaises(CallFailed) as caught:
                plugin.call("asks")
            self.assertEqual(str(caught.exception), "asks: inherited: no such page (not_found)")
            with self.assertRaises(CallFailed) as caught:
                plugin.call("asks_same", "fails")
            self.assertEqual(str(caught.exception), 'asks_same: fails: no such page (not_found: {"name": "x"})')
            with self.assertRaises(CallFailed) as caught:
                plugin.call("nests")
            self.assertEqual(str(caught.exception), "nests: unknown command 'nests' (unknown_command: {\"commands\": "
                             '["fails", "inherited"]})')  # fmt: skip

    def test_a_service_that_is_not_there(self) -> None:
        @service(version=1)
        class Notes:
            pass

        with start() as plugin:
            with self.assertRaisesRegex(
                Unsupported, '^notes: plugin "plugin.py" does not have this service; it has words/1-2$'
            ):
                plugin.client(Notes)
            for services in ("", " "):
                plugin.metadata = {"pipeplug.services": services}
                with self.assertRaisesRegex(Unsupported, "this service; it has no services$"):
                    plugin.client(Notes)


if __name__ == "__main__":
    unittest.main()
