"""Plugins as programs of their own: the guest (a plugin) and the host (the program that starts it)."""

from ._commands import Commands
from ._connection import Connection, Parts, PartSender, PendingCall, Request, Stream
from ._errors import (
    CallCancelled,
    CallError,
    CallFailed,
    CallTimeout,
    ConnectionClosed,
    EnoughParts,
    Failure,
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


def __getattr__(name: str) -> object:
    # asyncio takes time to import, which a plugin by threads need not spend.
    if name in ("AsyncConnection", "AsyncHost", "AsyncPlugin", "AsyncRequest", "AsyncStream"):
        from . import _aio

        return getattr(_aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
