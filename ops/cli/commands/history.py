"""`attn history`: writes facts to ClickHouse; rebuilds the tables; exports facts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ops import config
from ops.cli import logging_setup
from ops.cli.commands.roles import run_role
from ops.cli.data.clickhouse_reader import open_reader
from ops.cli.data.kafka import kafka_errors
from ops.cli.options import ClickHouse, DataDir, Instance, Kafka
from ops.embedded.broker import BrokerError, EmbeddedBroker
from ops.embedded.stack import lock_data_dir
from ops.errors import UserError
from ops.process.environment import leave_secrets
from schemas.settings import Settings
from schemas.versions import UnsupportedVersion

__all__ = ["app"]

app = typer.Typer(invoke_without_command=True, help="Run the history: it writes facts to ClickHouse until a signal.")

Rebuild = Annotated[bool, typer.Option(
    "--rebuild", help="Build the tables anew from the facts in Kafka, swap them in, and exit.")]
MissingFacts = Annotated[Literal["fail", "keep", "drop"], typer.Option(
    "--missing-facts", help="With --rebuild, for rows whose facts are no longer in Kafka: fail, keep the rows as they "
                            "are, or drop them.")]
OlderFlag = Annotated[Literal["refuse", "keep", "drop"] | None, typer.Option(
    "--older", hidden=True)]  # the old name of --missing-facts


_TIMES = ["%Y-%m-%d", "%Y-%m", "%Y-%m-%dT%H:%M:%S"]
From = Annotated[datetime, typer.Option("--from", formats=_TIMES, help="Begin of the period, UTC.")]
To = Annotated[datetime | None, typer.Option(
    "--to", formats=_TIMES, help="End of the period (exclusive), UTC. Default: now.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to write to.")]
By = Annotated[Literal["month", "day"], typer.Option("--by", help="Period of one file.")]


@app.callback()
def history(
    context: typer.Context, data_dir: DataDir = None, kafka: Kafka = None, clickhouse: ClickHouse = None,
    instance: Instance = None, rebuild: Rebuild = False, missing_facts: MissingFacts = "fail",
    older: OlderFlag = None,
) -> None:
    """Run the history: it writes facts to ClickHouse until a signal."""
    if context.invoked_subcommand is not None:
        return
    policy: Literal["refuse", "keep", "drop"] = "refuse" if missing_facts == "fail" else missing_facts
    if policy == "refuse" and older is not None:
        policy = older
    if policy != "refuse" and not rebuild:
        raise UserError("--missing-facts needs --rebuild", code=2)
    settings = config.load_settings(data_dir=data_dir, kafka=kafka, clickhouse=clickhouse, instance=instance)
    if rebuild:
        _rebuild(settings, policy)
        return
    if not settings.clickhouse:
        leave_secrets("history")
        _confine(settings)
    run_role("history", "streams.history.main", settings)


def _confine(settings: Settings) -> None:
    from streams.history.embedded.sandbox import confine

    logging_setup.configure("history", settings)
    log = structlog.get_logger("attn.history")
    if (why := confine(settings)) is not None:
        log.warning("the process is not confined to ClickHouse's files; queries are checked anyway", reason=why)


def _rebuild(settings: Settings, older: Literal["refuse", "keep", "drop"]) -> None:
    from streams.history.clickhouse.client import ClickHouseUnavailable
    from streams.history.clickhouse.migrate import MigrationError
    from streams.history.rebuild.group_lock import RebuildError
    from streams.history.rebuild.rebuild import Report, rebuild

    async def work() -> Report:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("facts", total=None)
            async with _broker(settings) as reached:
                ours = reached is not settings
                return await rebuild(reached, older, lambda count: bar.update(task, advance=count), sure=ours)

    try:
        with kafka_errors(settings):
            report = asyncio.run(work())
    except (RebuildError, ClickHouseUnavailable, MigrationError, UnsupportedVersion) as error:
        raise UserError(str(error)) from None
    except TimeoutError:
        raise UserError(f"Kafka at {settings.kafka} does not answer") from None
    table = Table("table", "facts before", "after", "checksum before", "after")
    for name, before in report.before.items():
        after = report.after[name]
        checksums = (f"{counts.checksum:016x}" for counts in (before, after))
        table.add_row(name, f"{before.facts:,}", f"{after.facts:,}", *checksums)
    Console().print(table)
    typer.echo(
        f"{report.read:,} records read, {report.kept:,} older rows taken over, {report.refused:,} refused", err=True)


@app.command()
def export(
    begin: From, out: Out, end: To = None, by: By = "month", data_dir: DataDir = None, clickhouse: ClickHouse = None,
) -> None:
    """Export the facts of a period as Parquet files, one for each month or day.

    Works while `attn history` runs, and without it. Each file is written completely before it replaces an older one.
    """
    from streams.history.clickhouse import client as clients
    from streams.history.clickhouse.export import export as files

    settings = config.load_settings(data_dir=data_dir, clickhouse=clickhouse)
    low, high = (when.replace(tzinfo=UTC) for when in (begin, end or datetime.now(UTC)))
    if low >= high:
        raise UserError(
            f"the period is empty: --from {low:%Y-%m-%d %H:%M} is not before --to {high:%Y-%m-%d %H:%M}", code=2)
    rows = size = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with open_reader(settings) as (client, database):
            for file in files(client, database, low, high, by, out):
                typer.echo(f"{file.path}  {file.rows:,} rows, {file.size:,} bytes")
                rows, size = rows + file.rows, size + file.size
    except clients.ClickHouseError as failed:
        raise UserError(str(failed)) from None
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from None
    typer.echo(f"{rows:,} rows, {size:,} bytes", err=True)


@asynccontextmanager
async def _broker(settings: Settings) -> AsyncIterator[Settings]:
    """Yields settings with a reachable Kafka. Without ATTN_KAFKA or --kafka it starts the embedded broker of an
    `attn up` that does not run, and stops it afterwards."""
    if "kafka" in settings.model_fields_set or not (settings.data_dir / "broker").is_dir():
        yield settings
        return
    with lock_data_dir(settings.data_dir):
        broker = EmbeddedBroker(settings.data_dir)
        try:
            await broker.start()
        except BrokerError as error:
            raise UserError(str(error)) from None
        try:
            yield settings.model_copy(update={"kafka": broker.bootstrap})
        finally:
            await broker.stop()
