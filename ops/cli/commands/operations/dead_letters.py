"""`attn dead-letters`: list, retry, export, summary, resume-topic.

The flags `--retry`, `--export`, `--summary` and `--resume-topic` of the command itself do the same as the sub-commands.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Annotated, Any

import msgspec
import typer

from ops import config
from ops.cli.data.dead_letters import (
    GROUP,
    Filter,
    RecordPosition,
    Summary,
    can_export,
    can_retry,
    export_line,
    mark_resolved,
    unresolved,
    why_not,
)
from ops.cli.data.kafka import open_consumer, open_producer
from ops.cli.dead_letter_output import row_of, show_list, show_summary
from ops.cli.durations import parse_duration
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.dead_letters import CAUSES, ResumeTopicMarker
from schemas.scalars import SECOND, parse_timestamp
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, LOG, SOURCE_TYPES

__all__ = ["app"]

_LISTED = 50
_EXPLAINED = 10  # records that cannot be sent again and are printed with the reason
_MARK_EVERY = 500  # records sent before they are marked as resolved: an interrupted retry may send so many twice

app = typer.Typer(
    invoke_without_command=True,
    help="Inspect rejected records, and send them again once the cause is fixed. Without a sub-command: list.")

Topic = Annotated[str | None, typer.Option("--topic", help="Only records of this topic.", show_default=False)]
Reason = Annotated[str | None, typer.Option(
    "--reason", metavar="CAUSE|TEXT", show_default=False,
    help=f"Only records of this cause ({', '.join(CAUSES)}), or with this text in the reason.")]
Since = Annotated[str | None, typer.Option(
    "--since", metavar="2h|TIME", show_default=False,
    help="Only records rejected since then: 30s, 15m, 2h, 3d ago, or a time with its time zone.")]
Newest = Annotated[int | None, typer.Option(
    "--limit", min=1, help=f"The newest N; default: {_LISTED}.", show_default=False)]
Oldest = Annotated[int | None, typer.Option("--limit", min=1, help="The oldest N; default: all.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Include resolved records.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="A new file; - is stdout.", show_default=False)]
SourceTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="A source topic.", show_default=False)]

# The same as the sub-commands, from before there were any.
RetryFlag = Annotated[bool, typer.Option("--retry", hidden=True)]
ExportFlag = Annotated[str | None, typer.Option("--export", metavar="FILE", hidden=True)]
SummaryFlag = Annotated[bool, typer.Option("--summary", hidden=True)]
ResumeFlag = Annotated[str | None, typer.Option("--resume-topic", "--go-on", metavar="TOPIC", hidden=True)]


@app.callback()
def dead_letters(
    context: typer.Context, retry_: RetryFlag = False, export_: ExportFlag = None, summary_: SummaryFlag = False,
    resume_topic_: ResumeFlag = None, topic: Topic = None, reason: Reason = None, since: Since = None,
    limit: Newest = None, all_too: All = False, as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    if context.invoked_subcommand is not None:
        sources = [context.get_parameter_source(name) for name in context.params]
        if any(source is not None and source.name == "COMMANDLINE" for source in sources):
            raise UserError(f"options go after the sub-command: attn dead-letters {context.invoked_subcommand} ...",
                            code=2)
        return
    if retry_ + (export_ is not None) + summary_ + (resume_topic_ is not None) > 1:
        raise UserError("use one of --retry, --export, --summary and --resume-topic at a time", code=2)
    if resume_topic_ is not None:
        resume_topic(resume_topic_, kafka, data_dir)
    elif retry_:
        retry(topic, reason, since, limit, as_json, kafka, data_dir)
    elif export_ is not None:
        export(export_, topic, reason, since, limit, as_json, kafka, data_dir)
    elif summary_:
        summary(topic, reason, since, as_json, kafka, data_dir)
    else:
        list_(topic, reason, since, limit, all_too, as_json, kafka, data_dir)


@app.command("list")
def list_(
    topic: Topic = None, reason: Reason = None, since: Since = None, limit: Newest = None, all_too: All = False,
    as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """List rejected records with the reason, the newest last.

    A record is resolved once it was sent again, by `retry` or by `attn replay` of an export.
    """
    settings, chosen = _load(topic, reason, since, kafka, data_dir)
    show_list(*asyncio.run(_newest(settings, chosen, limit or _LISTED, all_too)), as_json)


@app.command()
def retry(
    topic: Topic = None, reason: Reason = None, since: Since = None, limit: Oldest = None, as_json: AsJson = False,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Send unresolved records again to their topics.

    Each is sent once over all calls, with its own key, headers and bytes, and is then marked as resolved. A record that
    is rejected again is a new dead letter; nothing is retried automatically. If the command is interrupted, up to 500
    records may be sent twice, which changes nothing: an event counts once. Truncated records, records whose reply token
    was blanked, and records of topics that are no input cannot be sent again; they are counted and stay unresolved.
    """
    settings, chosen = _load(topic, reason, since, kafka, data_dir)
    _report(*asyncio.run(_retry(settings, chosen, limit)), "sent", "again", as_json)


