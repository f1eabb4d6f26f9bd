#!/usr/bin/env python3
"""A plugin of docs/protocol.md, in Python and only the standard library, with a fault that its last argument names.

Without a fault ("none", or "service" for a plugin with one) every check of `pipeplug conform` passes. The features are flow, context, cancel, stream,
failure, progress, config and log; one thread reads, one writes, and each slow request has its own.
"""

import json
import os
import queue
import sys
import threading
import time

FAULT = sys.argv[-1]
SERVES = FAULT.startswith("service")
ONE_WAY, REQUEST, RESPONSE = 1, 2, 3
LIMIT_CMD, LIMIT_BUFFER = 64 << 10, 64 << 20
WINDOW, STREAM_WINDOW = 256 << 10, 64 << 10


class Broken(Exception):
    """The stream is no chunk."""


class Input:
    """Reads chunks of either format."""

    def __init__(self, fd):
        self.file = open(fd, "rb")
        self.classic = None

    def read(self, length):
        data = self.file.read1(length) if FAULT == "needs-whole-fields" and length else self.file.read(length)
        if FAULT == "needs-whole-fields" and 0 < len(data) < length:
            raise Broken("half a field")
        if len(data) < length:
            raise EOFError
        return data

    def digits(self, ends=b"\0"):
        """Returns the digits before one of the bytes, and that byte."""
        digits = b""
        while (byte := self.read(1)) not in [ends[i : i + 1] for i in range(len(ends))]:
            if not byte.isdigit() and not (FAULT == "takes-signs" and byte == b"-"):
                return digits, byte
            digits += byte
        return digits, byte

    def value(self, digits):
        if not digits:
            if FAULT == "takes-empty-numbers" and self.classic is False:
                return 0
            if self.classic is False:
                raise Broken("no digits")
            self.classic = True
            return 0
        if digits[:1] == b"0" and len(digits) > 1 and FAULT != "takes-leading-zeros":
            raise Broken("a leading zero")
        if int(digits) >= 1 << 64 and FAULT != "takes-any-number":
            raise Broken("a number that is too large")
        return abs(int(digits))

    def number(self):
        digits, end = self.digits()
        if end != b"\0":
            raise Broken(f"{end} in a number")
        return self.value(digits)

    def skip(self, length):
        while length:
            length -= len(self.read(min(length, 1 << 16)))

    def field(self, length, limit):
        if FAULT == "dies-of-large-buffers" and 1 << 16 < length <= limit:
            raise Broken("a large buffer")
        if FAULT == "dies-of-huge-buffers" and 4 << 20 < length <= limit:
            raise Broken("a huge buffer")
        if length > limit:
            if FAULT == "allocates-what-is-announced" and length > 1 << 30:
                self.hoard = bytearray(200 << 20)
                self.hoard[:: 4096] = b"x" * len(self.hoard[:: 4096])
            if FAULT == "ends-at-limits":
                raise Broken("over the limit")
            self.skip(length)
            return None
        return self.read(length)

    def chunk(self):
        thread_id, direction = self.number(), self.number()
        if self.classic is not True:
            digits, end = self.digits()
            if end == b"\0" and len(digits) <= 20 and self.classic is not True:
                length, first = self.value(digits), b""
                self.classic = bool(self.classic)
            else:
                if self.classic is False:
                    raise Broken(f"{end} in a number")
                self.classic, first = True, digits + end
        else:
            first = b""
        if self.classic:
            cmd = first
            while not cmd.endswith(b" "):
                if cmd.endswith(b"\0") and FAULT != "takes-nul-in-cmd":
                    raise Broken("a NUL in a cmd")
                cmd += self.read(1)
            cmd = cmd[:-1]
        else:
            cmd = self.field(length, LIMIT_CMD)
            if self.read(1) != b"\0" and FAULT != "forgets-nul":
                raise Broken("no NUL behind the cmd")
        weight = 64 + (len(cmd) if cmd is not None else length)
        length = self.number()
        buffer = self.field(length, LIMIT_BUFFER)
        weight += length
        if direction in (ONE_WAY, REQUEST, RESPONSE) or FAULT == "checks-what-it-skips":
            if cmd is not None:
                try:
                    cmd = cmd.decode()
                except UnicodeDecodeError:
                    if FAULT != "takes-any-cmd":
                        raise Broken("a cmd that is not UTF-8")
                    cmd = cmd.decode(errors="replace")
        if FAULT == "takes-one-chunk-per-read":
            os.set_blocking(self.file.fileno(), False)
            self.file.read1(len(self.file.peek()))
            os.set_blocking(self.file.fileno(), True)
        return thread_id, direction, cmd, buffer, weight


