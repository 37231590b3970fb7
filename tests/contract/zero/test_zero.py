"""Zero's rules Z1-Z10 (seeds/zero.md) on the real fold. One test per rule, named by its number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.edges import bearer, serving, until
from support.fold.fold_driver import at, event

FIELDS = {"id", "kind", "urgency", "case_id", "case_title", "title", "description", "session_id", "action_url"}


async def ask(attn: Deciding, path: str = "/inbox") -> Any:
    async with attn.client() as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def listening(attn: Deciding, path: str, edge: int = 0, **headers: str) -> AsyncIterator[list[str]]:
    """Opens an event stream. Yields the list of its lines, which grows while they arrive."""
    lines: list[str] = []
    serving_edge = attn.edges[edge]

    async def read(base: str) -> None:
        headers_of = {**bearer(ws=WS), "accept": "text/event-stream", **headers}
        async with httpx.AsyncClient(base_url=base, timeout=60) as client, client.stream(
            "GET", path, headers=headers_of) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            async for line in answer.aiter_lines():
                lines.append(line)  # noqa: PERF401 - they are looked at as they come

    async with serving(serving_edge) as base:
        task = asyncio.create_task(read(base))
        await until(lambda: len(serving_edge.connections) or task.done(), 60)
        yield lines
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def events_of(lines: list[str]) -> list[Any]:
    received = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return [{name: value for name, value in event_data.items() if name != "at"} for event_data in received]


async def test_z1_the_inbox_lists_only_items_that_need_a_decision() -> None:
    attn = Deciding()
    attn.happen(
        event("session.started", "s1", case_id="c"), event("session.completed", "s2", case_id="c"),
        event("case.state_changed", "c", state="IMPLEMENTING"),
        event("proof.attached", "p", case_id="c", session_id="s2"),
        event("task.unblocked", "t", case_id="c"), event("task.blocked", "t2", title="T", case_id="c"))
    assert [item["kind"] for item in (await ask(attn))["items"]] == ["blocked_task"]


async def test_z2_items_and_their_count() -> None:
    attn = Deciding()
    assert await ask(attn) == {"items": [], "count": 0}
    attn.happen(*(message(f"m{number}") for number in range(3)))
    body = await ask(attn)
    assert set(body) == {"items", "count"}
    assert body["count"] == len(body["items"]) == 3
    body = await ask(attn, "/inbox?limit=1")
    assert (len(body["items"]), body["count"]) == (1, 3)


async def test_z3_fields_and_those_that_may_be_absent() -> None:
    attn = Deciding()
    attn.happen(
        event("session.waiting", "session_abc", minutes=-2, title="Session paused — operator input required",
              body_md="Agent reached a decision point and cannot continue without clarification.", priority="high",
              case_id="case_xyz", case_title="Fix auth token expiry"),
        event("task.blocked", "t", title="Waits", case_id="case_def", case_title="Refactor payment module"))
    first, second = (await ask(attn))["items"]
    assert first.pop("id").startswith("ibx_")
    assert first == {  # the example of seeds/zero.md
        "kind": "ask_user", "urgency": "high", "case_id": "case_xyz", "case_title": "Fix auth token expiry",
        "title": "Session paused — operator input required",
        "description": "Agent reached a decision point and cannot continue without clarification.",
        "session_id": "session_abc", "action_url": "/cases/case_xyz/sessions/session_abc"}
    assert set(second) == FIELDS - {"description", "session_id"}


async def test_z4_the_kinds() -> None:
    attn = Deciding()
    attn.happen(
        event("session.waiting", "s1", title="T", case_id="c1"), event("task.blocked", "t", title="T", case_id="c2"),
        event("session.verifying", "s2", title="T", case_id="c3"),
        event("proof.attached", "p", title="T", case_id="c4", session_id="s4", expires_at=at(60)),
        event("case.state_changed", "c5", title="T", state="BLOCKED"))
    kinds = {item["case_id"]: item["kind"] for item in (await ask(attn))["items"]}
    assert kinds == {"c1": "ask_user", "c2": "blocked_task", "c3": "verifying_no_proof", "c4": "proof_expiring",
                     "c5": "blocked_case"}
    attn.happen(
        event("session.resumed", "s1", minutes=1), event("task.unblocked", "t", minutes=1),
        event("proof.attached", "p2", minutes=1, case_id="c3", session_id="s2", expires_at=at(9000)),
        event("proof.attached", "p3", minutes=1, case_id="c4", session_id="s4", expires_at=at(9000)),
        event("case.state_changed", "c5", minutes=1, state="IMPLEMENTING"))
    assert await ask(attn) == {"items": [], "count": 0}, "each item closes when its reason ends"


@pytest.mark.parametrize(("priority", "urgency"), [
    ("urgent", "high"), ("high", "high"), ("normal", "medium"), ("low", "low")])
async def test_z5_urgencies(priority: str, urgency: str) -> None:
    attn = Deciding()
    attn.happen(event("session.waiting", "s", title="T", case_id="c", priority=priority))
    [item] = (await ask(attn))["items"]
    assert item["urgency"] == urgency
    [row] = (await ask(attn, "/api/v1/inbox"))["rows"]
    assert row["blocking"] is True, "a waiting session blocks until it is answered"


async def test_z6_links() -> None:
    attn = Deciding()
    attn.happen(
        event("session.waiting", "s 1", title="1", case_id="c/1"), event("case.state_changed", "c2", title="2",
                                                                        state="BLOCKED"),
        message("3", title="3", action_url="https://x.example/y"), message("4", title="4"))
    links = {item["title"]: item.get("action_url") for item in (await ask(attn))["items"]}
    assert links == {"1": "/cases/c%2F1/sessions/s%201", "2": "/cases/c2", "3": "https://x.example/y", "4": None}


async def test_z7_count_is_of_unread_and_fetches_no_items() -> None:
    attn = Deciding()
    attn.happen(*(message(f"m{number}") for number in range(3)), message("o", target_role="VIEWER"))
    assert await ask(attn, "/inbox/count") == {"count": 3}
    async with attn.client() as client:
        item = (await client.get("/inbox")).json()["items"][0]["id"]
        await client.patch(f"/api/v1/inbox/{item}", json={"state": "read"})
        attn.edges[0].replica.workspace(WS).rows = {}
        assert (await client.get("/inbox/count")).json() == {"count": 2}


def publish_events(attn: Deciding) -> None:
    attn.happen(
        event("case.state_changed", "case_xyz", title="T", state="IMPLEMENTING"),
        event("session.started", "session_abc", case_id="case_xyz"),
        event("proof.attached", "p", case_id="case_xyz", session_id="session_abc"),
        event("session.waiting", "s2", title="T", case_id="other"),
        event("session.started", "s3", case_id="hidden", target_role="VIEWER"),
        event("session.started", "s4", ws="ws2", case_id="case_xyz"))


EXAMPLE = [
    {"type": "case_state_changed", "case_id": "case_xyz", "state": "IMPLEMENTING"},
    {"type": "session_started", "case_id": "case_xyz", "session_id": "session_abc"},
    {"type": "proof_attached", "case_id": "case_xyz", "session_id": "session_abc", "proof_id": "p"},
]


async def test_z8_the_stream_of_the_workspace() -> None:
    attn = Deciding(edges=2)
    async with listening(attn, "/events/stream") as lines:
        publish_events(attn)
        await until(lambda: len(events_of(lines)) >= 4, 60)
        assert events_of(lines) == [*EXAMPLE, {"type": "session_waiting", "case_id": "other", "session_id": "s2"}]
    last = next(line.removeprefix("id: ") for line in lines if line.startswith("id: "))
    async with listening(attn, "/events/stream", 1, **{"last-event-id": last}) as rest:
        await until(lambda: len(events_of(rest)) >= 3, 60)
        assert events_of(rest) == events_of(lines)[1:], "resumed after the first event, at another edge"


async def test_z9_plain_data_frames_by_type() -> None:
    attn = Deciding()
    async with listening(attn, "/events/stream") as lines:
        publish_events(attn)
        await until(lambda: len(events_of(lines)) >= 3, 60)
        assert events_of(lines)[:3] == EXAMPLE
        assert {line.partition(":")[0] for line in lines if line} == {"retry", "id", "data"}, (
            "frames have no event names")


async def test_z10_the_stream_of_one_case() -> None:
    attn = Deciding()
    publish_events(attn)
    async with listening(attn, "/cases/case_xyz/events") as lines:
        attn.happen(event("session.completed", "session_abc", minutes=1, case_id="case_xyz"),
                    event("session.resumed", "s2", minutes=1, case_id="other"),
                    event("task.blocked", "t", minutes=1, title="T", case_id="case_xyz"))
        await until(lambda: len(events_of(lines)) >= 2, 60)
        assert [received["type"] for received in events_of(lines)] == ["session_completed", "task_blocked"]
    async with attn.client() as client:
        absent = [await client.get(f"/cases/{case}/events") for case in ("hidden", "never")]
    assert {answer.status_code for answer in absent} == {404}
    assert absent[0].content == absent[1].content
