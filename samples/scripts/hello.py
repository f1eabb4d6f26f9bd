#!/usr/bin/env python3
"""A plugin in Python that uses only the standard library:

    pipeplug run samples/scripts/hello.py --answer "GetGreeting=good day" --call hello world

It asks its host for a greeting, and uses its own if the host has none. A single thread handles one request after the
other.
"""

import os
import sys
from collections import deque

ONE_WAY, REQUEST, RESPONSE = 1, 2, 3
# The longest cmd or buffer.
LIMIT = 16 << 20


class HostError(Exception):
    """Error that the host answered with."""


class Host:
    def __init__(self):
        numbers = sys.argv[1:3]
        if len(numbers) == 2 and all(number.isascii() and number.isdigit() for number in numbers):
            reader, writer = map(int, numbers)
        else:
            # The host reads standard output, so print() has to write to standard error.
            reader, writer = 0, os.dup(1)
            os.dup2(2, 1)
        self.reader, self.writer = open(reader, "rb"), open(writer, "wb")
        self.calls = 0
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

    def call(self, cmd, buffer=b""):
        """Calls the host. Chunks that arrive before the answer are kept for later."""
        self.calls += 1
        self.send(self.calls, REQUEST, cmd, buffer)
        while True:
            chunk = thread_id, direction, cmd, buffer = self.receive()
            if direction != RESPONSE:
                self.held.append(chunk)
            elif thread_id == self.calls and cmd == "cmd.error":
                raise HostError(buffer.decode(errors="replace"))
            elif thread_id == self.calls:
                return buffer

    def serve(self, answer):
        """Answers requests until the host sends cmd.stop."""
        while True:
            thread_id, direction, cmd, buffer = self.held.popleft() if self.held else self.receive()
            if direction == ONE_WAY and cmd == "cmd.stop":
                return
            if direction == REQUEST:
                try:
                    self.send(thread_id, RESPONSE, cmd, answer(self, cmd, buffer))
                except Exception as error:
                    self.send(thread_id, RESPONSE, "cmd.error", str(error).encode())


def answer(host, cmd, buffer):
    if cmd == "GetMetadata":
        return b'{"Cmd":"hello","Description":"greets whom it is told"}'
    if cmd == "cmd.ping":
        return b""
    if cmd == "hello":
        try:
            greeting = host.call("GetGreeting")
        except HostError:
            greeting = b"hello"
        return greeting + b", " + buffer
    raise ValueError(f'unknown command "{cmd}", there is only hello')


try:
    Host().serve(answer)
except (EOFError, BrokenPipeError, ValueError) as error:
    sys.exit(f"hello.py: {error}")
