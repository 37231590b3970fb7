"""Section `decisions` of `GET /org/me/insights`, and decisions in the history of a case, equal plain loops over the
facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from support.clickhouse.decisions import PEOPLE, decision_facts
from support.clickhouse.embedded_server import Archived, archived
from support.edge.edge_with_fold import Deciding

from api.contract.responses.history import CaseHistory
from api.contract.responses.insights import Insights
from api.history.client import HistoryClient
from api.history.decision_insights import MAX_REASONS
from api.history.insights import steps_of
from schemas.facts import Fact
from schemas.scalars import DAY, HOUR, SECOND, parse_timestamp
from streams.core.domain.visibility import can_see

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

WS, BEGIN = "ws_01", parse_timestamp("2026-05-18T02:00:00Z")


class Known:
    def __init__(self, archive: Archived) -> None:
        self.archive = archive
        self.attn = Deciding(clickhouse_read_url=archive.url)
        self.facts = decision_facts(3, 400, WS, BEGIN)
        archive.keep([*self.facts, *decision_facts(4, 100, "other", BEGIN)])
        self.attn.happen()  # sets the log's clock to `attn.now`

    def seen(self, user: str, role: str) -> list[Fact]:
        return [fact for fact in self.facts
                if can_see(fact.target_user_id, fact.target_role, user, frozenset({role}))]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    with archived(tmp_path_factory.mktemp("decisions")) as archive:
        yield Known(archive)


@pytest_asyncio.fixture(autouse=True)
async def fresh(known: Known) -> AsyncIterator[None]:
    """Each test has its own event loop, and a connection belongs to one event loop."""
    edge = known.attn.edges[0]
    edge.history = HistoryClient(edge.settings)
    yield
    await edge.history.close()


def counts_of(facts: Sequence[Fact]) -> dict[str, Any]:
    """Returns the counts of a group, by plain loops."""
    types = Counter(fact.type.removeprefix("decision.") for fact in facts)
    made = [fact for fact in facts if fact.type == "decision.made" and fact.actor]
    unseen = sum(fact.viewed is None for fact in made)
    quick = sum(fact.viewed is not None and fact.viewed < 3 for fact in made)
    return {
        "made": len(made), "unseen": unseen, "quick": quick,
        "expired": types["expired"] + types["made"] - len(made), "taken_back": types["taken_back"],
        "applied": types["applied"], "refused": types["refused"], "undeliverable": types["undeliverable"],
        "unconfirmed": types["unconfirmed"],
        **({"rubber_stamps": round((unseen + quick) / len(made), 4)} if made else {}),
    }


def check_times(shown: dict[str, Any], facts: Sequence[Fact], field: str, name: str) -> None:
    """Checks that each estimated quantile is between the neighbours of the exact value."""
    seconds = sorted(value for fact in facts if (value := getattr(fact, field)) is not None)
    assert (f"median_{name}" in shown) == bool(seconds)
    for share, quantile in ((0.5, "median"), (0.9, "p90")):
        if f"{quantile}_{name}" in shown:
            place = int(share * (len(seconds) - 1))
            near = seconds[max(0, place - 1):place + 3]
            assert near[0] - 1e-3 <= shown[f"{quantile}_{name}"] <= near[-1] + 1e-3


@pytest.mark.parametrize(("user", "role"), [("ann", "OWNER"), ("bob", "MANAGER"), ("cy", "ADMIN"), ("eve", "MANAGER")])
@pytest.mark.parametrize("window", ["6h", "3d", "90d"])
async def test_decisions_are_counted_by_kind_and_person_as_the_reader_sees_them(
    known: Known, user: str, role: str, window: str,
) -> None:
    async with known.attn.client(user, role, ws=WS) as client:
        answer = await client.get("/org/me/insights", params={"window": window})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    Insights.model_validate(body)
    length = int(window[:-1]) * (HOUR if window[-1] == "h" else DAY)
    steps = steps_of(length, known.attn.edges[0].replica.clock(WS))
    within = [fact for fact in known.seen(user, role) if steps.since <= fact.time < steps.until and not fact.stale]
    decided = [fact for fact in within if fact.type.startswith("decision.")]
    shown = body["decisions"]
    wanted = counts_of(decided)
    assert wanted["made"] > 0
    assert {name: shown[name] for name in wanted} == wanted
    check_times(shown, decided, "seconds_to_decide", "seconds_to_decide")
    check_times(shown, decided, "seconds_to_apply", "seconds_to_apply")
    assert {group["kind"] for group in shown["kinds"]} == {fact.kind for fact in decided}
    for group in shown["kinds"]:
        of_group = [fact for fact in decided if fact.kind == group["kind"]]
        assert {name: group[name] for name in counts_of(of_group)} == counts_of(of_group)
        check_times(group, of_group, "seconds_to_decide", "seconds_to_decide")
        check_times(group, of_group, "seconds_to_apply", "seconds_to_apply")
    votes = [fact for fact in within if fact.type == "vote.cast"]
    assert {group["user_id"] for group in shown["people"]} == {
        fact.actor for fact in (*votes, *decided) if fact.actor and (
        fact.type in ("vote.cast", "decision.made"))}
    for group in shown["people"]:
        of_group = [fact for fact in decided if fact.actor == group["user_id"] and fact.type == "decision.made"]
        wanted = counts_of(of_group)
        assert {name: group.get(name) for name in ("made", "unseen", "quick", "rubber_stamps")} == {
            name: wanted.get(name) for name in ("made", "unseen", "quick", "rubber_stamps")}
        assert group["votes"] == sum(fact.actor == group["user_id"] for fact in votes)
        assert group["by_kind"] == Counter(fact.kind for fact in of_group)
    reasons = Counter(
        (fact.type.removeprefix("decision."), fact.reason or "") for fact in decided
        if fact.type in ("decision.refused", "decision.undeliverable"))
    assert {(group["state"], group["reason"]): group["count"] for group in shown["reasons"]} == reasons
    assert len(shown["reasons"]) <= MAX_REASONS


async def test_members_get_no_statistics_of_people(known: Known) -> None:
    for _, role in (*PEOPLE, ("vic", "VIEWER")):
        async with known.attn.client("eve", role, ws=WS) as client:
            answer = await client.get("/org/me/insights?window=90d")
        assert answer.status_code == (200 if role in ("OWNER", "ADMIN", "MANAGER") else 403)
        assert ("people" in answer.text) == (answer.status_code == 200)


async def test_a_workspace_without_decisions_has_zeros(known: Known) -> None:
    async with known.attn.client("ann", "OWNER", ws="elsewhere") as client:
        body = (await client.get("/org/me/insights?window=7d")).json()
    Insights.model_validate(body)
    assert body["decisions"] == {**counts_of([]), "kinds": [], "people": [], "reasons": []}


async def test_a_decision_by_expiry_is_nobodys_and_no_rubber_stamp(known: Known) -> None:
    at = int(known.attn.now * SECOND) - HOUR
    common: dict[str, Any] = {"ws": "expiry", "pos": 1, "time": at, "at": at, "subject": "s", "item": "i",
                              "kind": "waitpoint", "seconds_to_decide": 900.0}
    known.archive.keep([
        Fact(**common, index=0, event_id="d 1", type="decision.made", decision="dec_1", option="hold", does="ignore"),
        Fact(**common, index=1, event_id="d 2", type="decision.expired", decision="dec_2")])
    async with known.attn.client("ann", "OWNER", ws="expiry") as client:
        shown = (await client.get("/org/me/insights?window=24h")).json()["decisions"]
    assert (shown["made"], shown["expired"], shown["unseen"], shown["people"]) == (0, 2, 0, [])
    assert "rubber_stamps" not in shown
    assert "median_seconds_to_decide" not in shown


@pytest.mark.parametrize(("user", "role"), [("ann", "OWNER"), ("eve", "MEMBER")])
async def test_the_history_of_a_case_shows_votes_and_decisions(known: Known, user: str, role: str) -> None:
    seen = [fact for fact in known.seen(user, role) if fact.case_id == "case-1"]
    async with known.attn.client(user, role, ws=WS) as client:
        answer = await client.get("/cases/case-1/history", params={"limit": 500})
    assert answer.status_code == 200
    body = answer.json()
    CaseHistory.model_validate(body)
    fields = ("decision", "option", "does", "reason", "role", "actor", "title")
    shown = Counter((entry["type"], *(entry.get(name) for name in fields)) for entry in body["events"])
    assert shown == Counter((fact.type.replace(".", "_"), *(getattr(fact, name) for name in fields)) for fact in seen)
    types = {entry["type"] for entry in body["events"]}
    assert {"vote_cast", "decision_made", "decision_refused", "decision_applied"} <= types
    applied = next(entry for entry in body["events"] if entry["type"] == "decision_applied")
    assert applied["seconds_to_apply"] > 0
