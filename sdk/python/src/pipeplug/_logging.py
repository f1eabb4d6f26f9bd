"""Records of `logging` as lines of standard error that a host understands."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any, Dict, Optional

TRACE = 5
_NAMES = ((TRACE, "TRACE"), (logging.DEBUG, "DEBUG"), (logging.INFO, "INFO"), (logging.WARNING, "WARN"))
_LEVELS: Dict[str, int] = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonHandler(logging.Handler):
    """Writes each record as a line `{"level":…,"target":…,"fields":{…}}` to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record."""
        try:
            fields: Dict[str, Any] = {"message": record.getMessage()}
            if record.exc_info:
                fields["error"] = logging.Formatter().formatException(record.exc_info)
            fields.update((key, it) for key, it in vars(record).items() if key not in _OWN)
            level = next((name for limit, name in _NAMES if record.levelno <= limit), "ERROR")
            line = {"level": level, "target": record.name, "fields": fields}
            sys.stderr.write(json.dumps(line, default=str) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def set_level(level: str) -> None:
    """Sets the level of the log. An unknown one is logged and ignored."""
    found: Optional[int] = _LEVELS.get(level)
    if found is None:
        # A handler of the log that fails does not end the connection.
        with contextlib.suppress(Exception):
            logging.getLogger("pipeplug").warning("the unknown log level %.64r was ignored", level)
    else:
        logging.getLogger().setLevel(found)
