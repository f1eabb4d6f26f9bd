"""Clients of typed services, for threads and for coroutines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, Iterable, Iterator, Type, TypeVar

from ._errors import CallFailed, PipeplugError
from ._handlers import words_of
from ._service import Method, interface_of

if TYPE_CHECKING:
    from ._aio import AsyncConnection, AsyncStream
    from ._connection import Connection
    from ._streams import Stream

T = TypeVar("T")


def _client(kind: Type[T], connection: Any, make: Callable[[Method, Any], Any]) -> T:
    if not isinstance(kind, type):
        raise TypeError(f"client() takes the class of a service, not {kind!r}")
    interface = interface_of(kind)
    metadata = getattr(connection, "metadata", None)
    if metadata is not None:
        name = getattr(connection, "name", None)
        other = "the other side" if name is None else f'plugin "{name}"'
        interface.check(metadata.get("pipeplug.services", ""), other)
    methods: Dict[str, Any] = {it.attribute: make(it, connection) for it in interface.methods}
    methods["__init__"] = lambda self: None
    made: T = type(f"{kind.__name__}Client", (kind,), methods)()
    return made


def make_client(kind: Type[T], connection: Connection) -> T:
    """Returns an object that calls a service by a connection."""
    return _client(kind, connection, _call)


def make_async_client(kind: Type[T], connection: AsyncConnection) -> T:
    """Returns an object that calls a service by a connection, and whose methods are awaited."""
    return _client(kind, connection, _call_async)


def _call(it: Method, connection: Connection) -> Callable[..., Any]:
    def call(_self: Any, *args: Any, **named: Any) -> Any:
        data, items = it.bind(args, named)
        if it.one_way:
            if it.items_in is None:
                connection.notify(it.command, data)
                return None
            with connection.notify_stream(it.command, data) as sender:
                for item in items:
                    sender.send(it.encode(item))
            return None
        try:
            if it.items_in is None and it.items_out is None:
                return it.result_of(connection.call(it.command, data))
            stream = connection.stream(it.command, data, send=it.items_in is not None, receive=it.items_out is not None)
            if it.items_out is None:
                _send(it, stream, items)
                return it.result_of(stream.reply())
        except CallFailed as error:
            raise it.error_of(error) from None
        if it.items_in is not None:
            threading.Thread(target=_send, args=(it, stream, items), daemon=True).start()
        return _receive(it, stream)

    return call


def _send(it: Method, stream: Stream, items: Iterable[Any]) -> None:
    try:
        for item in items:
            stream.send(it.encode(item))
        stream.finish()
    except PipeplugError:
        # Its receiver says why, in the reply.
        pass
    except BaseException as error:
        stream.abort(words_of(error))
        if not isinstance(error, Exception):
            raise


def _receive(it: Method, stream: Stream) -> Iterator[Any]:
    with stream:
        try:
            for part in stream:
                yield it.item_of(part)
            stream.reply()
        except CallFailed as error:
            raise it.error_of(error) from None


def _call_async(it: Method, connection: AsyncConnection) -> Callable[..., Any]:
    async def call(_self: Any, *args: Any, **named: Any) -> Any:
        data, items = it.bind(args, named)
        if it.one_way:
            if it.items_in is None:
                await connection.notify(it.command, data)
                return None
            async with await connection.notify_stream(it.command, data) as sender:
                async for item in _each(items):
                    await sender.send(it.encode(item))
            return None
        try:
            if it.items_in is None:
                return it.result_of(await connection.call(it.command, data))
            stream = await connection.stream(it.command, data, receive=False)
            await _send_async(it, stream, items)
            return it.result_of(await stream.reply())
        except CallFailed as error:
            raise it.error_of(error) from None

    async def receive(_self: Any, *args: Any, **named: Any) -> AsyncIterator[Any]:
        import asyncio

        data, items = it.bind(args, named)
        sends = it.items_in is not None
        async with await connection.stream(it.command, data, send=sends) as stream:
            task = asyncio.ensure_future(_send_async(it, stream, items)) if sends else None
            try:
                async for part in stream:
                    yield it.item_of(part)
                await stream.reply()
            except CallFailed as error:
                raise it.error_of(error) from None
            finally:
                if task is not None:
                    task.cancel()

    return receive if it.items_out is not None else call


async def _each(items: Any) -> AsyncIterator[Any]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _send_async(it: Method, stream: AsyncStream, items: Any) -> None:
    try:
        async for item in _each(items):
            await stream.send(it.encode(item))
        await stream.finish()
    except PipeplugError:
        # Its receiver says why, in the reply.
        pass
    except BaseException as error:
        await stream.abort(words_of(error))
        if not isinstance(error, Exception):
            raise
