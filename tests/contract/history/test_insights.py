"""Activity, history of a case and insights from ClickHouse equal the results of plain loops over the facts."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import orjson
import pytest
import pytest_asyncio
from support import events
from support.clickhouse.embedded_server import Archived, archived
from support.edge.edge_with_fold import Deciding
from support.fold.fold_driver import NOON, event

from api.contract.errors import ApiError
from api.contract.responses.history import Activity, CaseHistory
from api.contract.responses.insights import Insights
from api.history.activity import fetch_activity
from api.history.case_history import EventPosition, encode_position
from api.history.client import HistoryClient
from api.history.insights import MAX_CLUSTERS, steps_of
from api.readmodel.readers import Reader
from schemas.facts import Fact
from schemas.log import SetState
from schemas.scalars import DAY, HOUR, parse_timestamp
from streams.core.domain.visibility import CAN_SEE_SQL, can_see
from streams.core.normalise import normalise

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

WS = "ws_01"
ASKING = [("ann", "OWNER"), ("bob", "MANAGER"), ("cy", "ADMIN")]


class Known(NamedTuple):
    attn: Deciding
    archive: Archived
    facts: list[Fact]

    def seen(self, reader: Reader) -> list[Fact]:
        return [
            fact for fact in self.facts
            if fact.ws == reader.workspace_id and reader.can_see(fact.target_user_id, fact.target_role)
        ]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """Folds three random days, and inserts their facts into ClickHouse."""
    with archived(tmp_path_factory.mktemp("archive")) as archive:
        attn = Deciding(clickhouse_read_url=archive.url)
        attn.now = events.START.timestamp() + 1
        lines = sorted(events.generate(7, 900, subjects=5), key=lambda line: parse_timestamp(line["value"]["time"]))
        for start in range(0, len(lines), 9):
            pack = [normalise(line["topic"], orjson.dumps(line["value"])) for line in lines[start:start + 9]]
            attn.now = max(attn.now, *(entry.time / 1e6 for entry in pack))
            attn.happen(*pack)
        late = (attn.now - NOON / 1e6) / 60 - 3
        attn.happen(*(event("session.completed", f"s{n}", late, ws=WS, by_user_id="ann") for n in range(30)))
        facts = archive.keep(attn.facts)
        assert len(facts) > 700
        yield Known(attn, archive, facts)


@pytest_asyncio.fixture(autouse=True)
async def fresh(known: Known) -> AsyncIterator[None]:
    """Each test has its own event loop, and a connection belongs to one event loop."""
    edge = known.attn.edges[0]
    edge.history = HistoryClient(edge.settings)
    yield
    await edge.history.close()


def reader_of(user: str, role: str, ws: str = WS) -> Reader:
    return Reader(ws, user, frozenset({role}))


def test_the_predicate_is_the_same_in_sql(known: Known) -> None:
    names, roles = ("", "ann", "bob", "OWNER"), ("", "OWNER", "MEMBER", "ann")
    targets = list(itertools.product(names, roles))
    roles_held = ((), ("OWNER",), ("MEMBER", "VIEWER"), ("OWNER", "MEMBER"))
    for user, held in itertools.product(("", "ann", "bob"), roles_held):
        result = known.archive.store._client.query(
            f"SELECT target_user_id, target_role FROM (SELECT one.1 AS target_user_id, one.2 AS target_role FROM ("
            f"SELECT arrayJoin({{targets:Array(Tuple(String, String))}}) AS one)) WHERE {CAN_SEE_SQL}",
            parameters={"targets": targets, "user": user, "roles": list(held)}).result_rows
        assert sorted(result) == sorted(
            (name, role) for name, role in targets if can_see(name or None, role or None, user, frozenset(held)))


@pytest.mark.parametrize(("user", "role"), [*ASKING, ("dee", "MEMBER")])
async def test_a11_activity_from_clickhouse_equals_live_activity(known: Known, user: str, role: str) -> None:
    edge, reader = known.attn.edges[0], reader_of(user, role)
    clock = edge.replica.clock(WS)
    space = await edge.workspace(reader)
    for hours in (1, 5, 23, 24):
        live = edge.pages.activity(space, reader, hours * HOUR, clock)
        assert await fetch_activity(edge.history, reader, hours * HOUR, clock) == live
    assert live["sessions_completed"] >= 30
    assert len(live["recent"]) == 20
    async with known.attn.client(user, role, ws=WS) as client:
        month = (await client.get("/org/me/activity?window=30d")).json()
    Activity.model_validate(month)
    completed = [fact for fact in known.facts if fact.ws == WS and fact.type == "session.completed"]
    assert live["sessions_completed"] <= month["sessions_completed"] <= len(completed)
    assert month["window"] == "30d"


@pytest.mark.parametrize(("user", "role"), [*ASKING, ("dee", "VIEWER")])
async def test_the_history_of_a_case(known: Known, user: str, role: str) -> None:
    reader = reader_of(user, role)
    cases = {fact.case_id for fact in known.facts if fact.case_id} | {"never"}
    async with known.attn.client(user, role, ws=WS) as client:
        for case in sorted(cases):
            visible = [fact for fact in known.seen(reader) if fact.case_id == case]
            visible.sort(key=lambda fact: (fact.time, fact.event_id), reverse=True)
            pages, after = [], {}
            while True:
                answer = await client.get(f"/cases/{case}/history", params={"limit": 7, **after})
                if answer.status_code == 404:
                    assert not visible
                    break
                assert answer.status_code == 200, answer.text
                body = answer.json()
                CaseHistory.model_validate(body)
                pages += body["events"]
                if "next" not in body:
                    break
                after = {"next": body["next"]}
            assert [(row["type"], parse_timestamp(row["at"]), row.get("title"), row.get("actor")) for row in pages] == [
                (fact.type.replace(".", "_"), fact.time, fact.title, fact.actor or None) for fact in visible]
            assert all(row["case_id"] == case for row in pages)
        for wrong in ("x", "e30", "WzEsMl0", ""):
            assert (await client.get("/cases/never/history", params={"next": wrong})).status_code == 400


async def test_z10_an_invisible_case_has_no_history(known: Known) -> None:
    attn = known.attn
    before = len(attn.facts)
    attn.happen(event("task.blocked", "t", ws="hid", title="T", case_id="secret", target_role="OWNER"))
    async with attn.client("ann", "OWNER", ws="hid") as owner, attn.client("bob", "MEMBER", ws="hid") as member:
        fresh = await owner.get("/cases/secret/history")
        # ClickHouse does not have the events yet
        assert (fresh.status_code, fresh.json()) == (200, {"case_id": "secret", "events": []})
        known.archive.keep(attn.facts[before:])
        assert [row["type"] for row in (await owner.get("/cases/secret/history")).json()["events"]] == ["task_blocked"]
        unseen, absent = await member.get("/cases/secret/history"), await member.get("/cases/never/history")
        token = encode_position(EventPosition(1, "e"))
        paged = await member.get("/cases/secret/history", params={"next": token})
        assert (await owner.get("/cases/secret/history", params={"next": token})).json()["events"] == []
    assert unseen.status_code == absent.status_code == paged.status_code == 404
    assert unseen.content == absent.content == paged.content


def flow_of(facts: Sequence[Fact], steps: Any) -> dict[str, Any]:
    """Returns, by plain loops, how many items opened, closed, and were open at the end of each step."""
    series: dict[str, list[int]] = {"opened": [], "closed": [], "open": []}
    for step in range(steps.count):
        end = steps.since + (step + 1) * steps.step
        within = [fact for fact in facts if end - steps.step <= fact.time < end]
        series["opened"].append(sum(fact.opened for fact in within))
        series["closed"].append(sum(fact.seconds_open is not None for fact in within))
        lasting = [fact for fact in facts if fact.time < end and fact.kind not in ("proof_expiring", "incident")]
        series["open"].append(max(0, sum(fact.opened - (fact.seconds_open is not None) for fact in lasting)))
    return {name: sum(series[name]) for name in ("opened", "closed")} | {"open": series["open"][-1], "series": series}


def is_between(value: float, seconds: Sequence[float], share: float) -> bool:
    """Checks that the estimate of a quantile is between the neighbours of the exact value."""
    place = share * (len(seconds) - 1)
    near = sorted(seconds)[max(0, int(place) - 1):int(place) + 3]
    return min(near) - 1e-3 <= value <= max(near) + 1e-3


@pytest.mark.parametrize(("user", "role"), ASKING)
@pytest.mark.parametrize("window", ["6h", "24h", "90d"])
async def test_insights(known: Known, user: str, role: str, window: str) -> None:
    reader, edge = reader_of(user, role), known.attn.edges[0]
    async with known.attn.client(user, role, ws=WS) as client:
        answer = await client.get("/org/me/insights", params={"window": window})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    Insights.model_validate(body)
    length = int(window[:-1]) * (HOUR if window[-1] == "h" else DAY)
    steps = steps_of(length, edge.replica.clock(WS))
    assert (parse_timestamp(body["since"]), parse_timestamp(body["until"])) == (steps.since, steps.until)
    assert len(body["times"]) == steps.count
    items = [fact for fact in known.seen(reader) if fact.item is not None and fact.time < steps.until]
    within = [fact for fact in items if fact.time >= steps.since]
    for name, field, flows in (("kind", "kind", body["kinds"]), ("cluster", "cluster", body["clusters"])):
        groups: dict[str, list[Fact]] = defaultdict(list)
        for fact in items:
            groups[getattr(fact, field) or ""].append(fact)
        assert len(flows) <= MAX_CLUSTERS
        wanted = {key: flow_of(group, steps) for key, group in groups.items()}
        for flow in flows:
            exact = wanted[flow[name]]
            assert {key: flow[key] for key in exact} == exact, flow[name]
            seconds = [
                fact.seconds_open for fact in within
                if fact.seconds_open is not None and (getattr(fact, field) or "") == flow[name]
            ]
            if seconds:
                assert is_between(flow["median_seconds"], seconds, 0.5)
                assert is_between(flow["p90_seconds"], seconds, 0.9)
        busy = {key for key, flow in wanted.items() if flow["opened"] + flow["closed"]}
        assert busy <= {flow[name] for flow in flows}
        order = [flow["opened"] + flow["closed"] for flow in flows]
        assert order == sorted(order, reverse=True)
    assert body["total"]["opened"] == sum(fact.opened for fact in within)
    assert body["total"]["closed"] == sum(fact.seconds_open is not None for fact in within)
    done = [fact for fact in within if fact.seconds_open is not None and fact.actor]
    counts = Counter(fact.actor for fact in done)
    assert {person["user_id"]: person["closed"] for person in body["people"]} == counts
    for person in body["people"]:
        assert person["by_kind"] == Counter(fact.kind for fact in done if fact.actor == person["user_id"])


async def test_insights_require_manager_or_higher(known: Known) -> None:
    for role, status in (("OWNER", 200), ("ADMIN", 200), ("MANAGER", 200), ("MEMBER", 403), ("VIEWER", 403)):
        async with known.attn.client("eve", role, ws="elsewhere") as client:
            answer = await client.get("/org/me/insights?window=2h")
            assert answer.status_code == status
            if status == 200:  # the answer has no data of other users
                body = answer.json()
                assert (body["kinds"], body["clusters"], body["people"]) == ([], [], [])
                assert body["total"] == {"opened": 0, "closed": 0, "open": 0}
            assert (await client.get("/org/me/insights?window=91d")).status_code == 400


async def test_a_refused_query_counts_as_no_outage(known: Known) -> None:
    client = known.attn.edges[0].history
    with pytest.raises(ApiError) as error:
        await client.query("SELECT nothing FROM nowhere", reader_of("ann", "OWNER"))
    assert error.value.status == 503
    assert list(await client.query("SELECT {ws:String}", reader_of("ann", "OWNER"))) == [(WS,)]


async def test_an_item_resolved_by_a_user_is_in_case_history_and_insights(known: Known) -> None:
    attn = known.attn
    before = len(attn.facts)
    attn.happen(event("message.posted", "m", ws="solo", title="T", case_id="k"))
    item = next(fact.item for fact in attn.facts[before:] if isinstance(fact, Fact))
    attn.happen(SetState(
        ws="solo", id="c", user="ann", roles=("OWNER",), time=int(attn.now * 1e6), edge="e", items=[str(item)],
        state="resolved", resolved_action="done"))
    known.archive.keep(attn.facts[before:])
    async with attn.client("ann", "OWNER", ws="solo") as client:
        past = (await client.get("/cases/k/history")).json()["events"]
        people = (await client.get("/org/me/insights?window=90d")).json()["people"]
    assert [(entry["type"], entry.get("resolved_action")) for entry in past] == [
        ("item_resolved", "done"), ("message_posted", None)]
    assert [(entry["user_id"], entry["closed"], entry["by_kind"]) for entry in people] == [("ann", 1, {"message": 1})]


@pytest.mark.parametrize("seed", [1, 5])
async def test_history_equals_live_activity_in_any_order_of_arrival(known: Known, seed: int) -> None:
    ws = f"any_{seed}"
    attn = Deciding(clickhouse_read_url=known.archive.url)
    attn.now = events.END.timestamp() - 20 * 3600
    types = ("session.waiting", "session.completed", "plan.proposed", "plan.approved", "action.requested",
             "action.confirmed", "action.declined")
    made = [normalise(line["topic"], orjson.dumps(line["value"]))
            for line in events.generate(seed, 200, subjects=4, types=types, workspaces=(ws,))]
    random.Random(seed).shuffle(made)
    attn.happen(*made)
    known.archive.keep(attn.facts)
    edge = attn.edges[0]
    for user, role in ASKING:
        reader = reader_of(user, role, ws)
        space, clock = await edge.workspace(reader), edge.replica.clock(ws)
        live = edge.pages.activity(space, reader, 24 * HOUR, clock)
        assert live["recent"]
        assert await fetch_activity(edge.history, reader, 24 * HOUR, clock) == live
    await edge.history.close()
