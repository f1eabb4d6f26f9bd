#!/usr/bin/python3
"""A plugin on standard input and output that does what programs in Python do: `work` answers with the names of the parts
that went well, or says which one did not."""

import asyncio
import concurrent.futures
import fcntl
import hashlib
import mmap
import multiprocessing
import os
import select
import signal
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ONE_WAY, REQUEST, RESPONSE = 1, 2, 3


def threads():
    done = []
    started = [threading.Thread(target=done.append, args=(n,)) for n in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(len, ["a", "bc"])) == 3
    assert sorted(done) == list(range(8))


def programs():
    assert subprocess.run(["/bin/echo", "hi"], capture_output=True, check=True).stdout == b"hi\n"
    assert subprocess.run("echo a | cat; exit 3", shell=True, stdout=subprocess.PIPE).returncode == 3
    with subprocess.Popen(["/bin/sleep", "100"]) as sleeper:
        sleeper.terminate()
        assert sleeper.wait() == -signal.SIGTERM


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "w+b") as file:
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
            with mmap.mmap(file.fileno(), 0) as memory:
                assert memory[4096] == ord("x")
        os.rename(path, path + "2")
        os.symlink("file2", path)
        os.mkfifo(os.path.join(folder, "fifo"))
        assert sorted(os.listdir(folder)) == ["fifo", "file", "file2"]
        assert os.stat(path).st_size == 8192
    with tempfile.NamedTemporaryFile() as file, sqlite3.connect(file.name) as database:
        database.execute("create table t (n)")


def child(connection):
    connection.send(os.getpid())


def processes():
    # Not "forkserver", which listens at a socket with a name.
    for method in ["fork", "spawn"]:
        context = multiprocessing.get_context(method)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(sender,))
        process.start()
        assert receiver.recv() == process.pid
        process.join()
        assert process.exitcode == 0


def locks():
    # POSIX semaphores in /dev/shm.
    context = multiprocessing.get_context("fork")
    with context.Lock(), context.Pool(2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]


def tls():
    ssl.create_default_context()
    assert len(hashlib.scrypt(b"a", salt=b"b", n=16, r=1, p=1)) == 64


def waiting():
    async def main():
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
        assert (await process.communicate(b"hi"))[0] == b"hi"
        await asyncio.sleep(0.001)
        assert await asyncio.to_thread(len, "ab") == 2

    asyncio.run(main())
    reader, writer = os.pipe()
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    os.write(writer, b"x")
    assert poll.poll(1) == [(reader, select.EPOLLIN)]
    caught = []
    signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while not caught:
        time.sleep(0.001)


PARTS = [threads, programs, files, processes, locks, tls, waiting]


def answer(cmd):
    if cmd == b"GetMetadata":
        return cmd, b'{"Cmd":"at-work"}'
    if cmd == b"cmd.ping":
        return cmd, b""
    if cmd != b"work":
        return b"cmd.error", b"there is only work"
    for part in PARTS:
        try:
            part()
        except Exception as error:
            return b"cmd.error", f"{part.__name__}: {error!r}".encode()
    return cmd, " ".join(part.__name__ for part in PARTS).encode()


def serve():
    reader, writer = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a part prints goes to standard error.
    os.dup2(2, 1)

    def number():
        return int(b"".join(iter(lambda: reader.read(1), b"\0")))

    while True:
        thread_id, direction = number(), number()
        cmd = reader.read(number())
        reader.read(1)
        reader.read(number())
        if (direction, cmd) == (ONE_WAY, b"cmd.stop"):
            return
        if direction == REQUEST:
            cmd, buffer = answer(cmd)
            header = b"%d\0%d\0%d\0%b\0%d\0" % (thread_id, RESPONSE, len(cmd), cmd, len(buffer))
            writer.write(header + buffer)
            writer.flush()


if __name__ == "__main__":
    serve()
