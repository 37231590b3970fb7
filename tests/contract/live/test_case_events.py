"""Event streams of Zero: which events are sent to which readers, when, and the events after a resume."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from support.edge.edges import Fed, bearer, serving, until
from support.edge.random_rows import item

from api.live.case_events import CaseEventHub, case_event_of
from api.live.connections import EncodedChunk
from api.readmodel.readers import Reader
from schemas.facts import Fact
from schemas.log import Data
from schemas.views import CURSOR_BITS

ANN = Reader("w1", "ann", frozenset({"OWNER"}))


def fact(kind: str, pos: int, index: int = 0, **more: Any) -> Fact:
    return Fact(**{"ws": "w1", "pos": pos, "index": index, "event_id": f"e {pos} {index}", "time": 0, "type": kind,
                   "subject": "sub", "case_id": "c1", **more})


class Listener:
    """Reads an event stream: `received` has (id, data) of plain events, `named` the names of others."""

    def __init__(self, base: str, path: str, **headers: str) -> None:
        self.received: list[tuple[int, Any]] = []
        self.named: list[str] = []
        self.last = -1
        self.task = asyncio.create_task(self._read(base + path, headers))

    async def _read(self, url: str, headers: dict[str, str]) -> None:
        async with httpx.AsyncClient(timeout=10) as client, client.stream(
            "GET", url, headers={**bearer(), **headers}) as answer:
            answer.raise_for_status()
            event = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last = int(value)
                elif name == "event":
                    event = value
                    self.named.append(value)
                elif name == "data" and not event:
                    self.received.append((self.last, json.loads(value)))
                elif not line:
                    event = ""

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_z8_z9_case_events_are_sent_once_the_view_shows_them() -> None:
    fed = Fed()
    async with serving(fed.edge) as base:
        listener = Listener(base, "/events/stream")
        await until(lambda: len(fed.edge.connections) == 1)
        fed.edge.case_events.add(0, fact("case.state_changed", 0, 0, state="IMPLEMENTING"))
        fed.edge.case_events.add(0, fact("session.started", 0, 1, session_id="s1"))
        fed.edge.case_events.add(0, fact("proof.attached", 1, 0, session_id="s1", proof_id="p1"))
        fed.edge.case_events.release()
        await asyncio.sleep(0.05)
        assert listener.received == [], "the view has not reached the events' position"
        fed.put(item())
        await until(lambda: len(listener.received) == 2)
        fed.put(item(source_id="b"))
        await until(lambda: len(listener.received) == 3)
        at = {"at": "1970-01-01T00:00:00Z"}
        assert listener.received == [
            (0, {"type": "case_state_changed", "case_id": "c1", "state": "IMPLEMENTING", **at}),
            (1, {"type": "session_started", "case_id": "c1", "session_id": "s1", **at}),
            (1 << CURSOR_BITS, {"type": "proof_attached", "case_id": "c1", "session_id": "s1", "proof_id": "p1", **at}),
        ]
        await listener.close()


@pytest.mark.parametrize(("kind", "name"), [
    ("case.state_changed", "case_state_changed"), ("session.started", "session_started"),
    ("session.waiting", "session_waiting"), ("session.resumed", "session_resumed"),
    ("session.completed", "session_completed"), ("proof.attached", "proof_attached"),
    ("proof.expiring", "proof_expiring"), ("task.blocked", "task_blocked"), ("task.unblocked", "task_unblocked"),
])
def test_each_type_has_its_name(kind: str, name: str) -> None:
    event = case_event_of(fact(kind, 3, 2))
    assert event is not None
    first, second, *rest = event.chunk.raw.split(b"\n")
    assert (first, rest) == (b"id: %d" % (3 << CURSOR_BITS | 2), [b"", b""])
    body = json.loads(second.removeprefix(b"data: "))
    assert (body["type"], body["case_id"]) == (name, "c1")
    assert ("task_id" in body) is kind.startswith("task.")


def test_events_that_change_nothing_are_not_sent() -> None:
    assert case_event_of(fact("case.state_changed", 0, stale=True)) is None
    assert case_event_of(fact("session.started", 0, stale=True)) is not None
    assert case_event_of(fact("proof.expiring", 0, derived=True)) is not None
    for other in ("waitpoint.created", "item.read", "session.verifying", "proof.expired", "draft.edited"):
        assert case_event_of(fact(other, 0)) is None


async def test_z10_and_law_6_a_case_stream_has_only_visible_events_of_its_case() -> None:
    fed = Fed()
    fed.put(item(source_id="t", kind="blocked_task", data=Data(case_id="c1")))
    fed.edge.case_events.add(0, fact("session.started", 0, 0, case_id="known", session_id="s", target_role="OWNER"))
    fed.edge.publish()
    async with serving(fed.edge) as base:
        both, single, other = (Listener(base, path) for path in (
            "/events/stream", "/cases/c1/events", "/cases/known/events"))
        await until(lambda: len(fed.edge.connections) == 3)
        for index, more in enumerate((
            {"case_id": "c1"}, {"case_id": "known", "target_role": "OWNER"},
            {"case_id": "c1", "target_user_id": "bob"}, {"ws": "w2"}, {"case_id": "c1", "target_role": "MEMBER"},
            {"case_id": "c1", "target_role": "OWNER"}, {"case_id": None},
        )):
            fed.edge.case_events.add(0, fact("session.waiting", 1, index, session_id=f"s{index}", **more))
        fed.put(item())
        await until(lambda: len(both.received) >= 4)
        assert [data["session_id"] for _, data in both.received] == ["s0", "s1", "s5", "s6"]
        assert [data["session_id"] for _, data in single.received] == ["s0", "s5"]
        assert [data["session_id"] for _, data in other.received] == ["s1"]
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{base}/cases/known/events", headers=bearer("bob", "MEMBER"))
            assert answer.status_code == 404
        for listener in (both, single, other):
            await listener.close()


async def test_a_resume_sends_exactly_the_missed_events_or_reports_a_gap() -> None:
    fed = Fed()
    for pos in range(6):
        fed.edge.case_events.add(0, fact("session.started", pos, 0, session_id=f"s{pos}"))
        fed.put(item(source_id=str(pos)))
    async with serving(fed.edge) as base:
        async def resumed(last: int, number: int) -> Listener:
            listener = Listener(base, "/events/stream", **{"last-event-id": str(last)})
            await until(lambda: len(listener.received) + len(listener.named) >= number)
            await listener.close()
            return listener

        for seen in range(6):
            listener = await resumed(seen << CURSOR_BITS, 5 - seen)
            assert [data["session_id"] for _, data in listener.received] == [f"s{pos}" for pos in range(seen + 1, 6)]
            assert listener.named == []
        future = await resumed(99 << CURSOR_BITS, 1)
        assert (future.received, future.named) == ([], ["reset"])
        assert future.last == (6 << CURSOR_BITS) - 1, "the stream names the position to resume from"
        fed.edge.case_events.set_known_after(0, 3 << CURSOR_BITS)
        old = await resumed(0, 3)
        assert old.named == ["reset"]
        assert [data["session_id"] for _, data in old.received] == ["s4", "s5"]


async def test_a_stream_waits_until_the_facts_of_the_past_are_loaded() -> None:
    fed = Fed()
    for pos in range(3):
        fed.put(item(source_id=str(pos)))
    fed.edge.begin_loading_facts()
    async with serving(fed.edge) as base, httpx.AsyncClient() as client:
        listener = Listener(base, "/events/stream", **{"last-event-id": "0"})
        fed.edge.add_fact(0, fact("session.started", 3, 0, session_id="s3"))  # a new one
        fed.put(item(source_id="3"))
        for pos in range(3):
            fed.edge.add_past_fact(0, fact("session.started", pos, 0, session_id=f"s{pos}"))
            fed.edge.release_pending()
        for path, status in (("/org/me/inbox", 200), ("/inbox", 200)):  # lists do not wait
            assert (await client.get(base + path, headers=bearer())).status_code == status
        assert len(fed.edge.connections) == 0
        fed.edge.case_events.end_loading()
        fed.edge.release_pending()
        await until(lambda: len(listener.received) == 3)
        assert [data["session_id"] for _, data in listener.received] == ["s1", "s2", "s3"]
        assert listener.named == []
        await listener.close()


async def test_what_the_loaded_view_shows_is_not_pushed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Fed()
    pushed: list[tuple[int, int]] = []
    monkeypatch.setattr(fed.edge.notifications, "wants_fact", lambda _: True)
    monkeypatch.setattr(
        fed.edge.notifications, "push_decisions", lambda facts: pushed.extend((each.pos, each.index) for each in facts))
    for pos in range(3):
        fed.put(item(source_id=str(pos)))
    fed.edge.begin_loading_facts()
    fed.edge.add_past_fact(0, fact("vote.cast", 1))
    fed.edge.add_past_fact(0, fact("vote.cast", 3))  # written before the view was loaded; its rows came later
    fed.edge.add_fact(0, fact("vote.cast", 2))  # a restarted worker writes it again
    fed.edge.add_fact(0, fact("vote.cast", 4))
    fed.edge.release_pending()
    assert pushed == []
    fed.put(item(source_id="3"))
    fed.put(item(source_id="4"))
    assert sorted(pushed) == [(3, 0), (4, 0)]


async def test_a_stream_gets_503_if_loading_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.edge.services._LOADING_SECONDS", 0.01)
    fed = Fed()
    fed.put(item())
    fed.edge.begin_loading_facts()
    async with serving(fed.edge) as base, httpx.AsyncClient() as client:
        for path in ("/events/stream", "/cases/c1/events"):
            answer = await client.get(base + path, headers=bearer())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


class Outlet:
    def __init__(self) -> None:
        self.ready, self.on_ready, self.got, self.is_cut = True, lambda: None, b"", False

    def write(self, piece: EncodedChunk) -> None:
        self.got += piece.raw

    def end(self) -> None: ...
    def abort(self) -> None:
        self.is_cut = True


def test_the_buffer_is_bounded_and_readers_behind_it_are_disconnected() -> None:
    events = CaseEventHub(1, lambda _: 10**6, room=5_000)
    slow, quick = Outlet(), Outlet()
    for outlet in (slow, quick):
        events.open(ANN, None, None, outlet)
    slow.ready = False
    for pos in range(10**6, 10**6 + 100):
        events._position = lambda _, pos=pos: pos + 1
        events.add(0, fact("session.started", pos))
        events.release()
    assert quick.got.count(b"data: ") == 100
    assert events._kept_bytes <= 5_000
    slow.ready = True
    slow.on_ready()
    assert slow.is_cut
    assert slow.got == b""


def test_a_repeated_fact_is_not_sent_again() -> None:
    events, outlet = CaseEventHub(1, lambda _: 10, room=10**6), Outlet()
    events.open(ANN, None, -1, outlet)
    for pos, index in ((1, 0), (1, 1), (2, 0), (1, 0), (1, 1), (2, 0), (2, 1)):
        events.add(0, fact("session.started", pos, index))
    events.release()
    assert outlet.got.count(b"data: ") == 4


def test_an_idle_listener_is_not_disconnected_as_slow() -> None:
    events = CaseEventHub(1, lambda _: 10**6, room=5_000)
    outlet = Outlet()
    events.open(ANN, "quiet", None, outlet)
    for pos in range(10**6, 10**6 + 100):
        events._position = lambda _, pos=pos: pos + 1
        events.add(0, fact("session.started", pos))
        events.release()
    assert not outlet.is_cut
