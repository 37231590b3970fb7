"""Ankra's rules A1-A12 (seeds/ankra.md), list and feed, on the real fold. One test per rule, named by its number."""

from __future__ import annotations

import httpx
import pytest
from support.clients.ankra import URL, M, filled, inbox, item_of, listed
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.edges import bearer, serving, token
from support.fold.fold_driver import at, event

from streams.core.domain.keys import item_id

ANN = ("ann", "OWNER", WS)
PRIVATE = [
    ("GET", "/org/me/inbox"), ("GET", "/org/me/feed"), ("GET", "/org/me/recent-drafts"), ("GET", "/org/me/preferences"),
    ("PATCH", "/org/me/preferences"), ("GET", "/org/me/activity"), ("POST", URL), ("DELETE", URL),
]


@pytest.fixture
def attn() -> Deciding:
    return filled()


async def test_a1_personal_under_org_me_and_across_the_whole_org(attn: Deciding) -> None:
    attn.happen(message("other", cluster="c9", stack="s9", conversation_id="c"), message("bobs", target_user_id="bob"),
                message("else", ws="ws2"))
    async with attn.client("ann") as client, attn.client(headers={}) as nobody:
        assert sorted(await listed(client)) == ["m", "n", "other"], (
            "items of every cluster, but of no other user or workspace")
        me = (await client.get("/org/me")).json()
        assert (me["user_id"], me["workspace_id"]) == ("ann", WS)
        for method, path in PRIVATE:
            assert (await nobody.request(method, path, json={})).status_code == 401, path


async def test_a2_a_browsers_write_needs_the_header(attn: Deciding) -> None:
    async with attn.client(headers={}) as client:
        await client.post("/auth/session", json={"token": token(*ANN, seconds=10**9)})
        for method, path in PRIVATE:
            if method == "GET":
                continue
            answer = await client.request(method, path, json={})
            assert answer.status_code == 403, path
            assert "X-CSRF-Token" in answer.json()["error"]
            answer = await client.request(
                method, path, json={}, headers={"x-csrf-token": client.cookies["attn_csrf"]})
            assert answer.status_code == 200, path


ACTIONS = [  # opening event, kind, closing event, its action
    ("session.waiting", "session_waiting", "session.resumed", "resumed"),
    ("plan.proposed", "plan_approval", "plan.approved", "approved"),
    ("plan.proposed", "plan_approval", "plan.rejected", "rejected"),
    ("action.requested", "pending_action", "action.confirmed", "confirmed"),
    ("action.requested", "pending_action", "action.declined", "declined"),
    ("run.failed", "failed_run", "run.retried", "retried"),
    ("draft.edited", "draft_review", "draft.committed", "committed"),
]


@pytest.mark.parametrize(("opens", "kind", "answer", "action"), ACTIONS)
async def test_a3_each_kind_opens_and_ends_with_its_action(opens: str, kind: str, answer: str, action: str) -> None:
    attn = Deciding()
    editor = {"editor": {"type": "ai", "id": "ag"}} if kind == "draft_review" else {}
    attn.happen(event(opens, "x", title="T", **editor))
    item = await item_of(attn, kind)
    assert (item["kind"], item["state"], item["source_id"]) == (kind, "unread", "x")
    attn.happen(event(answer, "x", minutes=1, by_user_id="ann"))
    async with attn.client() as client:
        assert await listed(client) == []
        row = (await client.get(f"/api/v1/inbox/{item['id']}")).json()
    assert (row["state"], row["resolved_action"], row["resolved_by_user_id"]) == ("resolved", action, "ann")


async def test_a4_a_plan_counts_automatic_and_confirmed_steps() -> None:
    attn, steps = Deciding(), [{"title": name, "mode": mode} for name, mode in (
        ("a", "auto"), ("b", "confirm"), ("c", "auto"))]
    attn.happen(event("plan.proposed", "p", title="T", steps=steps))
    assert (await item_of(attn, "plan_approval"))["plan"] == {"auto": 2, "confirm": 1, "steps": steps}


@pytest.mark.parametrize(("risk", "reversible"), [
    ("low", True), ("medium", False), ("high", True), ("critical", False)])
async def test_a5_a_pending_action_has_risk_and_reversibility(risk: str, reversible: bool) -> None:
    attn = Deciding()
    attn.happen(event("action.requested", "a", title="T", risk=risk, reversible=reversible))
    item = await item_of(attn, "pending_action")
    assert (item["risk"], item["reversible"], item["blocking"]) == (risk, reversible, True)


async def test_a6_failed_steps_on_several_clusters_are_one_incident() -> None:
    attn = Deciding()
    same = {"title": "Reconcile failed", "pipeline": "deploy", "step": "apply"}
    attn.happen(event("run.failed", "r1", minutes=-3, cluster="c1", **same))
    async with attn.client() as client:
        assert [item["kind"] for item in (await inbox(client))["items"]] == ["failed_run"], "one cluster is no incident"
        attn.happen(event("run.failed", "r2", minutes=-2, cluster="c2", **same),
                    event("run.failed", "other", minutes=-2, cluster="c3", title="T", pipeline="else", step="apply"))
        kinds = {item["kind"]: item for item in (await inbox(client))["items"]}
        assert set(kinds) == {"incident", "failed_run"}
        incident = kinds["incident"]
        ids = [item_id(WS, "failed_run", name) for name in ("r1", "r2")]
        assert (incident["clusters"], incident["count"], incident["members"]) == (["c1", "c2"], 2, ids)
        for run in ("r1", "r2"):
            attn.happen(event("run.recovered", run, minutes=1))
        assert [item["kind"] for item in (await inbox(client))["items"]] == ["failed_run"]


