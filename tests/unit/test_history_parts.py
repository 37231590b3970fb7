"""The history's parts: columns, bisection of what ClickHouse refuses, where to resume, migrations, backoff."""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from schemas.facts import Fact, Outcome, encode_fact
from streams.history import migrate
from streams.history.background import Background
from streams.history.backoff import Backoff
from streams.history.client import Refused, Unavailable, database_of
from streams.history.columns import COLUMNS, columns, digest
from streams.history.resume import Offsets, resume
from streams.history.writer import Batch, Writer


class Record(msgspec.Struct):
    offset: int
    value: bytes | None
    partition: int = 0
    timestamp: int = 0
    topic: str = "attn.facts"
    key: bytes | None = b"w"
    headers: tuple[tuple[str, bytes], ...] = ()


def fact(number: int, **fields: Any) -> Fact:
    return Fact(ws="w", pos=number, index=0, event_id=f"/s e{number}", time=number, type="run.failed", subject="r",
                **fields)


def facts(count: int) -> list[Record]:
    return [Record(number, encode_fact(fact(number))) for number in range(count)]


# --- columns ---


def test_every_field_of_a_fact_has_its_column() -> None:
    full = Fact(
        ws="w", pos=7, index=3, event_id="/s e", time=11, at=12, type="plan.approved", subject="p", item="ibx_1",
        kind="plan_approval", priority="high", title="T", cluster="c", stack="s", case_id="case", state="OPEN",
        session_id="se", task_id="ta", proof_id="pr", actor="ann", resolved_action="approved", seconds_open=1.5,
        target_user_id="bob", target_role="OWNER", stale=True,
    )
    row = dict(zip(COLUMNS, next(zip(*columns([full], [5]), strict=True)), strict=True))
    assert row == {
        "workspace_id": "w", "occurred_at": 11, "accepted_at": 12, "event_id": "/s e", "type": "plan.approved",
        "subject": "p", "item_id": "ibx_1", "kind": "plan_approval", "priority": "high", "title": "T", "cluster": "c",
        "stack": "s", "case_id": "case", "case_state": "OPEN", "session_id": "se", "task_id": "ta", "proof_id": "pr",
        "actor": "ann", "resolved_action": "approved", "seconds_open": 1.5, "target_user_id": "bob",
        "target_role": "OWNER", "is_stale": True, "log_partition": 5, "position": 7, "fact_index": 3,
    }
    unused = {"derived", "v"}  # derived facts don't get here
    assert len(row) == len(msgspec.structs.fields(Fact)) - len(unused) + 1


def test_what_a_fact_does_not_say_is_empty_and_only_seconds_open_is_null() -> None:
    row = dict(zip(COLUMNS, next(zip(*columns([fact(1)], [0]), strict=True)), strict=True))
    assert row["seconds_open"] is None
    assert all(row[name] == "" for name in ("item_id", "kind", "title", "actor", "target_role", "case_state"))


def test_the_digest_takes_any_text() -> None:
    assert digest("wä", "x") == zlib.crc32("wä\nx".encode())
    assert digest("w", "\ud800") != digest("w", "\ud801")


# --- the writer ---


class Picky:
    """A ClickHouse without rows that refuses some."""

    def __init__(self, bad: set[str], error: Exception) -> None:
        self.bad, self.error = bad, error
        self.rows: list[str] = []
        self.inserts = 0

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None:
        self.inserts += 1
        events = data[COLUMNS.index("event_id")]
        if self.bad & set(events):
            raise self.error
        self.rows += events

    def last(self, partition: int) -> None:
        return None

    def jumps(self, partition: int, days: float) -> list[int]:
        return []

    def digests(self, partition: int, high: int) -> array[int]:
        return array("I")

    def events(self, *_: Any) -> set[Any]:
        return set()

    known = events


def batch_of(records: Sequence[Record]) -> Batch:
    batch = Batch()
    batch.add(0, records)
    return batch


def written(store: Picky, records: list[Record], tries: int = 1) -> list[tuple[int, str]]:
    """Offset and reason of the dead letters."""
    writer = Writer(store, 30)
    writer.open([0])
    plan = writer.plan(batch_of(records))
    for _ in range(tries - 1):
        with pytest.raises(Unavailable):
            writer.write(plan)
    writer.write(plan)
    return [(letter.offset, letter.reason) for letter in plan.letters]


def test_only_facts_get_in_and_what_cannot_be_read_is_kept() -> None:
    outcome = Outcome(ws="w", pos=9, index=0, command="c", edge="e", user="u", status=200, body=msgspec.Raw(b"{}"))
    records = [
        *facts(2), Record(2, b"{"), Record(3, None), Record(4, encode_fact(outcome)),
        Record(5, encode_fact(fact(9, derived=True))), Record(6, encode_fact(fact(10))), Record(7, b'{"t":"\xff"}'),
    ]
    store = Picky(set(), Refused("no"))
    letters = written(store, records)
    assert store.rows == ["/s e0", "/s e1", "/s e10"]
    assert [offset for offset, _ in letters] == [2, 3, 7]
    assert all(reason.startswith("not a fact: ") for _, reason in letters)


@pytest.mark.parametrize("bad", [{3}, {0}, {99}, {0, 1, 50, 99}, set(range(100))])
def test_a_refused_row_goes_to_dead_letters_and_the_rest_goes_in(bad: set[int]) -> None:
    store = Picky({f"/s e{number}" for number in bad}, Refused("too long"))
    assert sorted(written(store, facts(100))) == [(number, "too long") for number in sorted(bad)]
    assert sorted(store.rows) == sorted(f"/s e{number}" for number in range(100) if number not in bad)


