"""Plugins as programs of their own: the guest (a plugin) and the host (the program that starts it)."""

from typing import TYPE_CHECKING

from ._commands import Commands
from ._connection import Connection, PendingCall
from ._errors import (
    CallCancelled,
    CallError,
    CallFailed,
    CallTimeout,
    ConnectionClosed,
    EnoughParts,
    Failure,
    MethodError,
    PipeplugError,
    RegisterError,
    StartError,
    StreamError,
    Unsupported,
)
from ._guest import Guest, Host
from ._host import Plugin
from ._negotiation import Progress
from ._options import Data, Options
from ._request import Request
from ._service import method, service
from ._streams import Parts, PartSender, Stream

if TYPE_CHECKING:
    from ._aio import AsyncConnection, AsyncParts, AsyncPartSender, AsyncRequest, AsyncStream
    from ._aio_guest import AsyncHost
    from ._aio_host import AsyncPlugin

__version__ = "0.1.0"
__all__ = [
    "AsyncConnection",
    "AsyncHost",
    "AsyncPartSender",
    "AsyncParts",
    "AsyncPlugin",
    "AsyncRequest",
    "AsyncStream",
    "CallCancelled",
    "CallError",
    "CallFailed",
    "CallTimeout",
    "Commands",
    "Connection",
    "ConnectionClosed",
    "Data",
    "EnoughParts",
    "Failure",
    "Guest",
    "Host",
    "MethodError",
    "Options",
    "PartSender",
    "Parts",
    "PendingCall",
    "PipeplugError",
    "Plugin",
    "Progress",
    "RegisterError",
    "Request",
    "StartError",
    "Stream",
    "StreamError",
    "Unsupported",
    "method",
    "service",
]


def __getattr__(name: str) -> object:
    # asyncio takes time to import, which a plugin by threads need not spend.
    if name.startswith("Async") and name in __all__:
        from . import _aio, _aio_guest, _aio_host

        place = {"AsyncHost": _aio_guest, "AsyncPlugin": _aio_host}.get(name, _aio)
        return getattr(place, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
