"""Loads the settings of a command. Precedence: flags, `ATTN_*` variables, `.env`, the file of a running `attn up`,
defaults."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from ops.errors import UserError
from ops.process import identity
from schemas.settings import Settings
from streams.runtime import keys, private_files
from streams.tracing.errors import EXTRA_MISSING

__all__ = ["check_endpoints", "load_settings", "make_secret", "reading_url", "secret_path", "write_runtime_file"]

RUNTIME_FILE = "up.json"


def load_settings(*, reads_as: str = "reader", **flags: Any) -> Settings:
    """Loads the settings; `flags` are those of the command (None: not given).

    `reads_as`: the user at the port of embedded ClickHouse, `reader` or `edge`. If Kafka, ClickHouse or the secret are
    not configured, they are those of the `attn up` that uses the same data directory. So `attn emit` and `attn token`
    need only `--data-dir`. Raises UserError with the name of the variable if a value is invalid.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise UserError("; ".join(_explain(item, flags) for item in error.errors(include_url=False)), code=2) from None
    try:
        _check_certificates(settings)
    except OSError as error:
        raise UserError(f"certificates for Kafka (ATTN_KAFKA_CA, _CERTIFICATE, _KEY): {error}") from None
    _check_keys(settings)
    local: dict[str, Any] = {}  # values of the `attn up` that uses the same data directory
    note = _read_runtime_file(settings.data_dir)
    if "kafka" not in settings.model_fields_set and "kafka" in note:
        local["kafka"] = str(note["kafka"])
    if not settings.clickhouse_query_url and note.get("clickhouse_port"):
        local["clickhouse_read_url"] = reading_url(settings, int(note["clickhouse_port"]), reads_as)
    if settings.jwt_secret is None and settings.jwks_url is None and secret_path(settings).is_file():
        local["jwt_secret"] = SecretStr(_read_secret(secret_path(settings)))
    return settings.model_copy(update=local) if local else settings


def _check_certificates(settings: Settings) -> None:
    """Raises OSError if a certificate file for Kafka cannot be read."""
    if settings.kafka_security.endswith("SSL"):
        from streams.kafka.connection import (
            client_arguments,  # imported here: aiokafka takes 0.2 s of CPU, which `attn token` need not spend
        )

        client_arguments(settings)


def check_endpoints(settings: Settings) -> None:
    """Raises UserError if the file ATTN_ENDPOINTS is invalid."""
    if settings.endpoints is not None:
        from streams.delivery.endpoints import EndpointsError, load_endpoints  # imports cryptography: 0.1 s of CPU

        try:
            load_endpoints(settings.endpoints)
        except EndpointsError as error:
            raise UserError(f"ATTN_ENDPOINTS: {error}", code=2) from None


def check_traces(settings: Settings) -> None:
    """Raises UserError if ATTN_TRACES is set without the extra `traces`."""
    if settings.traces and find_spec("opentelemetry.exporter") is None:
        raise UserError(EXTRA_MISSING, code=2)


def check_hooks(settings: Settings) -> None:
    """Raises UserError if the file ATTN_HOOKS, or a mapping file that it names, is invalid."""
    if settings.hooks is not None:
        from streams.connectors.hooks.hooks_file import HooksError, load_hooks

        try:
            load_hooks(settings.hooks)
        except HooksError as error:
            raise UserError(f"ATTN_HOOKS: {error}", code=2) from None


def _check_keys(settings: Settings) -> None:
    """Raises UserError if a list of keys is invalid."""
    try:
        keys.seal_keys(settings)
        keys.receipt_keys(settings)
    except ValueError as error:
        raise UserError(str(error), code=2) from None


def _explain(item: Any, flags: Collection[str]) -> str:
    """Returns the text of a validation error. `flags`: the flags that the command has."""
    name = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    return f"ATTN_{name.upper()}" + (f" (--{name.replace('_', '-')})" if name in flags else "") + f": {message}"


def secret_path(settings: Settings) -> Path:
    return settings.data_dir / "secret"


def _read_secret(path: Path) -> str:
    try:
        return private_files.read_secret(path)
    except OSError as error:
        raise UserError(f"cannot read the secret in {path}: {error.strerror}") from None


def reading_url(settings: Settings, port: int, user: str = "reader") -> str:
    """Returns the URL of embedded ClickHouse for `user`, with the password from its file in the data directory."""
    file = settings.clickhouse_edge_password_file if user == "edge" else settings.clickhouse_password_file
    return f"http://{user}:{quote(_read_secret(file), safe='')}@127.0.0.1:{port}/attn"


def make_secret(settings: Settings) -> bool:
    """Creates the secret in the data directory if none is configured or present. Returns whether it created one."""
    configured = settings.jwt_secret is not None or settings.jwks_url is not None
    return not configured and private_files.create_secret(secret_path(settings))


def write_runtime_file(settings: Settings) -> None:
    """Writes the addresses of this `attn up` for other commands with the same data directory."""
    me = identity.identify(os.getpid())
    note = {"pid": os.getpid(), "started": me.started if me else "", "kafka": settings.kafka,
            "clickhouse_port": 0 if settings.clickhouse else settings.clickhouse_port}
    with private_files.replace_atomically(settings.data_dir / RUNTIME_FILE) as draft:
        draft.write_text(json.dumps(note))


def _read_runtime_file(data_dir: Path) -> dict[str, Any]:
    """Returns what `write_runtime_file` wrote if that process still runs; otherwise nothing."""
    running = identity.read(data_dir / RUNTIME_FILE)
    if running is None or not identity.is_alive(running):
        return {}
    try:
        return dict(json.loads((data_dir / RUNTIME_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return {}
