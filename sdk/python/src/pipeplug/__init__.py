"""Plugins as programs of their own: the guest (a plugin) and the host (the program that starts it)."""

from ._connection import Request
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
from ._negotiation import Progress
from ._options import Data, Options
