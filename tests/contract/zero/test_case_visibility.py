"""Every channel with past events of a case uses one access predicate: history, event streams, activity (law 6).

An event about an item is visible to the readers of the item, also if it arrives before the item's opening.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from support.clickhouse.embedded_server import Archived, archived
from support.edge.edge_with_fold import WS, Deciding, waitpoint
from support.edge.random_rows import marker
from support.edge.sinks import Kept
from support.fold.fold_driver import event

from api.readmodel.readers import Reader
from schemas.log import Dismiss, SetState
from schemas.scalars import parse_timestamp
from streams.core.domain.keys import item_id

pytestmark = pytest.mark.clickhouse
pytest.importorskip("chdb", reason="chdb is not installed")

PEOPLE = [("ann", "OWNER"), ("bob", "MEMBER"), ("cyd", "VIEWER")]
TARGETS = [(None, None), (None, "OWNER"), ("bob", None), ("cyd", "OWNER")]
CASES = ("k1", "k2", "k3")
# (type that opens an item, type that closes it).
FAMILIES = [
    ("waitpoint.created", "waitpoint.approved"), ("escalation.opened", "escalation.resolved"),
    ("session.waiting", "session.completed"), ("task.blocked", "task.unblocked"), ("plan.proposed", "plan.approved"),
    ("message.posted", "message.withdrawn"), ("escalation.opened", "escalation.updated"),
    ("draft.edited", "draft.committed"), ("proof.attached", "proof.expired"), ("session.started", "session.verifying"),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    with archived(tmp_path_factory.mktemp("archive")) as archive_of_test:
        yield archive_of_test


@pytest_asyncio.fixture
async def attn(archive: Archived, request: pytest.FixtureRequest) -> AsyncIterator[Deciding]:
    deciding = Deciding(clickhouse_read_url=archive.url)
    yield deciding
    await deciding.edges[0].history.close()


def space_of(request: Any) -> str:
    return re.sub(r"\W", "_", request.node.name)


async def history_of(attn: Deciding, reader: tuple[str, str], case: str, ws: str) -> tuple[int, bytes]:
    async with attn.client(*reader, ws=ws) as client:
        answer = await client.get(f"/cases/{case}/history")
    return answer.status_code, answer.content


async def test_a_users_own_draft_is_in_no_other_users_history(
    attn: Deciding, archive: Archived, request: pytest.FixtureRequest
) -> None:
    ws = space_of(request)
    attn.happen(event("draft.edited", "d", ws=ws, title="my secret", case_id="k", editor={"type": "user", "id": "ann"}),
                event("draft.discarded", "e", -1, ws=ws, case_id="k", by_user_id="ann"))
    archive.keep(attn.facts)
    status, body = await history_of(attn, ("ann", "MEMBER"), "k", ws)
    assert (status, [row["type"] for row in json.loads(body)["events"]]) == (200, ["draft_edited", "draft_discarded"])
    assert b"ibx_" not in body, "the owner's own edits opened no item"
    absent = await history_of(attn, ("bob", "OWNER"), "never", ws)
    assert await history_of(attn, ("bob", "OWNER"), "k", ws) == absent
    assert absent[0] == 404


@pytest.mark.parametrize("view", ["kept", "gone"])
async def test_a_close_before_its_opening_is_visible_to_the_items_readers(
    attn: Deciding, archive: Archived, request: pytest.FixtureRequest, view: str
) -> None:
    """With `view` gone the view has deleted the item, and only ClickHouse knows its targets."""
    ws = space_of(request)
    attn.happen(event("waitpoint.approved", "w", 5, ws=ws, case_id="k", by_user_id="ann"))
    archive.keep(attn.facts)
    before = await history_of(attn, ("bob", "MEMBER"), "k", ws)
    assert (before[0], b"ibx_" in before[1]) == (200, False), "the item's target is still unknown"
    fact_count = len(attn.facts)
    attn.happen(waitpoint("w", ws=ws, case_id="k", target_role="OWNER"))
    archive.keep(attn.facts[fact_count:])
    if view == "gone":
        attn.tick(31 * 86_400)
    status, body = await history_of(attn, ("ann", "OWNER"), "k", ws)
    assert (status, [entry["type"] for entry in json.loads(body)["events"]]) == (
        200, ["waitpoint_approved", "waitpoint_created"])
    assert await history_of(attn, ("bob", "MEMBER"), "k", ws) == await history_of(attn, ("bob", "MEMBER"), "never", ws)


async def test_pages_skip_invisible_events(
    attn: Deciding, archive: Archived, request: pytest.FixtureRequest
) -> None:
    ws = space_of(request)
    names = [f"w{number}" for number in range(6)]
    attn.happen(event("message.posted", "m", -5, ws=ws, title="T", case_id="k"))
    attn.happen(*(event("waitpoint.approved", name, 5, ws=ws, case_id="k") for name in names))
    attn.happen(*(waitpoint(name, ws=ws, target_role="OWNER") for name in names))
    archive.keep(attn.facts)
    async with attn.client("bob", "MEMBER", ws=ws) as client:
        page = (await client.get("/cases/k/history?limit=2")).json()
    assert ([entry["type"] for entry in page["events"]], "next" in page) == (["message_posted"], False)


async def test_a_resume_hides_events_that_arrived_before_the_opening_of_their_item(attn: Deciding) -> None:
    """The targets of the item are known only after its opening, possibly on another edge."""
    edge = attn.edges[0]
    attn.happen(event("session.completed", "s", 5, case_id="k"))
    bob, ann = Reader(WS, "bob", frozenset({"MEMBER"})), Reader(WS, "ann", frozenset({"OWNER"}))
    assert edge.case_events.has_case(bob, "k")
    attn.happen(event("session.waiting", "s", title="T", target_role="OWNER"))
    assert (edge.case_events.has_case(bob, "k"), edge.case_events.has_case(ann, "k")) == (False, True)
    for reader, wanted in ((bob, 0), (ann, 1)):
        sink = Kept()
        edge.case_events.open(reader, None, -1, sink)
        assert sink.raw.count(b"session_completed") == wanted
    async with attn.client("bob", "MEMBER") as client:
        hidden, absent = [await client.get(f"/cases/{case}/events") for case in ("k", "never")]
    assert (hidden.status_code, hidden.content) == (absent.status_code, absent.content) == (404, absent.content)


async def test_activity_names_no_item_that_was_never_opened(
    attn: Deciding, archive: Archived, request: pytest.FixtureRequest
) -> None:
    ws = space_of(request)
    attn.happen(event("plan.approved", "p", -5, ws=ws, by_user_id="ann"))
    archive.keep(attn.facts)
    async with attn.client("bob", "MEMBER", ws=ws) as client:
        for window in ("24h", "7d"):
            activity = (await client.get(f"/org/me/activity?window={window}")).json()
            assert (activity["plans_approved"], [entry.get("item") for entry in activity["recent"]]) == (1, [None])


class Story:
    """Random events of one workspace. Each text names its targets; each event has a distinct time."""

    def __init__(self, seed: int, attn: Deciding, ws: str) -> None:
        self.random, self.attn, self.ws = random.Random(seed), attn, ws
        self.number = 0
        # ids of items that the reader has seen
        self.seen: dict[tuple[str, str], set[str]] = {person: set() for person in PEOPLE}
        self.early: dict[str, str] = {}  # time of an event that arrived before its item opened -> the item

    def step(self) -> None:
        self.number += 1
        entry = self._command() if self.random.random() < 0.2 else self._event()
        self.attn.happen(entry)
        space = self.attn.edges[0].replica.workspace(self.ws)
        for person, seen in self.seen.items():
            reader = Reader(self.ws, person[0], frozenset({person[1]}))
            ids = [key[2:].decode() for key in self.attn.rows if key[:2] == b"i:"]
            seen.update(item for item in ids if space.visible_item(reader, item) is not None)

    def _event(self) -> Any:
        pick = self.random.choice
        opens, closes = pick(FAMILIES)
        user, role = pick(TARGETS)
        text = marker(self.ws, user, role)
        named = {name: value for name, value in (("target_user_id", user), ("target_role", role)) if value}
        case, subject, minutes = pick(CASES), f"s{pick(range(5))}", pick(range(-60, 60)) + self.number / 1000
        if opens == "draft.edited":
            user = pick(("ann", "bob"))
            own = {"owner_user_id": user, "title": marker(self.ws, user, None)}
            editor = {"type": pick(("user", "ai")), "id": user}
            return event(opens, f"{user}{subject}", minutes, self.ws, case_id=case, editor=editor, **own)
        if self.random.random() < 0.5:
            expiry = {"expires_at": "2026-05-20T13:00:00Z"} if opens == "proof.attached" else {}
            return event(opens, subject, minutes, self.ws, title=text, case_id=case, session_id=subject, **named,
                         **expiry)
        closing = event(closes, subject, minutes, self.ws, case_id=case, by_user_id="ann",
                      **({"title": text, **named} if closes in ("escalation.updated", "session.verifying") else {}))
        kind = {"session": "session_waiting", "task": "blocked_task", "plan": "plan_approval"}.get(
            closes.split(".")[0], closes.split(".")[0])
        item = item_id(self.ws, kind, subject)
        if closes != "session.verifying" and self.attn.edges[0].replica.workspace(self.ws).targets_of(item) is None:
            self.early[f"{closing.time}"] = item
        return closing

    def _command(self) -> Any:
        pick = self.random.choice
        user, role = pick(PEOPLE)
        ids = [key[2:].decode() for key in self.attn.rows if key[:2] == b"i:"] or ["ibx_none"]
        common = {"ws": self.ws, "id": f"c{self.number}", "time": int(self.attn.now * 1e6), "user": user,
                  "roles": (role,)}
        return pick((lambda: SetState(**common, items=(pick(ids),), state=pick(("read", "resolved", "unread"))),
                     lambda: Dismiss(**common, item=pick(ids))))()


@pytest.mark.parametrize("seed", range(4))
async def test_every_channel_shows_exactly_the_events_that_the_predicate_allows(
    attn: Deciding, archive: Archived, seed: int
) -> None:
    ws = f"story_{seed}"
    story = Story(seed, attn, ws)
    for _ in range(70):
        story.step()
    archive.keep(attn.facts)
    edge = attn.edges[0]
    for person in PEOPLE:
        reader = Reader(ws, person[0], frozenset({person[1]}))
        sink = Kept()
        edge.case_events.open(reader, None, -1, sink)
        texts = {"stream": sink.raw.decode()}
        async with attn.client(*person, ws=ws) as client:
            for case in (*CASES, "never"):
                answer = await client.get(f"/cases/{case}/history?limit=500")
                texts[case] = answer.text
                if answer.status_code == 200:
                    check_early(story, reader, answer.json()["events"])
                else:
                    assert (answer.status_code, answer.text) == (404, (await client.get("/cases/x/history")).text)
            for path in ("/org/me/activity?window=7d", "/org/me/activity?window=24h", "/org/me/recent-drafts"):
                texts[path] = (await client.get(path)).text
        for name, text in texts.items():
            for found_ws, user, role in re.findall(r"<(\w+)/([\w-]+)/([\w-]+)>", text):
                targets = [None if target == "-" else target for target in (user, role)]
                assert found_ws == ws
                assert reader.can_see(*targets), (name, person, targets)
            assert set(re.findall(r"ibx_\w+", text)) <= story.seen[person], (name, person)


def check_early(story: Story, reader: Reader, events: list[Any]) -> None:
    """An event that arrived before its item opened is visible to the readers of the item at the end."""
    space = story.attn.edges[0].replica.workspace(story.ws)
    for entry in events:
        item = story.early.get(f"{parse_timestamp(entry['at'])}")
        targets = space.targets_of(item) if item is not None else None
        assert targets is None or reader.can_see(*targets), entry
