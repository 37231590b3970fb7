"""`attn dead-letters`: list what was rejected, and send it again."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from typing import Annotated, Any

import typer
from aiokafka import ConsumerRecord, TopicPartition
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops import config
from ops.commands.options import DataDir, Kafka
from ops.kafka import consumer, records, sender
from schemas.codec import from_us
from schemas.deadletters import DeadLetter
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, LOG, SOURCE_TYPES

__all__ = ["dead_letters"]

# Its committed offsets are how far --retry came.
_GROUP = "attn.dead-letters.retry"
_LISTED = 50


def dead_letters(
    retry: Annotated[bool, typer.Option("--retry", help="Send them again to their topics.")] = False,
    limit: Annotated[int | None, typer.Option(
        "--limit", min=1, help="List the newest N (else 50); with --retry, send the oldest N (else all).",
        show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """List rejected records with the reason, or send them again after the cause was mended.

    --retry sends each dead letter once, over all calls: how far it came is kept in Kafka. One that is rejected again
    becomes a new dead letter, which the next --retry sends again; nothing is retried by itself. If --retry is cut off,
    the last ones may be sent twice, which changes nothing: the same event counts once. What was too large to be kept
    whole, or is not from a topic that can take it again, is counted and left.
    """
    settings = config.load(kafka=kafka, data_dir=data_dir)
    if retry:
        again, left = asyncio.run(_retry(settings, limit))
        if as_json:
            typer.echo(json.dumps({"sent": again, "left": left}))
        else:
            typer.echo(f"sent {again} again" + (f"; {left} can't be sent again" if left else ""))
        return
    rows, total = asyncio.run(_newest(settings, limit or _LISTED))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        _show(rows, total)


def can_retry(letter: DeadLetter) -> bool:
    return not letter.truncated and (letter.topic in SOURCE_TYPES or letter.topic == LOG)


async def _retry(settings: Settings, limit: int | None) -> tuple[int, int]:
    """Send what was not sent again yet: how many were, and how many can't be."""
    left = 0
    async with (
        consumer(settings, DEAD_LETTERS, _GROUP) as reader,
        sender(settings, [*SOURCE_TYPES, LOG]) as out,
    ):
        done: dict[TopicPartition, int] = {}
        for place in reader.assignment():
            reader.seek(place, await reader.committed(place) or 0)
        async for record in records(reader):
            letter = _letter(record)
            if letter is not None and can_retry(letter):
                # A record of the log belongs to its partition; elsewhere the key decides, and the order is free.
                partition = letter.partition if letter.topic == LOG else None
                await out.send(letter.topic, letter.value, letter.key, letter.headers, partition)
            else:
                left += 1
            done[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if limit is not None and out.sent >= limit:
                break
        sent = await out.finish()
        if done:
            await reader.commit(done)
    return sent, left


async def _newest(settings: Settings, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The newest dead letters, oldest first, and how many there are."""
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    total = 0
    async with consumer(settings, DEAD_LETTERS, _GROUP) as reader:
        retried = {place: await reader.committed(place) or 0 for place in reader.assignment()}
        async for record in records(reader):
            total += 1
            sent_again = record.offset < retried[TopicPartition(record.topic, record.partition)]
            kept.append(_row(record, sent_again))
    return list(kept), total


def _letter(record: ConsumerRecord) -> DeadLetter | None:
    try:
        return DeadLetter.from_record(record.key, record.value, record.headers)
    except ValueError:
        return None


def _row(record: ConsumerRecord, retried: bool) -> dict[str, Any]:
    letter = _letter(record)
    place = {"dead_letter": f"{record.partition}:{record.offset}", "retried": retried}
    if letter is None:
        return {**place, "reason": "not a dead letter of attn", **_readable("value", record.value)}
    return {
        **place, "at": from_us(letter.at), "topic": letter.topic, "partition": letter.partition,
        "offset": letter.offset, "reason": letter.reason, "size": letter.size, "truncated": letter.truncated,
        **_readable("key", letter.key), **_readable("value", letter.value),
    }


def _readable(name: str, value: bytes | None) -> dict[str, str | None]:
    """Bytes as text, or else as base64 under another name."""
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value or b"").decode()}


def _show(rows: list[dict[str, Any]], total: int) -> None:
    if not rows:
        typer.echo("no dead letters")
        return
    table = Table("at", "topic", "offset", "reason", "value", title=f"{len(rows)} of {total} dead letters")
    for row in rows:
        value = row.get("value") or row.get("value_base64") or ""
        table.add_row(
            row.get("at", ""), row.get("topic", ""), f"{row.get('partition', '')}:{row.get('offset', '')}",
            Text(row["reason"] + (" (sent again)" if row["retried"] else "")),
            Text(value[:80].replace("\n", " ") + ("…" if len(value) > 80 else "")),
        )
    Console().print(table)
