"""`attn audit export`: writes the audit trail from ClickHouse, as JSON lines or CSV."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Annotated, Literal, TextIO

import typer

from ops import config
from ops.cli.data.audit_lines import COLUMNS, csv_line, json_line, row_of
from ops.cli.data.clickhouse_reader import open_reader
from ops.cli.durations import parse_duration
from ops.cli.options import ClickHouse, DataDir
from ops.errors import UserError
from schemas.scalars import SECOND, is_valid_unicode, parse_timestamp
from schemas.settings import Settings
from streams.history.clickhouse.audit import AUDIT_TYPES, AuditFilter, format_cursor, parse_cursor, read_audit

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The audit trail: sign-ins, roles, keys, and who decided.")

File = Annotated[str, typer.Argument(metavar="[FILE]", help="A new file; - is stdout.")]
Format = Annotated[Literal["json", "csv"], typer.Option(
    "--format", help="json: one object a line. csv: for spreadsheets; text that would be a formula gets a quote.")]
Workspace = Annotated[str | None, typer.Option("--workspace", help="Only of this workspace.", show_default=False)]
Since = Annotated[str | None, typer.Option(
    "--since", metavar="30d|TIME", show_default=False,
    help="Only what happened since then: 2h or 30d ago, a date (UTC), or a time with its time zone.")]
Until = Annotated[str | None, typer.Option(
    "--until", metavar="1d|TIME", show_default=False, help="Only what happened before then.")]
User = Annotated[str | None, typer.Option(
    "--user", show_default=False,
    help="Only what this user did, and what was done to the sessions, roles and tokens of this user.")]
Types = Annotated[str | None, typer.Option(
    "--types", metavar="T,...", show_default=False,
    help=f"Only these facts, such as session.*,role.changed: {', '.join(AUDIT_TYPES)}.")]
After = Annotated[str | None, typer.Option(
    "--after", metavar="CURSOR", show_default=False,
    help="Only facts after this place: the cursor that an earlier export printed, or that of one of its lines.")]


@app.callback()
def _group() -> None:
    pass


@app.command()
def export(
    file: File = "-", format_: Format = "json", workspace: Workspace = None, since: Since = None, until: Until = None,
    user: User = None, types: Types = None, after: After = None, data_dir: DataDir = None,
    clickhouse: ClickHouse = None,
) -> None:
    """Write the facts of the audit trail, in the order in which attn accepted them.

    Works while `attn history` runs, and without it. At the end it prints the cursor with which the next export
    continues; no fact is then missing or written twice.
    """
    settings = config.load_settings(data_dir=data_dir, clickhouse=clickhouse)
    for option, text in (("--workspace", workspace), ("--user", user)):
        if text is not None and (not text.strip() or not is_valid_unicode(text)):
            raise UserError(f"{option}: must be text that is not blank", code=2)
    chosen = AuditFilter(workspace, _time("--since", since), _time("--until", until), user, _types(types))
    if chosen.since is not None and chosen.until is not None and chosen.since >= chosen.until:
        raise UserError(f"the period is empty: --since {since} is not before --until {until}", code=2)
    try:
        cursor = parse_cursor(after) if after is not None else {}
    except ValueError as error:
        raise UserError(f"--after: {error}", code=2) from None
    _write(settings, file, format_, chosen, cursor)


def _write(
    settings: Settings, path: str, format_: str, chosen: AuditFilter, cursor: dict[int, tuple[int, int]]
) -> None:
    """Writes the file, and the cursor to stderr: also if ClickHouse fails or the user interrupts the export."""
    from streams.history.clickhouse.client import ClickHouseError

    count = 0
    try:
        with open_reader(settings) as (client, database), _create(path) as out:
            try:
                facts = read_audit(client, database, chosen, cursor)
                if format_ == "csv":
                    out.write(csv_line(COLUMNS))
                for fact in facts:
                    cursor[fact.partition] = (fact.position, fact.fact_index)
                    row = row_of(fact, format_cursor(cursor))
                    out.write(json_line(row) if format_ == "json" else csv_line(list(row.values())))
                    count += 1
            finally:
                out.flush()
    except ClickHouseError as failed:
        raise UserError(f"{failed}; {_progress(count, cursor)}") from None
    except KeyboardInterrupt:
        typer.echo(f"attn: interrupted; {_progress(count, cursor)}", err=True)
        raise
    typer.echo(_progress(count, cursor), err=True)


def _progress(count: int, cursor: dict[int, tuple[int, int]]) -> str:
    written = f"{count:,} facts were written"
    return f"{written}; continue with --after {format_cursor(cursor)}" if cursor else written


@contextmanager
def _create(path: str) -> Iterator[TextIO]:
    """Opens a new file that only its owner may read, or stdout for `-`. An existing file is never overwritten."""
    if path == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
        yield sys.stdout
        return
    try:
        with open(path, "x", encoding="utf-8", newline="\n", opener=_private) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; if it has lines, the cursor of the last "
                        "complete one continues") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _types(text: str | None) -> tuple[str, ...]:
    if text is None:
        return AUDIT_TYPES
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for one in wanted or [text]:
        if not any(fnmatchcase(name, one) for name in AUDIT_TYPES):
            raise UserError(
                f"--types: {one!r} is no type of the audit trail; its types are {', '.join(AUDIT_TYPES)}", code=2)
    return tuple(name for name in AUDIT_TYPES if any(fnmatchcase(name, one) for one in wanted))


def _time(option: str, text: str | None) -> int | None:
    """Returns microseconds. Raises UserError if the text is neither a duration, nor a date, nor a time."""
    if text is None:
        return None
    if (seconds := parse_duration(text)) is not None:
        return int((time.time() - seconds) * SECOND)
    try:
        return parse_timestamp(f"{text}T00:00:00Z" if len(text) == len("2026-05-20") else text)
    except ValueError:
        raise UserError(f"{option}: {text!r} is neither a duration such as 30d, nor a date, nor a time such as "
                        "2026-05-20T08:00:00Z", code=2) from None
