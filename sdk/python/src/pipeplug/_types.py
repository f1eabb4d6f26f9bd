"""Types of services: their values as JSON, and their JSON Schema."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
from collections import abc
from typing import (
    Annotated,
    Any,
    Dict,
    ForwardRef,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Tuple,
    Type,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from ._errors import MethodError

_UNIONS: Tuple[Any, ...] = (Union,)
try:
    from types import UnionType  # type: ignore[attr-defined,unused-ignore]

    _UNIONS = (Union, UnionType)
except ImportError:
    pass

_LISTS = (list, abc.Sequence, abc.Iterable, abc.Collection, set, frozenset)
_MAPS = (dict, abc.Mapping, abc.MutableMapping)
STREAMS = (abc.Iterator, abc.AsyncIterator)


class Misfit(Exception):
    """A value does not fit its type."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"`{path}` {problem}" if path else problem)
        self.path = path


class _Later:
    """A type that its own definition names: looked up when a value is at hand."""

    def __init__(self, name: str, names: Dict[str, Any]) -> None:
        self.name, self._names = name, names

    def __call__(self) -> None:
        """Lets typing take it for a type."""

    def found(self) -> Any:
        """Returns the type."""
        return _kept(eval(self.name, self._names), self._names)


def hints_of(thing: Any) -> Dict[str, Any]:
    """Returns the types of the fields of a class, or of the parameters of a function."""
    place = sys.modules.get(thing.__module__)
    names = getattr(thing, "__globals__", None) or (vars(place) if place else {})
    hints = get_type_hints(thing, include_extras=True)
    return {name: _kept(kind, names) for name, kind in hints.items()}


def _kept(kind: Any, names: Dict[str, Any]) -> Any:
    """Returns a type whose names can be looked up later: those that typing leaves in recursive types."""
    if isinstance(kind, ForwardRef):
        return _Later(kind.__forward_arg__, names)
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal or not args:
        return kind
    if origin is Annotated:
        return kind.copy_with((_kept(args[0], names),))
    kept = tuple(_kept(it, names) for it in args)
    if all(new is old for new, old in zip(kept, args)):
        return kind
    if origin in _UNIONS:
        return Union[kept]
    return kind.copy_with(kept) if hasattr(kind, "copy_with") else origin[kept]


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def is_typed_dict(kind: Any) -> bool:
    """Tells whether a type is a TypedDict."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def cases(kind: Type[Any]) -> List[Type[Any]]:
    """Returns the cases of an error that has some."""
    return list(kind.__subclasses__()) if issubclass(kind, MethodError) else []


def bare(kind: Any) -> Tuple[Any, Optional[str]]:
    """Returns a type without its annotations, and the docs among them."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        docs = next((it for it in notes if isinstance(it, str)), None)
        return inner, docs
    return kind, None


