"""Runs the queries of docs/analytics.md unchanged on real and random facts. Their results equal those of Python models
that loop over the same facts.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect
import orjson
import pytest
import yaml
from support import events
from support.clickhouse.access_trail import TRAIL_MODELS, AccessHistory
from support.clickhouse.decisions import decision_facts, decision_rows
from support.clickhouse.embedded_server import archived

from ops.deploy.grafana.dashboard import FILE, SOURCE, dashboard
from schemas.facts import Fact
from schemas.log import Event, Pack
from schemas.scalars import DAY, HOUR, SECOND
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold
from streams.core.normalise import normalise

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

ROOT = Path(__file__).parents[3]
QUERIES = dict(re.findall(r"^### (.+?)\n.*?^```sql\n(.+?)^```", (ROOT / "docs/analytics.md").read_text(), re.M | re.S))
TARGETS = {"urgent": 900, "high": 3600, "normal": 28800, "low": 259200}
CLOCKED = ("incident", "proof_expiring")


class QueryRequest(NamedTuple):
    """All facts of one workspace, and the period [since, until) of the query in microseconds."""

    facts: list[Fact]
    since: int
    until: int

    @property
    def within(self) -> list[Fact]:
        return [fact for fact in self.facts if self.since <= fact.time < self.until]

    @property
    def closing(self) -> list[Fact]:
        return [fact for fact in self.within if fact.seconds_open is not None]


def fold(entries: Sequence[Event]) -> list[Fact]:
    """Folds the events in packs of 20, in this order. Returns the facts that are not derived."""
    rows: dict[bytes, bytes] = {}
    folding = Fold(rows, 0, FoldConfig())
    folding.load()
    facts: list[Any] = []
    clock = 0
    for number, start in enumerate(range(0, len(entries), 20)):
        some = list(entries[start:start + 20])
        clock = max(clock, *(entry.time for entry in some))
        while not folding.apply(Pack(clock, some), number):
            pass
        batch = folding.pending_batch()
        facts += batch.facts
        for key, value in batch.rows:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        folding.mark_durable()
    return [fact for fact in facts if isinstance(fact, Fact) and not fact.derived]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, list[Fact]]]]:
    """Returns a client with the rights of an analyst, and the facts by workspace: real incidents and random events."""
    with gzip.open(ROOT / "tests/data/incidents-sample.jsonl.gz") as lines:
        real = [orjson.loads(line) for line in lines]
    made = events.generate(11, 1500, subjects=6)
    with archived(tmp_path_factory.mktemp("analytics")) as archive:
        facts: dict[str, list[Fact]] = defaultdict(list)
        for partition, source in enumerate((real, made)):
            folded = fold([normalise(line["topic"], orjson.dumps(line["value"])) for line in source])
            for ws in sorted({fact.ws for fact in folded})[:2]:
                begin = min(fact.time for fact in folded if fact.ws == ws)
                folded += decision_facts(partition, 150, ws, begin)
                folded += AccessHistory(partition, 25, (ws,), begin).facts
            for fact in archive.keep(folded, partition):
                facts[fact.ws].append(fact)
        client = clickhouse_connect.get_client(dsn=archive.url, autogenerate_session_id=False)
        yield client, facts
        client.close()


def exact(values: Sequence[float], share: float) -> float:
    """Returns the quantile as ClickHouse's quantileExact computes it."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def day(us: int) -> Any:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)).date()


