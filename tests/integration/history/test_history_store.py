"""Tables, migrations and queries of the history on embedded ClickHouse."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.clickhouse.facts import BEGIN, HOUR, Feeder, answers, assert_exact

from schemas.facts import Fact, encode_fact
from schemas.scalars import LATEST
from schemas.settings import Settings
from schemas.topics import partition_of
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.client import ClickHouseUnavailable, RowsRefused
from streams.history.clickhouse.columns import COLUMNS, MIN_POSITION_JUMP, columns, digest, fact_position
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.writer import PendingBatch, Writer

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")

# Columns of migrations after the second one.
LATER = {
    "opened", "decision_id", "option", "does", "reason", "role", "viewed", "seconds_to_decide", "seconds_to_apply",
}


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[Any]:
    connection = client.connect(Settings(data_dir=tmp_path, _env_file=None))
    migrate.apply(connection, "attn")
    yield connection
    connection.close()


@pytest.fixture
def store(clickhouse: Any) -> ActivityRepository:
    return ActivityRepository(clickhouse, "attn", local=True)


def put(store: ActivityRepository, facts: list[Fact], token: str | None = None) -> None:
    store.insert(columns(facts, [partition_of(fact.ws, 4) for fact in facts]), token or uuid.uuid4().hex)


def of(feeder: Feeder, partition: int) -> list[Fact]:
    return feeder.by_partition[partition]


def test_migrations_run_once_and_comment_every_table_and_column(clickhouse: Any) -> None:
    assert migrate.apply(clickhouse, "attn") == []
    assert [row[1] for row in clickhouse.query("SELECT * FROM attn.migrations ORDER BY number").result_rows] == [
        file.name for file in migrate.packaged()
    ]
    without_comment = clickhouse.query(
        "SELECT table, name FROM system.columns WHERE database = 'attn' AND comment = '' AND table NOT LIKE '%_mv' "
        "UNION ALL SELECT name, '' FROM system.tables WHERE database = 'attn' AND comment = ''"
    ).result_rows
    assert without_comment == []


def test_a_table_of_a_later_migration_has_the_rows_from_before(tmp_path: Path) -> None:
    clickhouse, files = client.connect(Settings(data_dir=tmp_path, _env_file=None)), migrate.packaged()
    migrate.apply(clickhouse, "attn", files=files[:2])
    feeder = Feeder(4)
    old = [columns([fact], [partition_of(fact.ws, 4)]) for fact in feeder.some(50, repeats=False)]
    names = [name for name in COLUMNS if name not in LATER]
    for row in old:
        kept = [value for name, value in zip(COLUMNS, row, strict=True) if name not in LATER]
        clickhouse.insert("attn.activity", kept, column_names=names, column_oriented=True)
    assert migrate.apply(clickhouse, "attn") == [file.name for file in files[2:]]
    for statement in files[2].statements("attn"):  # repeated, as after a kill before the migration was recorded
        clickhouse.command(statement)
    for fact in feeder.all:
        fact.opened = False
    put(ActivityRepository(clickhouse, "attn", local=True), feeder.some(50, repeats=False))
    assert_exact(answers(clickhouse), feeder.all)
    in_order = "SELECT sum(rows) FROM system.projection_parts WHERE database = 'attn' AND name = 'by_case' AND active"
    deadline = time.monotonic() + 60
    while clickhouse.query(in_order).result_rows != [(100,)]:  # ClickHouse projects older parts later
        assert time.monotonic() < deadline
    clickhouse.close()


def test_rows_are_read_as_they_were_written(clickhouse: Any, store: ActivityRepository) -> None:
    fact = Fact(
        ws="w\t'", pos=2**50, index=7, event_id="/s é\n\0", time=7_258_118_399_999_999, at=BEGIN, type="plan.approved",
        subject="p", title="“T”\\", seconds_open=0.25, stale=True, actor="ann",
    )
    put(store, [fact])
    row = clickhouse.query(
        "SELECT workspace_id, position, fact_index, event_id, toUnixTimestamp64Micro(occurred_at), title, "
        "seconds_open, is_stale, toString(hour), item_id FROM attn.activity"
    ).result_rows
    assert row == [(
        "w\t'", 2**50, 7, "/s é\n\0", fact.time, "“T”\\", 0.25, True, "2199-12-31 23:00:00", "",
    )]
    assert clickhouse.query("SELECT toString(hour), facts, closed FROM attn.activity_by_hour").result_rows == [
        ("2199-12-31 23:00:00", 1, 1),
    ]


def test_hourly_tables_have_counts_quantiles_and_actors(clickhouse: Any, store: ActivityRepository) -> None:
    facts = [
        Fact(ws="w", pos=n, index=0, event_id=f"e{n}", time=BEGIN // HOUR * HOUR + n, type="plan.approved", subject="p",
             kind="plan_approval", seconds_open=float(n), actor=f"u{n % 10}")
        for n in range(1, 101)
    ]
    quiet = Fact(ws="w", pos=200, index=0, event_id="q", time=BEGIN // HOUR * HOUR, type="plan.proposed", subject="p")
    put(store, facts[:50])
    put(store, [*facts[50:], quiet])
    rows = clickhouse.query("SELECT * EXCEPT (workspace_id, hour) FROM attn.activity_by_hour ORDER BY type").result_rows
    assert rows[0][:5] == ("plan.approved", "plan_approval", 100, 100, pytest.approx(50, abs=1))
    assert rows[0][5:] == (pytest.approx(90, abs=1), pytest.approx(99, abs=1), 10)
    assert rows[1] == ("plan.proposed", "", 1, 0, None, None, None, 0)


def test_the_repository_returns_positions_and_stored_events(clickhouse: Any, store: ActivityRepository) -> None:
    feeder = Feeder(4)
    assert store.max_position(0) is None
    assert store.stored_events(0, []) == store.stored_events(0, [("w", "e")]) == set()
    assert store.jumps(0, 30) == []
    put(store, feeder.some(400, repeats=False))
    stored = of(feeder, 1)
    assert store.max_position(1) == fact_position(stored[-1])
    wanted = {(fact.pos, fact.index, fact.event_id) for fact in stored[10:20]}
    assert store.stored_at(1, stored[10:20]) >= wanted
    assert len(store.stored_at(1, stored[10:20])) < 20
    assert store.stored_at(2, stored[10:20]) == set()
    asked = [(fact.ws, fact.event_id) for fact in stored[:50]] + [("ws_0", "nobody's '\n"), ("x", stored[0].event_id)]
    assert store.stored_events(1, asked) == {(fact.ws, fact.event_id) for fact in stored[:50]}
    assert store.stored_events(2, asked) == set()
    clickhouse.query("SELECT 1")


def test_the_repository_returns_jumps_and_the_positions_that_may_be_forgotten(store: ActivityRepository) -> None:
    feeder = Feeder(4)
    minute = 60_000_000
    put(store, [feeder.fact(at=BEGIN) for _ in range(100)])
    put(store, [feeder.fact(at=BEGIN + 15 * minute) for _ in range(100)])
    put(store, [feeder.fact(at=BEGIN + 20 * minute) for _ in range(100)])
    high = feeder.positions[1]
    feeder.jump()
    assert store.jumps(1, 30) == []
    put(store, [feeder.fact(at=BEGIN + 21 * minute) for _ in range(100)])
    assert [store.jumps(partition, 30) for partition in range(4) if of(feeder, partition)][1] == [high]
    late = [fact for fact in of(feeder, 1) if fact.pos <= high and fact.at > BEGIN]
    assert list(store.digests(1, high)) == sorted({digest(fact.ws, fact.event_id) for fact in late})
    assert len(store.digests(1, high + MIN_POSITION_JUMP * 4)) > len(late)
    # 40 days later: facts from before a jump may be repeated for 30 days only.
    put(store, [feeder.fact(at=BEGIN + 40 * 24 * 60 * minute) for _ in range(100)])
    assert store.jumps(1, 30) == []
    assert store.jumps(1, 50) == [high]


def test_the_same_batch_again_changes_nothing(clickhouse: Any, store: ActivityRepository) -> None:
    feeder = Feeder(4)
    facts = feeder.some(500, repeats=False)
    for _ in range(3):
        put(store, facts, token="t")
    assert_exact(answers(clickhouse), facts)


@contextmanager
def no_sums(clickhouse: Any) -> Iterator[None]:
    """Inserts in the block reach the table, but not the hourly sums: the state after a crash between the two."""
    clickhouse.command("ALTER TABLE attn.activity_hourly ADD CONSTRAINT full CHECK facts < 0")
    before, = clickhouse.query("SELECT count() FROM attn.activity").result_rows[0]
    with pytest.raises(RowsRefused, match="is violated") as raised:
        yield
    assert raised.value.answered
    after, = clickhouse.query("SELECT count() FROM attn.activity").result_rows[0]
    assert after > before
    clickhouse.command("ALTER TABLE attn.activity_hourly DROP CONSTRAINT full")


def test_a_batch_whose_sums_failed_completes_when_it_is_sent_again(clickhouse: Any, store: ActivityRepository) -> None:
    feeder = Feeder(4)
    facts = feeder.some(500, repeats=False)
    with no_sums(clickhouse):
        put(store, facts, token="t")
    put(store, facts, token="t")
    assert_exact(answers(clickhouse), facts)


def test_a_failing_materialized_view_is_not_reported_as_bad_rows(clickhouse: Any, store: ActivityRepository) -> None:
    writer, batch = Writer(store, 30), PendingBatch()
    facts = Feeder(1).some(50, repeats=False)
    batch.add(0, [SimpleNamespace(value=encode_fact(fact), offset=n, timestamp=0) for n, fact in enumerate(facts)])
    writer.open([0])
    plan = writer.plan(batch)
    clickhouse.command("ALTER TABLE attn.activity_hourly ADD CONSTRAINT full CHECK facts < 0")
    for _ in range(10):
        with pytest.raises(ClickHouseUnavailable, match="a view of it failed"):
            writer.write(plan)
    clickhouse.command("ALTER TABLE attn.activity_hourly DROP CONSTRAINT full")
    writer.write(plan)
    assert plan.letters == []
    assert_exact(answers(clickhouse), facts)


def test_hours_left_incomplete_by_a_crash_are_repaired(clickhouse: Any, store: ActivityRepository) -> None:
    feeder = Feeder(4)
    put(store, feeder.some(500, repeats=False))
    assert store.repair_hourly_tables(range(4)) == 0
    for _ in range(3):  # repairs the same hours repeatedly
        with no_sums(clickhouse):
            put(store, feeder.some(20, repeats=False))
        assert store.repair_hourly_tables(range(4)) > 0
        assert store.repair_hourly_tables(range(4)) == 0
        assert_exact(answers(clickhouse), feeder.all)
    put(store, feeder.some(100, repeats=False))
    assert store.repair_hourly_tables(range(4)) == 0
    # A repair that crashes after it deleted the sums is completed at the next start.
    clickhouse.command("DELETE FROM attn.activity_hourly WHERE workspace_id = 'ws_1'")
    assert store.repair_hourly_tables([]) == 0
    assert store.repair_hourly_tables(range(4)) > 0
    assert_exact(answers(clickhouse), feeder.all)


@pytest.mark.parametrize("at", [BEGIN // HOUR * HOUR + HOUR - 1, LATEST - 1])
def test_the_last_second_of_an_hour_counts_in_that_hour(clickhouse: Any, store: ActivityRepository, at: int) -> None:
    put(store, [
        Fact(ws="w", pos=0, index=0, event_id="e", type="plan.approved", subject="p", item="i", time=at, at=BEGIN)
    ])
    assert store.repair_hourly_tables(range(4)) == 0
    clickhouse.command("TRUNCATE TABLE attn.activity_hourly")
    assert store.repair_hourly_tables(range(4)) == 1
    assert store.repair_hourly_tables(range(4)) == 0


def test_thousands_of_hours_are_repaired(clickhouse: Any, store: ActivityRepository) -> None:
    facts = [
        Fact(ws="w", pos=n, index=0, event_id=f"e{n}", time=BEGIN - n * HOUR, at=BEGIN, type="run.failed", subject="r",
             seconds_open=1.0) for n in range(2500)
    ]
    put(store, facts)
    clickhouse.command("TRUNCATE TABLE attn.activity_hourly")
    assert store.repair_hourly_tables([partition_of("w", 4)]) == 2500
    assert_exact(answers(clickhouse), facts)


@pytest.mark.parametrize("bad", [
    {"index": 1 << 40}, {"pos": -1}, {"title": "\ud800"}, {"ws": "\udfff"}, {"time": 1 << 70}, {"subject": None},
])
def test_a_batch_with_a_value_out_of_range_is_refused_as_a_whole(
    clickhouse: Any, store: ActivityRepository, bad: Any
) -> None:
    good = {"ws": "w", "pos": 1, "index": 0, "event_id": "e", "time": 1, "type": "run.failed", "subject": "r"}
    facts = [Fact(**good), Fact(**(good | bad)), Fact(**good)]
    with pytest.raises(RowsRefused):
        store.insert(columns(facts, [0, 0, 0]), "t")
    assert clickhouse.query("SELECT count() FROM attn.activity").result_rows == [(0,)]
    store.insert(columns(facts[:1], [0]), "t")
    assert clickhouse.query("SELECT count() FROM attn.activity").result_rows == [(1,)]
