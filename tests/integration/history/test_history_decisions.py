"""Migration 0005 adds the columns of decisions. Rows that an older attn inserted stay readable."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.clickhouse.decisions import decision_facts

from schemas.facts import Fact
from schemas.scalars import SECOND
from schemas.settings import Settings
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.columns import COLUMNS, columns
from streams.history.clickhouse.export import export
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.rebuild.rebuild import _ROWS

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

BEGIN = int(datetime(2026, 5, 20, tzinfo=UTC).timestamp()) * SECOND
NEW = ("decision_id", "option", "does", "reason", "role", "viewed", "seconds_to_decide", "seconds_to_apply")


def test_rows_of_an_older_attn_stay_readable(tmp_path: Path) -> None:
    """An older `attn history` may still insert rows after the migration, while processes are upgraded one by one."""
    connection, files = client.connect(Settings(data_dir=tmp_path, _env_file=None)), migrate.packaged()
    migrate.apply(connection, "attn", files=files[:4])
    old = [Fact(ws="w", pos=number, index=0, event_id=f"/s {number}", time=BEGIN, at=BEGIN, type="plan.approved",
                subject="p", item="ibx", kind="plan_approval", actor="ann", seconds_open=2.0) for number in range(6)]
    kept = [name for name in COLUMNS if name not in NEW]

    def insert_as_before(facts: list[Fact]) -> None:
        data = [values for name, values in zip(COLUMNS, columns(facts, [0] * len(facts)), strict=True) if name in kept]
        connection.insert("attn.activity", data, column_names=kept, column_oriented=True)

    insert_as_before(old[:3])
    assert migrate.apply(connection, "attn") == [file.name for file in files[4:]]
    for statement in files[4].statements("attn"):  # repeated, as after a crash before the migration was recorded
        connection.command(statement)
    insert_as_before(old[3:])
    facts = decision_facts(4, 20, "w", BEGIN)
    ActivityRepository(connection, "attn", local=True).insert(columns(facts, [0] * len(facts)), "new")
    (decisions,) = connection.query("SELECT count(), uniqExact(decision_id) FROM attn.decisions").result_rows
    assert decisions == (20, 20)
    (row,) = connection.query(
        "SELECT count(), countIf(decision_id = '' AND option = '' AND reason = '' AND viewed IS NULL "
        "AND seconds_to_decide IS NULL AND seconds_to_apply IS NULL) FROM attn.activity WHERE type = 'plan.approved'"
    ).result_rows
    assert row == (6, 6)
    hourly = "SELECT type, sum(facts) FROM attn.activity_by_hour GROUP BY type"
    assert dict(connection.query(hourly).result_rows)["decision.made"] == sum(
        fact.type == "decision.made" for fact in facts)
    connection.close()


def test_an_export_has_the_columns_of_decisions(tmp_path: Path) -> None:
    facts = decision_facts(6, 40, "w", BEGIN)
    with closing(client.connect(Settings(data_dir=tmp_path / "data", _env_file=None))) as connection:
        migrate.apply(connection, "attn")
        ActivityRepository(connection, "attn", local=True).insert(columns(facts, [0] * len(facts)), "all")
        begin, end = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6))
        [file] = export(connection, "attn", begin, end, "month", tmp_path)
        rows = connection.query(f"SELECT event_id, {', '.join(NEW)} FROM file('{file.path}', Parquet)").result_rows
    assert file.rows == len(facts)
    assert {row[0]: row[1:] for row in rows} == {
        fact.event_id: (fact.decision or "", fact.option or "", fact.does or "", fact.reason or "", fact.role or "",
                        fact.viewed, fact.seconds_to_decide, fact.seconds_to_apply) for fact in facts}


def test_the_checksum_of_a_rebuild_covers_rows_with_absent_values(tmp_path: Path) -> None:
    """In ClickHouse a hash of several arguments is NULL if one argument is NULL."""
    facts = [Fact(ws="w", pos=number, index=0, event_id=f"/s {number}", time=BEGIN, at=BEGIN, type="run.failed",
                  subject="r") for number in range(3)]
    checksums = []
    with closing(client.connect(Settings(data_dir=tmp_path, _env_file=None))) as connection:
        migrate.apply(connection, "attn")
        store = ActivityRepository(connection, "attn", local=True)
        for fact in [*facts, *decision_facts(1, 5, "w", BEGIN)]:
            store.insert(columns([fact], [0]), fact.event_id)
            (_, checksum), = connection.query(
                _ROWS.format(columns=", ".join(COLUMNS), table="attn.activity")).result_rows
            checksums.append(checksum)
    assert all(isinstance(checksum, int) for checksum in checksums)
    assert len(set(checksums)) == len(checksums), "a new row has not changed the checksum"