@app.command()
def export(
    file: File, topic: Topic = None, reason: Reason = None, since: Since = None, limit: Oldest = None,
    as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Write unresolved records to a file, as lines for `attn replay`.

    Correct or delete lines, then run `attn replay FILE`: it sends them and marks their dead letters as resolved. A
    line with `blanked` needs its reply token filled in; otherwise its event is rejected again.
    """
    settings, chosen = _load(topic, reason, since, kafka, data_dir)
    with _create(file) as lines:
        _report(*asyncio.run(_export(settings, chosen, limit, lines)), "wrote", "", as_json)


@app.command()
def summary(
    topic: Topic = None, reason: Reason = None, since: Since = None, as_json: AsJson = False, kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Count records by topic and cause, with the last reason."""
    settings, chosen = _load(topic, reason, since, kafka, data_dir)
    show_summary(asyncio.run(_summarize(settings, chosen)), as_json)


@app.command("resume-topic")
def resume_topic(topic: SourceTopic, kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """Close the circuit of a source topic: workers read it again at once.

    A worker stops reading a topic if ATTN_REJECT_RATIO is set and most of its records are rejected. After this command
    the circuit stays closed until records are mostly accepted again.
    """
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    if topic not in SOURCE_TYPES:
        raise UserError(f"{topic!r} is not a source topic; source topics are {', '.join(SOURCE_TYPES)}", code=2)
    asyncio.run(_resume(settings, topic))
    typer.echo(f"asked the workers to close the circuit of {topic}", err=True)


def _load(
    topic: str | None, reason: str | None, since: str | None, kafka: Any, data_dir: Any
) -> tuple[Settings, Filter]:
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    return settings, Filter(topic, reason, _since(since))


def _since(text: str | None) -> int | None:
    """Returns microseconds. Raises UserError if `text` is neither a duration nor a time."""
    if text is None:
        return None
    if (seconds := parse_duration(text)) is not None:
        return int((time.time() - seconds) * SECOND)
    try:
        return parse_timestamp(text)
    except ValueError:
        raise UserError(
            f"--since {text!r} is neither a duration such as 2h nor a time such as 2026-05-20T08:00:00Z", code=2
        ) from None


async def _retry(settings: Settings, chosen: Filter, limit: int | None) -> tuple[int, int]:
    """Sends unresolved records again and marks them. Returns how many were sent, and how many cannot be."""
    sent, refused, positions = 0, 0, list[RecordPosition]()
    async with (
        open_consumer(settings, DEAD_LETTERS, GROUP) as reader,
        open_producer(settings, [*SOURCE_TYPES, LOG, DEAD_LETTERS]) as out,
    ):
        async for record in unresolved(reader, chosen):
            if limit is not None and sent >= limit:
                break
            letter = record.letter
            if letter is None or not can_retry(letter):
                refused += 1
                if refused <= _EXPLAINED:
                    typer.echo(f"{record.name} cannot be sent again: {why_not(letter)}", err=True)
                continue
            # A record of attn.log belongs to its partition. For source topics the key decides.
            partition = letter.partition if letter.topic == LOG else None
            await out.send(letter.topic, letter.value, letter.key, letter.headers, partition)
            positions.append(record.position)
            sent += 1
            if len(positions) == _MARK_EVERY:
                await out.finish()
                await mark_resolved(out, positions)
                positions = []
        await out.finish()
        await mark_resolved(out, positions)
        await out.finish()
    return sent, refused


async def _export(settings: Settings, chosen: Filter, limit: int | None, file: IO[bytes]) -> tuple[int, int]:
    """Returns how many records were written, and how many cannot be sent again."""
    written, refused = 0, 0
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for record in unresolved(reader, chosen):
            if limit is not None and written >= limit:
                break
            if can_export(record.letter):
                file.write(msgspec.json.encode(export_line(record)) + b"\n")
                written += 1
            else:
                refused += 1
    return written, refused


async def _summarize(settings: Settings, chosen: Filter) -> list[Summary]:
    """Returns the counts, those with most unresolved records first."""
    rows: dict[tuple[str, str], Summary] = {}
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for record in unresolved(reader, chosen, all_too=True):
            if record.letter is not None:
                key = record.letter.topic, record.letter.cause
                rows.setdefault(key, Summary(*key)).add(record.letter, is_open=not record.resolved)
    return sorted(rows.values(), key=lambda row: (-row.open, -row.letters, row.topic, row.cause))


async def _newest(
    settings: Settings, chosen: Filter, limit: int, all_too: bool
) -> tuple[list[dict[str, Any]], int]:
    """Returns the newest `limit` records, oldest first, and how many match."""
    newest: deque[dict[str, Any]] = deque(maxlen=limit)
    total = 0
    async with open_consumer(settings, DEAD_LETTERS, GROUP) as reader:
        async for record in unresolved(reader, chosen, all_too):
            total += 1
            newest.append(row_of(record))
    return list(newest), total


async def _resume(settings: Settings, topic: str) -> None:
    async with open_producer(settings, [DEAD_LETTERS]) as out:
        await out.send(DEAD_LETTERS, None, b"go-on", headers=ResumeTopicMarker(topic).record_headers(), partition=0)
        await out.finish()


@contextmanager
def _create(path: str) -> Iterator[IO[bytes]]:
    """Opens a new file, or stdout for `-`. An existing file is never overwritten: a user may be editing it."""
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        with open(path, "xb") as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _report(done: int, refused: int, verb: str, suffix: str, as_json: bool) -> None:
    """Prints what was done; for an export to stderr, because stdout may be the file."""
    text = " ".join(filter(None, (verb, str(done), suffix))) + (f"; {refused} can't be sent again" if refused else "")
    typer.echo(json.dumps({verb: done, "left": refused}) if as_json else text, err=verb == "wrote")
