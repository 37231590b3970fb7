"""Crewship's routes, as far as they read: the seeds' rules by their numbers."""

from __future__ import annotations

from support.edges import Fed
from support.rows import AT, item, waitpoint


async def test_c6_c7_item_shape_to_the_letter() -> None:
    fed = Fed()
    fed.put(waitpoint(), item(source_id="plain", state="resolved", created_at=AT - 1, resolved_at=AT, read_at=AT,
                              resolved_by="bob", resolved_action="approved"))
    async with fed.client() as client:
        body = (await client.get("/api/v1/inbox")).json()
        assert (body["count"], body["unread_count"]) == (2, 1)
        first, second = body["rows"]
        one = (await client.get(f"/api/v1/inbox/{first['id']}")).json()
    assert one == first
    assert set(first) - {"revision"} == {
        "id", "workspace_id", "kind", "source_id", "target_role", "title", "body_md", "sender_type", "sender_id",
        "sender_name", "state", "priority", "blocking", "payload", "created_at", "updated_at"}
    assert set(second) - {"revision"} == {
        "id", "workspace_id", "kind", "source_id", "title", "state", "priority", "blocking", "read_at", "resolved_at",
        "resolved_by_user_id", "resolved_action", "created_at", "updated_at"}


async def test_c9_c10_newest_first_by_state_kind_and_limit() -> None:
    fed = Fed()
    states = ("unread", "read", "resolved", "hidden", "unread")
    kinds = ("message", "message", "waitpoint", "message", "waitpoint")
    fed.put(*(item(source_id=f"s{number}", created_at=number, state=state, kind=kind)
              for number, (state, kind) in enumerate(zip(states, kinds, strict=True))))
    async with fed.client() as client:
        async def sources(**params: object) -> list[str]:
            answer = await client.get("/api/v1/inbox", params=params)  # type: ignore[arg-type]
            assert answer.status_code == 200
            return [row["source_id"] for row in answer.json()["rows"]]

        assert await sources() == ["s4", "s2", "s1", "s0"] == await sources(state="all")
        assert await sources(state="unread") == ["s4", "s0"]
        assert await sources(state="active") == ["s4", "s1", "s0"]
        assert await sources(state="resolved") == ["s2"]
        assert await sources(kind="message", state="active") == ["s1", "s0"]
        assert await sources(limit=2) == ["s4", "s2"]
        wrong = await client.get("/api/v1/inbox?state=open")
        assert (wrong.status_code, wrong.json()) == (400, {"error": "invalid state"})
        for limit in ("0", "-1", "x", "1.5", ""):
            assert (await client.get("/api/v1/inbox", params={"limit": limit})).status_code == 400, limit


async def test_c12_count() -> None:
    fed = Fed()
    fed.put(item(source_id="a"), item(source_id="b", state="read"), item(source_id="c", target_user_id="bob"),
            item(source_id="d", target_user_id="ann", target_role="OWNER"))
    async with fed.client() as client:
        assert (await client.get("/api/v1/inbox/count")).json() == {"unread_count": 2}


async def test_c3_c4_c5_what_i_cannot_see_is_not_there() -> None:
    fed = Fed()
    hidden = [item(source_id="o", target_role="OWNER"), item(source_id="b", target_user_id="bob"),
              item(ws="w2", source_id="w"), item(source_id="h", state="hidden")]
    fed.put(*hidden, item(source_id="v"))
    async with fed.client("ann", "MEMBER") as client:
        assert [row["source_id"] for row in (await client.get("/api/v1/inbox")).json()["rows"]] == ["v"]
        absent = await client.get("/api/v1/inbox/ibx_none")
        assert (absent.status_code, absent.json()) == (404, {"error": "not found"})
        for _, row in hidden:
            answer = await client.get(f"/api/v1/inbox/{row.id}")
            assert (answer.status_code, answer.content) == (404, absent.content)


async def test_grouped_members_leave_lists_but_stay_readable() -> None:
    fed = Fed()
    _, member = row = item(source_id="m", kind="failed_run", incident="ibx_i")
    fed.put(row, item(source_id="i", kind="incident", members=[member.id], clusters=["a", "b"], count=1))
    async with fed.client() as client:
        assert (await client.get("/api/v1/inbox")).json()["count"] == 1
        assert (await client.get("/inbox")).json()["count"] == 1
        assert (await client.get(f"/api/v1/inbox/{member.id}")).json()["source_id"] == "m"


async def test_at_least_lets_a_higher_role_see_what_is_for_lower_ones() -> None:
    fed = Fed(role_visibility="at-least")
    fed.put(item(source_id="m", target_role="MEMBER"), item(source_id="o", target_role="OWNER"))
    for role, count in (("OWNER", 2), ("MEMBER", 1), ("VIEWER", 0)):
        async with fed.client("a", role) as client:
            assert (await client.get("/inbox")).json()["count"] == count
