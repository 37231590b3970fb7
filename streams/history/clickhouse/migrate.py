"""Applies numbered SQL migrations to ClickHouse. Table `migrations` has number and SHA-256 of each applied file.

Files are frozen: an applied file is never edited; a change is a new file with the next number.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any, Protocol

__all__ = ["Applied", "Client", "Migration", "MigrationError", "applied", "apply", "fill", "packaged", "pending",
           "preparing"]

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_TABLE = """
CREATE TABLE IF NOT EXISTS {database}.migrations {on_cluster}
(
    number     UInt32 COMMENT 'Number of the file',
    name       String COMMENT 'Name of the file',
    checksum   String COMMENT 'SHA-256 of its text',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied'
)
ENGINE = {replicated}MergeTree ORDER BY number
COMMENT 'Which numbered changes of this database were applied'
"""
_EXISTS = "SELECT count() FROM system.tables WHERE database = {name:String} AND name = 'migrations'"
_APPLIED = "SELECT number, checksum, applied_at FROM {database}.migrations ORDER BY number, applied_at"
_NOTE = """
INSERT INTO {database}.migrations (number, name, checksum)
SELECT {number:UInt32}, {name:String}, {checksum:String}
"""


class MigrationError(Exception):
    """Database and migration files do not match. `str(error)` is for the operator."""


class Client(Protocol):
    """Methods of clickhouse-connect's client that are used here."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> Any: ...
    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """An applied migration: checksum of its text, and when it was applied."""

    checksum: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str, cluster: str = "") -> Iterator[str]:
        """Returns the statements in order. Each is idempotent: after a crash the next start runs all of them again."""
        for statement in re.split(r";\s*\n", self.text):
            code = "\n".join(line for line in statement.splitlines() if not line.lstrip().startswith("--")).strip()
            if code:
                yield fill(code, database, cluster)


def fill(statement: str, database: str, cluster: str = "") -> str:
    """Fills in the placeholders of a statement, for one server or for all servers of a replicated cluster."""
    values = {
        "{database}": f"`{database}`", "{on_cluster}": f"ON CLUSTER `{cluster}`" if cluster else "",
        "{replicated}": "Replicated" if cluster else "",
    }
    for name, value in values.items():
        statement = statement.replace(name, value)
    # Replicated tables have their own setting for the deduplication window; the size is the same.
    return statement.replace("non_replicated_", "replicated_") if cluster else statement


def packaged() -> list[Migration]:
    """Returns the migrations of this package by number. Raises MigrationError if a number is missing."""
    migrations = [
        Migration(int(match[1]), file.name, file.read_text(encoding="utf-8"))
        for file in resources.files(__package__).joinpath("migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    migrations.sort(key=lambda migration: migration.number)
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise MigrationError(f"the numbers of the migrations have gaps: {[migration.name for migration in migrations]}")
    return migrations


def pending(client: Client, database: str, files: list[Migration] | None = None) -> list[Migration]:
    """Returns the migrations that are not applied yet. Raises MigrationError if an applied one is unknown, or its text
    differs."""
    files = packaged() if files is None else files
    known, done = {migration.number: migration for migration in files}, applied(client, database)
    for number, what in done.items():
        if number not in known:
            raise MigrationError(
                f"database {database} has migration {number}, which this attn does not know; upgrade attn")
        if known[number].checksum != what.checksum:
            raise MigrationError(
                f"{known[number].name} was applied with another text; restore it and add the change as a new file")
    return [migration for migration in files if migration.number not in done]


def applied(client: Client, database: str) -> dict[int, Applied]:
    """Returns the applied migrations by number. If several processes applied one at once, the first one counts."""
    if not client.query(_EXISTS, parameters={"name": database}).result_rows[0][0]:
        return {}
    rows = client.query(fill(_APPLIED, database)).result_rows
    return {number: Applied(checksum, at) for number, checksum, at in reversed(rows)}


def preparing(database: str, cluster: str = "") -> list[str]:
    """Returns the statements that create the database and its table `migrations`."""
    create = "CREATE DATABASE IF NOT EXISTS {database} {on_cluster}"
    return [fill(create, database, cluster), fill(_TABLE, database, cluster).strip()]


def apply(client: Client, database: str, cluster: str = "", files: list[Migration] | None = None) -> list[str]:
    """Applies pending migrations and returns their names. Several processes may run it at once: statements are
    idempotent."""
    todo = pending(client, database, files)
    if todo:
        for statement in preparing(database, cluster):
            client.command(statement)
    for migration in todo:
        for statement in migration.statements(database, cluster):
            client.command(statement)
        client.command(fill(_NOTE, database), parameters={
            "number": migration.number, "name": migration.name, "checksum": migration.checksum,
        })
        log.info("migration %s applied", migration.name)
    return [migration.name for migration in todo]
