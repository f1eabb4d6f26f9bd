#!/usr/bin/env python3
"""A plugin with a stream, in Python and only the standard library:

    tail -f log | pipeplug run samples/scripts/grep.py --call grep error --stream

The request has the text to look for. The parts that follow it are the bytes of a log, cut anywhere; each line that has
the text is a part of the reply. docs/protocol.md of pipeplug, "Streams", describes the chunks. One stream at a time.
"""

import json
import os
import sys
from collections import deque

ONE_WAY, REQUEST, RESPONSE = 1, 2, 3
# The longest cmd or buffer.
LIMIT = 16 << 20
# What a part counts in addition to its bytes.
WEIGHT = 64 + len("cmd.part")
DEFAULT_WINDOW = 1 << 20


class Stream:
    """A request whose parts come, and the parts of its reply."""

    def __init__(self, thread_id, text, window):
        self.thread_id, self.text, self.window = thread_id, text, window
        self.rest = b""
        self.taken = self.sent = self.credited = 0


class Plugin:
    def __init__(self):
        numbers = sys.argv[1:3]
        if len(numbers) == 2 and all(number.isascii() and number.isdigit() for number in numbers):
            reader, writer = map(int, numbers)
        else:
            # The host reads standard output, so print() has to write to standard error.
            reader, writer = 0, os.dup(1)
            os.dup2(2, 1)
        self.reader, self.writer = open(reader, "rb"), open(writer, "wb")
        self.window = DEFAULT_WINDOW
        self.context = (None, {})
        self.stream = None
        self.held = deque()

    def send(self, thread_id, direction, cmd, buffer):
        cmd = cmd.encode()
        self.writer.write(
            b"%d\0%d\0%d\0%b\0%d\0%b" % (thread_id, direction, len(cmd), cmd, len(buffer), buffer)
        )
        self.writer.flush()

    def read(self, length):
        data = self.reader.read(length)
        if len(data) < length:
            raise EOFError("the host is gone")
        return data

    def number(self):
        digits = b""
        while (byte := self.read(1)) != b"\0":
            digits += byte
            if not byte.isdigit() or digits[0] == ord("0") and len(digits) > 1:
                raise ValueError(f"no chunk: {digits}")
        if not digits or int(digits) >= 1 << 64:
            raise ValueError(f"no chunk: {digits}")
        return int(digits)

    def field(self):
        """Returns the bytes behind their length. None if there are too many, which are skipped."""
        length = self.number()
        if length <= LIMIT:
            return self.read(length)
        while length:
            length -= len(self.read(min(length, 1 << 16)))
        return None

    def receive(self):
        """Returns the next chunk. Skips those of unknown directions, and those that are too large."""
        while True:
            thread_id, direction = self.number(), self.number()
            cmd = self.field()
            if self.read(1) != b"\0":
                raise ValueError("no chunk: there is no NUL behind the cmd")
            buffer = self.field()
            if direction not in (ONE_WAY, REQUEST, RESPONSE):
                continue
            if cmd is not None and buffer is not None:
                return thread_id, direction, cmd.decode(), buffer
            if direction == REQUEST:
                self.send(thread_id, RESPONSE, "cmd.error", b"over the limit of %d bytes" % LIMIT)

    def part(self, stream, line):
        """Sends a part of the reply, once the host has room for it."""
        while stream.sent - stream.credited >= stream.window and self.stream is stream:
            chunk = thread_id, direction, cmd, _ = self.receive()
            is_control = cmd in ("cmd.part.credit", "cmd.enough", "cmd.cancel", "cmd.stop")
            if direction == ONE_WAY and is_control:
                self.handle(*chunk)
            else:
                self.held.append(chunk)  # parts wait until this one is sent
        if self.stream is stream:
            stream.sent += WEIGHT + len(line)
            self.send(stream.thread_id, RESPONSE, "cmd.part", line)

    def lines(self, stream, buffer, is_last=False):
        *lines, rest = (stream.rest + buffer).split(b"\n")
        stream.rest = rest
        lines = [line + b"\n" for line in lines] + ([rest] if is_last and rest else [])
        for line in lines:
            if stream.text in line:
                self.part(stream, line)

    def handle(self, thread_id, direction, cmd, buffer):
        stream = self.stream
        context, self.context = self.context, (None, {})
        if direction == ONE_WAY and cmd == "cmd.stop":
            sys.exit(0)
        elif direction == ONE_WAY and cmd == "cmd.context":
            self.context = (thread_id, json.loads(buffer))
        elif direction == ONE_WAY and stream and stream.thread_id == thread_id:
            if cmd == "cmd.part":
                # Credit first: it is for what is taken out of the pipe.
                stream.taken += WEIGHT + len(buffer)
                self.send(thread_id, RESPONSE, "cmd.part.credit", b"%d" % stream.taken)
                self.lines(stream, buffer)
            elif cmd == "cmd.part.credit":
                stream.credited = int(buffer)
            elif cmd == "cmd.end" and buffer:
                self.stream = None
                self.send(thread_id, RESPONSE, "cmd.error", buffer)
            elif cmd == "cmd.end":
                self.lines(stream, b"", is_last=True)
                self.stream = None
                self.send(thread_id, RESPONSE, "grep", b"")
            elif cmd in ("cmd.enough", "cmd.cancel"):
                self.stream = None
                self.send(thread_id, RESPONSE, "grep", b"")
        elif direction == REQUEST and cmd == "GetMetadata":
            host = json.loads(buffer or b"{}")
            self.window = max(1, int(host.get("pipeplug.stream_window", DEFAULT_WINDOW)))
            metadata = {"Cmd": "grep", "pipeplug.features": "context cancel stream"}
            self.send(thread_id, RESPONSE, cmd, json.dumps(metadata).encode())
        elif direction == REQUEST and cmd == "cmd.ping":
            self.send(thread_id, RESPONSE, cmd, b"")
        elif direction == REQUEST and cmd == "grep" and not stream:
            words = context[1].get("stream", "").split() if context[0] == thread_id else []
            if "send" in words and "receive" in words:
                self.stream = Stream(thread_id, buffer, self.window)
            else:
                self.send(thread_id, RESPONSE, "cmd.error", b"grep takes a stream")
        elif direction == REQUEST:
            message = f'"{cmd}" is not handled: there is grep, with one stream at a time'
            self.send(thread_id, RESPONSE, "cmd.error", message.encode())


try:
    plugin = Plugin()
    while True:
        plugin.handle(*(plugin.held.popleft() if plugin.held else plugin.receive()))
except (EOFError, BrokenPipeError, ValueError) as error:
    sys.exit(f"grep.py: {error}")
