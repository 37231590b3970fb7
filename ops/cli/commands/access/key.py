"""`attn key`: create, list, revoke the keys with which sources send events over HTTP.

The commands write to `attn.log` and wait for a worker, so they need the broker, as `attn token` needs the secret.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Annotated, Any

import msgspec
import typer

from ops import config
from ops.cli.commands.access.token import parse_ttl
from ops.cli.data.log_commands import read_rows, run_command
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.facts import Outcome
from schemas.log import Command, CreateKey, RevokeKey
from schemas.scalars import SECOND, format_timestamp, is_valid_unicode, parse_timestamp
from schemas.settings import Settings
from schemas.topics import SOURCE_TYPES
from schemas.views import SourceKeyRow
from streams.runtime.source_keys import ENTROPY_BYTES, new_key

__all__ = ["app"]

_USER, _ROLES = "attn key", ("OWNER",)  # who wrote the command: the history shows it as the actor
_MAX_NAME, _MAX_SOURCE = 200, 2000  # characters, as POST /org/me/keys has them

app = typer.Typer(no_args_is_help=True, help="Keys with which sources send events to `POST /events`.")

Workspace = Annotated[str, typer.Option("--workspace", help="Workspace of the key.")]


@app.command("create")
def create(
    workspace: Workspace,
    name: Annotated[str, typer.Option("--name", help="Name that lists show.")],
    topics: Annotated[str, typer.Option(
        "--topics", metavar="T,...", help=f"Topics to which it may send: {', '.join(SOURCE_TYPES)}.")],
    source: Annotated[str | None, typer.Option(
        "--source", show_default=False,
        help="The events' `source` must equal it, or begin with it and a slash. Default: any source.")] = None,
    expires: Annotated[str | None, typer.Option(
        "--expires", metavar="90d|TIME", show_default=False,
        help="When it expires: 12h or 90d from now, or a time with its time zone. Default: never.")] = None,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Create a key and print it. It is printed once: attn keeps only its SHA-256."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    for option, text, limit in (
        ("--workspace", workspace, 2000), ("--name", name, _MAX_NAME), ("--source", source, _MAX_SOURCE),
    ):
        if text is not None and (not text.strip() or len(text) > limit or not is_valid_unicode(text)):
            raise UserError(f"{option}: must be text of 1 to {limit} characters that is not blank", code=2)
    made = new_key(secrets.token_bytes(ENTROPY_BYTES))
    outcome = _run(settings, CreateKey(
        **_fields(workspace), key=made.id, digest=made.digest, name=name, topics=_topics(topics), source=source,
        expires_at=_expiry(expires)))
    if outcome.status != 201:
        raise UserError(_error(outcome))
    typer.echo(made.text)


@app.command("list")
def list_keys(workspace: Workspace, kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """List the keys of a workspace: id, topics, source, expiry, last use, name. No key itself is stored."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    rows = asyncio.run(read_rows(settings, workspace, b"x:"))
    keys = [row for row in rows if isinstance(row, SourceKeyRow) and row.ws == workspace]
    for row in sorted(keys, key=lambda row: (row.created_at, row.id)):
        expires = "never expires" if row.expires_at is None else f"expires {format_timestamp(row.expires_at)}"
        used = "not used" if row.last_used is None else f"used {format_timestamp(row.last_used)}"
        typer.echo("  ".join((row.id, ",".join(row.topics), _shown(row.source or "any source"), expires, used,
                              _shown(row.name))))


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key: the 16 characters after `attn_`.")],
    workspace: Workspace, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Revoke a key. Every edge refuses it within a second."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    outcome = _run(settings, RevokeKey(**_fields(workspace), key=key.removeprefix("attn_")[:16]))
    if outcome.status != 200:
        raise UserError(f"no key {key[:21]} in workspace {workspace}" if outcome.status == 404 else _error(outcome))
    typer.echo(f"revoked {key.removeprefix('attn_')[:16]}", err=True)


def _run(settings: Settings, command: Command) -> Outcome:
    return asyncio.run(run_command(settings, command))


def _fields(workspace: str) -> dict[str, Any]:
    return {"ws": workspace, "id": secrets.token_hex(16), "time": int(time.time() * SECOND), "user": _USER,
            "roles": _ROLES}


def _topics(text: str) -> tuple[str, ...]:
    topics = sorted({part.strip() for part in text.split(",") if part.strip()})
    if not topics or (unknown := [topic for topic in topics if topic not in SOURCE_TYPES]):
        wrong = f"{unknown[0]!r} is not a source topic" if topics else "at least one is needed"
        raise UserError(f"--topics: {wrong}; source topics are {', '.join(SOURCE_TYPES)}", code=2)
    return tuple(topics)


def _expiry(text: str | None) -> int | None:
    """Returns the microseconds of a time, or of a duration from now. Raises UserError if the text is neither."""
    if text is None:
        return None
    try:
        at = parse_timestamp(text)
    except ValueError:
        try:
            at = int((time.time() + parse_ttl(text)) * SECOND)
        except UserError:
            raise UserError(f"--expires: {text!r} is neither a duration such as 90d nor a time such as "
                            "2027-01-31T00:00:00Z", code=2) from None
    if at <= time.time() * SECOND:
        raise UserError(f"--expires: {text} is in the past", code=2)
    return at


def _error(outcome: Outcome) -> str:
    return str(msgspec.json.decode(outcome.body).get("error", f"status {outcome.status}"))


def _shown(text: str) -> str:
    """Returns text that has no effect on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
