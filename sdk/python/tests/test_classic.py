"""The classic format, with a peer that reads a buffer by one read(2), as that of the original Go package does."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import unittest
from pathlib import Path

from test_threads import start

from pipeplug import AsyncPlugin, CallError, Options, Plugin
from pipeplug._chunks import REQUEST
from pipeplug._session import Session

ONE_READ = """#!{python}
import os, sys, time

reader, writer = int(sys.argv[1]), int(sys.argv[2])

def until(end):
    text = b""
    while (byte := os.read(reader, 1)) != end:
        if not byte:
            sys.exit(1)
        text += byte
    return text

while True:
    thread, direction, cmd = until(b"\\0"), until(b"\\0"), until(b" ")
    size = int(until(b"\\0") or b"0")
    # Slow, so that a buffer that comes in two writes is cut.
    time.sleep(0.01)
    data = os.read(reader, size) if size else b""
    if direction != b"2":
        sys.exit(0)
    answer = {metadata!r} if cmd == b"GetMetadata" else b"%d" % len(data)
    os.write(writer, thread + b"\\0003\\0" + cmd + b" %d\\0" % len(answer) + answer)
"""


class OneRead(unittest.TestCase):
    def script(self, folder: str, metadata: object) -> str:
        path = Path(folder, "plugin")
        path.write_text(ONE_READ.format(python=sys.executable, metadata=json.dumps(metadata).encode()))
        path.chmod(0o755)
        return str(path)

    def test_a_buffer_arrives_as_a_whole_or_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = self.script(folder, {"Cmd": "x"})
            with Plugin.start(path, format="classic", timeout=60) as plugin:
                # One after the other, so that the pipe holds something when the next one is written.
                sizes = (1, 4096, 4097, 65_536, 65_537, 300_000, 900_000)
                pending = [plugin.begin("size", bytes(size)) for size in sizes]
                self.assertEqual([int(it.wait(60)) for it in pending], list(sizes))
                with self.assertRaisesRegex(
                    CallError, "not sent: the buffer is 3000000 bytes long.* past 1048576 bytes"
                ):
                    plugin.call("size", bytes(3_000_000))
                with self.assertRaisesRegex(CallError, "use the standard format, smaller buffers"):
                    plugin.notify("size", bytes(3_000_000))
                # The connection goes on.
                self.assertEqual(plugin.call("size", "abc"), b"3")

            async def in_a_loop() -> None:
                async with await AsyncPlugin.start(path, format="classic", timeout=60) as plugin:
                    calls = [plugin.call("size", bytes(size)) for size in sizes]
                    self.assertEqual([int(it) for it in await asyncio.gather(*calls)], list(sizes))
                    with self.assertRaisesRegex(CallError, "not sent: the buffer is 3000000 bytes long"):
                        await plugin.call("size", bytes(3_000_000))

            asyncio.run(in_a_loop())

    def test_a_peer_that_names_the_protocol_reads_to_the_end(self) -> None:
        with start(format="classic") as plugin:
            self.assertEqual(plugin.call("echo", bytes(3_000_000)), bytes(3_000_000))

    def test_an_answer_that_would_be_cut_is_an_error(self) -> None:
        session = Session(Options(), "classic", is_host=False)
        session.largest_write = lambda size: 1 << 20
        session.hear({})
        for size in (1_000_000, 2_000_000):
            request = session.receive((7, REQUEST, "echo", b""))
            assert request is not None
            session.respond(request, bytes(size))
        whole, refused = (bytes(it) for it in session.out)
        self.assertTrue(whole.startswith(b"7\x003\x00echo 1000000\x00"))
        self.assertTrue(refused.startswith(b"7\x003\x00cmd.error "), refused[:40])
        self.assertIn(
            b"the buffer is 2000000 bytes long, and a chunk of the classic format is cut past 1048576", refused
        )


if __name__ == "__main__":
    unittest.main()
