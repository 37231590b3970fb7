"""Configures logging: text on a terminal, one JSON object a line otherwise, without secrets.

All log lines go to stderr through structlog, those of the standard library's loggers as well. Redacted are the values
of fields with a name such as `token`, parts of a line that look like a credential, and the configured secrets. Lines
that Kafka clients repeat with every retry are logged once in 10 s.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

import structlog

from schemas.settings import Settings
from streams.runtime.keys import key_texts

__all__ = ["REDACTED", "Redactor", "RepeatFilter", "configure", "is_text", "secrets_of"]

log = structlog.get_logger("attn.settings")

REDACTED = "[redacted]"

_NAMES = (r"(?:secret|token|password|passwd|authorization|cookie|api_?key|private_?key|(?:seal|receipt|session)_?keys?|"
          r"attn_session|attn_csrf)")
_FIELD = re.compile(_NAMES, re.IGNORECASE)
_IN_TEXT = (
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*"), REDACTED),  # a JWT
    # the key of a source, a session, a sign-in link, the code of a terminal
    (re.compile(r"(?<![0-9A-Za-z])(attn[sld]?_[0-9A-Za-z]{16}_)[0-9A-Za-z]+"), rf"\1{REDACTED}"),
    (re.compile(r"\b(wh(?:sec|sk)_)[0-9A-Za-z+/=_-]{8,}"), rf"\1{REDACTED}"),  # a secret that signs webhooks
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(\w://[^\s:/@\"']*):[^\s/@\"']+@"), rf"\1:{REDACTED}@"),  # scheme://user:password@host
    # name=value and name: value; the name may have a prefix (ATTN_JWT_SECRET) and the value quotes.
    (re.compile(
        rf"(?i)({_NAMES}\\?[\"']?\s*[=:]\s*\\?[\"']?)(?!\[redacted|bearer |basic )[^\s\"'\\,;&)}}]{{3,}}"
    ), rf"\1{REDACTED}"),
)
# Libraries whose INFO lines are of no use to an operator.
_CHATTY = ("aiokafka", "kafka", "faust", "mode", "uvicorn", "asyncio", "clickhouse_connect", "httpx", "mcp", "urllib3")
# Libraries that log every retry; a client without its broker retries ten times a second.
_REPEATING = ("aiokafka", "kafka", "faust", "mode")
# Its DEBUG lines have whole records: on `decisions` with the reply token.
_SHOWS_RECORDS = "aiokafka.producer.producer"
_QUIET = 10.0  # seconds
_KNOWN = 1000  # different lines; beyond, all of them are forgotten


class Redactor:
    """Removes secrets from log events: `redact_fields` before an event is rendered, `redact_text` after."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain = [form for secret in secrets if len(secret) >= 4 for form in (secret, repr(secret)[1:-1])]
        forms = {*plain, *(json.dumps(form)[1:-1] for form in plain)}
        self._known = sorted(forms, key=len, reverse=True)  # the longest first: one secret may contain another

    def redact_fields(self, _: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {name: REDACTED if name != "event" and _is_secret(name, value) else self._value(value)
                for name, value in event.items()}

    def redact_text(self, line: str) -> str:
        for secret in self._known:
            line = line.replace(secret, REDACTED)
        for pattern, instead in _IN_TEXT:
            line = pattern.sub(instead, line)
        return line

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: REDACTED if _is_secret(str(name), inner) else self._value(inner)
                    for name, inner in value.items()}
        return [self._value(inner) for inner in value] if isinstance(value, list | tuple) else value


class RepeatFilter(logging.Filter):
    """Passes a line of the repeating libraries once in `quiet` seconds, whatever its arguments. The next line that
    passes names the number of those that were dropped."""

    def __init__(self, quiet: float = _QUIET, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._quiet, self._clock = quiet, clock
        # Line -> when it passed, how many were dropped since.
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _REPEATING or record.exc_info:
            return True
        line = (record.name, record.levelno, str(record.msg))  # before its arguments are put in
        at, left_out = self._said.get(line, (-self._quiet, 0))
        now = self._clock()
        if now - at < self._quiet:
            self._said[line] = at, left_out + 1
            return False
        if len(self._said) >= _KNOWN:
            self._said.clear()
        self._said[line] = now, 0
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it since)", ()
        return True


def _is_secret(name: str, value: Any) -> bool:
    return value is not None and not isinstance(value, bool) and _FIELD.search(name) is not None


def secrets_of(settings: Settings) -> list[str]:
    """Returns the secret values of the settings, which must not appear in any text."""
    secrets = [
        value.get_secret_value() for value in (settings.jwt_secret, settings.kafka_password, settings.key)
        if value is not None]
    passwords = {urlsplit(url).password or "" for url in (settings.clickhouse, settings.clickhouse_read_url)} - {""}
    return [*secrets, *key_texts(settings), *(form for password in passwords for form in {password, unquote(password)})]


def is_text(settings: Settings, stream: TextIO | None = None) -> bool:
    """Returns whether logs are text: by `log_format`, or if that is `auto`, on a terminal."""
    stream = sys.stderr if stream is None else stream
    return settings.log_format == "text" or (settings.log_format == "auto" and stream.isatty())


def configure(role: str, settings: Settings, stream: TextIO | None = None, prefix: str = "") -> None:
    """Configures logging of this process. `role` is a field of each JSON line; `prefix` begins each line of text.

    Warns of settings that were read from a deprecated name.
    """
    stream = sys.stderr if stream is None else stream
    text = is_text(settings, stream)
    redactor = Redactor(secrets_of(settings))
    before: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text, key="time"),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _name_role(role) if not text else _drop_logger,
            redactor.redact_fields,
            *_renderers(text, stream),
            # The renderer returns a string.
            lambda _, __, line: (prefix if text else "") + redactor.redact_text(str(line)),
        ],
    ))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level, *before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if settings.log_level != "DEBUG":
        handler.addFilter(RepeatFilter())
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.captureWarnings(True)
    logging.getLogger(_SHOWS_RECORDS).setLevel(logging.INFO)
    if settings.log_level != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    for old, name in sorted(settings.deprecated_names.items()):
        log.warning(f"{old} is deprecated and will be removed in the next release: use {name}")


def _renderers(text: bool, stream: TextIO) -> list[Any]:
    # Plain tracebacks: the pretty ones print local variables, and so secrets.
    if not text:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    colors = "NO_COLOR" not in os.environ and (stream.isatty() or "FORCE_COLOR" in os.environ)
    return [structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, timestamp_key="time", pad_event_to=0,
    )]


def _name_role(role: str) -> Any:
    return lambda _, __, event: {"role": role, **event}


def _drop_logger(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("logger", None)
    return event
