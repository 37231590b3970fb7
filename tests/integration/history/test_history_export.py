"""`attn history export`: facts as Parquet files."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clickhouse.clickhouse_http import ClickHouse
from support.clickhouse.facts import Feeder
from support.processes.cli import attn_here

from ops.process.ports import free_port
from schemas.facts import Fact
from schemas.settings import Settings
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.export import Broken, export, spans
from streams.history.clickhouse.repository import ActivityRepository

pytestmark = pytest.mark.clickhouse
chdb = pytest.importorskip("chdb", reason="chdb is not installed")
BEGIN = int(datetime(2026, 1, 30, tzinfo=UTC).timestamp() * 1e6)
HOUR = 3_600_000_000
TIMES = st.datetimes(datetime(2023, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC))


@given(TIMES, st.integers(0, 90 * 86_400), st.sampled_from(["month", "day"]))
def test_spans_cover_all_and_do_not_overlap(begin: datetime, seconds: int, by: Any) -> None:
    end = datetime.fromtimestamp(begin.timestamp() + seconds, UTC)
    parts = list(spans(begin, end, by))
    assert [low for _, low, _ in parts[1:]] == [high for _, _, high in parts[:-1]]
    if parts:
        assert (parts[0][1], parts[-1][2]) == (begin, end)
    assert all(low < high and f"{low:%Y-%m-%d}".startswith(name) for name, low, high in parts)
    assert len({name for name, _, _ in parts}) == len(parts)


def facts() -> list[Fact]:
    """Returns a fact of each hour of January 30 and 31, February 1 and March 2."""
    facts = Feeder(1).some(96, repeats=False)
    for number, fact in enumerate(facts):
        fact.time = BEGIN + (number + (28 * 24 if number >= 72 else 0)) * HOUR
    return facts


def read(*files: Path) -> list[list[str]]:
    connection = chdb.connect()
    sql = "SELECT event_id, toUnixTimestamp64Micro(occurred_at), title, seconds_open, opened FROM file('{}', Parquet)"
    texts = [connection.query(sql.format(file), "TSV").bytes().decode() for file in files]
    connection.close()
    return [line.split("\t") for text in texts for line in text.splitlines()]


class CutOff:
    """A client whose streams end after half of their bytes."""

    def __init__(self, real: Any) -> None:
        self.query, self._real = real.query, real

    def raw_stream(self, *args: Any, **kwargs: Any) -> io.BytesIO:
        whole = self._real.raw_stream(*args, **kwargs).read()
        return io.BytesIO(whole[:len(whole) // 2])


def test_a_file_a_month_or_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("ATTN_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with closing(client.connect(Settings(data_dir=tmp_path / "data", _env_file=None))) as connection:
        migrate.apply(connection, "attn")
        ActivityRepository(connection, "attn", local=True).insert(columns(exported := facts(), [0] * 96), "all")
    out = tmp_path / "out"
    assert attn_here("history", "export", "--from", "2026-01", "--to", "2026-03-02T12:00:00", "--out", str(out)) == 0
    assert {file.name for file in out.iterdir()} == {f"activity-2026-{month}.parquet" for month in ("01", "02", "03")}
    assert "84 rows" in capfd.readouterr().err
    assert attn_here("history", "export", "--from", "2026-02-01", "--by", "day", "--out", str(out)) == 0
    days = sorted(file.name for file in out.iterdir() if file.name.count("-") == 3)
    assert days == [f"activity-2026-{day}.parquet" for day in ("02-01", "03-02")]
    assert not list((tmp_path / "data" / "clickhouse-results").iterdir())
    assert attn_here("history", "export", "--from", "2026-02-01", "--to", "2026-02-01", "--out", str(out)) == 2
    rows = read(*sorted(out.glob("activity-2026-0?.parquet")))
    assert Counter(row[0] for row in rows) == Counter(fact.event_id for fact in exported[:84])
    by_event = {fact.event_id: fact for fact in exported}
    for event, time, title, seconds, opened in rows:
        fact = by_event[event]
        assert (int(time), title) == (fact.time, fact.title)
        assert seconds == ("\\N" if fact.seconds_open is None else f"{fact.seconds_open:g}")
        assert opened == str(fact.opened).lower()


def test_an_export_from_a_clickhouse_server(tmp_path: Path) -> None:
    server = ClickHouse(tmp_path / "server", free_port())
    server.start()
    try:
        with closing(client.connect(Settings(clickhouse=server.url, _env_file=None))) as connection:
            migrate.apply(connection, "attn")
            ActivityRepository(connection, "attn").insert(columns(facts(), [0] * 96), "all")
            begin, end = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
            [file] = export(connection, "attn", begin, end, "month", tmp_path)
            assert (file.rows, file.size) == (24, file.path.stat().st_size)
            whole = file.path.read_bytes()
            with pytest.raises(Broken):
                list(export(CutOff(connection), "attn", begin, end, "month", tmp_path))
            assert file.path.read_bytes() == whole
            assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.path.name]
    finally:
        server.kill()
