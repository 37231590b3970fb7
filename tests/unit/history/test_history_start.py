"""The history before its first insert: resume offsets, migrations, retries, worker thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from schemas.facts import Fact
from streams.history.clickhouse import migrate
from streams.history.resume import Offsets, resume
from streams.runtime.backoff import Backoff
from streams.runtime.worker_thread import WorkerThread


def _fact(position: int) -> Fact:
    return Fact(ws="ws_1", pos=position, index=0, event_id=f"e{position}", time=0, type="plan.approved", subject="s")


def resumed(offsets: Offsets, held: set[int], silent: Sequence[int] = ()) -> tuple[int, str | None]:
    """Returns the offset to resume from. `held`: offsets whose facts ClickHouse has; `silent`: offsets without
    facts."""

    async def read(low: int, high: int) -> list[tuple[int, Fact]]:
        return [(offset, _fact(offset)) for offset in range(low, min(high, offsets.end)) if offset not in silent]

    async def present(facts: Sequence[Fact]) -> list[bool]:
        return [fact.pos in held for fact in facts]

    return asyncio.run(resume(offsets, read, present))


def test_resume_starts_at_the_committed_offset_if_clickhouse_has_the_rows_before() -> None:
    assert resumed(Offsets(0, 1000, 900), set(range(900))) == (900, None)
    assert resumed(Offsets(0, 1000, 900), set(range(950))) == (900, None)
    assert resumed(Offsets(0, 1000, None), set(range(900))) == (0, None)
    assert resumed(Offsets(0, 0, None), set()) == (0, None)
    assert resumed(Offsets(0, 50, 50), set(), silent=range(50)) == (0, None)
    assert resumed(Offsets(900, 900, 900), set()) == (900, None)


@pytest.mark.parametrize(("offsets", "held", "start"), [
    (Offsets(0, 1000, 900), range(880), 880),  # the topic was truncated, and is longer again
    (Offsets(0, 1000, 900), range(10), 10),
    (Offsets(0, 1000, 900), range(0), 0),  # ClickHouse has no rows
    (Offsets(400, 1000, 900), range(10), 400),
    (Offsets(0, 800, 900), range(800), 800),  # the topic ends before the committed offset
    (Offsets(0, 800, 900), range(700), 700),
    (Offsets(500, 1000, 400), range(400), 500),  # retention deleted records that were not read
    (Offsets(0, 10_000_000, 9_000_000), range(0), 0),
])
def test_resume_goes_back_to_the_rows_in_clickhouse_with_a_log_line(offsets: Offsets, held: range, start: int) -> None:
    offset, log_lines = resumed(offsets, set(held))
    assert offset == start
    assert log_lines


# --- migrations ---


class Database:
    """Records the commands of the migration runner, and answers its queries."""

    def __init__(self, applied: dict[int, str] | None = None) -> None:
        self.applied = applied
        self.commands: list[str] = []

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> None:
        self.commands.append(cmd)
        if parameters:
            self.applied = {**(self.applied or {}), parameters["number"]: parameters["checksum"]}

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        applied = [(*item, datetime(2026, 1, 1)) for item in (self.applied or {}).items()]
        rows = [(int(self.applied is not None),)] if "system.tables" in query else applied
        return type("Result", (), {"result_rows": rows})


def test_migrations_are_applied_once_in_order() -> None:
    database = Database()
    names = migrate.apply(database, "attn")
    assert names == [migration.name for migration in migrate.packaged()]
    assert names[:2] == ["0001_activity.sql", "0002_activity_hourly.sql"]
    assert not [command for command in database.commands if "{on_cluster}" in command or "{database}" in command]
    done = len(database.commands)
    assert migrate.apply(database, "attn") == []
    assert len(database.commands) == done


def test_a_changed_or_unknown_migration_is_refused() -> None:
    files = migrate.packaged()
    database = Database({migration.number: migration.checksum for migration in files})
    changed = [migrate.Migration(1, files[0].name, files[0].text + " "), *files[1:]]
    with pytest.raises(migrate.MigrationError, match="another text"):
        migrate.pending(database, "attn", changed)
    with pytest.raises(migrate.MigrationError, match="does not know"):
        migrate.pending(database, "attn", files[:1])


def test_a_cluster_gets_replicated_tables_everywhere() -> None:
    text = "\n".join(statement for file in migrate.packaged() for statement in file.statements("attn", "main"))
    assert text.count("ON CLUSTER `main`") == sum(text.count(word) for word in ("CREATE ", "ALTER ", "TRUNCATE "))
    assert "ENGINE = ReplicatedMergeTree" in text
    assert " replicated_deduplication_window" in text
    assert "non_replicated" not in text


def test_applied_migrations_have_not_changed() -> None:
    """Files of applied migrations never change; a change gets the next number. Add its digest here."""
    assert {file.name: file.checksum[:16] for file in migrate.packaged()} == FROZEN


FROZEN = {
    "0001_activity.sql": "f9e7663afedbf677",
    "0002_activity_hourly.sql": "7a4e043d194a77c7",
    "0003_items.sql": "5c64a7ac0de7e78b",
    "0004_views.sql": "2a288520b95cb8f9",
    "0005_decisions.sql": "cfbada10b45be054",
}


# --- small things ---


def test_backoff_doubles_with_jitter_up_to_its_maximum() -> None:
    backoff = Backoff(0.2, 10)
    waits = [backoff.next() for _ in range(12)]
    for number, wait in enumerate(waits):
        maximum = min(10, 0.2 * 2**number)
        assert maximum / 2 <= wait <= maximum
    backoff.reset()
    assert backoff.next() <= 0.2


async def test_the_worker_thread_runs_calls_in_order_and_raises_their_errors() -> None:
    background = WorkerThread("test")
    seen: list[int] = []

    def work(number: int) -> str:
        time.sleep(0.01)
        seen.append(number)
        return threading.current_thread().name

    first = asyncio.ensure_future(background(work, 1))
    await asyncio.sleep(0)
    first.cancel()
    assert await background(work, 2) == "test"
    assert seen == [1, 2]
    with pytest.raises(ZeroDivisionError):
        await background(lambda: 1 / 0)
    background.stop()


def test_the_database_is_that_of_the_url_or_attn() -> None:
    from schemas.settings import Settings

    assert Settings(_env_file=None).clickhouse_database == "attn"
    assert Settings(clickhouse="http://u:p@h:8123", _env_file=None).clickhouse_database == "attn"
    assert Settings(clickhouse="https://u:p@h:8443/other", _env_file=None).clickhouse_database == "other"
