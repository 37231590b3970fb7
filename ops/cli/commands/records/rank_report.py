"""`attn rank-report`: compares the positions of items in the list under another ranking policy with today's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from ops import config
from ops.cli.data import event_files
from ops.cli.data.kafka import open_consumer, read_to_end
from ops.cli.options import DataDir, Kafka
from ops.cli.rank_report import policy_file
from ops.cli.rank_report.policy import Policy
from ops.cli.rank_report.replay import Entry, replay
from ops.cli.rank_report.statistics import compare
from ops.errors import UserError
from schemas.log import decode_pack
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from schemas.topics import LOG
from schemas.versions import UnsupportedVersion
from streams.core.config import FoldConfig
from streams.core.normalise import Rejected, normalise

__all__ = ["rank_report"]

_MAX_EVENTS = 2_000_000

PolicyPath = Annotated[Path, typer.Option("--policy", metavar="FILE", help="The policy to compare: TOML or JSON.")]
Recording = Annotated[str, typer.Argument(
    metavar="FILE", help="JSON lines of {topic, value} as for `attn replay`; .gz too; - is stdin. Default: attn.log.",
    show_default=False)]
Workspace = Annotated[str, typer.Option("--workspace", help="Only this workspace. Default: all.", show_default=False)]
MostFlag = Annotated[int | None, typer.Option("--most", min=1, hidden=True)]  # the old name of --max-events
MaxEvents = Annotated[int, typer.Option(
    "--max-events", min=1, help="Fail if there are more events; all of them are held in memory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object with all figures.")]


def rank_report(
    policy: PolicyPath, file: Recording = "", workspace: Workspace = "", max_events: MaxEvents = _MAX_EVENTS,
    most: MostFlag = None, as_json: AsJson = False, kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Replay past events, and compare the positions of items under another policy with those under today's.

    Nothing is changed. Each event counts at its own time, not at its arrival. Each workspace is one list, as a user
    sees it who may see all items and has pinned nothing.
    """
    max_events = most if most is not None and max_events == _MAX_EVENTS else max_events
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    changed = policy_file.load(policy)
    entries = _of_file(file, settings, workspace, max_events) if file else asyncio.run(
        _of_log(settings, workspace, max_events))
    if not entries:
        raise UserError("there are no events to replay")
    rules = FoldConfig.from_settings(settings)
    today = Policy(rules.targets)
    times = [entry.time for entry in entries]
    past = replay(entries, rules)
    report = {"events": len(entries), "since": format_timestamp(min(times)), "until": format_timestamp(max(times)),
              **compare(past.changes, today, changed.over(today), max(times), past.decided)}
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report)


def _of_file(path: str, settings: Settings, workspace: str, max_events: int) -> list[Entry]:
    """Reads a recording. Events that ingest would reject are skipped and counted."""
    entries: list[Entry] = []
    limits, rejected = event_files.limits_of(settings), 0
    with event_files.open_input(path) as lines:
        for number, line in event_files.iter_lines(lines):
            try:
                parsed = event_files.parse_line(line)
                entry = normalise(parsed.topic, parsed.bytes_of_value, parsed.all_headers, limits,
                                  sealer=event_files.CHECK_SEALER)
            except Rejected:
                rejected += 1
                continue
            except ValueError as error:
                raise UserError(f"line {number}: {error}") from None
            _add(entries, [entry], workspace, max_events)
    if rejected:
        typer.echo(f"invalid events skipped: {rejected}", err=True)
    return entries


async def _of_log(settings: Settings, workspace: str, max_events: int) -> list[Entry]:
    """Reads attn.log, which has the entries of the last ATTN_LOG_RETENTION_HOURS."""
    entries: list[Entry] = []
    async with open_consumer(settings, LOG) as reader:
        async for record in read_to_end(reader):
            try:
                pack = decode_pack(record.value or b"")
            except UnsupportedVersion as error:
                raise UserError(str(error)) from None
            except (ValueError, RecursionError):
                continue  # the fold skips invalid records, too
            _add(entries, pack.entries, workspace, max_events)
    return entries


def _add(entries: list[Entry], more: list[Any], workspace: str, max_events: int) -> None:
    """Adds the entries of the workspace (all if it is ""). Raises UserError above `max_events`."""
    entries += [entry for entry in more if not workspace or entry.ws == workspace]
    if len(entries) > max_events:
        raise UserError(f"more than {max_events:,} events: choose one with --workspace, or raise --max-events")


# --- output ---


def _show(report: dict[str, Any]) -> None:
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=140)  # a file has no width
    console.print(f"{report['events']:,} events, {report['since']} to {report['until']}; "
                  f"{report['all']['stays']:,} times an item was in the list. Today → policy:")
    table = Table(Column("", no_wrap=True), "stays", "listed, p50", "place, p50", "place, p90", "in first 3",
                  "in first 10", "until seen, p90")
    for title, group in _groups(report):
        today, other = group["today"], group["policy"]
        table.add_row(
            title, f"{group['stays']:,}", _time(group["listed_seconds"]["p50"]),
            *(_both(today["place"][name], other["place"][name], "{:,.1f}".format) for name in ("p50", "p90")),
            *(_both(today["share_of_time"][name], other["share_of_time"][name], "{:.1%}".format)
              for name in ("first_3", "first_10")),
            _both(today["seconds_until_seen"]["p90"], other["seconds_until_seen"]["p90"], _time),
        )
    console.print(table)
    if report["all"]["decided"]:
        _show_decisions(console, report)


def _show_decisions(console: Console, report: dict[str, Any]) -> None:
    """Prints how long items waited until people decided them: by kind, by band and by position at that moment."""
    console.print(f"{report['all']['decided']:,} of these times ended with a decision. Waited until decided, "
                  "today → policy:")
    table = Table(Column("", no_wrap=True), "decided", "waited, p50", "waited, p90", "place, p50")
    for title, group in _groups(report):
        if group["decided"]:
            waited = group["seconds_until_decided"]
            table.add_row(title, f"{group['decided']:,}", _time(waited["p50"]), _time(waited["p90"]), "")
    for part, prefix in (("bands", "band"), ("positions", "place")):
        today, other = (report["decisions"][name][part] for name in ("today", "policy"))
        for name in dict.fromkeys((*today, *other)):
            both = today.get(name), other.get(name)
            table.add_row(f"{prefix} {name}", *(_both_or_none(both, value) for value in (
                lambda wait: f"{wait['decided']:,}", lambda wait: _time(wait["seconds_until_decided"]["p50"]),
                lambda wait: _time(wait["seconds_until_decided"]["p90"]),
                lambda wait: f"{wait['position']['p50']:,.0f}")))
    console.print(table)


def _both_or_none(groups: tuple[dict[str, Any] | None, dict[str, Any] | None], value: Any) -> str:
    """Returns the value of both groups as `_both` does; a dash for a group without items."""
    today, other = ("–" if group is None else value(group) for group in groups)
    return today if today == other else f"{today} → {other}"


def _groups(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if report["all"]["stays"]:
        yield "all", report["all"]
    yield from report["kinds"].items()
    yield from ((f"priority {name}", group) for name, group in report["priorities"].items())


def _both(today: float, other: float, text: Any) -> str:
    return text(today) if text(today) == text(other) else f"{text(today)} → {text(other)}"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
