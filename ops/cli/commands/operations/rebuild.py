"""`attn rebuild` and `attn checkpoint`: rebuild the view from the log; write checkpoints to start a rebuild from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from aiokafka.client import AIOKafkaClient
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ops import config
from ops.cli.data.checkpoints import Checkpoint, CheckpointWriter, config_fields
from ops.cli.data.kafka import kafka_errors, kafka_timeout
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS
from schemas.versions import UnsupportedVersion
from streams.core.config import FoldConfig
from streams.kafka.connection import client_arguments
from streams.kafka.fencing import FencedError
from streams.rebuild.partition_view import PartitionView
from streams.rebuild.rebuild import PartitionRebuild, RebuildBase, RebuildError, RebuildReport, read_view

__all__ = ["checkpoint", "rebuild"]

Check = Annotated[bool, typer.Option(
    "--check", help="Compare only; exit code 1 if the view differs from the log.")]
Partitions = Annotated[str, typer.Option("--partitions", metavar="0-3,7", help="Only these partitions. Default: all.",
                                         show_default=False)]
BaseFile = Annotated[Path | None, typer.Option(
    "--base", metavar="FILE", help="Start from a checkpoint; needed if the log no longer has its first records.",
    show_default=False)]
IgnoreMismatch = Annotated[bool, typer.Option(
    "--ignore-config-mismatch", help="Accept a checkpoint that was written with other fold settings.")]
AnyRulesFlag = Annotated[bool, typer.Option("--any-rules", hidden=True)]  # the old name of --ignore-config-mismatch
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for each partition.")]
Target = Annotated[Path, typer.Argument(
    metavar="FILE", help="File to write; an existing one is replaced once the new one is complete.")]


def rebuild(
    check: Check = False, partitions: Partitions = "", base: BaseFile = None,
    ignore_config_mismatch: IgnoreMismatch = False, any_rules: AnyRulesFlag = False, as_json: AsJson = False,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Fold the log with the current settings, compare the result with the view, and replace rows that differ.

    Readers see the old view or the new one, never a mix. Workers may run meanwhile: they are fenced, restart, and
    continue from the new view. No facts are written. With --check nothing is changed.
    """
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    numbers = _numbers(partitions, settings)
    source = _base(base, settings, ignore_config_mismatch or any_rules)
    with _errors(settings):
        reports, failed = asyncio.run(_each(settings, numbers, source, check))
    differing = [report for report in reports if report.differing]
    if as_json:
        for report in reports:
            typer.echo(json.dumps(_plain(report)))
    else:
        _show(reports)
        _sum_up(reports, check)
    if failed:
        raise UserError("; ".join(failed))
    if check and differing:
        raise typer.Exit(1)


