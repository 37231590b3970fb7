"""The query server of embedded ClickHouse answers HTTP requests as a ClickHouse server does, but is read-only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from support.clickhouse.facts import Feeder

from ops.process.ports import free_port
from schemas.settings import Settings
from streams.history.clickhouse import client, migrate
from streams.history.clickhouse.columns import columns
from streams.history.clickhouse.repository import ActivityRepository
from streams.history.embedded import query_server

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")


class Served(NamedTuple):
    settings: Settings
    store: ActivityRepository
    url: str
    password: str

    def ask(self, sql: str, **params: Any) -> httpx.Response:
        return httpx.post(self.url, content=sql, params=params, auth=("reader", self.password), timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"), clickhouse_port=free_port(), chdb_query_seconds=2.0,
        _env_file=None,
    )
    writer = client.connect(settings)
    migrate.apply(writer, "attn")
    store = ActivityRepository(writer, "attn", local=True)
    store.insert(columns(Feeder(1).some(300, repeats=False), [0] * 300), "one")
    with query_server.serve(settings, client.directory(settings)) as port:
        password = settings.clickhouse_password_file.read_text().strip()
        yield Served(settings, store, f"http://127.0.0.1:{port}/", password)
    store.close()


def test_the_query_server_answers_clickhouse_clients(served: Served) -> None:
    url = served.url.replace("://", f"://reader:{served.password}@")
    reader = clickhouse_connect.get_client(dsn=url + "attn", autogenerate_session_id=False)
    sql = "SELECT count() FROM activity WHERE workspace_id IN {them:Array(String)} AND event_id != {quoted:String}"
    parameters = {"them": [f"ws_{number}" for number in range(6)], "quoted": "it's \\ é"}
    assert reader.query(sql, parameters, settings={"max_execution_time": 1}).result_rows == [(300,)]
    assert reader.query("SELECT event_id FROM activity ORDER BY position LIMIT 1").column_names == ("event_id",)
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        reader.query("SELECT * FROM nothing")
    reader.close()
    for how in ({"auth": ("reader", served.password)}, {"params": {"user": "reader", "password": served.password}},
                {"headers": {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": served.password}}):
        answer = httpx.post(served.url, content="SELECT count() AS rows FROM activity FORMAT JSONEachRow", **how)
        assert answer.json() == {"rows": 300}
    answer = served.ask("SELECT {x:UInt8} + 1", param_x="1", default_format="CSV")
    assert (answer.text, answer.headers["x-clickhouse-format"]) == ("2\n", "CSV")
    assert httpx.get(served.url + "ping").text == "Ok.\n"


def test_a_query_without_the_password_is_401(served: Served) -> None:
    file = served.settings.clickhouse_password_file
    assert file.stat().st_mode & 0o777 == 0o600
    for auth in (None, ("reader", ""), ("reader", "ü"), ("default", served.password[:-1])):
        assert httpx.post(served.url, content="SELECT 1", auth=auth).status_code == 401


@pytest.mark.parametrize("sql", [
    "INSERT INTO activity (workspace_id) VALUES ('w')", "DROP TABLE activity", "KILL QUERY WHERE 1", "SET readonly = 0",
    "SELECT 1; DROP TABLE activity", "SELECT 1 /* no */ INTO /* where */ OUTFILE '{out}'", "SYSTEM STOP MERGES",
    "SELECT * FROM file('/etc/hostname', 'LineAsString')", "SELECT 1 PARALLEL WITH TRUNCATE TABLE activity",
    "SELECT sleep(3) SETTINGS max_execution_time = 0", "EXPLAIN SELECT 1 INTO OUTFILE '{out}'", "SELEC 1", "",
])
def test_statements_other_than_reads_are_rejected(served: Served, tmp_path: Path, sql: str) -> None:
    answer = served.ask(sql.replace("{out}", str(tmp_path / "out")) or " ", readonly="0", allow_ddl="1")
    assert answer.status_code in (403, 500), answer.text
    assert not list(tmp_path.iterdir())
    assert served.ask("SELECT count() FROM activity").text == "300\n"


def test_a_query_over_its_time_row_or_memory_limit_is_rejected(served: Served) -> None:
    for sql, error in (
        ("SELECT sum(sleepEachRow(0.1)) FROM numbers(100) SETTINGS", "TIMEOUT_EXCEEDED"),
        ("SELECT repeat('x', 1000) FROM numbers(1000000)", "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT groupArray(toString(number)) FROM numbers(1000000000)", "MEMORY_LIMIT_EXCEEDED"),
    ):
        answer = served.ask(sql.removesuffix(" SETTINGS"), max_execution_time="3600", max_block_size="1")
        assert answer.status_code == 500
        assert error in answer.text or "TIMEOUT_EXCEEDED" in answer.text, answer.text
        assert served.ask("SELECT 7").text == "7\n"  # the failed query has left no output
    assert served.ask("x" * (2 << 20)).status_code == 413


def test_concurrent_queries_are_limited_and_do_not_block_the_writer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_server, "_PATIENCE", 0.1)
    answers: list[httpx.Response] = []
    patient = served.settings.model_copy(update={"clickhouse_port": free_port(), "chdb_query_seconds": 60.0})
    with query_server.serve(patient, client.directory(patient)) as port:
        asked = served._replace(url=f"http://127.0.0.1:{port}/")
        slow = [threading.Thread(target=lambda: answers.append(asked.ask("SELECT sleep(3)"))) for _ in range(4)]
        for thread in slow:
            thread.start()
        begun = time.monotonic()
        while not served.store._query("SELECT count() FROM system.processes WHERE query LIKE '%sleep(3)'")[0][0]:
            assert time.monotonic() - begun < 60
        more = Feeder(1, seed=2)
        for fact in (facts := more.some(20, repeats=False)):
            fact.pos += 1 << 20
        served.store.insert(columns(facts, [0] * 20), "two")  # succeeds while the queries run
        running = served.store._query("SELECT count() FROM system.processes WHERE query LIKE '%sleep(3)'")[0][0]
        for thread in slow:
            thread.join()
    assert running
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
