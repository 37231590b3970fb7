"""Prints dead letters: as tables for a terminal, or as JSON lines."""

from __future__ import annotations

import base64
import json
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ops.cli.data.dead_letters import DeadLetterRecord, Summary
from schemas.scalars import format_timestamp

__all__ = ["printable", "row_of", "short_time", "show_list", "show_summary", "time_column"]

# `json.dumps` leaves these control characters as they are; a terminal interprets them.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def row_of(record: DeadLetterRecord) -> dict[str, Any]:
    """Returns a record of `dead-letters` as one JSON object of `--json`."""
    letter, header = record.letter, {"dead_letter": record.name, "retried": record.resolved}
    if letter is None:
        return {**header, "reason": "not a dead letter of attn", **_readable("value", record.record.value)}
    return {
        **header, "at": format_timestamp(letter.at), "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "cause": letter.cause, "reason": letter.reason, "size": letter.size,
        "truncated": letter.truncated, "cut": list(letter.cut), "blanked": letter.blanked,
        **_readable("key", letter.key), **_readable("value", letter.value),
    }


def _readable(name: str, value: bytes | None) -> dict[str, str | None]:
    """Returns bytes as text, or as base64 under the name `{name}_base64` if they are not UTF-8."""
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value or b"").decode()}


def time_column(name: str) -> Column:
    """A column wide enough for a date. On a narrow terminal the time is in a second line."""
    return Column(f"{name} (UTC)", min_width=len("2026-05-20"))


def short_time(time: str) -> str:
    return time[:19].replace("T", " ")


def printable(text: str) -> Text:
    """Replaces control characters: the text comes from a topic, and a terminal would interpret them."""
    return Text("".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in text))


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False).translate(_CONTROLS)


def show_list(rows: list[dict[str, Any]], total: int, as_json: bool) -> None:
    """Prints `rows` (see `row_of`) as a table, or as JSON lines. `total`: how many matched before the limit."""
    if as_json:
        for row in rows:
            typer.echo(_json(row))
        return
    if not rows:
        typer.echo("no dead letters")
        return
    title = f"{len(rows)} of {total} dead letters"
    table = Table(time_column("at"), "topic", "offset", "reason", "value", title=title)
    for row in rows:
        value = row.get("value") or row.get("value_base64") or ""
        table.add_row(
            short_time(row.get("at", "")), row.get("topic", ""), f"{row.get('partition', '')}:{row.get('offset', '')}",
            printable(row["reason"] + (" (resolved)" if row["retried"] else "")),
            printable(value[:80] + ("…" if len(value) > 80 else "")),
        )
    Console().print(table)


def show_summary(rows: list[Summary], as_json: bool) -> None:
    """Prints the counts by topic and cause as a table, or as JSON lines."""
    if as_json:
        for row in rows:
            typer.echo(_json({
                "topic": row.topic, "cause": row.cause, "letters": row.letters, "open": row.open,
                "first": format_timestamp(row.first), "last": format_timestamp(row.last), "reason": row.reason,
            }))
        return
    if not rows:
        typer.echo("no dead letters")
        return
    table = Table("topic", "cause", "open", "all", time_column("first"), time_column("last"), "last reason")
    for row in rows:
        table.add_row(
            row.topic, row.cause, f"{row.open:,}", f"{row.letters:,}", short_time(format_timestamp(row.first)),
            short_time(format_timestamp(row.last)), printable(row.reason[:80]))
    Console().print(table)
