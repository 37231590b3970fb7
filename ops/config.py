"""Settings of a command: flags over `ATTN_*` over `.env` over defaults, and what a running `attn up` wrote down."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from ops import processes
from ops.errors import UserError
from schemas.settings import Settings

__all__ = ["load", "make_secret", "note_up", "secret_path"]

_NOTE = "up.json"


def load(**flags: Any) -> Settings:
    """Settings with the flags that were given (None: not given). UserError names the variable that is wrong.

    Where nothing else says so, Kafka's address and the secret are those of the `attn up` that uses the same data
    directory: so `attn emit` and `attn token` need no more than `--data-dir`.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise UserError("; ".join(_explain(item) for item in error.errors(include_url=False)), code=2) from None
    found: dict[str, Any] = {}
    if "kafka" not in settings.model_fields_set and (address := _kafka_of_up(settings.data_dir)):
        found["kafka"] = address
    if settings.jwt_secret is None and settings.jwks_url is None and secret_path(settings).is_file():
        found["jwt_secret"] = SecretStr(_read_secret(secret_path(settings)))
    return settings.model_copy(update=found) if found else settings


def _explain(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    return f"ATTN_{name.upper()} (--{name.replace('_', '-')}): {item['msg']}"


def secret_path(settings: Settings) -> Path:
    return settings.data_dir / "secret"


def _read_secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise UserError(f"cannot read the secret in {path}: {error.strerror}") from None


def make_secret(settings: Settings) -> bool:
    """Write a new secret where none is configured or kept. True: this is a new one."""
    path = secret_path(settings)
    if settings.jwt_secret is not None or settings.jwks_url is not None or path.exists():
        return False
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return True


def note_up(settings: Settings) -> None:
    """Write down where this `attn up` is, for other commands with the same data directory."""
    me = processes.known(os.getpid())
    note = {"pid": os.getpid(), "started": me.started if me else "", "kafka": settings.kafka}
    draft = settings.data_dir / f"{_NOTE}.new"
    draft.write_text(json.dumps(note))
    draft.replace(settings.data_dir / _NOTE)


def _kafka_of_up(data_dir: Path) -> str | None:
    running = processes.read(data_dir / _NOTE)
    if running is None or not processes.is_alive(running):
        return None
    try:
        return str(json.loads((data_dir / _NOTE).read_text())["kafka"])
    except (OSError, ValueError, KeyError):
        return None
