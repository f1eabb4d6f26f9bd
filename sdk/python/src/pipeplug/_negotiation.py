"""The JSON objects of the `GetMetadata` exchange, and of contexts, failures and progress."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

FEATURES = ("flow", "context", "cancel", "stream", "failure", "progress")
DEFAULT_WINDOW = 4 << 20
DEFAULT_STREAM_WINDOW = 1 << 20
LARGEST = (1 << 64) - 1
CONTEXT_LIMIT = 4096
PROGRESS_LIMIT = 4096
FAILURE_LIMIT = 64 << 10
CONFIG_LIMIT = 1 << 20
METADATA_LIMIT = 1 << 20

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,19})\Z", re.ASCII)


class Progress(NamedTuple):
    """Report of how far the work on a call is."""

    done: int
    total: Optional[int] = None
    message: Optional[str] = None


class Context(NamedTuple):
    """Properties of a request that its chunk has no field for."""

    deadline_ms: Optional[int]
    sends: bool
    receives: bool
    progress: bool
    values: Mapping[str, str]


def number(text: Optional[str]) -> Optional[int]:
    """Returns the number that a text of the grammar stands for."""
    if text is None or not _NUMBER.match(text):
        return None
    value = int(text)
    return value if value <= LARGEST else None


def window(text: Optional[str], default: int) -> int:
    """Returns the window that a side has named."""
    value = number(text)
    return default if value is None else max(1, value)


def parse_object(data: bytes) -> Optional[Dict[str, Any]]:
    """Returns the JSON object of some bytes, or None. An integer is one if it has only digits."""
    try:
        found = json.loads(data.decode(), parse_int=_digits, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _digits(text: str) -> Any:
    # -0 is zero, and is not written in digits only.
    return float(text) if text.startswith("-") else int(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def parse_metadata(data: bytes) -> Optional[Dict[str, str]]:
    """Returns metadata. Values that are no strings are kept as JSON text."""
    try:
        found = json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in found.items()
    }


def parse_context(data: bytes) -> Optional[Context]:
    """Returns a context; None if it is to be ignored."""
    if len(data) > CONTEXT_LIMIT:
        return None
    found = parse_object(data)
    if found is None:
        return None
    deadline = found.get("deadline_ms")
    words = found.get("stream", "")
    progress = found.get("progress", False)
    values = found.get("values", {})
    if "deadline_ms" in found and not _is_whole(deadline):
        return None
    if not isinstance(words, str) or not isinstance(progress, bool):
        return None
    if not isinstance(values, dict) or not all(isinstance(it, str) for it in values.values()):
        return None
    split = words.split()
    return Context(deadline, "send" in split, "receive" in split, progress, values)


def _is_whole(value: object) -> bool:
    return type(value) is int and value <= LARGEST


def parse_progress(data: bytes) -> Optional[Progress]:
    """Returns a report; None if it is to be ignored."""
    if len(data) > PROGRESS_LIMIT:
        return None
    found = parse_object(data)
    if found is None or not _is_whole(found.get("done")):
        return None
    total, message = found.get("total"), found.get("message")
    if "total" in found and not _is_whole(total):
        return None
    if "message" in found and not isinstance(message, str):
        return None
    return Progress(found["done"], total, message)


def encode_progress(report: Progress) -> bytes:
    """Returns a report as JSON, with as much of its message as there is room for."""
    found: Dict[str, Any] = {"done": report.done}
    if report.total is not None:
        found["total"] = report.total
    if report.message is not None:
        found["message"] = report.message
    data = compact(found)
    if len(data) > PROGRESS_LIMIT:
        # A character takes at most 6 bytes (a control character as \\u0000).
        found["message"] = str(report.message)[: PROGRESS_LIMIT // 8]
        data = compact(found)
    return data


def encode_failure(code: str, message: str, data: Any) -> bytes:
    """Returns a failure as JSON, without what is too much."""
    found: Dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        found["data"] = data
    try:
        encoded = compact(found)
    except (TypeError, ValueError):
        found.pop("data", None)
        encoded = compact(found)
    if len(encoded) > FAILURE_LIMIT:
        found.pop("data", None)
        found["message"] = message[: FAILURE_LIMIT // 8]
        found["code"] = code[:1024]
        short = compact({"code": found["code"], "message": message})
        encoded = short if len(short) <= FAILURE_LIMIT else compact(found)
    return encoded


def compact(value: Any) -> bytes:
    """Returns a value as JSON without spaces."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A lone surrogate has no UTF-8.
    return text.encode(errors="replace")


def parse_versions(text: Optional[str]) -> Optional[List[int]]:
    """Returns the interface versions that a side has named; None if it names none at all."""
    if text is None:
        return None
    numbers = (number(word) for word in text.split())
    return sorted({it for it in numbers if it is not None and it < 1 << 32})


def mismatch(plugin: Sequence[int], host: Sequence[int]) -> str:
    """Returns the message of two sides without a common interface version."""

    def words(versions: Sequence[int]) -> str:
        return " ".join(map(str, versions)) or "none"

    older = "plugin" if max(plugin, default=-1) < max(host, default=-1) else "host"
    return (
        "no common interface version: the plugin speaks"
        f" {words(plugin)}, the host {words(host)}; upgrade the {older}, which is older"
    )