def test_a_row_refused_for_a_reason_of_its_own_is_found_by_what_gets_in_without_it() -> None:
    store = Picky({"/s e7"}, Unavailable("code 999", answered=True))
    letters = written(store, facts(100), tries=4)
    assert letters == [(7, "code 999")]
    assert len(store.rows) == 99


def test_an_outage_blames_no_row() -> None:
    store = Picky({f"/s e{number}" for number in range(100)}, Unavailable("read-only", answered=True))
    writer = Writer(store, 30)
    writer.open([0])
    plan = writer.plan(batch_of(facts(100)))
    for _ in range(50):
        with pytest.raises(Unavailable):
            writer.write(plan)
    assert store.inserts < 100
    store.bad = set()
    writer.write(plan)
    assert len(store.rows) == 100
    assert not plan.letters


def test_a_batch_knows_its_offsets_and_its_age() -> None:
    batch = Batch()
    batch.add(0, [Record(5, b"", timestamp=9000), Record(6, b"", timestamp=9500)])
    batch.add(1, [Record(2, b"", partition=1, timestamp=8000)])
    assert (batch.count, batch.next, batch.oldest) == (3, {0: 7, 1: 3}, 8.0)


# --- where to resume ---


def resumed(offsets: Offsets, there: set[int], silent: Sequence[int] = ()) -> tuple[int, str | None]:
    """`there`: offsets whose facts ClickHouse has; `silent`: offsets that hold no facts."""

    async def read(low: int, high: int) -> list[tuple[int, Fact]]:
        return [(offset, fact(offset)) for offset in range(low, min(high, offsets.end)) if offset not in silent]

    async def present(found: Sequence[Fact]) -> list[bool]:
        return [one.pos in there for one in found]

    return asyncio.run(resume(offsets, read, present))


def test_resume_at_the_committed_offset_if_clickhouse_bears_it_out() -> None:
    assert resumed(Offsets(0, 1000, 900), set(range(900))) == (900, None)
    assert resumed(Offsets(0, 1000, 900), set(range(950))) == (900, None)
    assert resumed(Offsets(0, 1000, None), set(range(900))) == (0, None)
    assert resumed(Offsets(0, 0, None), set()) == (0, None)
    assert resumed(Offsets(0, 50, 50), set(), silent=range(50)) == (0, None)
    assert resumed(Offsets(900, 900, 900), set()) == (900, None)


@pytest.mark.parametrize(("offsets", "there", "start"), [
    (Offsets(0, 1000, 900), range(880), 880),  # the topic fell back and grew again
    (Offsets(0, 1000, 900), range(10), 10),
    (Offsets(0, 1000, 900), range(0), 0),  # ClickHouse is empty
    (Offsets(400, 1000, 900), range(10), 400),
    (Offsets(0, 800, 900), range(800), 800),  # the topic ends before
    (Offsets(0, 800, 900), range(700), 700),
    (Offsets(500, 1000, 400), range(400), 500),  # retention was faster
    (Offsets(0, 10_000_000, 9_000_000), range(0), 0),
])
def test_resume_goes_back_to_what_clickhouse_has_and_says_so(offsets: Offsets, there: range, start: int) -> None:
    found, said = resumed(offsets, set(there))
    assert found == start
    assert said


# --- migrations ---


class Database:
    """Remembers commands, and answers what the runner asks."""

    def __init__(self, applied: dict[int, str] | None = None) -> None:
        self.applied = applied
        self.commands: list[str] = []

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> None:
        self.commands.append(cmd)
        if parameters:
            self.applied = {**(self.applied or {}), parameters["number"]: parameters["checksum"]}

    def query(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        rows = [(int(self.applied is not None),)] if "system.tables" in query else list((self.applied or {}).items())
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
    with pytest.raises(migrate.MigrationError, match="too old"):
        migrate.pending(database, "attn", files[:1])


def test_a_cluster_gets_replicated_tables_everywhere() -> None:
    text = "\n".join(statement for file in migrate.packaged() for statement in file.statements("attn", "main"))
    assert text.count("ON CLUSTER `main`") == text.count("CREATE ")
    assert "ENGINE = ReplicatedMergeTree" in text
    assert " replicated_deduplication_window" in text
    assert "non_replicated" not in text


def test_frozen() -> None:
    """An applied file is never edited: a change is the next number. (Add its line here.)"""
    assert {file.name: file.checksum[:16] for file in migrate.packaged()} == FROZEN


FROZEN = {
    "0001_activity.sql": "f9e7663afedbf677",
    "0002_activity_hourly.sql": "7a4e043d194a77c7",
}


# --- small things ---


def test_backoff_doubles_with_jitter_up_to_its_most() -> None:
    backoff = Backoff(0.2, 10)
    waits = [backoff.next() for _ in range(12)]
    for number, wait in enumerate(waits):
        most = min(10, 0.2 * 2**number)
        assert most / 2 <= wait <= most
    backoff.reset()
    assert backoff.next() <= 0.2


async def test_background_runs_in_order_and_hands_errors_back() -> None:
    background = Background("test")
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

    assert database_of(Settings(_env_file=None)) == "attn"
    assert database_of(Settings(clickhouse="http://u:p@h:8123", _env_file=None)) == "attn"
    assert database_of(Settings(clickhouse="https://u:p@h:8443/other", _env_file=None)) == "other"
