"""`attn emit` and `attn replay`: send files of events to the source topics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ops import config
from ops.cli.data import event_files
from ops.cli.data.dead_letters import mark_resolved
from ops.cli.data.kafka import Sender, open_producer
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from schemas.sources import MAX_URL
from schemas.topics import DEAD_LETTERS, SOURCE_TYPES
from streams.core.normalise import EventLimits
from streams.runtime.clock import now_us

__all__ = ["emit", "replay"]

_SHOWN = 20  # invalid lines that are printed with their reason

File = Annotated[str, typer.Argument(
    metavar="FILE", help="JSON lines, or one event that spans lines; may be .gz; - is stdin.")]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help=f"One of {', '.join(SOURCE_TYPES)}.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Send the valid lines only.")]
Recording = Annotated[str, typer.Argument(
    metavar="FILE", help="JSON lines of {topic, key?, value}; may be .gz; - is stdin.")]
Rate = Annotated[float | None, typer.Option(
    "--rate", min=0.001, help="Events per second. Default: as fast as Kafka accepts them.", show_default=False)]
Retime = Annotated[bool, typer.Option(
    "--retime", help="Shift time, due_at and expires_at (of asks too) of all events so that the last event is now.")]
Force = Annotated[bool, typer.Option(
    "--force", help="Send all lines unchecked; invalid events end up in dead-letters.")]


def emit(
    topic: Topic, file: File = "-", skip_bad: SkipBad = False, force: Force = False, kafka: Kafka = None,
    data_dir: DataDir = None,
) -> None:
    """Check JSON lines of CloudEvents and send them to TOPIC.

    All lines are checked before the first is sent. If a line is invalid, its number and the reason are printed, nothing
    is sent, and the exit code is 1. With --skip-bad the valid lines are sent (the exit code is still 1), with --force
    all lines.
    """
    if topic not in SOURCE_TYPES:
        raise UserError(f"{topic!r} is not a source topic; source topics are {', '.join(SOURCE_TYPES)}", code=2)
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    limits = event_files.limits_of(settings)
    with event_files.open_input(file) as lines:
        bad = {} if force else dict(_invalid(topic, lines, limits))
        if bad:
            _print_bad(bad)
        if bad and not skip_bad:
            raise UserError(f"{len(bad)} bad line{'s' * (len(bad) > 1)}; nothing was sent")
        lines.seek(0)
        good = (Outgoing(number, topic, line, event_files.workspace_of(line))
                for number, line in event_files.iter_events(lines)
                if number not in bad)
        count = asyncio.run(_send(settings, [topic], good, total=None, rate=None))
    typer.echo(f"sent {count} to {topic}" + (f"; left out {len(bad)}" if bad else ""), err=True)
    if bad:
        raise typer.Exit(1)


def replay(
    file: Recording, rate: Rate = None, retime: Retime = False, kafka: Kafka = None, data_dir: DataDir = None
) -> None:
    """Send recorded events, each to its topic, in the order of the file.

    If a line is invalid, its number is printed and nothing is sent. The events are not checked: an invalid event
    ends up in dead-letters. An event that was sent before (same source and id) changes nothing. So after an
    interruption the file can be sent again, from the printed line or from the first.

    Lines from `attn dead-letters export` mark their dead letters as resolved.
    """
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    with event_files.open_input(file) as lines:
        total, topics, last = _survey(lines)
        shift = 0
        if retime and last is not None:
            shift = now_us() - last
            typer.echo(f"times are shifted by {shift / 1e6:+,.0f} s: {format_timestamp(last)} becomes now", err=True)
        lines.seek(0)
        started = time.monotonic()
        count = asyncio.run(_send(settings, topics, _replayed(lines, shift), total, rate))
    seconds = time.monotonic() - started
    typer.echo(f"sent {count:,} events in {seconds:.1f} s ({count / max(seconds, 1e-9):,.0f}/s)", err=True)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to send. `line`: its line number in the file. `resolves`: (partition, offset) of the dead letter that it
    resolves."""

    line: int
    topic: str
    value: bytes
    key: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    resolves: tuple[int, int] | None = None


def _invalid(topic: str, lines: IO[bytes], limits: EventLimits) -> Iterator[tuple[int, str]]:
    unlinked: list[int] = []
    for number, line in event_files.iter_events(lines):
        reason = event_files.check_event(topic, line, limits, partial(unlinked.append, number))
        if reason is not None:
            yield number, reason
    if unlinked:
        typer.echo(
            f"{len(unlinked)} event{'s' * (len(unlinked) > 1)} (first: line {unlinked[0]}) will be accepted without "
            "data.action_url: it must be a path that begins with one /, or an http(s) URL with a host and without user "
            f"information, of at most {MAX_URL} characters, none of them white space, a control or format character "
            "or a backslash", err=True)


def _print_bad(bad: dict[int, str]) -> None:
    for number, reason in islice(bad.items(), _SHOWN):
        typer.echo(f"line {number}: {reason}", err=True)
    if len(bad) > _SHOWN:
        typer.echo(f"... and {len(bad) - _SHOWN} more", err=True)


def _survey(lines: IO[bytes]) -> tuple[int, set[str], int | None]:
    """Returns the number of events, their topics, and the time of the last event in microseconds.

    Raises UserError if a line is not a record.
    """
    total, topics, last, bad = 0, set(), None, {}
    for number, line in event_files.iter_lines(lines):
        try:
            parsed = event_files.parse_line(line)
        except ValueError as error:
            bad[number] = str(error)
            continue
        total += 1
        topics.update([parsed.topic] if parsed.resolves is None else [parsed.topic, DEAD_LETTERS])
        at = event_files.time_of(parsed.bytes_of_value)
        last = at if last is None or (at is not None and at > last) else last
    if bad:
        _print_bad(bad)
        raise UserError(f"{len(bad)} bad line{'s' * (len(bad) > 1)}; nothing was sent")
    return total, topics, last


def _replayed(lines: IO[bytes], shift: int) -> Iterator[Outgoing]:
    for number, line in event_files.iter_lines(lines):
        parsed = event_files.parse_line(line)
        value = parsed.bytes_of_value
        yield Outgoing(
            number, parsed.topic, event_files.retime(value, shift) if shift else value, parsed.bytes_of_key,
            parsed.all_headers, parsed.resolves,
        )


async def _send(
    settings: Settings, topics: Collection[str], outgoing: Iterable[Outgoing], total: int | None, rate: float | None
) -> int:
    async with open_producer(settings, topics) as out:
        with _progress(total) as step:
            started = time.monotonic()
            resolved: list[tuple[int, int]] = []
            for number, record in enumerate(outgoing):
                if rate is not None and (delay := started + number / rate - time.monotonic()) > 0:
                    await asyncio.sleep(delay)
                await out.send(record.topic, record.value, record.key, record.headers, line=record.line)
                resolved += [record.resolves] if record.resolves is not None else []
                step(out)
        count = await out.finish()
        if resolved:
            await mark_resolved(out, resolved)
            await out.finish()
        return count


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[Sender], None]]:
    """Shows a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    if total is None or not console.is_terminal:
        yield lambda out: None
        return
    columns = (
        TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("replay", total=total)

        def step(out: Sender) -> None:
            if out.sent % 100 == 0 or out.sent == total:
                progress.update(task, completed=out.sent)

        yield step
