"""`attn migrate`, and the retention of rows."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from support.clickhouse.facts import Feeder
from support.processes.cli import attn_here

from schemas.settings import Settings
from streams.history.clickhouse import client, migrate, retention
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.main import _open

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")
DAY = 86_400 * 1_000_000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def settings(here: Path, **given: object) -> Settings:
    return Settings(data_dir=here / "data", _env_file=None, **given)


def test_dry_run_apply_status(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert attn_here("migrate", "--dry-run") == 0
    sql = capfd.readouterr().out
    assert attn_here("migrate", "--status") == 0
    assert capfd.readouterr().out.count("pending") == len(migrate.packaged())
    with closing(client.connect(settings(here))) as connection:
        for statement in sql.split(";\n"):  # the printed statements create the same tables
            if statement.strip():
                connection.command(statement)
        by_hand = connection.query("SELECT name, create_table_query FROM system.tables WHERE database = 'attn' "
                              "AND name NOT LIKE '.%' ORDER BY name").result_rows
        connection.command("DROP DATABASE attn")
    assert attn_here("migrate") == 0
    assert attn_here("migrate", "--status") == 0
    printed = capfd.readouterr()
    assert printed.out.count("as it is") == len(migrate.packaged())
    assert "applied 0001_activity.sql" in printed.err
    with closing(client.connect(settings(here))) as connection:
        assert connection.query("SELECT name, create_table_query FROM system.tables WHERE database = 'attn' "
                           "AND name NOT LIKE '.%' ORDER BY name").result_rows == by_hand
        connection.command("ALTER TABLE attn.migrations UPDATE checksum = 'other' WHERE number = 2",
                      settings={"mutations_sync": 1})
    capfd.readouterr()
    assert attn_here("migrate") == 1
    assert "0002_activity_hourly.sql was applied with another text" in capfd.readouterr().err
    with pytest.raises(migrate.MigrationError):
        _open(settings(here))
    assert attn_here("migrate", "--status") == 0
    assert "CHANGED since" in capfd.readouterr().out


def test_rows_are_deleted_after_the_retention_of_the_setting(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def keep(**given: object) -> list[str]:
        with closing(client.connect(settings(here))) as connection:
            sql = list(retention.retention_statements(connection, "attn", settings(here, **given)))
            for statement in sql:
                connection.command(statement, settings={"mutations_sync": 1})
            assert not list(retention.retention_statements(connection, "attn", settings(here, **given)))
        return sql

    _open(settings(here)).close()
    assert len(keep(history_days=90, history_hourly_days=900)) == 3
    assert len(keep(history_days=60, history_hourly_days=900)) == 1
    with closing(client.connect(settings(here))) as connection:
        store = ActivityRepository(connection, "attn", local=True, expires=True)
        now: int = connection.query("SELECT toUnixTimestamp64Micro(now64(6))").result_rows[0][0]
        feeder = Feeder(1)
        old, kept = feeder.some(50, repeats=False), feeder.some(50, repeats=False)
        for fact, days in [*((fact, 70) for fact in old), *((fact, 50) for fact in kept)]:
            fact.at = now - days * DAY
        store.insert(columns(old + kept, [0] * 100), "all")
        connection.command("OPTIMIZE TABLE attn.activity FINAL")
        assert connection.query("SELECT count() FROM attn.activity").result_rows == [(50,)]
        assert store.repair_hourly_tables([0]) == 0  # the hourly sums keep counting deleted rows
        assert connection.query("SELECT sum(facts) FROM attn.activity_by_hour").result_rows == [(100,)]
    assert [sql.split()[-2:] for sql in keep()] == [["REMOVE", "TTL"]] * 3
    with pytest.raises(migrate.MigrationError, match="too short: facts may be emitted again for 37 days"):
        keep(history_days=36)
    assert not capfd.readouterr().out


def test_migrations_of_a_server_can_be_left_to_attn_migrate(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on chdb in place of a server: this code distinguishes the two only by the settings."""
    real = client.connect
    monkeypatch.setattr(client, "connect", lambda given, seconds=None: real(settings(here)))
    server = settings(here, clickhouse="http://somewhere:8123", clickhouse_migrate=False)
    reason = r"0001_activity\.sql.* must be applied first: run `attn migrate`"
    with pytest.raises(client.ClickHouseUnavailable, match=reason):
        _open(server)
    _open(settings(here)).close()
    _open(server).close()


def test_statements_for_a_cluster_are_valid_sql(here: Path) -> None:
    """The test has no cluster. The parser of ClickHouse reads the statements that a cluster would execute."""
    with closing(client.connect(settings(here))) as connection:
        migrate.apply(connection, "attn")
        days = settings(here, history_days=90, history_hourly_days=9, clickhouse_cluster="main")
        sql = [*migrate.preparing("attn", "main"), *retention.retention_statements(connection, "attn", days),
               *(part for file in migrate.packaged() for part in file.statements("attn", "main"))]
        for statement in sql:
            assert "ON CLUSTER `main`" in statement or statement.startswith("INSERT INTO")
            if not statement.startswith("INSERT INTO"):
                assert connection.command(f"EXPLAIN AST {statement}")
        engines = [statement for statement in sql if "ENGINE = " in statement]
        assert engines
        assert all("ENGINE = Replicated" in statement for statement in engines)
