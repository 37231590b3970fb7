"""ATTN_ROLE_VISIBILITY on every channel. With `exact` only the target role sees an item, as the seed requires; with
`at-least` higher roles see it as well. An invisible item is absent from every answer (law 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.clients.feed import frames
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.sinks import Kept
from support.fold.fold_driver import event

from api.live.notifications import Subscriber
from api.readmodel.readers import Reader
from schemas.sources import ROLES
from streams.core.domain.keys import item_id
from streams.core.domain.visibility import roles_of

SEEN = {  # setting -> roles that see items of a MEMBER
    "exact": {"MEMBER"}, "at-least": {"OWNER", "ADMIN", "MANAGER", "MEMBER"},
}
ITEM = item_id(WS, "message", "m")
CASE = "case_1"


def stage(rule: str) -> Deciding:
    attn = Deciding(role_visibility=rule)
    attn.happen(
        message("m", target_role="MEMBER"), message("mine", target_user_id="ann"),
        event("plan.proposed", "p", title="T", target_role="MEMBER"),
        event("plan.approved", "p", minutes=1, target_role="MEMBER"))
    return attn


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rule", SEEN)
async def test_lists_counts_and_writes(rule: str, role: str) -> None:
    attn, sees = stage(rule), role in SEEN[rule]
    total = 1 + sees
    async with attn.client("ann", role) as client:
        async def body(path: str) -> Any:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            return answer.json()

        inbox = await body("/org/me/inbox")
        assert (len(inbox["items"]), inbox["counts"]["total"], inbox["counts"]["unread"]) == (total,) * 3
        assert (await body("/org/me/inbox?kind=message"))["counts"]["total"] == total
        assert (await body("/inbox"))["count"] == total == (await body("/inbox/count"))["count"]
        assert len((await body("/api/v1/inbox?state=active"))["rows"]) == total
        assert (await body("/api/v1/inbox/count"))["unread_count"] == total
        assert (await body("/org/me/activity"))["plans_approved"] == sees
        status = 200 if sees else 404
        assert (await client.get(f"/api/v1/inbox/{ITEM}")).status_code == status
        assert (await client.patch(f"/api/v1/inbox/{ITEM}", json={"state": "read"})).status_code == status
        assert (await client.post(f"/org/me/inbox/{ITEM}/dismiss")).status_code == status
        assert (await client.delete(f"/org/me/inbox/{ITEM}/dismiss")).status_code == status
        breakdown = (await client.post("/api/v1/inbox/bulk", json={"ids": [ITEM], "state": "resolved"})).json()
        assert (breakdown["updated"], breakdown["not_found"]) == (int(sees), int(not sees))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rule", SEEN)
async def test_feed_push_and_case_streams(rule: str, role: str) -> None:
    attn, sees = stage(rule), role in SEEN[rule]
    edge, reader = attn.edges[0], Reader(WS, "ann", roles_of(role, rule))  # type: ignore[arg-type]
    feed, cases, subscriber = Kept(), Kept(), Subscriber(reader)
    edge.feed_hub.open(reader, 100, None, feed)
    edge.case_events.open(reader, None, None, cases)
    edge.notifications.subscribe(subscriber)
    attn.happen(
        message("m", minutes=1, target_role="MEMBER", title="again"), message("n", target_role="MEMBER"),
        event("session.started", "s", case_id=CASE, target_role="MEMBER"))
    events = [name for _, name, _ in frames(feed.raw)]
    assert sorted(events) == (["added", "changed", "snapshot"] if sees else ["snapshot"])
    assert (CASE in cases.raw.decode()) is sees
    assert edge.case_events.has_case(reader, CASE) is sees
    async with attn.client("bob", "MEMBER") as client:
        assert (await client.patch(f"/api/v1/inbox/{ITEM}", json={"state": "resolved"})).status_code == 200
    assert subscriber.waiting.qsize() == sees
    if sees:
        assert json.loads(subscriber.waiting.get_nowait())["payload"] == {"id": ITEM, "state": "resolved"}
    async with attn.client("ann", role) as client:
        if not sees:
            assert (await client.get(f"/cases/{CASE}/events")).status_code == 404


async def test_a_higher_role_does_not_see_items_that_target_another_user() -> None:
    attn = Deciding(role_visibility="at-least")
    attn.happen(message("owner", target_role="OWNER"), message("cyd", target_user_id="cyd"))
    for role in ROLES:
        async with attn.client("ann", role) as client:
            assert (await client.get("/inbox")).json()["count"] == (role == "OWNER"), (
                "items of one user stay invisible to others")