class Plugin:
    def __init__(self):
        numbers = sys.argv[1:3]
        if len(numbers) == 2 and all(n.isascii() and n.isdigit() for n in numbers):
            reader, self.out = map(int, numbers)
        else:
            reader, self.out = 0, os.dup(1)
            os.dup2(2, 1)
        if FAULT == "stdio-only" or FAULT == "takes-one-digit" and len(sys.argv[1]) > 1:
            reader, self.out = 0, 1
        self.input = Input(reader)
        self.outbox = queue.SimpleQueue()
        self.host = {}
        self.features = set()
        self.taken = self.credited = 0
        self.context = (None, {})
        self.streams = {}
        self.cancelled = {}
        self.stopping = False
        self.pending = threading.Semaphore(0)
        self.busy = 0
        self.pings = 0
        self.host_known = False

    # Writing

    def encode(self, thread_id, direction, cmd, buffer):
        cmd = cmd.encode()
        if FAULT == "swaps-fields" and direction == RESPONSE and cmd == b"cmd.ping":
            thread_id, direction = direction, thread_id
        if FAULT == "wrong-direction" and direction == RESPONSE and cmd == b"cmd.ping":
            direction = 7
        if FAULT == "ids-of-31-bits" and direction == RESPONSE:
            thread_id &= 0x7FFFFFFF
        nothing = b"" if self.input.classic else b"0"
        number = lambda n: b"%d" % n if n else nothing
        if self.input.classic and FAULT != "answers-in-standard" or FAULT == "answers-in-classic":
            return b"%b\0%b\0%b %b\0%b" % (number(thread_id), number(direction), cmd, number(len(buffer)), buffer)
        length = b"%d" % len(cmd)
        if FAULT == "nul-in-header" and cmd == b"cmd.error":
            length = b"\0" + length
        return b"%b\0%b\0%b\0%b\0%b\0%b" % (number(thread_id), number(direction), length, cmd, number(len(buffer)), buffer)

    def send(self, thread_id, direction, cmd, buffer=b""):
        data = self.encode(thread_id, direction, cmd, buffer)
        if FAULT == "divides-classic-writes" and self.input.classic:
            for i in range(0, len(data), 5):
                self.write(data[i : i + 5])
                time.sleep(0.001)
        elif FAULT == "blocks-on-writes":
            self.write(data)
        else:
            self.outbox.put(data)

    def write(self, data):
        while data:
            data = data[os.write(self.out, data) :]

    def writes(self):
        try:
            while (data := self.outbox.get()) is not None:
                if FAULT == "forgets-to-flush" and b"cmd.ping" in data:
                    time.sleep(0.05)
                self.write(data)
        except OSError:
            if FAULT != "stays-without-reader":
                os._exit(1)

    def exit(self, status):
        if FAULT == "forgets-to-flush":
            os._exit(status)
        if status == 0 and self.busy:
            for _ in range(self.busy):
                self.pending.acquire()
        self.outbox.put(None)
        self.writer.join()
        if FAULT == "leaves-a-child":
            import subprocess

            subprocess.Popen(["sleep", "60"], pass_fds=[self.out], start_new_session=True)
        os._exit(status)

    # Requests

    def respond(self, thread_id, cmd, buffer=b""):
        if FAULT == "wrong-id" and cmd == "echo":
            thread_id += 1
        self.send(thread_id, RESPONSE, cmd, buffer)
        if FAULT == "answers-twice" and cmd == "echo":
            self.send(thread_id, RESPONSE, cmd, buffer)

    def fail(self, thread_id, code, message):
        agreed = "failure" in self.features or FAULT == "failures-always"
        if agreed and code:
            failure = {"code": code, "message": message}
            if FAULT == "failure-without-message":
                failure = {"code": 7}
            self.send(thread_id, RESPONSE, "cmd.failure", json.dumps(failure).encode())
        else:
            data = b"\xff\xfe" if FAULT == "errors-not-utf8" else message.encode()
            self.send(thread_id, RESPONSE, "cmd.error", data)

    def credit(self, weight):
        self.taken += weight
        agreed = "flow" in self.features or FAULT == "credits-always"
        if not agreed or FAULT == "drops-credit":
            return
        if self.taken - self.credited >= WINDOW // 2:
            self.credited = self.taken
            total = {"credits-too-much": self.taken * 2, "credits-inexactly": self.taken - 1}.get(FAULT, self.taken)
            self.send(0, ONE_WAY, "cmd.credit", b"%d" % total)

    def metadata(self, thread_id, buffer):
        self.host_known = True
        try:
            self.host = json.loads(buffer or b"{}")
        except ValueError:
            self.host = {}
        if FAULT == "needs-known-levels" and "unheard" in self.host.get("pipeplug.log_level", ""):
            raise Broken("an unknown level")
        if FAULT == "needs-known-keys" and any("unheard" in key for key in self.host):
            raise Broken("an unknown key")
        if FAULT == "needs-offer" and not buffer:
            raise Broken("no offer")
        own = {"flow", "context", "cancel", "stream", "failure", "progress", "config", "log"}
        self.features = own & set(self.host.get("pipeplug.features", "").split())
        metadata = {
            "pipeplug.protocol": "1",
            "pipeplug.features": " ".join(sorted(own)),
            "pipeplug.window": str(WINDOW),
            "pipeplug.stream_window": "0x10000" if FAULT == "odd-window" else str(STREAM_WINDOW),
            "Description": "has a fault",
        }
        if FAULT == "drops-config" and "pipeplug.config" in self.host:
            metadata["pipeplug.features"] = "flow context cancel"
        if SERVES:
            metadata["pipeplug.services"] = "adder/2" if FAULT == "service-of-another-version" else "adder/1"
        if FAULT == "config-in-metadata":
            metadata.update(self.host)
        if FAULT == "metadata-of-numbers":
            metadata["Weight"] = 5
        if FAULT == "logs-config":
            print(self.host.get("pipeplug.config"), file=sys.stderr, flush=True)
        if FAULT == "prints-to-stdout":
            os.write(self.out, b"starting\n")
        if FAULT == "metadata-list":
            metadata = ["echo"]
        self.send(thread_id, RESPONSE, "GetMetadata", json.dumps(metadata).encode())

    def valid_context(self, buffer):
        try:
            context = json.loads(buffer)
            right = isinstance(context, dict) and len(buffer) <= 4096
            deadline = context.get("deadline_ms", 0) if right else None
            return context if right and type(deadline) is int and deadline >= 0 else {}
        except (ValueError, AttributeError):
            if FAULT == "dies-of-odd-contexts":
                raise Broken("an odd context")
            return {}

    def slow(self, thread_id, buffer, context):
        over = self.cancelled.setdefault(thread_id, threading.Event())
        if FAULT == "progress-always" or context.get("progress"):
            report = {"done": "1"} if FAULT == "odd-progress" else {"done": 1, "total": 2}
            self.send(thread_id, RESPONSE, "cmd.progress", json.dumps(report).encode())
        given_up = over.wait(int(buffer) / 1000)
        if given_up and FAULT == "no-answer-to-cancelled":
            self.pending.release()
            return
        self.respond(thread_id, "sleep")
        if FAULT == "late-progress" and context.get("progress"):
            self.send(thread_id, RESPONSE, "cmd.progress", b'{"done":2}')
        self.pending.release()

    def add(self, thread_id, buffer):
        try:
            numbers = json.loads(buffer)
            self.respond(thread_id, "adder.add", b"%d" % (numbers["a"] + numbers["b"]))
        except (ValueError, LookupError, TypeError) as error:
            if FAULT == "service-takes-anything":
                self.respond(thread_id, "adder.add", b"0")
            else:
                self.fail(thread_id, "invalid_argument", f"adder.add: {error}")

    def services(self, thread_id):
        integer = {"type": "whole number" if FAULT == "service-of-odd-types" else "integer"}
        method = {
            "name": "add",
            "command": "adder.add",
            "arguments": {"type": "object", "properties": {"a": integer, "b": integer}, "required": ["a", "b"]},
            "result": integer,
        }
        if FAULT == "service-without-commands":
            del method["command"]
        service = {"name": "adder", "version": 1, "methods": [method]}
        self.respond(thread_id, "GetServices", json.dumps({"services": [service]}).encode())

    def request(self, thread_id, cmd, buffer, context):
        if cmd == "GetMetadata":
            self.metadata(thread_id, buffer)
        elif cmd == "cmd.ping":
            self.pings += 1
            if FAULT == "never-answers-ping" or FAULT == "loses-some-under-load" and self.pings % 1000 == 0:
                return
            self.send(thread_id, RESPONSE, "cmd.ping", b"pong" if FAULT == "pongs" else b"")
        elif cmd == "cmd.stop" and FAULT == "stops-at-request":
            self.exit(0)
        elif cmd.startswith("cmd.") and FAULT == "echoes-reserved":
            self.respond(thread_id, cmd, buffer)
        elif cmd == "echo":
            self.echo(thread_id, buffer, context)
        elif cmd == "sleep" and FAULT == "works-while-reading":
            time.sleep(int(buffer) / 1000)
            self.respond(thread_id, cmd)
        elif cmd == "sleep":
            self.busy += 1
            threading.Thread(target=self.slow, args=(thread_id, buffer, context), daemon=True).start()
        elif FAULT == "drops-odd-commands" and not cmd.isascii():
            return
        elif cmd == "GetServices" and (SERVES or FAULT == "describes-no-services"):
            self.services(thread_id)
        elif cmd == "adder.add" and SERVES:
            self.add(thread_id, buffer)
        elif FAULT == "no-answer-to-unknown":
            return
        elif FAULT == "echoes-unknown":
            self.respond(thread_id, cmd, buffer)
        else:
            self.fail(thread_id, "unknown_command", f'there is no command "{cmd}"')

    # Streams

    def echo(self, thread_id, buffer, context):
        words = str(context.get("stream", "")).split()
        if FAULT == "needs-text":
            buffer.decode()
        if FAULT == "asks-with-one-id":
            for _ in range(2):
                self.send(7, REQUEST, "ask")
        if FAULT == "tells-with-ids":
            self.send(7, ONE_WAY, "tell")
        if FAULT == "ignores-the-window":
            for _ in range(5):
                self.send(0, ONE_WAY, "tell")
        late = "deadline_ms" in context and (context["deadline_ms"] == 0 or FAULT == "misreads-deadlines")
        if late:
            self.fail(thread_id, "deadline", "too late")
        if late and FAULT != "answers-after-deadlines":
            return
        if "send" in words and "stream" in self.features:
            window = int(self.host.get("pipeplug.stream_window", 1 << 20))
            self.streams[thread_id] = {
                "window": window, "sent": 0, "credited": 0, "taken": 0, "held": [], "ended": False, "enough": False,
            }
        else:
            self.respond(thread_id, "echo", buffer)

    def pump(self, thread_id):
        stream = self.streams[thread_id]
        while stream["held"]:
            if stream["sent"] - stream["credited"] >= stream["window"] and FAULT != "ignores-stream-window":
                return
            part = stream["held"].pop(0)
            stream["sent"] += 72 + len(part)
            if not stream["enough"]:
                self.send(thread_id, RESPONSE, "cmd.part", part)
            self.take(thread_id, stream, part)
        if stream["enough"] and FAULT == "waits-after-enough":
            return
        if stream["ended"]:
            del self.streams[thread_id]
            if FAULT != "no-answer-to-streams":
                self.respond(thread_id, "echo")

    def take(self, thread_id, stream, part):
        stream["taken"] += 72 + len(part)
        if FAULT != "drops-part-credit":
            total = stream["taken"] * (3 if FAULT == "credits-too-many-parts" else 1)
            self.send(thread_id, RESPONSE, "cmd.part.credit", b"%d" % total)

    def of_stream(self, thread_id, cmd, buffer):
        stream = self.streams.get(thread_id)
        if stream is None:
            if FAULT == "answers-late-parts":
                self.fail(thread_id, "", "no such stream")
            return
        if cmd == "cmd.part":
            stream["held"].append(buffer)
        elif cmd == "cmd.part.credit":
            stream["credited"] = int(buffer)
        elif cmd == "cmd.end":
            stream["ended"] = not (buffer and FAULT == "waits-after-errors")
        elif cmd == "cmd.enough":
            stream["enough"] = True
            stream["credited"] = 1 << 62
        self.pump(thread_id)

    # The loop

    def one_way(self, thread_id, cmd, buffer):
        if cmd == "cmd.stop":
            if FAULT == "ignores-stop":
                return
            self.stopping = True
            if FAULT == "drops-open-at-stop":
                os._exit(0)
            self.exit(1 if FAULT == "exits-1-at-stop" else 0)
        elif cmd == "cmd.context":
            agreed = "context" in self.features or FAULT == "context-always"
            self.context = (thread_id, self.valid_context(buffer) if agreed else {})
        elif cmd == "cmd.cancel":
            if thread_id in self.streams:
                del self.streams[thread_id]
                self.fail(thread_id, "cancelled", "given up")
                if FAULT == "sends-parts-after-cancel":
                    self.send(thread_id, RESPONSE, "cmd.part", b"late")
            elif thread_id in self.cancelled:
                self.cancelled[thread_id].set()
            elif FAULT == "answers-late-cancels":
                self.fail(thread_id, "", "no such request")
        elif cmd in ("cmd.part", "cmd.end", "cmd.enough", "cmd.part.credit"):
            self.of_stream(thread_id, cmd, buffer)
        elif cmd == "cmd.credit":
            if FAULT == "dies-of-odd-credits":
                int(buffer)
        elif cmd == "cmd.log_level":
            if FAULT == "dies-of-odd-levels":
                ["off", "error", "warn", "info", "debug", "trace"].index(buffer.decode())
        elif cmd.startswith("cmd."):
            if FAULT == "answers-reserved-one-ways":
                self.fail(thread_id, "", "unknown")
        elif FAULT == "answers-one-ways":
            self.respond(thread_id, cmd, b"unknown")

    def handle(self):
        thread_id, direction, cmd, buffer, weight = self.input.chunk()
        if FAULT == "needs-metadata-first" and cmd != "GetMetadata" and not self.host_known:
            raise Broken("no GetMetadata")
        context, self.context = self.context, (None, {})
        keeps = context[0] == thread_id or FAULT == "keeps-contexts"
        counts = direction in (ONE_WAY, REQUEST) and not (cmd or "").startswith("cmd.")
        if direction not in (ONE_WAY, REQUEST, RESPONSE):
            if FAULT == "answers-unknown-directions":
                self.fail(thread_id, "", "unknown direction")
        elif cmd is None or buffer is None:
            if FAULT == "forgets-credit-of-skipped":
                weight = 0
            if direction == REQUEST or FAULT == "answers-long-one-ways":
                self.fail(thread_id, "too_large", "over the limit")
        elif direction == REQUEST:
            self.request(thread_id, cmd, buffer, context[1] if keeps else {})
        elif direction == ONE_WAY:
            self.one_way(thread_id, cmd, buffer)
        elif FAULT == "dies-of-unasked-responses":
            raise Broken("a response to nothing")
        if counts:
            self.credit(weight)

    def run(self):
        self.writer = threading.Thread(target=self.writes, daemon=True)
        self.writer.start()
        if FAULT == "garbage-on-start":
            self.outbox.put(b"Listening on port 8080\n")
        if FAULT == "ignores-sigterm":
            import signal

            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            while True:
                self.handle()
        except EOFError:
            if FAULT == "stays-at-end":
                time.sleep(600)
            if FAULT == "answers-half-chunks":
                self.send(7, RESPONSE, "cmd.error", b"half a chunk")
            self.exit(1)
        except Broken as error:
            if FAULT == "answers-garbage":
                self.send(0, RESPONSE, "cmd.error", str(error).encode())
            if FAULT == "goes-on-after-garbage":
                time.sleep(600)
            print(f"faulty: {error}", file=sys.stderr)
            self.exit(1)


if __name__ == "__main__":
    Plugin().run()