def when(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def momentum(request: QueryRequest) -> list[Any]:
    types = (("session.completed",), ("plan.approved",), ("action.confirmed", "action.declined"))
    days: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    for fact in request.within:
        for place, some in enumerate(types):
            if fact.type in some:
                days[day(fact.time)][place] += 1
    return [(date, *counts) for date, counts in sorted(days.items())]


def time_to_resolve(request: QueryRequest) -> list[Any]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for fact in request.closing:
        kinds[fact.kind or ""].append(fact.seconds_open or 0.0)
    found = [(kind, len(values), exact(values, 0.5), exact(values, 0.9)) for kind, values in kinds.items()]
    return sorted(found, key=lambda row: (-row[1], row[0]))


def who_resolves(request: QueryRequest) -> list[Any]:
    people: dict[str, list[Fact]] = defaultdict(list)
    for fact in request.closing:
        if fact.actor:
            people[fact.actor].append(fact)
    found = [
        (actor, len(mine), len({fact.kind for fact in mine}), exact([fact.seconds_open or 0.0 for fact in mine], 0.5))
        for actor, mine in people.items()
    ]
    return sorted(found, key=lambda row: (-row[1], row[0]))[:50]


def targets_missed(request: QueryRequest) -> list[Any]:
    closed, missed = Counter[str](), Counter[str]()
    for fact in request.closing:
        closed[fact.priority or ""] += 1
        missed[fact.priority or ""] += (fact.seconds_open or 0) > TARGETS[fact.priority or ""]
    return [(name, closed[name], missed[name], round(missed[name] / closed[name], 4)) for name in sorted(closed)]


def still_open(request: QueryRequest) -> list[Any]:
    items: dict[str, list[Fact]] = defaultdict(list)
    for fact in request.facts:
        if fact.item and fact.time < request.until:
            items[fact.item].append(fact)
    found = []
    for item, mine in items.items():
        opened = [fact.time for fact in mine if fact.opened]
        if len(opened) > sum(fact.seconds_open is not None for fact in mine):
            found.append((max(opened), item))
    return [(item, when(since)) for since, item in sorted(found)[:100]]


def failures(request: QueryRequest) -> list[Any]:
    opened, closed = Counter[str](), Counter[str]()
    for fact in request.within:
        if fact.kind == "failed_run" and fact.item:
            opened[fact.cluster or ""] += fact.opened
            closed[fact.cluster or ""] += fact.seconds_open is not None
    return sorted(((name, opened[name], closed[name]) for name in opened), key=lambda row: (-row[1], row[0]))


def drafts(request: QueryRequest) -> list[Any]:
    found = Counter(fact.resolved_action for fact in request.closing if fact.kind == "draft_review")
    return [(action, count, round(count / sum(found.values()), 4))
            for action, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))]


def backlog(request: QueryRequest) -> list[Any]:
    changes: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
    for fact in request.facts:
        if fact.item and fact.time < request.until:
            change = 0 if fact.kind in CLOCKED else fact.opened - (fact.seconds_open is not None)
            changes[fact.kind or ""][day(fact.time)] += change
    days = [day(us) for us in range(request.since // DAY * DAY, request.until, DAY)]
    return [
        (date, kind, sum(change for when, change in mine.items() if when <= date))
        for kind, mine in sorted(changes.items()) for date in days
    ]


def late(request: QueryRequest) -> list[Any]:
    facts = Counter(fact.type for fact in request.within)
    stale = Counter(fact.type for fact in request.within if fact.stale)
    return [(name, facts[name], count, round(count / facts[name], 4))
            for name, count in sorted(stale.items(), key=lambda pair: (-pair[1], pair[0]))]


def load(request: QueryRequest) -> list[Any]:
    found = Counter(
        (when(fact.time).isoweekday(), when(fact.time).hour) for fact in request.within if fact.item and fact.opened)
    return [(*key, count) for key, count in sorted(found.items())]


def longest(request: QueryRequest) -> list[Any]:
    spans: dict[str, list[int]] = defaultdict(list)
    for fact in request.within:
        if fact.case_id:
            spans[fact.case_id].append(fact.time)
    cases = sorted(spans, key=lambda case: (-(max(spans[case]) - min(spans[case])), case))[:3]
    found, last = [], dict[str, int]()
    mine = [fact for fact in request.facts if fact.case_id in cases]
    for fact in sorted(mine, key=lambda fact: (fact.case_id, fact.time, fact.event_id)):
        case = fact.case_id or ""
        # dateDiff counts the starts of seconds between both times.
        gap = fact.time // SECOND - last.get(case, fact.time) // SECOND
        found.append((case, when(fact.time), fact.type, fact.state or "", fact.actor or "", gap))
        last[case] = fact.time
    return found


def decided(request: QueryRequest, by_people: bool = True) -> list[dict[str, Any]]:
    """Returns the rows of view `decisions` that were decided within the period. `by_people`: only decisions that a
    person made and did not take back."""
    return [row for row in decision_rows(request.facts).values() if request.since <= row["decided_at"] < request.until
            and not (by_people and (not row["actor"] or row["state"] == "taken_back"))]


def grouped(rows: Sequence[dict[str, Any]], by: str) -> list[tuple[Any, list[dict[str, Any]]]]:
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[by]].append(row)
    return sorted(groups.items())


def stamps(rows: Sequence[dict[str, Any]]) -> tuple[int, int, float]:
    unseen = sum(row["viewed"] is None for row in rows)
    quick = sum(row["viewed"] is not None and row["viewed"] < 3 for row in rows)
    return unseen, quick, round((unseen + quick) / len(rows), 4)


def decision_times(request: QueryRequest) -> list[Any]:
    found = []
    for kind, rows in grouped(decided(request), "kind"):
        decide = [row["seconds_to_decide"] for row in rows]
        apply = [row["seconds_to_apply"] for row in rows if row["seconds_to_apply"] is not None]
        found.append((kind, len(rows), exact(decide, 0.5), exact(decide, 0.9), len(apply), *(
            exact(apply, share) if apply else None for share in (0.5, 0.9))))
    return sorted(found, key=lambda row: (-row[1], row[0]))


def who_decides(request: QueryRequest) -> list[Any]:
    found = [(actor, len(rows), exact([row["seconds_to_decide"] for row in rows], 0.5),
              sum(row["does"] == "reject" for row in rows), sum(row["refused_at"] is not None for row in rows),
              *stamps(rows)) for actor, rows in grouped(decided(request), "actor")]
    return sorted(found, key=lambda row: (-row[1], row[0]))[:50]


def rubber_stamps(request: QueryRequest) -> list[Any]:
    found = [(kind, len(rows), *stamps(rows)) for kind, rows in grouped(decided(request), "kind")]
    return sorted(found, key=lambda row: (-row[4], row[0]))


def refusals(request: QueryRequest) -> list[Any]:
    found = Counter(
        (fact.type.removeprefix("decision."), fact.kind, fact.reason or "") for fact in request.within
        if fact.type in ("decision.refused", "decision.undeliverable") and not fact.stale)
    return [(*key, count) for key, count in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))][:50]


