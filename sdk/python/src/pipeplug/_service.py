"""Typed services: a class whose methods are commands, and which describes itself."""

from __future__ import annotations

import inspect
import json
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Type,
    TypeVar,
    get_args,
    get_origin,
)

from . import _negotiation as nego
from ._errors import CallFailed, Failure, MethodError, Unsupported
from ._types import STREAMS, Misfit, bare, docs_of, from_json, hints_of, schema, to_json

if TYPE_CHECKING:
    from ._handlers import Handlers

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Method:
    """A method of a service: its types, and how it is called."""

    def __init__(self, service: str, name: str, function: Callable[..., Any]) -> None:
        marks: Dict[str, Any] = getattr(function, "__pipeplug__", {})
        #: Its name in Python, and the one that callers use.
        self.attribute, self.name = name, marks.get("name") or name
        self.function = function
        self.command = f"{service}.{self.name}"
        #: Names of arguments in JSON, where they differ, and those that are left out while they are None.
        self.json_names: Mapping[str, str] = marks.get("arguments") or {}
        self.omitted: Sequence[str] = marks.get("omit") or ()
        self.error: Optional[Type[MethodError]] = marks.get("error")
        self.one_way: bool = marks.get("one_way", False)
        self.idempotent: bool = marks.get("idempotent", False)
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        hints = hints_of(function)
        self.result = hints.pop("return", None)
        self.arguments: Dict[str, Any] = {}
        self.defaults: Dict[str, Any] = {}
        self.items_in: Any = None
        #: Parameters that take the request, and the items.
        self.request_parameter: Optional[str] = None
        self.items_parameter: Optional[str] = None
        self.parameters: List[str] = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            kind, _ = bare(hints.get(parameter.name, Any))
            if getattr(kind, "__name__", "") in ("Request", "AsyncRequest"):
                self.request_parameter = parameter.name
                continue
            self.parameters.append(parameter.name)
            if get_origin(kind) in STREAMS:
                self.items_in, self.items_parameter = get_args(kind)[0], parameter.name
                continue
            self.arguments[parameter.name] = hints.get(parameter.name, Any)
            if parameter.default is not inspect.Parameter.empty:
                self.defaults[parameter.name] = parameter.default
        kind, _ = bare(self.result)
        self.items_out: Any = get_args(kind)[0] if get_origin(kind) in STREAMS else None

    def describe(self, defs: Dict[str, Any]) -> Dict[str, Any]:
        """Returns its description."""
        found: Dict[str, Any] = {"name": self.name, "command": self.command}
        docs = docs_of(self.function)
        if docs:
            found["docs"] = docs
        for key, is_set in (("one_way", self.one_way), ("idempotent", self.idempotent)):
            if is_set:
                found[key] = True
        if self.arguments:
            properties = {self.json_name(name): schema(kind, defs) for name, kind in self.arguments.items()}
            for name, default in self.defaults.items():
                properties[self.json_name(name)]["default"] = to_json(default)
            arguments: Dict[str, Any] = {"properties": properties, "type": "object"}
            required = [self.json_name(name) for name in self.arguments if name not in self.defaults]
            if required:
                arguments["required"] = required
            found["arguments"] = arguments
        if self.items_in is not None:
            found["items_in"] = schema(self.items_in, defs)
        if self.items_out is not None:
            found["items_out"] = schema(self.items_out, defs)
        elif self.result not in (None, type(None)):
            found["result"] = schema(self.result, defs)
        if self.error is not None:
            found["error"] = schema(self.error, defs)
        return found

    def json_name(self, parameter: str) -> str:
        """Returns the name that an argument has in JSON."""
        return self.json_names.get(parameter, parameter)

    # Of the side that serves.

    def decode(self, data: bytes) -> Dict[str, Any]:
        """Returns the arguments that a caller has sent."""
        found: Any = {}
        if data:
            try:
                found = json.loads(data.decode())
            except (ValueError, RecursionError) as error:
                raise Failure("invalid_argument", f"the arguments are no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Failure("invalid_argument", "the arguments are no JSON object")
        arguments = {}
        for name, kind in self.arguments.items():
            json_name = self.json_name(name)
            if json_name in found:
                arguments[name] = self._fit(kind, found[json_name], json_name)
            elif name not in self.defaults:
                message = f"the argument `{json_name}` is missing"
                raise Failure("invalid_argument", message, {"field": json_name})
        return arguments

    def item(self, data: bytes) -> Any:
        """Returns an item that a caller has sent."""
        try:
            value = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise Failure("invalid_argument", f"an item is no JSON: {error}") from None
        return self._fit(self.items_in, value, "")

    @staticmethod
    def _fit(kind: Any, value: Any, path: str) -> Any:
        try:
            return from_json(kind, value, path)
        except Misfit as misfit:
            data = {"field": misfit.path} if misfit.path else None
            raise Failure("invalid_argument", str(misfit), data) from None

    def encode(self, value: Any) -> bytes:
        """Returns a result as JSON."""
        try:
            return nego.compact(to_json(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise Failure("invalid_result", f"the result cannot be encoded: {error}") from None

    def failure(self, error: MethodError) -> Failure:
        """Returns the failure that carries an error of the method."""
        return Failure("method_error", error._message(), to_json(error))

    # Of the side that calls.

    def bind(self, args: tuple[Any, ...], named: Dict[str, Any]) -> tuple[bytes, Any]:
        """Returns arguments as JSON, and the items to send."""
        if len(args) > len(self.parameters):
            raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments")
        given = dict(zip(self.parameters, args))
        twice = sorted(set(given) & set(named)) or sorted(set(named) - set(self.parameters))
        if twice:
            raise TypeError(f"{self.name}() does not take the argument {twice[0]!r} so")
        given.update(named)
        items = given.pop(self.items_parameter, ()) if self.items_parameter else None
        missing = [it for it in self.arguments if it not in given and it not in self.defaults]
        if missing:
            raise TypeError(f"{self.name}() needs the argument {missing[0]!r}")
        for name in self.omitted:
            if given.get(name, 0) is None:
                del given[name]
        sent = {self.json_name(name): to_json(value) for name, value in given.items()}
        return nego.compact(sent) if sent else b"", items

    def result_of(self, data: bytes) -> Any:
        """Returns the result that a reply holds."""
        if not data or self.result in (None, type(None)):
            return None
        return self._reply(self.result, data)

    def item_of(self, data: bytes) -> Any:
        """Returns an item of the reply."""
        return self._reply(self.items_out, data)

    def _reply(self, kind: Any, data: bytes) -> Any:
        try:
            return from_json(kind, json.loads(data.decode()))
        except (ValueError, RecursionError, Misfit) as error:
            raise CallFailed(self.command, f"the answer does not fit: {error}") from None

    def error_of(self, error: CallFailed) -> Exception:
        """Returns the method's own error, if that is why a call has failed."""
        if self.error is not None and error.code == "method_error" and error.data is not None:
            try:
                own: MethodError = from_json(self.error, error.data)
                # Without a text of its own, that of Python is the data once more.
                return own if error.message == own._message() else own.with_message(error.message)
            except Misfit:
                pass
        return error


class Interface:
    """What `@service` has made of a class."""

    def __init__(
        self, kind: Type[Any], name: str, version: int, oldest: int, description: Optional[Mapping[str, Any]] = None
    ) -> None:
        self.name, self.version, self.oldest = name, version, oldest
        self._description = description
        self.docs = docs_of(kind)
        self.methods = [
            Method(name, method, function)
            for method, function in vars(kind).items()
            if inspect.isfunction(function) and not method.startswith("_")
        ]

    def describe(self) -> Dict[str, Any]:
        """Returns its description, as `GetServices` answers it."""
        if self._description is not None:
            return dict(self._description)
        defs: Dict[str, Any] = {}
        found: Dict[str, Any] = {"name": self.name, "version": self.version, "oldest": self.oldest}
        if self.docs:
            found["docs"] = self.docs
        found["methods"] = [method.describe(defs) for method in self.methods]
        if defs:
            found["$defs"] = defs
        return found

    def word(self) -> str:
        """Returns the word of `pipeplug.services`."""
        if self.oldest == self.version:
            return f"{self.name}/{self.version}"
        return f"{self.name}/{self.oldest}-{self.version}"

    def check(self, services: str, other: str) -> None:
        """Raises an error unless one of the services of the other side is this one."""
        for word in services.split():
            name, _, range_ = word.partition("/")
            if name != self.name:
                continue
            first, _, last = range_.partition("-")
            oldest, newest = nego.number(first), nego.number(last or first)
            if oldest is None or newest is None or not oldest <= self.version <= newest:
                older = "other side" if newest is not None and newest < self.version else "caller"
                raise Unsupported(
                    self.name,
                    f"the service has the versions {range_}, the caller needs {self.version}: upgrade the {older}",
                )
            return
        has = f"it has {', '.join(services.split())}" if services.strip() else "it has no services"
        raise Unsupported(self.name, f"{other} does not have this service; {has}")


def service(
    *,
    version: int,
    oldest: Optional[int] = None,
    name: Optional[str] = None,
    description: Optional[Mapping[str, Any]] = None,
) -> Callable[[Type[T]], Type[T]]:
    """Makes a class the interface of a service: its methods are commands, their types the schema.

    A subclass implements it, and is served by `Guest.service`; `client` gives an object that calls it. Types are those
    of JSON, dataclasses, TypedDicts and enums. A parameter or result `Iterator[T]` is a stream of items.
    `pipeplug bindings` writes such classes; `description` is then what others see in place of the types.
    """

    def decorate(kind: Type[T]) -> Type[T]:
        snake = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
        if not re.fullmatch("[a-z][a-z0-9_]*", snake):
            raise ValueError(f"{snake!r} is no name of a service: a-z, 0-9 and _, a letter first")
        kind.__pipeplug_interface__ = Interface(kind, snake, version, oldest or version, description)  # type: ignore[attr-defined]
        return kind

    return decorate


def method(
    *,
    error: Optional[Type[MethodError]] = None,
    one_way: bool = False,
    idempotent: bool = False,
    name: Optional[str] = None,
    arguments: Optional[Mapping[str, str]] = None,
    omit: Sequence[str] = (),
) -> Callable[[F], F]:
    """Says of a method of a service which error it has, that it is one-way, or may be called twice.

    `name` and `arguments` are the names in JSON where Python has others. Parameters in `omit` are not sent while they
    are None.
    """

    if error is not None and not (isinstance(error, type) and issubclass(error, MethodError)):
        raise TypeError(f"the error of a method is a subclass of MethodError, not {error!r}")

    def decorate(function: F) -> F:
        function.__pipeplug__ = {  # type: ignore[attr-defined]
            "error": error,
            "one_way": one_way,
            "idempotent": idempotent,
            "name": name,
            "arguments": arguments,
            "omit": omit,
        }
        return function

    return decorate


def interface_of(kind: Any) -> Interface:
    """Returns the interface of a class, or of the class that it implements."""
    found: Optional[Interface] = getattr(kind, "__pipeplug_interface__", None)
    if found is None:
        raise TypeError(f"{kind!r} is no service: decorate its class by @service(version=1)")
    return found


class ServiceSet:
    """The services of a side."""

    def __init__(self) -> None:
        self._interfaces: List[Interface] = []

    def add(self, implementation: object, handlers: Handlers) -> None:
        """Adds the commands of an implementation."""
        if isinstance(implementation, type):
            name = implementation.__name__
            raise TypeError(f"service() takes the object that answers, as {name}(), not its class")
        interface = interface_of(type(implementation))
        self._interfaces.append(interface)
        for it in interface.methods:
            function = getattr(implementation, it.attribute)
            is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
            if is_async:
                handlers.add(it.command, _serve_async(it, function), True)
            else:
                handlers.add(it.command, _serve(it, function), False)

    def register(self, handlers: Handlers) -> None:
        """Adds the command that describes the services, if there are any."""
        if self._interfaces and "GetServices" not in handlers.commands:
            answer = nego.compact({"services": [it.describe() for it in self._interfaces]})
            handlers.add("GetServices", lambda _: answer, False)

    def metadata(self) -> Dict[str, str]:
        """Returns the entry of the metadata."""
        if not self._interfaces:
            return {}
        return {"pipeplug.services": " ".join(it.word() for it in self._interfaces)}


def _serve(it: Method, function: Callable[..., Any]) -> Callable[[Any], bytes]:
    def handle(request: Any) -> bytes:
        arguments = it.decode(request.data)
        if it.request_parameter is not None:
            arguments[it.request_parameter] = request
        if it.items_parameter is not None:
            arguments[it.items_parameter] = (it.item(part) for part in request.parts)
        try:
            result = function(**arguments)
            if it.items_out is not None:
                for item in result:
                    request.send(it.encode(item))
                return b""
        except MethodError as error:
            raise it.failure(error) from None
        return b"" if it.result in (None, type(None)) else it.encode(result)

    return handle


def _serve_async(it: Method, function: Callable[..., Any]) -> Callable[[Any], Any]:
    async def handle(request: Any) -> bytes:
        arguments = it.decode(request.data)
        if it.request_parameter is not None:
            arguments[it.request_parameter] = request
        if it.items_parameter is not None:
            arguments[it.items_parameter] = (it.item(part) async for part in request.parts)
        try:
            result = function(**arguments)
            if it.items_out is not None:
                if inspect.isawaitable(result):
                    result = await result
                async for item in result:
                    await request.send(it.encode(item))
                return b""
            result = await result
        except MethodError as error:
            raise it.failure(error) from None
        return b"" if it.result in (None, type(None)) else it.encode(result)

    return handle
