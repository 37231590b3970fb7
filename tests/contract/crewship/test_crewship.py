"""Crewship's rules C1-C20 (seeds/crewship.md) on the real fold. One test per rule, named by its number.

C21-C30 are in test_crewship_bulk.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.clients.crewship import (
    ALWAYS,
    MANAGED,
    STATE_ERROR,
    URL,
    M,
    W,
    bulk,
    filled,
    get,
    patch,
    rows,
    sources,
)
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.edge.edges import token
from support.fold.fold_driver import at, event

from streams.core.domain.keys import item_id


@pytest.fixture
def attn() -> Deciding:
    return filled()


async def test_c1_a_session_and_a_workspace_are_needed_everywhere(attn: Deciding) -> None:
    for headers in ({}, {"authorization": f"Bearer {token(workspace_id=None, seconds=10**9)}"}):
        async with attn.client(headers=headers) as client:
            for method, path in (("GET", URL), ("GET", f"{URL}/count"), ("GET", f"{URL}/{M}"), ("PATCH", f"{URL}/{M}"),
                                 ("POST", f"{URL}/bulk")):
                answer = await client.request(method, path, json={"state": "read", "ids": [M]})
                assert answer.status_code == 401, path
                assert set(answer.json()) == {"error"}


async def test_c2_source_events_create_rows_and_the_api_has_no_insert(attn: Deciding) -> None:
    attn.happen(event("escalation.opened", "e", title="T"), event("run.failed", "r", title="T"))
    async with attn.client() as client:
        assert {row["kind"]: row["source_id"] for row in await rows(client)} == {
            "waitpoint": "w", "escalation": "e", "failed_run": "r", "message": "m"}
        assert (await client.post(URL, json={"kind": "message", "title": "T"})).status_code == 405
        assert (await client.put(f"{URL}/{M}", json={})).status_code == 405


MATRIX = [  # target user, target role, visible to ann (OWNER), visible to bob (MEMBER)
    (None, None, True, True), ("ann", None, True, False), (None, "OWNER", True, False), (None, "MEMBER", False, True),
    ("bob", "OWNER", True, True), ("ann", "MEMBER", True, True), ("cyd", None, False, False),
    ("cyd", "ADMIN", False, False),
]


async def test_c3_visible_without_target_or_to_me_or_to_my_role() -> None:
    attn = Deciding()
    for number, (user, role, *_) in enumerate(MATRIX):
        targets = {"target_user_id": user, "target_role": role}
        attn.happen(message(f"t{number}", **{name: value for name, value in targets.items() if value}))
    attn.happen(message("elsewhere", ws="ws2"))
    for column, reader in ((2, ("ann", "OWNER")), (3, ("bob", "MEMBER"))):
        async with attn.client(*reader) as client:
            wanted = {f"t{number}" for number, line in enumerate(MATRIX) if line[column]}
            assert set(await sources(client)) == wanted
            assert (await client.get(f"{URL}/count")).json() == {"unread_count": len(wanted)}


async def test_c4_a_member_does_not_see_items_for_the_owner(attn: Deciding) -> None:
    attn.happen(message("o", target_role="OWNER"))
    async with attn.client("bob", "MEMBER") as client:
        assert "o" not in await sources(client)
        assert (await client.get(f"{URL}/{item_id(WS, 'message', 'o')}")).status_code == 404


async def test_c5_list_count_and_patch_hide_the_same_items_and_404_equals_that_of_a_missing_item(
    attn: Deciding
) -> None:
    attn.happen(message("o", target_role="OWNER"), message("u", target_user_id="cyd"), message("x", ws="ws2"))
    hidden = [item_id(WS, "message", "o"), item_id(WS, "message", "u"), item_id("ws2", "message", "x")]
    written = len(attn.log)
    async with attn.client("bob", "MEMBER") as client:
        absent = await client.patch(f"{URL}/ibx_none", json={"state": "read"})
        assert (absent.status_code, absent.json()) == (404, {"error": "not found"})
        for item in hidden:
            answer = await client.patch(f"{URL}/{item}", json={"state": "read"})
            assert (answer.status_code, answer.content) == (404, absent.content)
            answer = await client.get(f"{URL}/{item}")
            assert (answer.status_code, answer.content) == (404, absent.content)
        assert len(await rows(client)) == (await client.get(f"{URL}/count")).json()["unread_count"] == 2
    assert len(attn.log) == written, "nothing was appended to the log"


async def test_c6_fields_that_are_always_there(attn: Deciding) -> None:
    async with attn.client() as client:
        for row in await rows(client):
            assert set(row) == ALWAYS | {"revision"}, "the seed's fields and those that CONTRACT adds"
            assert re.fullmatch(r"ibx_[0-9a-f]{32}", row["id"])
            assert (row["workspace_id"], row["title"], row["state"]) == (WS, "T", "unread")


async def test_c7_fields_without_a_value_are_left_out(attn: Deciding) -> None:
    sender = {"type": "agent", "id": "ag_01HVY...", "name": "Daniel"}
    attn.happen(waitpoint(
        "wp_tok_abc", minutes=-1, title="Review production deploy", body_md="PR #128 ready for production roll-out…",
        target_role="OWNER", sender=sender, priority="high", payload={"deploy_target": "prod-us-east-1"}))
    async with attn.client() as client:
        [row] = await rows(client, limit=1)
        del row["id"], row["revision"]
        assert row == {  # the example of seeds/crewship.md
            "workspace_id": WS, "kind": "waitpoint", "source_id": "wp_tok_abc", "target_role": "OWNER",
            "title": "Review production deploy", "body_md": "PR #128 ready for production roll-out…",
            "sender_type": "agent", "sender_id": "ag_01HVY...", "sender_name": "Daniel", "state": "unread",
            "priority": "high", "blocking": True, "payload": {"deploy_target": "prod-us-east-1"},
            "created_at": at(-1), "updated_at": at(-1),
        }
        attn.happen(message("empty", minutes=0, body_md="", sender={}, target_user_id="ann", payload={}))
        assert set((await rows(client, limit=1))[0]) - {"revision", "payload"} == ALWAYS | {"target_user_id"}
        await patch(client, M, state="resolved", resolved_action="approved")
        done = await get(client, M)
    assert set(done) - ALWAYS - {"revision"} == {"resolved_at", "resolved_by_user_id", "resolved_action"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", done["resolved_at"])


async def test_c8_items_have_kind_priority_and_blocking(attn: Deciding) -> None:
    attn.happen(*(message(f"p-{name}", priority=name) for name in ("low", "normal", "high", "urgent")),
                message("b", blocking=True), event("plan.proposed", "plan", title="T"))
    async with attn.client() as client:
        row_of = {row["source_id"]: row for row in await rows(client)}
    assert {name: row_of[f"p-{name}"]["priority"] for name in ("low", "normal", "high", "urgent")} == {
        name: name for name in ("low", "normal", "high", "urgent")}
    assert row_of["m"]["priority"] == "normal"
    assert [row_of[name]["blocking"] for name in ("w", "m", "b")] == [True, False, True]
    assert row_of["plan"]["kind"] == "plan_approval", "kinds of other seeds are listed too"


async def test_c9_the_list_is_newest_first_by_state_and_keeps_resolved_items(attn: Deciding) -> None:
    attn.happen(*(message(f"s{number}", minutes=number) for number in range(3)))
    async with attn.client() as client:
        await patch(client, item_id(WS, "message", "s0"), state="resolved")
        await patch(client, item_id(WS, "message", "s1"), state="read")
        first = ["s2", "s1", "s0"]
        assert (await sources(client))[:3] == first == (await sources(client, state="all"))[:3]
        assert await sources(client, state="resolved") == ["s0"]
        assert await sources(client, state="read") == ["s1"]
        assert (await sources(client, state="unread"))[0] == "s2"
        active = await sources(client, state="active")  # a state that CONTRACT adds: unread and read
        assert active[:2] == ["s2", "s1"]
        assert "s0" not in active
        for wrong in ("open", "", "UNREAD", "unread,read"):
            answer = await client.get(URL, params={"state": wrong})
            assert (answer.status_code, answer.json()) == (400, {"error": "invalid state"})


async def test_c10_kind_narrows_and_limit_is_100_and_at_most_500(attn: Deciding) -> None:
    attn.happen(*(message(f"n{number}") for number in range(520)))
    async with attn.client() as client:
        assert await sources(client, kind="waitpoint") == ["w"]
        assert await sources(client, kind="nothing") == []
        assert len(await rows(client)) == 100
        assert len(await rows(client, limit=500)) == len(await rows(client, limit=99_999)) == 500
        assert len(await rows(client, limit=7)) == 7
        for limit in ("0", "-1", "x", "1.5", ""):
            assert (await client.get(URL, params={"limit": limit})).status_code == 400, limit


async def test_c11_count_is_of_the_rows_and_unread_count_of_all() -> None:
    attn = Deciding()
    attn.happen(*(message(f"n{number}") for number in range(7)))
    async with attn.client() as client:
        body = (await client.get(URL, params={"limit": 1})).json()
        assert set(body) == {"rows", "count", "unread_count"}
        assert (len(body["rows"]), body["count"], body["unread_count"]) == (1, 1, 7)
        body = (await client.get(URL, params={"kind": "waitpoint"})).json()
        assert (body["rows"], body["count"], body["unread_count"]) == ([], 0, 7)


async def test_c12_count_reads_no_row(attn: Deciding) -> None:
    attn.happen(message("o", target_role="OWNER"), message("both", target_role="OWNER", target_user_id="ann"))
    async with attn.client("ann", "OWNER") as client, attn.client("bob", "MEMBER") as other:
        assert (await client.get(f"{URL}/count")).json() == {"unread_count": 4}
        space = attn.edges[0].replica.workspace(WS)
        space.rows = None  # type: ignore[assignment]
        assert (await client.get(f"{URL}/count")).json() == {"unread_count": 4}
        assert (await other.get(f"{URL}/count")).json() == {"unread_count": 2}


@pytest.mark.parametrize("body", [{}, {"state": "open"}, {"state": None}, {"state": 3}, {"state": "Read"},
                                  {"state": ["read"]}, {"resolved_action": "approved"}])
async def test_c13_state_is_required_and_one_of_three(attn: Deciding, body: dict[str, Any]) -> None:
    async with attn.client() as client:
        assert await patch(client, M, **body) == STATE_ERROR
    assert len(attn.log) == 1, "nothing was appended to the log"


async def test_c13_an_invalid_body_is_400_with_its_error(attn: Deciding) -> None:
    async with attn.client() as client:
        answer = await client.patch(f"{URL}/{M}", content=b"{", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()) == (400, {"error": "the body is not JSON"})
        status, body = await patch(client, M, state="read", urgent=True)
        assert status == 400
        assert "urgent" in body["error"], "the error names the unknown field"


@pytest.mark.parametrize("action", ["approved", "rejected", "retried", "cancelled", "moved to Tuesday", None])
async def test_c14_the_action_is_optional_and_kept(attn: Deciding, action: str | None) -> None:
    async with attn.client("ann") as client:
        given = {"resolved_action": action} if action else {}
        assert (await patch(client, M, state="resolved", **given))[0] == 200
        row = await get(client, M)
    assert (row["state"], row["resolved_by_user_id"]) == ("resolved", "ann")
    assert row.get("resolved_action", "left out") == (action or "left out"), (
        "without an action the field is left out (C7)")


async def test_c15_the_answer_is_id_and_state(attn: Deciding) -> None:
    async with attn.client() as client:
        for state in ("read", "resolved", "unread"):
            assert await patch(client, M, state=state) == (200, {"id": M, "state": state})


async def test_c16_source_managed_items_accept_only_the_state_read(attn: Deciding) -> None:
    attn.happen(event("escalation.opened", "e", title="T"))
    async with attn.client() as client:
        for item, kind in ((W, "waitpoint"), (item_id(WS, "escalation", "e"), "escalation")):
            before = await get(client, item)
            for state in ("unread", "resolved"):
                assert await patch(client, item, state=state, resolved_action="approved") == (
                    409, {"error": MANAGED, "kind": kind})
            assert await get(client, item) == before
            assert await patch(client, item, state="read") == (200, {"id": item, "state": "read"})


async def test_c16_kinds_whose_source_can_close_them_are_managed_too(attn: Deciding) -> None:
    opened = {"plan_approval": "plan.proposed", "pending_action": "action.requested",
              "session_waiting": "session.waiting"}
    for kind, opening in opened.items():
        attn.happen(event(opening, kind, title="T"))
        async with attn.client() as client:
            assert await patch(client, item_id(WS, kind, kind), state="resolved") == (
                409, {"error": MANAGED, "kind": kind})


async def test_c16_004_by_setting_failed_runs_are_managed() -> None:
    """`crewship-older.md`: `kind in { waitpoint, escalation, failed_run }`; only messages change state freely."""
    attn = Deciding(source_managed_kinds="waitpoint,escalation,failed_run")
    attn.happen(message("m"), waitpoint("w"), event("escalation.opened", "e", title="T"),
                event("run.failed", "r", title="T"), event("plan.proposed", "p", title="T"))
    ids = {kind: item_id(WS, kind, name) for kind, name in (
        ("waitpoint", "w"), ("escalation", "e"), ("failed_run", "r"), ("message", "m"), ("plan_approval", "p"))}
    async with attn.client() as client:
        for kind in ("waitpoint", "escalation", "failed_run"):
            for state in ("unread", "resolved"):
                assert await patch(client, ids[kind], state=state) == (409, {"error": MANAGED, "kind": kind})
            assert await patch(client, ids[kind], state="read") == (200, {"id": ids[kind], "state": "read"})
        _, body = await bulk(client, ids=list(ids.values()), state="unread")
        left = [ids[kind] for kind in ("waitpoint", "escalation", "failed_run")]
        assert (body["updated"], body["skipped_ids"]) == (2, left)
        for kind in ("message", "plan_approval"):
            for state in ("resolved", "unread", "read"):
                assert (await patch(client, ids[kind], state=state))[0] == 200


async def test_c17_messages_and_failed_runs_change_state_freely(attn: Deciding) -> None:
    attn.happen(event("run.failed", "r", title="T"))
    async with attn.client() as client:
        for item in (M, item_id(WS, "failed_run", "r")):
            for state in ("read", "resolved", "unread", "resolved", "read", "unread", "read"):
                assert await patch(client, item, state=state) == (200, {"id": item, "state": state})


async def test_c18_the_first_read_counts(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob", "MEMBER") as other:
        await patch(client, M, state="read")
        first = await get(client, M)
        attn.now += 60
        await patch(other, M, state="read")
        again = await get(client, M)
    assert first["state"] == again["state"] == "read"
    assert first["read_at"] == again["read_at"]
    assert attn.fold.state.item(b"i:" + M.encode()).read_by == "ann"  # type: ignore[union-attr]


async def test_c18_read_on_a_resolved_item_sets_only_read_at(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, M, state="resolved", resolved_action="approved")
        before = await get(client, M)
        attn.now += 60
        assert await patch(client, M, state="read") == (200, {"id": M, "state": "read"})
        after = await get(client, M)
    assert "read_at" in after
    ignored = {"read_at", "revision", "updated_at"}
    assert {k: v for k, v in after.items() if k not in ignored} == {k: v for k, v in before.items() if k not in ignored}


async def test_c19_unread_clears_all_of_it(attn: Deciding) -> None:
    async with attn.client() as client:
        await patch(client, M, state="read")
        await patch(client, M, state="resolved", resolved_action="x")
        await patch(client, M, state="unread")
        row = await get(client, M)
    assert set(row) == ALWAYS | {"revision"}
    assert row["state"] == "unread"
    kept = attn.fold.state.item(b"i:" + M.encode())
    assert kept is not None
    assert kept.read_by is kept.resolved_by is None


async def test_c20_a_second_resolve_overwrites(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob", "MEMBER") as other:
        await patch(client, M, state="resolved", resolved_action="approved")
        first = await get(client, M)
        attn.now += 60
        await patch(other, M, state="resolved", resolved_action="rejected")
        row = await get(client, M)
        assert (row["resolved_action"], row["resolved_by_user_id"]) == ("rejected", "bob")
        assert row["resolved_at"] > first["resolved_at"]
        await patch(client, M, state="resolved")
        assert "resolved_action" not in await get(client, M)
        attn.now -= 3600  # as on another edge whose clock is behind
        for action in "abcdef":
            await patch(client, M, state="resolved", resolved_action=action)
            assert (await get(client, M))["resolved_action"] == action, "the last write counts, also with a slow clock"


async def test_grouped_runs_leave_lists_but_stay_readable(attn: Deciding) -> None:
    attn.happen(*(event("run.failed", f"r{name}", title="T", cluster=name, incident_key="k") for name in "ab"))
    async with attn.client() as client:
        [incident] = await rows(client, kind="incident")
        assert await sources(client, kind="failed_run") == []
        for name in "ab":
            assert (await get(client, item_id(WS, "failed_run", f"r{name}")))["source_id"] == f"r{name}"
        assert (await client.get("/inbox")).json()["count"] == 3
        assert incident["state"] == "unread"