def results(request: QueryRequest) -> list[Any]:
    found = []
    for kind, rows in grouped(decided(request, by_people=False), "kind"):
        states = Counter(row["state"] for row in rows)
        found.append((
            kind, states["applied"], states["expired"], states["taken_back"],
            *(sum(row[name] is not None for row in rows)
              for name in ("refused_at", "undeliverable_at", "unconfirmed_at")),
            round(states["applied"] / len(rows), 4)))
    return found


def waiting(request: QueryRequest) -> list[Any]:
    rows = [row for row in decided(request, by_people=False)
            if row["state"] in ("made", "delivered", "unconfirmed", "sending", "undeliverable")]
    rows.sort(key=lambda row: (row["decided_at"], row["decision_id"]))
    return [(*(row[name] for name in ("decision_id", "kind", "title", "option", "actor")), when(row["decided_at"]),
             row["state"], request.until // SECOND - row["decided_at"] // SECOND) for row in rows[:100]]


MODELS: dict[str, Callable[[QueryRequest], list[Any]]] = {
    "Momentum per day": momentum, "Time to resolve by kind": time_to_resolve, "Who resolves": who_resolves,
    "Targets missed": targets_missed, "Open items at the end, longest first": still_open,
    "Failures per cluster": failures, "Results of drafts edited by an AI": drafts, "Backlog over time": backlog,
    "Events that arrived too late": late, "Load by hour of the week": load, "Longest cases, step by step": longest,
    "Time to decide and to apply by kind": decision_times, "Who decides": who_decides,
    "Rubber stamps by kind": rubber_stamps, "Refused and undeliverable decisions by reason": refusals,
    "Results of questions": results, "Decisions that wait for their source, longest first": waiting, **TRAIL_MODELS,
}
TIMED = {"Open items at the end, longest first": lambda row: (row[0], row[3])}


def test_every_query_has_a_model() -> None:
    assert set(QUERIES) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_query_equals_its_model_over_the_facts(kept: tuple[Any, dict[str, list[Fact]]], name: str) -> None:
    client, facts = kept
    rows = 0
    for ws, mine in facts.items():
        first, last = min(fact.time for fact in mine), max(fact.time for fact in mine)
        whole = (first // DAY * DAY, last // DAY * DAY + DAY)
        half = ((first + (last - first) // 3) // HOUR * HOUR, last // HOUR * HOUR)
        for since, until in (whole, half):
            given = {"ws": ws, "since": f"{when(since):%F %T}", "until": f"{when(until):%F %T}"}
            got = [TIMED.get(name, tuple)(row) for row in client.query(QUERIES[name], given).result_rows]
            wanted = MODELS[name](QueryRequest(mine, since, until))
            assert [_plain(row) for row in got] == [_near(row) for row in wanted], ws
            rows += len(got)
    assert rows, "the query has no rows in any workspace"


def _grafana(sql: str, ws: str, since: int, until: int) -> str:
    """Replaces the variables and macros in the query as Grafana's ClickHouse plugin does."""
    start, end = (f"toDateTime({us // SECOND})" for us in (since, until))
    sql = sql.replace("${workspace:sqlstring}", f"'{ws}'").replace("$__fromTime", start).replace("$__toTime", end)
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 >= {start} AND \1 <= {end}", sql)
    return re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(toDateTime(\1), INTERVAL 3600 second)", sql)


def test_the_dashboards_file_is_current() -> None:
    assert json.loads(FILE.read_text()) == dashboard(), "run python -m ops.deploy.grafana.dashboard"
    areas = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (at["x"] + x, at["y"] + y) for at in areas for x in range(at["w"]) for y in range(at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    datasources = ROOT / "ops/deploy/grafana/provisioning/datasources/attn.yaml"
    source = yaml.safe_load(datasources.read_text())["datasources"][0]
    assert (source["uid"], source["type"]) == (SOURCE["uid"], SOURCE["type"])


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: panel["title"])
def test_a_panel_has_rows(kept: tuple[Any, dict[str, list[Fact]]], panel: dict[str, Any]) -> None:
    client, facts = kept
    (target,), mine = panel["targets"], facts["ws_01"]
    since, until = min(fact.time for fact in mine), max(fact.time for fact in mine)
    sql = _grafana(target["rawSql"], "ws_01", since, until)
    assert "$" not in sql
    result = client.query(sql)
    assert result.result_rows
    if target["queryType"] == "timeseries":
        assert result.column_names[0] == "time"
        assert result.first_row[0].year == 2026
        times = [row[0] for row in result.result_rows]
        assert times == sorted(times)


def test_open_items_have_a_value_at_every_point_of_the_panel(kept: tuple[Any, dict[str, list[Fact]]]) -> None:
    """A kind without any change in the shown period has a value at every point, too."""
    client, facts = kept
    (panel,) = [panel for panel in dashboard()["panels"] if panel["title"] == "Open by kind"]
    mine, sql = facts["ws_01"], panel["targets"][0]["rawSql"]
    last = max(fact.time for fact in mine) // HOUR * HOUR
    wanted = Counter[str]()
    for fact in mine:
        if fact.item:
            wanted[fact.kind or ""] += 0 if fact.kind in CLOCKED else fact.opened - (fact.seconds_open is not None)
    for since in (last + DAY, last - 30 * DAY):
        until = last + 3 * DAY
        found: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        for time, kind, count in client.query(_grafana(sql, "ws_01", since, until)).result_rows:
            found[kind].append((time.replace(tzinfo=None), count))
        assert {kind: points[-1] for kind, points in found.items()} == {
            kind: (when(until).replace(tzinfo=None), count) for kind, count in wanted.items()}
        if since > last:
            assert all(points[0] == (when(since).replace(tzinfo=None), points[-1][1]) for points in found.values())


def test_the_dashboards_workspaces(kept: tuple[Any, dict[str, list[Fact]]]) -> None:
    client, facts = kept
    (variable,) = dashboard()["templating"]["list"]
    assert [ws for ws, in client.query(variable["query"]).result_rows] == sorted(facts)


def _plain(row: Sequence[Any]) -> list[Any]:
    """Removes the time zone, which is UTC in both results."""
    return [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in row]


def _near(row: Sequence[Any]) -> list[Any]:
    """Allows for the rounding of fractions to four digits."""
    return [pytest.approx(value, abs=1e-4) if isinstance(value, float) else value for value in _plain(row)]
