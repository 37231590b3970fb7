"""A write to an incident is applied to all its runs: they open and close together."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding
from support.fold.fold_driver import event

from streams.core.domain.keys import item_id
from streams.core.fold.command_handlers import INCIDENT_RUNS_GONE


def failed(name: str, cluster: str, minutes: float = -9, **more: Any) -> Any:
    return event("run.failed", name, minutes=minutes, title="T", cluster=cluster, incident_key="k", **more)


def run(name: str) -> str:
    return item_id(WS, "failed_run", name)


@pytest.fixture
def attn() -> Deciding:
    deciding = Deciding()
    deciding.happen(failed("a", "c1"), failed("b", "c2", -8), failed("c", "c2", -7))
    return deciding


async def incident(client: httpx.AsyncClient) -> Any:
    [row] = (await client.get("/api/v1/inbox?kind=incident")).json()["rows"]
    return row


async def put(
    client: httpx.AsyncClient, item: str, state: str, action: str | None = None, seen: int | None = None
) -> tuple[int, Any]:
    given = {"resolved_action": action} if action else {}
    headers = {"if-match": f'"{seen}"'} if seen is not None else {}
    answer = await client.patch(f"/api/v1/inbox/{item}", json={"state": state, **given}, headers=headers)
    return answer.status_code, answer.json()


async def get_item(client: httpx.AsyncClient, item: str) -> Any:
    return (await client.get(f"/api/v1/inbox/{item}")).json()


async def ranked(client: httpx.AsyncClient) -> list[str]:
    return [item["kind"] for item in (await client.get("/org/me/inbox")).json()["items"]]


@pytest.mark.parametrize("action", ["retried", None])
async def test_resolving_an_incident_resolves_all_its_runs(attn: Deciding, action: str | None) -> None:
    """The runs get the incident's action, or none if the write names none (C14)."""
    async with attn.client("ann") as client:
        before = await incident(client)
        assert await put(client, before["id"], "resolved", action) == (200, {"id": before["id"], "state": "resolved"})
        for row in [await get_item(client, before["id"]), *[await get_item(client, run(name)) for name in "abc"]]:
            assert (row["state"], row.get("resolved_action"), row["resolved_by_user_id"]) == ("resolved", action, "ann")
        assert await ranked(client) == []


async def test_runs_beyond_the_listed_members_are_resolved_too() -> None:
    attn = Deciding()
    attn.happen(*(failed(f"r{number}", f"c{number % 3}") for number in range(240)))
    async with attn.client() as client:
        item = (await client.get("/org/me/inbox")).json()["items"][0]
        assert (item["count"], len(item["members"])) == (240, 200)
        assert (await put(client, item["id"], "resolved"))[0] == 200
        attn.tick(1)
        assert await ranked(client) == []
        rows = (await client.get("/api/v1/inbox?kind=failed_run&limit=500")).json()["rows"]
        assert {row["state"] for row in rows} == {"resolved"}


async def test_unread_reopens_an_incident_and_its_runs(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob") as other:
        before = await incident(client)
        await other.post(f"/org/me/inbox/{before['id']}/dismiss")
        await put(client, before["id"], "resolved", "retried")
        attn.now += 60
        assert await put(client, before["id"], "unread") == (200, {"id": before["id"], "state": "unread"})
        again = await incident(client)
        assert again["state"] == "unread"
        assert not {"read_at", "resolved_at", "resolved_by_user_id", "resolved_action"} & set(again)
        for name in "abc":
            assert (await get_item(client, run(name)))["state"] == "unread"
        [item] = (await client.get("/org/me/inbox")).json()["items"]
        assert (item["kind"], item["count"], sorted(item["members"])) == (
            "incident", 3, sorted(run(name) for name in "abc"))
        assert await ranked(other) == ["incident"], "the incident is listed again for the user who dismissed it"
        for name in "abc":
            attn.happen(event("run.recovered", name, minutes=9))
        assert (await get_item(client, before["id"]))["resolved_action"] == "recovered", (
            "the reopened incident ends with its runs")


async def test_an_incident_closed_by_its_sources_is_reopened_only_with_if_match(attn: Deciding) -> None:
    for name in "abc":
        attn.happen(event("run.recovered", name, minutes=-1))
    async with attn.client() as client:
        closed = await incident(client)
        assert closed["state"] == "resolved"
        status, refused = await put(client, closed["id"], "unread")
        assert (status, refused["revision"]) == (409, closed["revision"])
        assert "If-Match" in refused["error"]
        assert (await put(client, closed["id"], "unread", seen=closed["revision"]))[0] == 200
        assert await ranked(client) == ["incident"]


async def test_a_run_that_its_source_closed_stays_closed_when_the_incident_reopens(attn: Deciding) -> None:
    attn.happen(event("run.recovered", "c", minutes=-1))
    async with attn.client() as client:
        before = await incident(client)
        await put(client, before["id"], "resolved")
        assert (await put(client, before["id"], "unread"))[0] == 200
        states = [(await get_item(client, run(name)))["state"] for name in "abc"]
        assert states == ["unread", "unread", "resolved"]


async def test_an_incident_whose_runs_were_forgotten_cannot_be_reopened(
    attn: Deciding, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A group remembers only this many closed runs.
    monkeypatch.setattr("streams.core.domain.incidents.MAX_CLOSED_MEMBERS", 1)
    async with attn.client() as client:
        before = await incident(client)
        await put(client, before["id"], "resolved")
        refused = await put(client, before["id"], "unread")
        assert refused == (409, {"error": INCIDENT_RUNS_GONE, "kind": "incident"})
        body = (await client.post("/api/v1/inbox/bulk", json={"ids": [before["id"]], "state": "unread"})).json()
        assert (body["updated"], body["skipped_ids"]) == (0, [before["id"]])
        assert (await get_item(client, before["id"]))["state"] == "resolved"


async def test_a_second_resolve_overwrites_it_and_its_runs(attn: Deciding) -> None:
    async with attn.client("ann") as client, attn.client("bob") as other:
        before = await incident(client)
        await put(client, before["id"], "resolved", "retried")
        first = await get_item(client, before["id"])
        attn.now += 60
        await put(other, before["id"], "resolved", "cancelled")
        for item in (before["id"], run("a"), run("c")):
            row = await get_item(client, item)
            assert (row["resolved_action"], row["resolved_by_user_id"]) == ("cancelled", "bob")
            assert row["resolved_at"] > first["resolved_at"]


async def test_a_run_may_be_read_and_resolved_while_it_is_grouped(attn: Deciding) -> None:
    async with attn.client() as client:
        before = await incident(client)
        for name in "ab":
            assert (await put(client, run(name), "read"))[0] == 200
        assert (await incident(client))["state"] == "unread", "reading a run does not read its incident"
        assert (await put(client, run("a"), "resolved"))[0] == 200
        [item] = (await client.get("/org/me/inbox")).json()["items"]
        assert (item["id"], item["count"], item["members"]) == (before["id"], 2, [run("b"), run("c")])
        assert (await put(client, run("a"), "unread"))[0] == 200
        assert (await client.get("/org/me/inbox")).json()["items"][0]["count"] == 3
