"""Numbered, frozen SQL files -> the tables of ClickHouse. `migrations` there says which were applied, and their text's
checksum: a file that was applied is never edited, a change is the next number.
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
    """The database and the files don't agree; `str(error)` is for the operator."""


class Client(Protocol):
    """Of clickhouse-connect's client: what is needed here."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> Any: ...
    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True)
class Applied:
    checksum: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str, cluster: str = "") -> Iterator[str]:
        """What to run, in order. Each statement can be run twice: a crash between two is mended by the next start."""
        for statement in re.split(r";\s*\n", self.text):
            code = "\n".join(line for line in statement.splitlines() if not line.lstrip().startswith("--")).strip()
            if code:
                yield fill(code, database, cluster)


def fill(statement: str, database: str, cluster: str = "") -> str:
    """A statement for one server, or for all of a replicated cluster."""
    values = {
        "{database}": f"`{database}`", "{on_cluster}": f"ON CLUSTER `{cluster}`" if cluster else "",
        "{replicated}": "Replicated" if cluster else "",
    }
    for name, value in values.items():
        statement = statement.replace(name, value)
    # Replicated tables have a window of their own, of the same size.
    return statement.replace("non_replicated_", "replicated_") if cluster else statement


def packaged() -> list[Migration]:
    """The files of this package by number."""
    found = [
        Migration(int(match[1]), file.name, file.read_text(encoding="utf-8"))
        for file in resources.files(__package__).joinpath("migrations").iterdir()
        if (match := _NAME.fullmatch(file.name))
    ]
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"the numbers of the migrations have gaps: {[migration.name for migration in found]}")
    return found


def pending(client: Client, database: str, files: list[Migration] | None = None) -> list[Migration]:
    """The files that were not applied yet. MigrationError: an applied one has another text now, or is not known."""
    files = packaged() if files is None else files
    known, done = {migration.number: migration for migration in files}, applied(client, database)
    for number, what in done.items():
        if number not in known:
            raise MigrationError(f"database {database} has migration {number}, which this attn is too old to know")
        if known[number].checksum != what.checksum:
            raise MigrationError(f"{known[number].name} was applied with another text; a change is a new file")
    return [migration for migration in files if migration.number not in done]


def applied(client: Client, database: str) -> dict[int, Applied]:
    """What `migrations` says, by number. Several processes may have applied one at once: the first of them counts."""
    if not client.query(_EXISTS, parameters={"name": database}).result_rows[0][0]:
        return {}
    rows = client.query(fill(_APPLIED, database)).result_rows
    return {number: Applied(checksum, at) for number, checksum, at in reversed(rows)}


def preparing(database: str, cluster: str = "") -> list[str]:
    """Statements for the database and its list of migrations."""
    create = "CREATE DATABASE IF NOT EXISTS {database} {on_cluster}"
    return [fill(create, database, cluster), fill(_TABLE, database, cluster).strip()]


def apply(client: Client, database: str, cluster: str = "", files: list[Migration] | None = None) -> list[str]:
    """Apply what is pending; the names of it. May run in several processes at once: every statement is idempotent."""
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