def to_json(value: Any) -> Any:
    """Returns a value as what JSON can hold."""
    if value is None or (isinstance(value, (str, bool, int, float)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, MethodError):
        fields: Any = _body_of(value) if dataclasses.is_dataclass(value) else {}
        if type(value).__bases__[0] is MethodError:
            return fields
        name = case_of(type(value)) or type(value).__name__
        return name if fields == {} and not _is_value(type(value)) else {name: fields}
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        case = case_of(type(value))
        return _body_of(value) if case is None else {case: _body_of(value)}
    if isinstance(value, abc.Mapping):
        return {str(key): to_json(it) for key, it in value.items()}
    if isinstance(value, (bytes, bytearray)):
        return list(value)
    if isinstance(value, abc.Iterable):
        return [to_json(it) for it in value]
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


# Generated dataclasses say here what their names cannot: `json` is the name of a field in JSON, `omit` leaves it out
# while it is None, and `tag` marks the field that tells the variants of a union apart.
def _fields_of(value: Any) -> Dict[str, Any]:
    values = ((it.metadata, it.name, getattr(value, it.name)) for it in dataclasses.fields(value))
    return {
        notes.get("json", name): to_json(inner)
        for notes, name, inner in values
        if not (inner is None and notes.get("omit"))
    }


def case_of(kind: Type[Any]) -> Optional[str]:
    """Returns the key that a generated class is wrapped in, as `{"Circle": {fields}}`."""
    case: Optional[str] = kind.__dict__.get("__pipeplug_case__")
    return case


def _is_value(kind: Type[Any]) -> bool:
    """Tells whether the JSON of a generated class is that of its field `value`."""
    return "__pipeplug_value__" in kind.__dict__


def _body_of(value: Any) -> Any:
    return to_json(value.value) if _is_value(type(value)) else _fields_of(value)


def from_json(kind: Any, value: Any, path: str = "") -> Any:
    """Returns the value of a type that some JSON stands for."""
    kind, _ = bare(kind)
    if isinstance(kind, _Later):
        return from_json(kind.found(), value, path)
    if kind is Any or kind is object:
        return value
    if kind is None or kind is type(None):
        return _check(value is None, None, path, "null", value)
    if kind is bool or kind is str:
        expected = "a boolean" if kind is bool else "a string"
        return _check(type(value) is kind, value, path, expected, value)
    if kind is int:
        return _check(type(value) is int, value, path, "an integer", value)
    if kind is float:
        fits = type(value) in (int, float)
        return _check(fits, float(value) if fits else 0, path, "a number", value)
    if kind is bytes:
        fits = isinstance(value, list) and all(type(it) is int and 0 <= it < 256 for it in value)
        return _check(fits, bytes(value) if fits else b"", path, "a list of bytes", value)
    origin = get_origin(kind)
    if origin in _UNIONS:
        return _one_of(get_args(kind), value, path)
    if origin is Literal:
        known = get_args(kind)
        return _check(value in known, value, path, "one of " + ", ".join(map(repr, known)), value)
    if kind is list or kind is dict:
        return _check(type(value) is kind, value, path, "a list" if kind is list else "an object", value)
    if origin is tuple:
        return _tuple(get_args(kind), value, path)
    if origin in _LISTS:
        _check(isinstance(value, list), None, path, "a list", value)
        (inner,) = get_args(kind)
        items = [from_json(inner, it, f"{path}[{index}]") for index, it in enumerate(value)]
        return origin(items) if origin in (set, frozenset) else items
    if origin in _MAPS:
        _check(isinstance(value, dict), None, path, "an object", value)
        inner = get_args(kind)[1]
        return {key: from_json(inner, it, _join(path, key)) for key, it in value.items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            values = ", ".join(repr(it.value) for it in kind)
            raise Misfit(path, f"should be one of {values}, not {_kind(value)}") from None
    if isinstance(kind, type) and issubclass(kind, MethodError):
        return _error(kind, value, path)
    if is_typed_dict(kind) or dataclasses.is_dataclass(kind):
        case = case_of(kind)
        if case is not None:
            fits = isinstance(value, dict) and list(value) == [case]
            _check(fits, None, path, f"an object with {case!r}", value)
            value, path = value[case], _join(path, case)
        return kind(**_arguments_of(kind, value, path))
    raise TypeError(f"{kind!r} is no type of a service")


def _arguments_of(kind: Any, value: Any, path: str) -> Dict[str, Any]:
    if _is_value(kind):
        return {"value": from_json(hints_of(kind)["value"], value, path)}
    _check(isinstance(value, dict), None, path, "an object", value)
    fields = {}
    for name, inner, _, required, json_name in _fields(kind):
        if json_name in value:
            fields[name] = from_json(inner, value[json_name], _join(path, json_name))
        elif required:
            raise Misfit(_join(path, json_name), "is missing")
    return fields


def _check(fits: bool, result: Any, path: str, expected: str, found: object) -> Any:
    if not fits:
        raise Misfit(path, f"should be {expected}, not {_kind(found)}")
    return result


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _one_of(kinds: Tuple[Any, ...], value: Any, path: str) -> Any:
    first: Optional[Misfit] = None
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is not type(None):
            try:
                return from_json(kind, value, path)
            except Misfit as misfit:
                first = first or misfit
    assert first is not None
    raise first


def _tuple(kinds: Tuple[Any, ...], value: Any, path: str) -> Any:
    _check(isinstance(value, list), None, path, "a list", value)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    _check(len(value) == len(kinds), None, path, f"a list of {len(kinds)}", value)
    items = zip(kinds, value)
    return tuple(from_json(kind, it, f"{path}[{index}]") for index, (kind, it) in enumerate(items))


def _error(kind: Type[Any], value: Any, path: str) -> Any:
    known = cases(kind)
    if not known:
        return kind(**_error_fields(kind, value, path))
    if isinstance(value, dict) and len(value) == 1:
        name, fields = next(iter(value.items()))
    else:
        name, fields = value, {}
    for case in known:
        if (case_of(case) or case.__name__) == name:
            return case(**_error_fields(case, fields, _join(path, name)))
    return _check(False, None, path, "one of " + ", ".join(it.__name__ for it in known), value)


def _error_fields(kind: Type[Any], value: Any, path: str) -> Dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        return _arguments_of(kind, value, path)
    _check(isinstance(value, dict), None, path, "an object", value)
    return {}


def _fields(kind: Any) -> Iterator[Tuple[str, Any, Any, bool, str]]:
    """Returns name, type, default, need and name in JSON of each field."""
    hints = hints_of(kind)
    if is_typed_dict(kind):
        for name, inner in hints.items():
            yield name, inner, None, name in kind.__required_keys__, name
        return
    for field in dataclasses.fields(kind):
        has_default = field.default is not dataclasses.MISSING
        is_required = not has_default and field.default_factory is dataclasses.MISSING
        is_required = is_required or bool(field.metadata.get("tag"))
        name = field.metadata.get("json", field.name)
        yield field.name, hints[field.name], field.default if has_default else None, is_required, name


def schema(kind: Any, defs: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the JSON Schema of a type. Named types go into `defs`."""
    kind, docs = bare(kind)
    found = _schema(kind, defs)
    return {"description": docs, **found} if docs else found


_SIMPLE: Mapping[Any, Dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bytes: {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    list: {"type": "array"},
    dict: {"type": "object"},
    None: {"type": "null"},
    type(None): {"type": "null"},
}


def _schema(kind: Any, defs: Dict[str, Any]) -> Dict[str, Any]:
    if isinstance(kind, _Later):
        if kind.name not in defs:
            defs[kind.name] = {}
            defs[kind.name] = schema(kind.found(), defs)
        return {"$ref": f"#/$defs/{kind.name}"}
    if kind is Any or kind is object:
        return {}
    origin = get_origin(kind)
    if origin is None and isinstance(kind, abc.Hashable) and kind in _SIMPLE:
        return dict(_SIMPLE[kind])
    if origin in _UNIONS:
        inner = [schema(it, defs) for it in get_args(kind)]
        if len(inner) == 2 and inner[1] == {"type": "null"} and set(inner[0]) == {"type"}:
            return {"type": [inner[0]["type"], "null"]}
        return {"anyOf": inner}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin is tuple:
        items = get_args(kind)
        if len(items) == 2 and items[1] is Ellipsis:
            return {"type": "array", "items": schema(items[0], defs)}
        return {
            "type": "array",
            "prefixItems": [schema(it, defs) for it in items],
            "minItems": len(items),
            "maxItems": len(items),
        }
    if origin in _LISTS:
        return {"type": "array", "items": schema(get_args(kind)[0], defs)}
    if origin in _MAPS:
        return {"type": "object", "additionalProperties": schema(get_args(kind)[1], defs)}
    if not isinstance(kind, type):
        raise TypeError(f"{kind!r} is no type of a service")
    if kind.__name__ not in defs:
        defs[kind.__name__] = {}
        defs[kind.__name__] = _named(kind, defs)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _named(kind: Type[Any], defs: Dict[str, Any]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    docs = docs_of(kind)
    if docs:
        found["description"] = docs
    if issubclass(kind, enum.Enum):
        return {**found, "enum": [it.value for it in kind]}
    known = cases(kind)
    if known:
        return {**found, "oneOf": [_case(case, defs) for case in known]}
    if dataclasses.is_dataclass(kind) or is_typed_dict(kind):
        return {**found, **_object(kind, defs)}
    if issubclass(kind, MethodError):
        return {**found, "type": "object"}
    raise TypeError(f"{kind.__name__} is no type of a service: make it a dataclass or a TypedDict")


def _case(case: Type[Any], defs: Dict[str, Any]) -> Dict[str, Any]:
    docs = docs_of(case)
    described = {"description": docs} if docs else {}
    if not dataclasses.is_dataclass(case) or not dataclasses.fields(case):
        return {"type": "string", "const": case.__name__, **described}
    return {
        "additionalProperties": False,
        **described,
        "properties": {case.__name__: _object(case, defs)},
        "required": [case.__name__],
        "type": "object",
    }


def _object(kind: Any, defs: Dict[str, Any]) -> Dict[str, Any]:
    properties: Dict[str, Any] = {}
    required = []
    for _, inner, default, is_required, name in _fields(kind):
        properties[name] = schema(inner, defs)
        if is_required:
            required.append(name)
        elif default is not None:
            properties[name]["default"] = to_json(default)
    found: Dict[str, Any] = {"properties": properties, "type": "object"}
    if required:
        found["required"] = required
    return found


def docs_of(thing: Any) -> Optional[str]:
    """Returns the docs of a class or function, without those that Python makes."""
    own = thing.__dict__.get("__doc__") if isinstance(thing, type) else thing.__doc__
    if not own or own.startswith(f"{thing.__name__}("):
        return None
    return inspect.cleandoc(own)