async def test_a7_items_are_ordered_by_urgency() -> None:
    attn = Deciding()
    attn.happen(
        message("low", priority="low"), message("later", due_at=at(300)), message("sooner", due_at=at(100)),
        message("urgent", priority="urgent"), message("blocking", blocking=True), message("overdue", due_at=at(-1)))
    async with attn.client() as client:
        page = await inbox(client)
        assert [item["source_id"] for item in page["items"]] == [
            "urgent", "overdue", "blocking", "sooner", "later", "low"]
        assert [item["rank_reasons"] for item in page["items"]][:3] == [
            ["urgent"], ["high", "overdue"], ["normal", "blocking"]]
        paged, params = [], {"limit": 2}
        while True:
            part = await inbox(client, **params)
            paged += part["items"]
            if "next" not in part:
                break
            params["next"] = part["next"]
        assert paged == page["items"]


async def test_a8_items_carry_cluster_conversation_risk_and_times() -> None:
    attn = Deciding()
    attn.happen(event("action.requested", "a", minutes=-5, title="T", cluster="prod", conversation_id="conv",
                      risk="high", stack="web", case_id="case_1", session_id="s_1", expires_at=at(90)))
    item = await item_of(attn, "pending_action")
    wanted = {"cluster": "prod", "conversation_id": "conv", "risk": "high", "stack": "web", "created_at": at(-5),
              "updated_at": at(-5), "due_at": at(90), "expires_at": at(90), "case_id": "case_1", "session_id": "s_1",
              "action_url": "/cases/case_1/sessions/s_1"}
    assert {name: item.get(name) for name in wanted} == wanted


async def test_a9_the_inbox_is_the_current_snapshot(attn: Deciding) -> None:
    async with attn.client() as client:
        page = await inbox(client)
        assert set(page) == {"items", "counts", "activity", "cursor"}
        assert page["counts"] == {"total": 2, "unread": 2, "by_kind": {"message": 2}, "by_priority": {"normal": 2}}
        assert page["cursor"] == attn.edges[0].replica.cursor(WS)
        attn.happen(message("new", priority="high"))
        later = await inbox(client)
        assert later["items"][0]["source_id"] == "new"
        assert later["cursor"] > page["cursor"]
        async with attn.client(edge=1) as other:
            assert await inbox(other) == later, "the same cursor means the same state on every edge"


async def test_a10_the_feed_sends_a_snapshot_and_then_the_changes(attn: Deciding) -> None:
    edge = attn.edges[0]
    async with serving(edge) as base, attn.client("ann") as client:
        feed = Client(base, who=ANN)
        [(first, name, snapshot)] = await feed.get(1)
        page = await inbox(client)
        assert (first, name) == (page["cursor"], "snapshot")
        assert {field: snapshot[field] for field in page} == page
        assert set(snapshot) - set(page) == {"drafts", "preferences"}
        attn.happen(message("new"))
        attn.happen(message("new", minutes=1, title="again"))
        await client.patch(f"/api/v1/inbox/{M}", json={"state": "resolved", "resolved_action": "approved"})
        changes = (await feed.get(4))[1:]
        assert [name for _, name, _ in changes] == ["added", "changed", "removed"]
        removed = changes[2][2]
        assert (removed["id"], removed["reason"], removed["resolved_action"]) == (M, "resolved", "approved")
        for slot in edge.connections._slots:
            for stream in list(slot):
                stream.send_heartbeat(int(attn.now * 1e6))
        beat = (await feed.get(5))[4]
        assert (beat[1], set(beat[2])) == ("heartbeat", {"at", "cursor"})
        copy = Copy()
        for frame in feed.frames:
            copy.apply(frame)
        now = await inbox(client)
        assert (copy.page["items"], copy.page["counts"]) == (now["items"], now["counts"]), (
            "the copy equals the inbox without a reload")
        await feed.close()


async def test_a11_recent_activity() -> None:
    attn = Deciding()
    attn.happen(
        event("session.completed", "s", minutes=-30, title="Fix"), event("plan.proposed", "p", minutes=-40, title="P"),
        event("plan.approved", "p", minutes=-20, by_user_id="bob"),
        *(event("action.requested", name, minutes=-40, title=name) for name in "abc"),
        event("action.confirmed", "a", minutes=-10), event("action.declined", "b", minutes=-9),
        event("action.expired", "c", minutes=-8))
    async with attn.client() as client:
        body = (await client.get("/org/me/activity")).json()
        assert (body["window"], body["sessions_completed"], body["plans_approved"], body["actions_resolved"]) == (
            "24h", 1, 1, 2)
        assert [entry["type"] for entry in body["recent"]] == [
            "action.declined", "action.confirmed", "plan.approved", "session.completed"]
        assert (await inbox(client))["activity"] == body


async def test_a12_a_connection_over_the_limit_is_rejected_until_another_closes() -> None:
    attn = Deciding(max_streams=2)
    async with serving(attn.edges[0]) as base, httpx.AsyncClient(base_url=base) as client:
        feeds = [Client(base, who=ANN) for _ in range(2)]
        for feed in feeds:
            await feed.get(1)
        refused = await client.get("/org/me/feed", headers=bearer(*ANN))
        assert (refused.status_code, refused.json()["limit"]) == (429, 2)
        assert int(refused.headers["retry-after"]) > 0
        other = Client(base, who=("bob", "OWNER", WS))
        await other.get(1)
        await feeds[0].close()
        while len(attn.edges[0].connections) > 2:
            await client.get("/healthz")
        again = Client(base, who=ANN)
        await again.get(1)
        for feed in (feeds[1], other, again):
            await feed.close()
