"""View `decisions` has one row per decision. Its rows equal those that loops over the facts compute."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import clickhouse_connect
import pytest
from support.clickhouse.decisions import decision_facts, decision_rows
from support.clickhouse.embedded_server import Archived, archived

from schemas.facts import Fact
from schemas.scalars import SECOND

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

BEGIN = int(datetime(2026, 5, 20, tzinfo=UTC).timestamp()) * SECOND


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    with archived(tmp_path_factory.mktemp("decisions")) as server:
        yield server


def shown(client: Any, ws: str) -> dict[str, dict[str, Any]]:
    """Returns decision id -> the row of the view, for one workspace. Times are microseconds."""
    result = client.query("SELECT * FROM attn.decisions WHERE workspace_id = {ws:String}", parameters={"ws": ws})
    rows = [dict(zip(result.column_names, map(_us, row), strict=True)) for row in result.result_rows]
    assert len({row["decision_id"] for row in rows}) == len(rows), "a decision has two rows"
    return {row["decision_id"]: row for row in rows}


def _us(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    since = value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_decision_has_one_row_whatever_the_order_of_inserts(archive: Archived, seed: int) -> None:
    ws = f"any_{seed}"
    facts = decision_facts(seed, 120, ws, BEGIN)
    others = decision_facts(seed, 40, f"other_{seed}", BEGIN)
    parts = [facts[start:start + 37] for start in range(0, len(facts), 37)] + [others]
    random.Random(seed).shuffle(parts)
    for part in parts:
        archive.keep(part)
    wanted = decision_rows(facts)
    assert len(wanted) == 120
    assert {row["state"] for row in wanted.values()} == {
        "made", "delivered", "applied", "refused", "undeliverable", "unconfirmed", "sending", "taken_back", "expired"}
    assert any(fact.stale for fact in facts)
    assert shown(archive.store._client, ws) == wanted


def test_votes_and_facts_without_a_decision_have_no_row(archive: Archived) -> None:
    vote = next(fact for fact in decision_facts(5, 60, "votes", BEGIN) if fact.type == "vote.cast")
    plain = Fact(ws="votes", pos=1, index=0, event_id="/s e", time=BEGIN, at=BEGIN, type="run.failed", subject="r")
    archive.keep([vote, plain])
    assert shown(archive.store._client, "votes") == {}


def test_an_analyst_reads_the_view_through_the_guard(archive: Archived) -> None:
    archive.keep(decision_facts(9, 30, "guarded", BEGIN))
    with closing(clickhouse_connect.get_client(dsn=archive.url, autogenerate_session_id=False)) as analyst:
        assert len(shown(analyst, "guarded")) == 30
        assert "decisions" in analyst.command("SHOW TABLES")
        described = analyst.query("DESCRIBE TABLE attn.decisions").result_rows
        assert "seconds_to_apply" in [name for name, *_ in described]
