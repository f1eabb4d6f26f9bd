#!/usr/bin/env python3
"""A host of docs/protocol.md, in Python and only the standard library, with a fault that its last argument names.

It starts the plugin that its first argument names, makes three calls, and stops it. Without a fault ("none") every
check of `pipeplug conform --as host` passes. The features are flow, context and failure.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time

from faulty import FAULT, ONE_WAY, REQUEST, RESPONSE, Broken, Input

WINDOW = 256 << 10
KNOWN_KEYS = {"pipeplug.protocol", "pipeplug.features", "pipeplug.window", "Description"}


class Host:
    def __init__(self, program):
        if sys.argv[2] == "one-socket":
            own, plugins = (end.detach() for end in socket.socketpair())
            from_plugin, self.out = own, os.dup(own)
            plugin_in, plugin_out = plugins, os.dup(plugins)
        elif sys.argv[2] == "sockets":
            from_plugin, plugin_out = (end.detach() for end in socket.socketpair())
            plugin_in, self.out = (end.detach() for end in socket.socketpair())
        else:
            from_plugin, plugin_out = os.pipe()
            plugin_in, self.out = os.pipe()
        command = [program, str(plugin_in), str(plugin_out)]
        self.process = subprocess.Popen(command, pass_fds=(plugin_in, plugin_out), stdin=subprocess.DEVNULL)
        os.close(plugin_in)
        os.close(plugin_out)
        self.input = Input(from_plugin)
        self.input.classic = False
        self.outbox = queue.SimpleQueue()
        self.answers = {}
        self.last_id = 0
        self.features = set()
        self.started = False
        self.pings = 0
        self.taken = self.credited = 0
        self.sent = self.allowed = 0
        self.window = 4 << 20
        self.room = threading.Condition()

    # Writing

    def send(self, thread_id, direction, cmd, buffer=b""):
        if FAULT == "ids-of-31-bits" and direction == RESPONSE:
            thread_id &= 0x7FFFFFFF
        cmd = cmd.encode()
        self.outbox.put(b"%d\0%d\0%d\0%b\0%d\0%b" % (thread_id, direction, len(cmd), cmd, len(buffer), buffer))

    def writes(self):
        try:
            while (data := self.outbox.get()) is not None:
                while data:
                    data = data[os.write(self.out, data) :]
        except OSError:
            self.end(1)

    def end(self, status):
        if FAULT == "stays-at-end":
            time.sleep(600)
        self.process.kill()
        os._exit(status)

    # Reading

    def fail(self, thread_id, message):
        self.send(thread_id, RESPONSE, "cmd.error", message.encode())

    def request(self, thread_id, cmd, buffer):
        if not self.started and FAULT == "answers-after-the-start":
            return
        if cmd == "cmd.ping":
            self.pings += 1
            if FAULT != "loses-some-under-load" or self.pings % 1000:
                self.send(thread_id, RESPONSE, "cmd.ping", b"pong" if FAULT == "pongs" else b"")
        elif cmd.startswith("cmd.") and FAULT == "echoes-reserved":
            self.send(thread_id, RESPONSE, cmd, buffer)
        elif FAULT != "drops-requests":
            self.fail(thread_id, f'there is no command "{cmd}"')

    def one_way(self, cmd, buffer):
        if cmd == "cmd.credit":
            if buffer.isdigit() and buffer == str(int(buffer)).encode():
                with self.room:
                    if self.allowed <= int(buffer) <= self.sent:
                        self.allowed = int(buffer)
                    self.room.notify_all()
            elif FAULT == "dies-of-odd-credits":
                raise Broken("an odd credit")
        elif cmd == "cmd.cancel":
            if FAULT == "dies-of-cancels":
                raise Broken("an unknown request")
        elif cmd in ("cmd.part", "cmd.end", "cmd.enough", "cmd.part.credit"):
            if FAULT == "dies-of-stream-chunks":
                raise Broken("an unknown stream")
        elif cmd.startswith("cmd."):
            if FAULT == "answers-reserved-one-ways":
                self.fail(0, "unknown")
        elif FAULT == "answers-one-ways":
            self.fail(0, "unknown")

    def response(self, thread_id, cmd, buffer):
        if cmd == "cmd.progress" and FAULT == "dies-of-progress":
            raise Broken("progress")
        if cmd == "cmd.failure" and FAULT == "dies-of-failures":
            raise Broken("cmd.failure")
        if cmd in ("cmd.progress", "cmd.part", "cmd.part.credit", "cmd.enough"):
            return
        answer = self.answers.pop(thread_id, None)
        if answer is not None:
            if not self.started:
                self.metadata(cmd, buffer)
            answer.put((cmd, buffer))
        elif FAULT == "dies-of-unasked-responses":
            raise Broken("a response to nothing")

    def credit(self, weight):
        self.taken += weight
        if "flow" in self.features and self.taken - self.credited >= WINDOW // 2 and FAULT != "drops-credit":
            self.credited = self.taken
            self.send(0, ONE_WAY, "cmd.credit", b"%d" % self.taken)

    def handle(self):
        thread_id, direction, cmd, buffer, weight = self.input.chunk()
        if direction not in (ONE_WAY, REQUEST, RESPONSE):
            if FAULT == "answers-unknown-directions":
                self.fail(thread_id, "unknown direction")
        elif cmd is None or buffer is None:
            if direction == REQUEST:
                self.fail(thread_id, "over the limit")
        elif direction == REQUEST:
            self.request(thread_id, cmd, buffer)
        elif direction == ONE_WAY:
            self.one_way(cmd, buffer)
        else:
            self.response(thread_id, cmd, buffer)
        if direction in (ONE_WAY, REQUEST) and not (cmd or "").startswith("cmd."):
            self.credit(weight)

    def reads(self):
        try:
            while True:
                self.handle()
        except (EOFError, Broken) as error:
            print(f"faulty host: {error!r}", file=sys.stderr)
            if FAULT == "goes-on-after-garbage" and isinstance(error, Broken):
                time.sleep(600)
            self.end(1)

    # Calls

    def call(self, cmd, buffer=b""):
        self.last_id += 1
        thread_id = 1 if FAULT == "asks-with-one-id" else self.last_id
        answer = self.answers[thread_id] = queue.SimpleQueue()
        weight = 64 + len(cmd) + len(buffer)
        with self.room:
            if "flow" in self.features and FAULT != "ignores-the-window":
                self.room.wait_for(lambda: self.sent - self.allowed < self.window)
            self.sent += weight
        if "context" in self.features or self.started and FAULT == "contexts-always":
            self.send(thread_id, ONE_WAY, "cmd.context", b'{"deadline_ms":60000}')
            if FAULT == "sends-contexts-apart":
                self.send(0, ONE_WAY, "tell")
        self.send(thread_id, REQUEST, cmd, buffer)
        if FAULT == "ignores-the-window" and self.started:
            return
        return answer.get()

    def greet(self):
        offer = {
            "pipeplug.protocol": "1",
            "pipeplug.features": "flow context failure",
            "pipeplug.window": "0x40000" if FAULT == "offers-odd-windows" else str(WINDOW),
        }
        buffer = json.dumps([] if FAULT == "offers-lists" else offer).encode()
        self.call("GetMetadata", buffer)

    def metadata(self, cmd, buffer):
        """Takes the metadata, on the thread that reads: the answer to what comes behind them waits."""
        if cmd in ("cmd.error", "cmd.failure"):
            if FAULT == "needs-metadata":
                self.end(1)
            metadata = {}
        else:
            metadata = json.loads(buffer)
        if FAULT == "needs-its-cmd" and cmd != "GetMetadata":
            self.end(1)
        if not isinstance(metadata, dict):
            if FAULT == "takes-lists":
                time.sleep(600)
            self.end(1)
        if FAULT == "needs-descriptions" and not metadata.get("Description"):
            self.end(1)
        if FAULT == "needs-strings" and not all(isinstance(value, str) for value in metadata.values()):
            self.end(1)
        if FAULT == "needs-known-keys" and not set(metadata) <= KNOWN_KEYS:
            self.end(1)
        window = str(metadata.get("pipeplug.window", ""))
        if window.isdigit() and window == str(int(window)):
            self.window = max(int(window), 1)
        self.features = {"flow", "context", "failure"} & set(str(metadata.get("pipeplug.features", "")).split())
        self.started = True

    def run(self):
        writer = threading.Thread(target=self.writes, daemon=True)
        writer.start()
        threading.Thread(target=self.reads, daemon=True).start()
        self.greet()
        for _ in range(3):
            self.call("echo", b"hi")
        if FAULT != "closes-without-stop":
            self.send(0, ONE_WAY, "cmd.stop")
        self.outbox.put(None)
        writer.join()
        os.close(self.out)
        self.process.wait(5)
        os._exit(0)


Host(sys.argv[1]).run()
