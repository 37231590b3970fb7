"""`attn dead-letters`: list what was rejected, count it, send it again, write it to a file; let a topic go on."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ops import config
from ops.cli.data.dead_letters import (
    GROUP,
    DeadLetterRecord,
    Filter,
    Place,
    Summary,
    can_retry,
    export_line,
    mark_resolved,
    unresolved,
    why_not,
)
from ops.cli.data.kafka import open_consumer, open_producer
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.dead_letters import CAUSES, ResumeTopicMarker
from schemas.scalars import SECOND, format_timestamp, parse_timestamp
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, LOG, SOURCE_TYPES

__all__ = ["dead_letters"]

_LISTED = 50
_EXPLAINED = 10  # dead letters that can't be sent again, each with its reason
_AT_ONCE = 500  # sent again before they are marked as such: so many may be sent twice when it is cut off
# JSON escapes the others; a terminal obeys these too.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Retry = Annotated[bool, typer.Option("--retry", help="Send them again to their topics.")]
Export = Annotated[str | None, typer.Option(
    "--export", metavar="FILE", help="Write them as lines for `attn replay`, to be mended; - is stdout.",
    show_default=False)]
Summarize = Annotated[bool, typer.Option("--summary", help="How many of each topic and cause.")]
Go = Annotated[str | None, typer.Option(
    "--go-on", metavar="TOPIC", help="Tell the workers to read on in a topic they stopped, whatever it brings.",
    show_default=False)]
Topic = Annotated[str | None, typer.Option("--topic", help="Only those of this topic.", show_default=False)]
Reason = Annotated[str | None, typer.Option(
    "--reason", help=f"Only those with this text in the reason, or of this cause: {', '.join(CAUSES)}.",
    show_default=False)]
Since = Annotated[str | None, typer.Option(
    "--since", metavar="2h|TIME", help="Only those rejected since then: 30s, 15m, 2h, 3d, or a time with its zone.",
    show_default=False)]
Limit = Annotated[int | None, typer.Option(
    "--limit", min=1, help="List the newest N (else 50); send or export the oldest N (else all).", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="List those too that were sent again or mended.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def dead_letters(
    retry: Retry = False, export: Export = None, summary: Summarize = False, go_on: Go = None, topic: Topic = None,
    reason: Reason = None, since: Since = None, limit: Limit = None, all_too: All = False, as_json: AsJson = False,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """List rejected records with the reason, or send them again after the cause was mended.

    --retry sends each open dead letter once, over all calls, with its own key, headers and bytes, and marks it as
    settled. One that is rejected again is a new dead letter; nothing is retried by itself. If --retry is cut off, the
    last ones may be sent twice, which changes nothing: the same event counts once. What was too large to be kept
    whole, or is not from a topic that can take it again, is counted and stays.
    """
    if retry + (export is not None) + summary + (go_on is not None) > 1:
        raise UserError("one of --retry, --export, --summary and --go-on at a time", code=2)
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    chosen = Filter(topic, reason, _since(since))
    if go_on is not None:
        _go_on(settings, go_on)
    elif retry:
        _told(*asyncio.run(_retry(settings, chosen, limit)), "sent {} again", "can't be sent again", as_json)
    elif export is not None:
        with _opened(export) as file:
            _told(*asyncio.run(_export(settings, chosen, limit, file)), "wrote {}", "can't be sent again", as_json)
    elif summary:
        _show_summary(asyncio.run(_summarize(settings, chosen)), as_json)
    else:
        _show(*asyncio.run(_newest(settings, chosen, limit or _LISTED, all_too)), as_json)


def _since(text: str | None) -> int | None:
    """Microseconds. UserError: neither a time nor so long ago."""
    if text is None:
        return None
    if found := re.fullmatch(r"(\d+)([smhd])", text):
        return int((time.time() - int(found[1]) * _UNITS[found[2]]) * SECOND)
    try:
        return parse_timestamp(text)
    except ValueError:
        raise UserError(f"--since {text!r} is neither like 2h nor a time like 2026-05-20T08:00:00Z", code=2) from None


# --- what is done ---


async def _retry(settings: Settings, chosen: Filter, limit: int | None) -> tuple[int, int]:
    """Send the open ones again and mark them: how many were sent, and how many can't be."""
    sent, left, places = 0, 0, list[Place]()
    async with (
        open_consumer(settings, DEAD_LETTERS, GROUP) as reader,
        open_producer(settings, [*SOURCE_TYPES, LOG, DEAD_LETTERS]) as out,
    ):
        async for found in unresolved(reader, chosen):
            if limit is not None and sent >= limit:
                break
            letter = found.letter
            if letter is None or not can_retry(letter):
                left += 1
                if left <= _EXPLAINED:
                    typer.echo(f"{found.name} is not sent again: {why_not(letter)}", err=True)
                continue
            # A record of the log belongs to its partition; elsewhere the key decides, and the order is free.
            partition = letter.partition if letter.topic == LOG else None
            await out.send(letter.topic, letter.value, letter.key, letter.headers, partition)
            places.append(found.place)
            sent += 1
            if len(places) == _AT_ONCE:
                await out.finish()
                await mark_resolved(out, places)
                places = []
        await out.finish()
        await mark_resolved(out, places)
        await out.finish()
    return sent, left


