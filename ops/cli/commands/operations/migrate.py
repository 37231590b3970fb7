"""`attn migrate`: applies pending migrations and retention to the ClickHouse tables."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ops import config
from ops.cli.options import ClickHouse, DataDir
from ops.errors import UserError
from schemas.settings import Settings

__all__ = ["migrate"]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the SQL without running it.")]
Status = Annotated[bool, typer.Option("--status", help="List the migrations and which are applied.")]


def migrate(
    data_dir: DataDir = None, clickhouse: ClickHouse = None, dry_run: DryRun = False, status: Status = False,
) -> None:
    """Apply pending ClickHouse migrations, and the retention of rows (ATTN_HISTORY_DAYS).

    Safe to repeat. It fails if the text of an applied migration has changed. `attn history` does the same when it
    starts: always with embedded ClickHouse, and with a server unless ATTN_CLICKHOUSE_MIGRATE=false.
    """
    from streams.history.clickhouse import client as clients
    from streams.history.clickhouse import migrate as migrations
    from streams.history.clickhouse import retention

    settings = config.load_settings(data_dir=data_dir, clickhouse=clickhouse)
    database, cluster = settings.clickhouse_database, settings.clickhouse_cluster
    try:
        with closing(_connect(settings, reads=dry_run or status)) as client, clients.translate_errors():
            if status:
                return _show(migrations.packaged(), migrations.applied(client, database), database)
            if dry_run:
                pending = migrations.pending(client, database)
                sql = migrations.preparing(database, cluster) if pending else []
                sql += [part for file in pending for part in (f"-- {file.name}", *file.statements(database, cluster))]
                sql += retention.retention_statements(client, database, settings)
                for statement in sql:
                    typer.echo(statement if statement.startswith("--") else f"{statement};\n")
                return typer.echo(f"{len(pending)} migrations are pending at {_address(settings)}", err=True)
            retention.check(settings)
            names = migrations.apply(client, database, cluster)
            changes = list(retention.retention_statements(client, database, settings))
            for statement in changes:
                client.command(statement)
            for change in [*names, *changes]:
                typer.echo(f"applied {change}", err=True)
            return typer.echo(f"all migrations are applied at {_address(settings)}", err=True)
    except migrations.MigrationError as error:
        raise UserError(str(error)) from None
    except clients.ClickHouseUnavailable as unavailable:
        raise UserError(f"ClickHouse: {unavailable}") from None


def _connect(settings: Settings, reads: bool) -> Any:
    """Connects to the server, or to chdb. Only one process can open chdb's directory, so reads go to the port of the
    process that has opened it."""
    from streams.history.clickhouse import client as clients

    if settings.clickhouse:
        return clients.connect(settings, clients.MIGRATION_SECONDS)
    if reads and settings.clickhouse_read_url:
        return clients.connect(settings.model_copy(update={"clickhouse": settings.clickhouse_read_url}))
    return clients.connect(settings)


def _address(settings: Settings) -> str:
    """Returns the address of the server without its password, or chdb's directory."""
    from streams.history.clickhouse import client as clients

    return settings.clickhouse.rpartition("@")[2] or str(clients.directory(settings))


def _show(files: list[Any], applied: dict[int, Any], database: str) -> None:
    table = Table("number", "file", "applied at (UTC)", "text")
    packaged = {file.number: file for file in files}
    for number in sorted(packaged.keys() | applied.keys()):
        file, done = packaged.get(number), applied.get(number)
        text = "unknown to this attn" if file is None else "pending" if done is None else (
            "as it is" if file.checksum == done.checksum else "CHANGED since")
        table.add_row(f"{number:04}", file.name if file else "?", f"{done.at:%Y-%m-%d %H:%M:%S}" if done else "", text)
    Console().print(table)
    typer.echo(f"database {database}", err=True)