def checkpoint(file: Target, kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """Write rows and positions of all partitions to FILE, compressed and with a checksum. Workers may run meanwhile."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    writer = CheckpointWriter(file, settings.log_partitions, FoldConfig.from_settings(settings))
    with _errors(settings):
        rows = asyncio.run(_write(settings, writer))
    size = file.stat().st_size
    typer.echo(f"{rows:,} rows of {settings.log_partitions} partitions in {file} ({size:,} bytes)", err=True)


# --- arguments ---


def _numbers(partitions: str, settings: Settings) -> list[int]:
    from api.edge.services import parse_partitions  # imported here: the import takes 0.5 s

    try:
        return sorted(parse_partitions(partitions, settings.log_partitions))
    except ValueError as error:
        raise UserError(str(error), code=2) from None


def _base(path: Path | None, settings: Settings, ignore_mismatch: bool) -> Checkpoint | None:
    if path is None:
        return None
    source = Checkpoint(path)
    if source.head.partitions != settings.log_partitions:
        raise UserError(f"{path} has {source.head.partitions} partitions, ATTN_LOG_PARTITIONS says "
                        f"{settings.log_partitions}")
    current = config_fields(FoldConfig.from_settings(settings))
    differing = sorted(name for name in current if source.head.rules.get(name) != current[name])
    if differing and not ignore_mismatch:
        raise UserError(
            f"{path} was written with other fold settings ({', '.join(differing)}), and rows without newer events "
            "would keep what those settings gave; --ignore-config-mismatch uses it anyway")
    return source


@contextmanager
def _errors(settings: Settings) -> Iterator[None]:
    with kafka_errors(settings):
        try:
            yield
        except UnsupportedVersion as error:
            raise UserError(str(error)) from None
        except FencedError:
            raise UserError(
                "a worker or another rebuild fenced a partition at the same time; run the command again") from None
        except TimeoutError:
            raise UserError(f"Kafka at {settings.kafka} stopped answering; each partition has its old view or its new "
                            "one, so the command can be run again") from None


# --- rebuild and checkpoint ---


async def _each(
    settings: Settings, numbers: list[int], source: Checkpoint | None, check: bool
) -> tuple[list[RebuildReport], list[str]]:
    """Rebuilds or checks each partition. Returns the reports, and the reasons of those that failed."""
    await _require(settings)
    bases = source.bases(set(numbers)) if source is not None else iter(())
    rules, reports, failed = FoldConfig.from_settings(settings), list[RebuildReport](), list[str]()
    with _progress() as bar:
        following: tuple[int, RebuildBase] | None = next(bases, None)
        for done, number in enumerate(numbers):
            base = None
            if following is not None and following[0] == number:
                base, following = following[1], next(bases, None)
            partition = PartitionRebuild(settings, number, rules, base, bar(number, done, len(numbers)))
            try:
                reports.append(await (partition.check() if check else partition.run()))
            except RebuildError as reason:
                failed.append(str(reason))
    return reports, failed


async def _require(settings: Settings) -> None:
    """Raises UserError if a topic is missing or has another number of partitions than the settings."""
    client = AIOKafkaClient(**client_arguments(settings))
    try:
        async with kafka_timeout():
            await client.bootstrap()
            metadata = await client.fetch_all_metadata()
    finally:
        await client.close()
    if missing := sorted({LOG, VIEWS, FACTS} - metadata.topics()):
        raise UserError(f"no topic {', '.join(missing)} at {settings.kafka}; `attn topics` creates what is missing")
    for topic in (LOG, VIEWS):
        if (count := len(metadata.partitions_for_topic(topic) or ())) != settings.log_partitions:
            raise UserError(f"{topic} has {count} partitions, ATTN_LOG_PARTITIONS says {settings.log_partitions}")


async def _write(settings: Settings, writer: CheckpointWriter) -> int:
    await _require(settings)
    with _progress() as bar:

        async def views() -> AsyncIterator[tuple[int, PartitionView]]:
            for number in range(settings.log_partitions):
                bar(number, number, settings.log_partitions)("reading the view", 0, 1)
                yield number, await read_view(settings, number)

        return await writer.write(views())


# --- output ---


@contextmanager
def _progress() -> Iterator[Any]:
    """Shows a progress bar if stderr is a terminal. Yields a function (partition, done, total) -> progress function."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_: lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("")

        def begin(number: int, done: int, count: int) -> Any:
            def show(step: str, at: int, end: int) -> None:
                progress.update(task, description=f"{done + 1} of {count}, partition {number}: {step}", completed=at,
                                total=end)
            return show

        yield begin


def _plain(report: RebuildReport) -> dict[str, Any]:
    return {
        "partition": report.partition, "position": report.position, "rows": report.rows,
        "should_be": report.expected_rows,
        "differ": {name: dict(counts) for name, counts in sorted(report.differing.items())}, "keys": report.keys,
        "out_of_turn": report.stale_keys, "written": report.written, "checksum": report.checksum,
    }


def _show(reports: list[RebuildReport]) -> None:
    table = Table("partition", "rows", "should be", "differ")
    for name in ("such as", "checksum"):
        table.add_column(name, overflow="fold")
    for report in reports:
        differ = [f"{name}: " + ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
                  for name, counts in sorted(report.differing.items())]
        table.add_row(str(report.partition), f"{report.rows:,}", f"{report.expected_rows:,}", "\n".join(differ),
                      "\n".join(report.keys), report.checksum)
    Console().print(table)


def _sum_up(reports: list[RebuildReport], check: bool) -> None:
    differing = sum(sum(counts.values()) for report in reports for counts in report.differing.values())
    stale, written = sum(report.stale_keys for report in reports), sum(report.written for report in reports)
    if check:
        typer.echo(f"{differing} rows differ from the log; `attn rebuild` replaces them" if differing else
                   "the view equals the log", err=True)
        if stale:
            typer.echo(f"{stale} stale rows; the next worker that starts repairs them", err=True)
    else:
        typer.echo(f"replaced {differing} rows ({written} records written)" if written else
                   "the view equals the log; nothing was written", err=True)
