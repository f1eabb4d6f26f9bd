"""What a host asks and says, and what is the same of its plugins by threads and in an event loop."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterable, Mapping, Optional, Union

from . import _negotiation as nego
from ._chunks import CLASSIC, STANDARD
from ._commands import Commands
from ._diagnosis import command_hint
from ._errors import CallError, CallFailed, CallTimeout, StartError
from ._handlers import Handlers
from ._options import Options, choice, instance, seconds, texts, time_limit, to_bytes, versions
from ._process import Attached, Process
from ._sending import Call
from ._session import Session

LEVELS = ("off", "error", "warn", "info", "debug", "trace")


class Setup:
    """What a host asks and says at the start of a plugin, by threads and in an event loop alike."""

    def __init__(
        self,
        *,
        config: Any,
        metadata: Optional[Mapping[str, str]],
        interface_versions: Iterable[int],
        commands: Optional[Commands],
        log_level: Optional[str],
        format: str,
        timeout: float,
        stop_timeout: float,
        options: Optional[Options],
    ) -> None:
        self.commands = instance("commands", commands, Commands) or Commands()
        self.versions = versions("interface_versions", interface_versions)
        self.log_level = None if log_level is None else choice("log_level", log_level, LEVELS)
        self.format = choice("format", format, (STANDARD, CLASSIC))
        self.timeout, self.stop_timeout = time_limit("timeout", timeout), time_limit("stop_timeout", stop_timeout)
        self.options = instance("options", options, Options) or Options()
        self.own = texts("metadata", metadata)
        self.config: Optional[str] = None
        if config is not None:
            try:
                self.config = nego.compact(config).decode()
            except (TypeError, ValueError, RecursionError) as error:
                raise StartError(f"config cannot be written as JSON: {error}") from None
            if len(self.config.encode()) > nego.CONFIG_LIMIT:
                raise StartError(f"the configuration is longer than {nego.CONFIG_LIMIT} bytes of JSON")
        self.interface_version: Optional[int] = None

    def handlers(self) -> Handlers:
        """Returns the commands that the plugin may call."""
        self.commands._services.register(self.commands._handlers)
        return self.commands._handlers

    def check_blocking(self) -> None:
        """Raises an error if a command needs an event loop."""
        if self.handlers().has_async:
            raise StartError("a command of the host is a coroutine: start the plugin by AsyncPlugin")

    def request(self, session: Session) -> bytes:
        """Returns the buffer of the first request."""
        extra: Dict[str, str] = {"pipeplug.name": "pipeplug-python"}
        if self.versions:
            extra["pipeplug.interface_versions"] = " ".join(map(str, self.versions))
        if self.log_level is not None:
            extra["pipeplug.log_level"] = self.log_level
        extra.update(self.commands._services.metadata())
        said = {**self.own, **session.offer(extra)}
        if self.config is not None:
            said["pipeplug.config"] = self.config
        return nego.compact(said)

    def take(self, name: str, session: Session, reply: Optional[bytes]) -> Dict[str, str]:
        """Takes the answer of the plugin; None if it has no metadata. Raises why the start has failed."""
        metadata: Optional[Dict[str, str]] = {}
        if reply is not None:
            metadata = nego.parse_metadata(reply) if len(reply) <= nego.METADATA_LIMIT else None
            if metadata is None:
                raise StartError(
                    f'plugin "{name}" answered GetMetadata with what is no JSON object of at most'
                    f" {nego.METADATA_LIMIT} bytes: {reply[:60]!r}"
                )
        assert metadata is not None
        with session.lock:
            session.hear(metadata)
            session.agree(metadata)
        if self.config is not None and not session.has("config"):
            raise StartError(
                f'plugin "{name}" cannot take its configuration: it does not name the feature `config`;'
                " use a newer version of it, or start it without a configuration"
            )
        theirs = nego.parse_versions(metadata.get("pipeplug.interface_versions"))
        if theirs is not None and self.versions:
            common = set(theirs) & set(self.versions)
            if not common:
                raise StartError(f'plugin "{name}": {nego.mismatch(theirs, self.versions)}')
            self.interface_version = max(common)
        return metadata

    def failure(self, process: Union[Process, Attached], error: CallError) -> StartError:
        """Returns the error of a plugin that has not answered."""
        name = process.name
        said = process.said()
        if isinstance(error, CallTimeout):
            return StartError(
                f'plugin "{name}" did not answer GetMetadata within {self.timeout:g} s{said}; is it a plugin?'
                " A slow one needs a longer timeout"
            )
        if "broke the protocol" in str(error):
            other = "classic" if self.format == STANDARD else "standard"
            return StartError(
                f'plugin "{name}" wrote what is no message: {error.message}{said}; a plugin on stdin and'
                f" stdout must print nothing of its own there; if it speaks the other format use"
                f' format="{other}"'
            )
        why = error.message
        for words in ("no reply, ", "not sent, "):
            why = why[len(words) :] if why.startswith(words) else why
        hint = command_hint(process.poll(), process.tail())
        return StartError(f'plugin "{name}" ended before it answered: {why}{said}{hint}')


class Started:
    """A plugin that runs, as far as threads and event loops do not matter."""

    #: Name of the plugin, for messages.
    name: str
    #: What the plugin says of itself.
    metadata: Mapping[str, str]
    #: Version of the application's interface that both sides speak; None if one names none.
    interface_version: Optional[int]
    _session: Session
    _driver: Any

    def _begin(self, process: Union[Process, Attached], setup: Setup) -> None:
        self._process, self.name, self._stop_timeout = process, process.name, setup.stop_timeout
        self.metadata, self.interface_version = {}, None
        self._status: Optional[int] = None
        self._begun = time.monotonic()
        self._driver.on_end = self._end_text

    def _end_text(self, reason: str) -> str:
        """Says in other words why the connection has ended, where the end of the process tells more."""
        is_end = reason.startswith(("the other side closed the pipe", "the other side no longer reads"))
        return self._process.end_text() if is_end else reason

    def _ask(self, setup: Setup) -> Call:
        """Sends the first request."""
        session = self._session
        with session.lock:
            call = session.open_call("GetMetadata", setup.request(session))
        call.deadline = self._begun + setup.timeout
        self._driver.flush()
        return call

    def _take(self, setup: Setup, call: Call) -> None:
        """Takes the answer to the first request."""
        try:
            reply: Optional[bytes] = call.result()
        except CallFailed:
            # It has no metadata, which is no failure.
            reply = None
        self.metadata = setup.take(self.name, self._session, reply)
        self.interface_version = setup.interface_version
        self._driver.flush()

    def _failure(self, setup: Setup, error: CallError) -> StartError:
        return setup.failure(self._process, error)

    def _say_stop(self, timeout: Optional[float]) -> float:
        """Tells the plugin to end. Returns the time until which it may."""
        # Less than 0 is no time, so that what is left of another limit may be given.
        grace = seconds("timeout", timeout, "stop_timeout")
        grace = self._stop_timeout if grace is None else grace
        session = self._session
        with session.lock:
            if session.closed is None and not session.is_stopping:
                session.is_stopping = True
                session.queue(0, 1, "cmd.stop", b"")
        self._driver.flush()
        return time.monotonic() + grace

    def _is_at_work(self, end: float) -> bool:
        """Tells whether the plugin may still call back. Its own input ends when nothing is open."""
        session = self._session
        is_open = session.calls or session.active or session.out
        return bool(is_open) and session.closed is None and time.monotonic() <= end

    def _kill(self) -> None:
        self._process.kill()
        self._driver.end_reason = f"{self.name} was killed by its host"
        self._driver.finish()

    @property
    def pid(self) -> int:
        """Process id of the plugin."""
        return self._process.pid

    @property
    def status(self) -> Optional[int]:
        """Exit status of the plugin, negative for a signal; None while it runs."""
        return self._process.poll()

    def set_log_level(self, level: str) -> bool:
        """Sets the level of the plugin's log: off, error, warn, info, debug or trace.

        Returns false if the plugin has no such log.
        """
        session = self._session
        choice("level", level, LEVELS)
        if not session.has("log"):
            return False
        with session.lock:
            session.queue(0, 1, "cmd.log_level", to_bytes(level))
        self._driver.flush()
        return True
