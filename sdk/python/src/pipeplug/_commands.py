"""Registration of the commands that a side answers."""

from __future__ import annotations

import inspect
from typing import Any, Callable, Iterable, Optional, TypeVar, Union, overload

from . import _options as options
from ._handlers import Handler, Handlers
from ._options import text, words
from ._service import ServiceSet

F = TypeVar("F", bound=Callable[..., Any])


class Commands:
    """The commands and services that a side answers: those of a host for its plugins, or of a plugin."""

    def __init__(self, name: str = "host", *, in_order: Union[bool, Iterable[str]] = False) -> None:
        self._handlers = Handlers(text("name", name) or "host")
        self._services = ServiceSet()
        ordered = options.in_order(in_order)
        if ordered is True:
            self._handlers.order(None)
        elif ordered:
            self._handlers.order(ordered)

    @overload
    def command(self, name: F) -> F: ...

    @overload
    def command(self, name: Optional[str] = None) -> Callable[[F], F]: ...

    def command(self, name: Union[F, str, None] = None) -> Any:
        """Registers the function of a command: `@plugin.command`, or `@plugin.command("its-name")`.

        The function gets the request, and returns bytes, text or None. It may be a coroutine.
        """
        if callable(name):
            return self._add(name.__name__, name)

        text("the name of a command", name)

        def decorate(function: F) -> F:
            return self._add(function.__name__ if name is None else name, function)

        return decorate

    def fallback(self, function: F) -> F:
        """Registers the function of all commands that have none of their own."""
        options.function("fallback", function)
        self._handlers.fallback = Handler(function, inspect.iscoroutinefunction(function))
        return function

    def service(self, implementation: object) -> None:
        """Serves an object of a class that is decorated by `@service`."""
        self._services.add(implementation, self._handlers)

    def in_order(self, *commands: str) -> None:
        """Has commands handled one at a time, in the order in which they were sent; none: all."""
        self._handlers.order(words("in_order", commands) or None)

    def _add(self, name: str, function: F) -> F:
        options.function(f"the handler of {name!r}", function)
        self._handlers.add(name, function, inspect.iscoroutinefunction(function))
        return function
