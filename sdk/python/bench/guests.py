#!/usr/bin/env python3
"""The other sides of the benchmark, each an echo: pipeplug, asyncio, mp and grpc."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any


def serve_pipeplug() -> None:
    from pipeplug import Guest, Request

    plugin = Guest("bench")

    @plugin.command
    def echo(request: Request) -> bytes:
        return request.data

    plugin.run()


def serve_asyncio() -> None:
    from pipeplug import AsyncRequest, Guest

    plugin = Guest("bench")

    @plugin.command
    async def echo(request: AsyncRequest) -> bytes:
        return request.data

    plugin.run()


def serve_mp(descriptor: int) -> None:
    connection = Connection(descriptor)
    try:
        while True:
            connection.send_bytes(connection.recv_bytes())
    except EOFError:
        pass


def serve_mp_calls(descriptor: int) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock

    connection, lock = Connection(descriptor), Lock()
    commands = {"echo": lambda data: data}

    def answer(number: int, command: str, data: bytes) -> None:
        try:
            reply = (number, True, commands[command](data))
        except Exception as error:
            reply = (number, False, repr(error).encode())
        with lock:
            connection.send(reply)

    with ThreadPoolExecutor(64) as pool:
        try:
            while True:
                pool.submit(answer, *connection.recv())
        except EOFError:
            pass


def serve_grpc(path: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    def echo(data: bytes, context: Any) -> bytes:
        return data

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    big = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(64), options=big)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0)


def serve_grpc_aio(path: str) -> None:
    import asyncio

    import grpc.aio

    async def echo(data: bytes, context: Any) -> bytes:
        return data

    async def serve() -> None:
        handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        big = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=big)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(0)

    asyncio.run(serve())


if __name__ == "__main__":
    # The descriptors of a plugin come first.
    kind = sys.argv[-2] if sys.argv[-2] in ("mp", "mp-calls", "grpc", "grpc-aio") else sys.argv[-1]
    if kind == "mp":
        serve_mp(int(sys.argv[-1]))
    elif kind == "mp-calls":
        serve_mp_calls(int(sys.argv[-1]))
    elif kind == "grpc":
        serve_grpc(sys.argv[-1])
    elif kind == "grpc-aio":
        serve_grpc_aio(sys.argv[-1])
    elif kind == "asyncio":
        serve_asyncio()
    else:
        serve_pipeplug()
