"""The pipeplug protocol for a plugin, in both formats, with the standard library alone.

`serve` reads requests and has threads answer them, so that the plugin is never too busy to be asked. Calls to the
host and streams are not here: docs/protocol.md of pipeplug has the whole protocol.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

ONE_WAY, REQUEST, RESPONSE = 1, 2, 3
WORKERS = 8
# Limits in bytes: of a command, of its data, and of all that waits to be handled or to be read by the host.
LONGEST_COMMAND, LONGEST_DATA, MOST_WAITING = 64 << 10, 256 << 20, 64 << 20


def serve(answer, metadata):
    """Answers requests by `answer(command, data)` until the host stops the plugin. Data are bytes."""
    reader, output = connect()
    requests = Budget()
    pool = ThreadPoolExecutor(WORKERS)

    def handle(thread_id, direction, command, data):
        try:
            reply = as_bytes(answer(command, data))
        except (Exception, SystemExit) as error:
            if direction == ONE_WAY:
                print(f"{command}: {error}", file=sys.stderr)
            command, reply = "cmd.error", (str(error) or repr(error)).encode()
        if direction == REQUEST:
            output.send(thread_id, command, reply, reader.is_classic)
        requests.give(len(data))

    try:
        while True:
            thread_id, direction, command, data = reader.chunk()
            if direction == ONE_WAY and command == "cmd.stop":
                break
            elif direction == REQUEST and (command is None or data is None):
                text = f"over the limit of {LONGEST_COMMAND} bytes for a command, {LONGEST_DATA} for data"
                output.send(thread_id, "cmd.error", text.encode(), reader.is_classic)
            elif direction not in (ONE_WAY, REQUEST) or command is None or data is None:
                pass
            elif direction == REQUEST and command == "GetMetadata":
                output.send(thread_id, command, json.dumps(metadata).encode(), reader.is_classic)
            elif direction == REQUEST and command == "cmd.ping":
                output.send(thread_id, command, b"", reader.is_classic)
            elif direction == REQUEST or not command.startswith("cmd."):
                requests.take(len(data))
                pool.submit(handle, thread_id, direction, command, data)
    except (EOFError, ValueError) as error:
        # Not sys.exit, which waits for handlers: the host is gone.
        print(f"the connection has ended: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    pool.shutdown()
    output.close()


def as_bytes(reply):
    """A reply as bytes: text in UTF-8, and nothing for None."""
    if isinstance(reply, (bytes, bytearray, memoryview)):
        return bytes(reply)
    if reply is None or isinstance(reply, str):
        return (reply or "").encode()
    raise TypeError(f"the reply is {type(reply).__name__}, not bytes, str or None")


def connect():
    """Returns reader and output: of the descriptors that the arguments name, or else of stdin and stdout."""
    numbers = sys.argv[1:3]
    if len(numbers) == 2 and all(number.isascii() and number.isdigit() for number in numbers):
        del sys.argv[1:3]
        source, sink = map(int, numbers)
    else:
        source, sink = 0, os.dup(1)
        os.dup2(2, 1)  # print() must not write between chunks
    for descriptor in (source, sink):
        os.set_inheritable(descriptor, False)
    return Reader(open(source, "rb")), Output(sink)


class Reader:
    """Chunks of a stream. The first one shows the format."""

    def __init__(self, stream):
        self.stream = stream
        self.is_classic = None

    def chunk(self):
        """The next chunk: thread id, direction, command and data. What is over its limit is None."""
        thread_id, direction = self.digits(), self.digits()
        third = None
        if self.is_classic is None:
            self.is_classic = not thread_id[0] or not direction[0]
            if not self.is_classic:
                third = self.digits()
                self.is_classic = third[1] != b"\0" or len(third[0]) > 20
        thread_id, direction = self.number(thread_id), self.number(direction)
        if self.is_classic:
            command = self.classic_command(b"".join(third or ()))
        else:
            command = self.field(self.number(third or self.digits()), LONGEST_COMMAND)
            if self.take(1) != b"\0":
                raise ValueError("no NUL after a command")
        if direction in (ONE_WAY, REQUEST, RESPONSE) and command is not None:
            command = command.decode()
        return thread_id, direction, command, self.field(self.number(self.digits()), LONGEST_DATA)

    def take(self, count):
        data = self.stream.read(count)
        if len(data) < count:
            raise EOFError("end of the input")
        return data

    def digits(self):
        """Digits, 21 at most, and the byte after them."""
        digits = b""
        while len(digits) <= 20:
            byte = self.take(1)
            if not byte.isdigit():
                return digits, byte
            digits += byte
        return digits, b""

    def number(self, digits_and_end):
        digits, end = digits_and_end
        is_short = digits[:1] != b"0" or digits == b"0"
        if end != b"\0" or not is_short or not digits and not self.is_classic or int(digits or 0) >= 1 << 64:
            raise ValueError(f"not a number of a chunk: {digits + end}")
        return int(digits or 0)

    def classic_command(self, command):
        """A command of the classic format, which a space ends. `command` is what was read of it."""
        length = len(command)
        while command[-1:] != b" ":
            if b"\0" in command[-1:]:
                raise ValueError("a NUL in a command")
            byte = self.take(1)
            length += 1
            command = command + byte if length <= LONGEST_COMMAND + 1 else byte
        return command[:-1] if length <= LONGEST_COMMAND + 1 else None

    def field(self, length, limit):
        if length <= limit:
            return self.take(length)
        while length:
            length -= len(self.take(min(length, 1 << 16)))
        return None


class Budget:
    """Bytes that wait. Taking waits while there are too many."""

    def __init__(self):
        self.waiting = 0
        self.changed = threading.Condition()

    def take(self, count):
        with self.changed:
            self.changed.wait_for(lambda: self.waiting < MOST_WAITING)
            self.waiting += count + 64

    def give(self, count):
        with self.changed:
            self.waiting -= count + 64
            self.changed.notify_all()


class Output:
    """Writes responses on a thread of its own, so that a host that reads slowly does not stop the reader."""

    def __init__(self, descriptor):
        self.descriptor = descriptor
        self.queue = SimpleQueue()
        self.budget = Budget()
        self.thread = threading.Thread(target=self.write, daemon=True)
        self.thread.start()

    def send(self, thread_id, command, data, is_classic):
        command = command.encode()
        if is_classic:
            head = b"%b\0003\0%b %b\0" % (self.classic(thread_id), command, self.classic(len(data)))
        else:
            head = b"%d\0003\0%d\0%b\0%d\0" % (thread_id, len(command), command, len(data))
        chunk = head + data
        self.budget.take(len(chunk))
        self.queue.put(chunk)

    @staticmethod
    def classic(number):
        return b"%d" % number if number else b""

    def close(self):
        self.queue.put(None)
        self.thread.join()

    def write(self):
        while (chunk := self.queue.get()) is not None:
            rest = memoryview(chunk)
            while rest:
                try:
                    rest = rest[os.write(self.descriptor, rest) :]
                except OSError as error:
                    print(f"the host does not read: {error}", file=sys.stderr)
                    sys.stderr.flush()
                    os._exit(1)
            self.budget.give(len(chunk))
