"""Read routes of Ankra (seeds/ankra.md). Tests are named by rule number."""

from __future__ import annotations

import pytest
from support.edge.edges import Fed
from support.edge.expected_view import Truth
from support.edge.random_rows import AT, World, item, waitpoint

from api.readmodel.readers import Reader
from schemas.log import Data, Editor, Step, Widget
from schemas.scalars import HOUR
from schemas.views import ActivityRow, DraftEditor, DraftRow, MarkRow, PreferencesRow
from streams.core.domain.keys import draft_key, mark_key, preferences_key


async def test_a9_inbox_is_the_current_snapshot() -> None:
    fed = Fed()
    cursor = fed.put(waitpoint())
    async with fed.client() as client:
        answer = await client.get("/org/me/inbox")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["cursor"] == cursor
    assert body["counts"] == {"total": 1, "unread": 1, "by_kind": {"waitpoint": 1}, "by_priority": {"high": 1}}
    assert body["activity"] == {
        "window": "24h", "sessions_completed": 0, "plans_approved": 0, "actions_resolved": 0, "recent": []}
    assert "next" not in body
    [item] = body["items"]
    assert item.pop("id").startswith("ibx_")
    assert item.pop("rank")
    assert item == {
        "workspace_id": "w1", "kind": "waitpoint", "source_id": "wp_tok_abc", "title": "Review production deploy",
        "body_md": "PR #128 ready", "state": "unread", "priority": "high", "blocking": True, "target_role": "OWNER",
        "created_at": "2025-05-20T08:14:22Z", "updated_at": "2025-05-20T08:14:22Z", "revision": 7,
        "sender_type": "agent", "sender_id": "ag_1", "sender_name": "Daniel",
        "payload": {"deploy_target": "prod", "n": 12345678901234567890123},
        "band": "high", "due_at": "2025-05-20T09:14:22Z", "overdue": False, "rank_reasons": ["high", "blocking"],
        "cluster": "prod-us-east-1", "stack": "web", "case_id": "case/1", "session_id": "s 1",
        "action_url": "/cases/case%2F1/sessions/s%201",
    }
    assert b"12345678901234567890123" in answer.content, "the payload keeps its digits"


async def test_a3_to_a6_items_have_the_fields_of_their_kind() -> None:
    fed = Fed()
    steps = [Step("a", "auto"), Step("b", "confirm"), Step("c", "auto")]
    fed.put(
        item(source_id="p", kind="plan_approval", data=Data(steps=steps, expires_at=AT)),
        item(source_id="a", kind="pending_action", data=Data(risk="critical", reversible=False)),
        item(source_id="r", kind="failed_run", data=Data(pipeline="x", step="y", error="boom", incident_key="k")),
        item(source_id="i", kind="incident", clusters=["c1", "c2"], members=["ibx_1", "ibx_2"], count=2),
        item(source_id="d", kind="draft_review", data=Data(editor=Editor("ai", "e"))),
        item(source_id="case_9", kind="blocked_case"), item(source_id="ses_9", kind="session_waiting"),
        item(source_id="ses_8", kind="verifying_no_proof", data=Data(case_id="c", task_id="t", proof_id="p")),
    )
    async with fed.client() as client:
        items = {row["kind"]: row for row in (await client.get("/org/me/inbox")).json()["items"]}
    assert items["plan_approval"]["plan"] == {"auto": 2, "confirm": 1, "steps": [
        {"title": "a", "mode": "auto"}, {"title": "b", "mode": "confirm"}, {"title": "c", "mode": "auto"}]}
    assert items["plan_approval"]["expires_at"] == "2025-05-20T08:14:22Z"
    assert (items["pending_action"]["risk"], items["pending_action"]["reversible"]) == ("critical", False)
    run = items["failed_run"]
    assert (run["pipeline"], run["step"], run["error"], run["incident_key"]) == ("x", "y", "boom", "k")
    incident = items["incident"]
    assert (incident["clusters"], incident["count"], incident["members"]) == (["c1", "c2"], 2, ["ibx_1", "ibx_2"])
    assert items["draft_review"]["editor"] == {"type": "ai", "id": "e"}
    assert items["blocked_case"]["action_url"] == "/cases/case_9"
    assert items["session_waiting"]["session_id"] == "ses_9"
    assert "action_url" not in items["session_waiting"]
    assert items["verifying_no_proof"]["action_url"] == "/cases/c/sessions/ses_8"
    assert (items["verifying_no_proof"]["task_id"], items["verifying_no_proof"]["proof_id"]) == ("t", "p")