async def _export(settings: Settings, chosen: Filter, limit: int | None, file: IO[bytes]) -> tuple[int, int]:
    written, left = 0, 0
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for found in unresolved(reader, chosen):
            if limit is not None and written >= limit:
                break
            if can_retry(found.letter) and found.letter is not None and found.letter.topic in SOURCE_TYPES:
                file.write(msgspec.json.encode(export_line(found)) + b"\n")
                written += 1
            else:
                left += 1
    return written, left


async def _summarize(settings: Settings, chosen: Filter) -> list[Summary]:
    """Most open ones first."""
    found: dict[tuple[str, str], Summary] = {}
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for one in unresolved(reader, chosen, all_too=True):
            if one.letter is not None:
                key = one.letter.topic, one.letter.cause
                found.setdefault(key, Summary(*key)).add(one.letter, is_open=not one.settled)
    return sorted(found.values(), key=lambda row: (-row.open, -row.letters, row.topic, row.cause))


async def _newest(
    settings: Settings, chosen: Filter, limit: int, all_too: bool
) -> tuple[list[dict[str, Any]], int]:
    """The newest dead letters, oldest first, and how many there are."""
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    total = 0
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for found in unresolved(reader, chosen, all_too):
            total += 1
            kept.append(_row(found))
    return list(kept), total


def _go_on(settings: Settings, topic: str) -> None:
    if topic not in SOURCE_TYPES:
        raise UserError(f"{topic!r} is not a source topic; they are {', '.join(SOURCE_TYPES)}", code=2)

    async def say() -> None:
        async with open_producer(settings, [DEAD_LETTERS]) as out:
            await out.send(DEAD_LETTERS, None, b"go-on", headers=ResumeTopicMarker(topic).record_headers(), partition=0)
            await out.finish()

    asyncio.run(say())
    typer.echo(f"told the workers to read on in {topic}, if they had stopped", err=True)


# --- what is shown ---


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        with open(path, "xb") as file:  # never over what somebody has been mending
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _told(done: int, left: int, what: str, why: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({what.split()[0]: done, "left": left}), err=what.startswith("wrote"))
    else:
        typer.echo(what.format(done) + (f"; {left} {why}" if left else ""), err=what.startswith("wrote"))


def _row(found: DeadLetterRecord) -> dict[str, Any]:
    letter, place = found.letter, {"dead_letter": found.name, "retried": found.settled}
    if letter is None:
        return {**place, "reason": "not a dead letter of attn", **_readable("value", found.record.value)}
    return {
        **place, "at": format_timestamp(letter.at), "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "cause": letter.cause, "reason": letter.reason, "size": letter.size,
        "truncated": letter.truncated, "cut": list(letter.cut), **_readable("key", letter.key),
        **_readable("value", letter.value),
    }


def _readable(name: str, value: bytes | None) -> dict[str, str | None]:
    """Bytes as text, or else as base64 under another name."""
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value or b"").decode()}


def _times(name: str) -> Column:
    """Wide enough for a date; where there is no room beside it the time is below."""
    return Column(f"{name} (UTC)", min_width=len("2026-05-20"))


def _short(time: str) -> str:
    return time[:19].replace("T", " ")


def _shown(text: str) -> Text:
    """Without what a terminal would obey: it came from whoever may write to a topic."""
    return Text("".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}"
                        for one in text))


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False).translate(_CONTROLS)


def _show(rows: list[dict[str, Any]], total: int, as_json: bool) -> None:
    if as_json:
        for row in rows:
            typer.echo(_json(row))
        return
    if not rows:
        typer.echo("no dead letters")
        return
    table = Table(_times("at"), "topic", "offset", "reason", "value", title=f"{len(rows)} of {total} dead letters")
    for row in rows:
        value = row.get("value") or row.get("value_base64") or ""
        table.add_row(
            _short(row.get("at", "")), row.get("topic", ""), f"{row.get('partition', '')}:{row.get('offset', '')}",
            _shown(row["reason"] + (" (settled)" if row["retried"] else "")),
            _shown(value[:80] + ("…" if len(value) > 80 else "")),
        )
    Console().print(table)


def _show_summary(rows: list[Summary], as_json: bool) -> None:
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
    table = Table("topic", "cause", "open", "all", _times("first"), _times("last"), "the last reason")
    for row in rows:
        table.add_row(row.topic, row.cause, f"{row.open:,}", f"{row.letters:,}", _short(format_timestamp(row.first)),
                      _short(format_timestamp(row.last)), _shown(row.reason[:80]))
    Console().print(table)