@pytest.mark.parametrize(("case", "session", "link"), [
    ("acme/web#42", "50% ?a=b", "/cases/acme%2Fweb%2342/sessions/50%25%20%3Fa%3Db"), ("..", None, None),
    (".", "s", None), ("c", "..", "/cases/c"), ("../x", None, "/cases/..%2Fx"),
    ("a\\b\u202e\0", None, "/cases/a%5Cb%E2%80%AE%00"),
])
async def test_the_default_link_encodes_the_ids(case: str, session: str | None, link: str | None) -> None:
    fed = Fed()
    fed.put(item(data=Data(case_id=case, session_id=session)))
    async with fed.client() as client:
        [row] = (await client.get("/org/me/inbox")).json()["items"]
        [same] = (await client.get("/inbox")).json()["items"]
    assert row.get("action_url") == same.get("action_url") == link


@pytest.mark.parametrize("url", ["/\\host", "/\thost", "//host", "https://u@host", "/a\u202e", "javascript:alert(1)"])
async def test_an_unusable_link_of_an_older_row_is_not_shown(url: str) -> None:
    fed = Fed()
    fed.put(item(source_id="a", data=Data(action_url=url)),
            item(source_id="b", data=Data(action_url=url, case_id="c")))
    async with fed.client() as client:
        for path in ("/org/me/inbox", "/inbox"):
            items = (await client.get(path)).json()["items"]
            assert {row.get("action_url") for row in items} == {None, "/cases/c"}


async def test_a7_pages_are_ranked_and_end() -> None:
    world, fed = World(11, items=40), Fed()
    for _ in range(6):
        rows, _ = world.batch(40)
        fed.put(*rows)
    wanted = Truth(world.rows, Reader("w1", "ann", frozenset({"OWNER"}))).page(1000)
    async with fed.client() as client:
        listed, after = [], {}
        while True:
            body = (await client.get("/org/me/inbox", params={"limit": 3, **after})).json()
            listed += body["items"]
            assert body["counts"] == wanted["counts"]
            if "next" not in body:
                break
            after = {"next": body["next"]}
        assert listed == wanted["items"]
        assert len((await client.get("/org/me/inbox?limit=9999")).json()["items"]) == len(wanted["items"])


async def test_dismissed_lists_my_dismissed_items() -> None:
    fed = Fed()
    rows = [item(source_id=f"s{number}", due_at=number) for number in range(4)]
    marks = [(mark_key(row.id, "ann"), MarkRow("w1", row.id, "ann", 0, until)) for (_, row), until in
             zip(rows, (None, AT, None), strict=False)]
    fed.put(*rows, *marks, (mark_key(rows[3][1].id, "bob"), MarkRow("w1", rows[3][1].id, "bob", 0)))
    async with fed.client() as client:
        body = (await client.get("/org/me/inbox?dismissed=true&limit=2")).json()
        assert [listed["source_id"] for listed in body["items"]] == ["s0", "s1"]
        assert [listed.get("dismissed_until") for listed in body["items"]] == [None, "2025-05-20T08:14:22Z"]
        rest = (await client.get("/org/me/inbox", params={"dismissed": "true", "next": body["next"]})).json()
        assert [listed["source_id"] for listed in rest["items"]] == ["s2"]
        assert "next" not in rest
        inbox = (await client.get("/org/me/inbox")).json()
        assert [listed["source_id"] for listed in inbox["items"]] == ["s3"]
        assert inbox["counts"]["total"] == 1


async def test_a11_activity_counts_visible_events_within_the_window() -> None:
    fed = Fed()
    now = fed.position.clock

    def done(name: str, kind: str, hours: int, **more: object) -> tuple[bytes, ActivityRow]:
        return name.encode(), ActivityRow(
            ws="w1", id=name, type=kind, at=now - hours * HOUR, item="i", kind="k", title=name, **more)  # type: ignore[arg-type]

    fed.put(
        done("a:1", "session.completed", 1), done("a:2", "plan.approved", 3, by="bob"),
        done("a:3", "action.declined", 20, target_user_id="ann", target_role="OWNER"),
        done("a:4", "action.confirmed", 2, target_user_id="bob"),
    )
    async with fed.client() as client:
        whole = (await client.get("/org/me/activity")).json()
        assert [whole[name] for name in ("window", "sessions_completed", "plans_approved", "actions_resolved")] == [
            "24h", 1, 1, 1]
        assert [entry["title"] for entry in whole["recent"]] == ["a:1", "a:2", "a:3"]
        assert whole["recent"][1]["by_user_id"] == "bob"
        short = (await client.get("/org/me/activity?window=2h")).json()
        assert (short["window"], short["sessions_completed"], short["plans_approved"]) == ("2h", 1, 0)
        assert len(short["recent"]) == 1
        for wrong in ("0h", "91d", "30m", "2", "h", "-1h", "9999d", "1h "):
            assert (await client.get("/org/me/activity", params={"window": wrong})).status_code == 400, wrong
        assert (await client.get("/org/me/activity?window=7d")).status_code == 503


async def test_a16_recent_drafts_and_a17_preferences() -> None:
    fed = Fed()
    async with fed.client() as client:
        assert (await client.get("/org/me/preferences")).json() == {"pinned_clusters": [], "widgets": []}
        assert (await client.get("/org/me/recent-drafts")).json() == {"drafts": []}
        editors = [DraftEditor("ai", "ag", "Planner", AT), DraftEditor("user", "ann", "Ann", 5)]
        fed.put(
            (draft_key("w1", "d1"), DraftRow(ws="w1", draft_id="d1", title="T", cluster="c", stack="s", touched_at=AT,
                                             ai_at=AT, editors=editors)),
            (draft_key("w1", "d2"), DraftRow(ws="w1", draft_id="d2", owner="ann", touched_at=AT + 1)),
            (draft_key("w1", "d3"), DraftRow(ws="w1", draft_id="d3", owner="bob", touched_at=AT + 2)),
            (draft_key("w1", "d4"), DraftRow(ws="w1", draft_id="d4", owner="ann", touched_at=5, done_at=6)),
            (preferences_key("w1", "ann"), PreferencesRow("w1", "ann", ["c2", "c1"], [Widget("w", False)])),
        )
        assert (await client.get("/org/me/recent-drafts")).json() == {"drafts": [
            {"draft_id": "d2", "last_touched_at": "2025-05-20T08:14:22.000001Z", "has_ai_edits": False,
             "co_editors": []},
            {"draft_id": "d1", "title": "T", "cluster": "c", "stack": "s", "last_touched_at": "2025-05-20T08:14:22Z",
             "has_ai_edits": True, "co_editors": [{"type": "ai", "id": "ag", "name": "Planner"}]},
        ]}
        assert (await client.get("/org/me/preferences")).json() == {
            "pinned_clusters": ["c2", "c1"], "widgets": [{"id": "w", "visible": False}]}


async def test_a18_pinned_clusters_come_first_within_band_and_blocking() -> None:
    fed = Fed()
    fed.put(
        item(source_id="a", due_at=1), item(source_id="b", due_at=2, data=Data(cluster="c1")),
        item(source_id="c", due_at=0, priority="low", data=Data(cluster="c1")),
        item(source_id="d", due_at=9, blocking=True),
        (preferences_key("w1", "ann"), PreferencesRow("w1", "ann", ["c1"])),
    )
    async with fed.client() as client:
        items = (await client.get("/org/me/inbox")).json()["items"]
        assert [row["source_id"] for row in items] == ["d", "b", "a", "c"]
        assert items[1]["rank_reasons"] == ["normal", "pinned"]
        filtered = (await client.get("/org/me/inbox?cluster=c1&kind=waitpoint")).json()["items"]
        assert [row["source_id"] for row in filtered] == ["b", "c"]
        assert (await client.get("/org/me/inbox?kind=nothing")).json()["items"] == []
