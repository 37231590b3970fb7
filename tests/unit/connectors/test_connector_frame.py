"""The frame of connectors against a peer and an attn in memory: each decision is reported once, after any failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from streams.connectors.attn_client import AttnRefused, EventRejected
from streams.connectors.connector import Connector
from streams.connectors.peer import Applied, Decision, Event, NotYet, Outcome, PeerUnavailable, Refused
from streams.connectors.worklist import Wakeups

SOURCE = "/peer"
LIMIT = 20.0  # seconds that a test waits for a condition at most


def decision(name: str, source_id: str = "s1", source: str = SOURCE, **fields: Any) -> dict[str, Any]:
    return {"id": name, "source": source, "source_id": source_id, "state": "sending", "changed_at": "t1", **fields}


class FakeAttn:
    """Lists decisions and takes events, as AttnClient does. With `closes` a report removes its decision from the
    list."""

    def __init__(self, *decisions: dict[str, Any], closes: bool = True) -> None:
        self.listed = {listed["id"]: listed for listed in decisions}
        self.sent: list[Event] = []
        self.topics: list[str | None] = []
        self.rejects: set[str] = set()  # rejected event types
        self.closes = closes
        self.fail_lists = self.refusals = 0
        self.changed = asyncio.Event()

    async def send(self, events: Sequence[Event], topic: str | None = None) -> None:
        rejected = [event for event in events if event["type"] in self.rejects]
        for event in events:
            if event not in rejected:
                self.sent.append(event)
                self.topics.append(topic)
            if self.closes and event["type"].startswith("decision.") and event not in rejected:
                self.listed.pop(event["data"]["decision"], None)
                self.change()
        if rejected:
            raise EventRejected([(rejected[0], "not a type of attn")])

    def change(self) -> None:
        self.changed.set()

    async def watch_decisions(
        self, *, state: str, source: str | None = None
    ) -> AsyncIterator[Sequence[Decision]]:
        assert state == "sending"
        while True:
            if self.fail_lists:
                self.fail_lists -= 1
                raise OSError("attn is away")
            if self.refusals:
                self.refusals -= 1
                raise AttnRefused(401, "the key was revoked")
            self.changed.clear()
            yield [*reversed(self.listed.values())]
            await self.changed.wait()

    def reports(self) -> list[tuple[str, str]]:
        return [(sent["type"], sent["data"]["decision"]) for sent in self.sent if sent["type"].startswith("decision.")]


class FakePeer:
    """Returns or raises the scripted outcomes of `apply`, the last one repeatedly."""

    name, source, topic = "fake", SOURCE, "escalations"

    def __init__(self, *script: Outcome | Exception, sweeps: Sequence[Any] = ((),)) -> None:
        self.script, self.sweeps = list(script or [Applied()]), list(sweeps)
        self.applied: list[str] = []
        self.swept = 0
        self.running: dict[str, int] = {}
        self.most_at_once = 0
        self.overlaps = False
        self.hold: asyncio.Event | None = None

    async def sweep(self) -> Sequence[Event]:
        self.swept += 1
        result = self.sweeps.pop(0) if len(self.sweeps) > 1 else self.sweeps[0]
        if isinstance(result, Exception):
            raise result
        return list(result)

    async def apply(self, decision: Decision) -> Outcome:
        lane = self.lane(decision)
        self.running[lane] = self.running.get(lane, 0) + 1
        self.overlaps |= self.running[lane] > 1
        self.most_at_once = max(self.most_at_once, sum(self.running.values()))
        self.applied.append(decision["id"])
        try:
            await asyncio.sleep(0)
            if self.hold is not None:
                await self.hold.wait()
            outcome = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        finally:
            self.running[lane] -= 1

    def lane(self, decision: Decision) -> str:
        return str(decision["source_id"])


@asynccontextmanager
async def running(peer: FakePeer, attn: FakeAttn, sweep_seconds: float = 60.0) -> AsyncIterator[Connector]:
    connector, stop = Connector(peer, attn, sweep_seconds), asyncio.Event()
    task = asyncio.create_task(connector.run(stop))
    try:
        yield connector
    finally:
        stop.set()
        await asyncio.wait_for(task, LIMIT)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0.005)


async def test_each_decision_is_reported_with_an_id_that_follows_from_it() -> None:
    attn, peer = FakeAttn(decision("d1"), decision("d2", "s2")), FakePeer(Applied())
    async with running(peer, attn):
        await until(lambda: len(attn.reports()) == 2)
    assert sorted(attn.reports()) == [("decision.applied", "d1"), ("decision.applied", "d2")]
    report = next(event for event in attn.sent if event["data"]["decision"] == "d1")
    assert (report["id"], report["source"], report["subject"]) == ("d1.applied", SOURCE, "s1")
    assert attn.topics == ["escalations"] * 2


async def test_a_refusal_has_its_reason_within_the_limit_of_attn() -> None:
    attn = FakeAttn(decision("d1"))
    async with running(FakePeer(Refused("no " * 1000)), attn):
        await until(attn.reports)
    assert attn.reports() == [("decision.refused", "d1")]
    assert 0 < len(attn.sent[0]["data"]["reason"]) <= 1024


@pytest.mark.parametrize("failure", [
    PeerUnavailable("503"), TimeoutError(), ConnectionRefusedError("refused"), KeyError("a bug"),
    NotYet("pending", 0.01),
], ids=["unavailable", "timeout", "refused", "bug", "not-yet"])
async def test_a_decision_is_applied_again_until_it_has_an_outcome(failure: Outcome | Exception) -> None:
    attn, peer = FakeAttn(decision("d1")), FakePeer(failure, Applied())
    async with running(peer, attn):
        await until(attn.reports)
    assert peer.applied == ["d1", "d1"]
    assert attn.reports() == [("decision.applied", "d1")]


async def test_a_wake_up_ends_the_wait_of_a_decision_and_starts_a_sweep() -> None:
    attn, peer = FakeAttn(decision("d1")), FakePeer(NotYet("pending", 3600.0), Applied())
    async with running(peer, attn, sweep_seconds=3600.0) as connector:
        await until(lambda: peer.applied and peer.swept)
        connector.wake()
        await until(lambda: attn.reports() and peer.swept >= 2)


async def test_decisions_of_one_lane_never_overlap_and_the_others_do_not_wait() -> None:
    attn = FakeAttn(*(decision(f"d{number:02}", f"s{number % 20}") for number in range(60)))
    peer = FakePeer(Applied())
    async with running(peer, attn):
        await until(lambda: len(attn.reports()) == 60)
    assert not peer.overlaps
    assert 1 < peer.most_at_once <= 8
    for lane in range(20):
        applied = [name for name in peer.applied if int(name[1:]) % 20 == lane]
        assert applied == sorted(applied)  # in the order of their decisions


async def test_decisions_of_other_sources_are_not_touched() -> None:
    others = [decision("d2", source="/peer2"), decision("d3", source="/")]
    attn, peer = FakeAttn(decision("d1", source="/peer/eu"), *others), FakePeer(Applied())
    async with running(peer, attn):
        await until(attn.reports)
        attn.change()
        await until(lambda: not attn.changed.is_set())
    assert peer.applied == ["d1"]


async def test_a_decision_that_leaves_the_list_is_not_tried_any_more() -> None:
    attn, peer = FakeAttn(decision("d1")), FakePeer(NotYet("pending", 0.01))
    async with running(peer, attn):
        await until(lambda: len(peer.applied) > 2)
        attn.listed.clear()
        attn.change()
        await until(lambda: not attn.changed.is_set())
        await asyncio.sleep(0)
        seen = len(peer.applied)
        await asyncio.sleep(0.1)
        assert len(peer.applied) <= seen + 1
    assert attn.reports() == []


async def test_a_list_that_still_has_a_reported_decision_does_not_apply_it_again_unless_it_is_sent_again() -> None:
    attn, peer = FakeAttn(decision("d1"), closes=False), FakePeer(Applied())
    async with running(peer, attn):
        await until(attn.reports)
        for _ in range(3):
            attn.change()
            await until(lambda: not attn.changed.is_set())
        assert peer.applied == ["d1"]
        # the decision was not confirmed, and a person sent it again
        attn.listed["d1"] = decision("d1", changed_at="t2")
        attn.change()
        await until(lambda: len(peer.applied) == 2)
        await until(lambda: len(attn.reports()) == 2)
    assert {event["id"] for event in attn.sent} == {"d1.applied"}


async def test_events_of_an_outcome_come_before_the_report_and_a_rejected_event_does_not_lose_it() -> None:
    closing = {"type": "run.recovered", "id": "r1"}
    attn, peer = FakeAttn(decision("d1")), FakePeer(Applied(events=[closing]))
    async with running(peer, attn):
        await until(attn.reports)
    assert [event["type"] for event in attn.sent] == ["run.recovered", "decision.applied"]
    attn = FakeAttn(decision("d1"))
    attn.rejects.add("run.recovered")
    async with running(FakePeer(Applied(events=[closing])), attn):
        await until(attn.reports)
    assert attn.reports() == [("decision.applied", "d1")]
    attn = FakeAttn(decision("d1"))
    async with running(FakePeer(Applied(events=[closing], reported=False)), attn):
        await until(lambda: attn.sent)
    assert attn.reports() == []


async def test_readiness_needs_a_sweep_and_the_list_and_names_what_fails() -> None:
    attn = FakeAttn()
    attn.fail_lists = 1
    peer = FakePeer(sweeps=[PeerUnavailable("connection refused"), ()])
    connector = Connector(peer, attn, 60.0)
    assert connector.not_ready_reason() == "fake: was not read yet"
    async with running(peer, attn) as connector:
        await until(lambda: peer.swept == 1)
        assert connector.not_ready_reason() == "fake: does not answer: connection refused"
        await until(lambda: connector.not_ready_reason() is None)


async def test_a_key_that_attn_refuses_is_the_reason_and_is_tried_again() -> None:
    attn = FakeAttn(decision("d1"))
    attn.refusals = 2
    peer = FakePeer(sweeps=[AttnRefused(401, "the key was revoked"), ()])
    async with running(peer, attn) as connector:
        await until(lambda: "401" in (connector.not_ready_reason() or ""))
        await until(lambda: connector.not_ready_reason() is None)
        await until(attn.reports)


async def test_events_of_a_sweep_that_attn_rejects_do_not_stop_the_sweeps() -> None:
    attn = FakeAttn()
    attn.rejects.add("message.posted")
    good, bad = {"type": "escalation.opened", "id": "1"}, {"type": "message.posted", "id": "2"}
    peer = FakePeer(sweeps=[[bad, good], [good]])
    async with running(peer, attn, sweep_seconds=0.05) as connector:
        await until(lambda: connector.not_ready_reason() is None)
    assert good in attn.sent


async def test_a_clean_stop_waits_for_what_is_being_applied_and_reports_it() -> None:
    attn, peer = FakeAttn(decision("d1")), FakePeer(Applied())
    peer.hold = asyncio.Event()
    stop = asyncio.Event()
    task = asyncio.create_task(Connector(peer, attn).run(stop))
    await until(lambda: peer.applied)
    stop.set()
    await asyncio.sleep(0.05)
    assert not task.done()
    peer.hold.set()
    await asyncio.wait_for(task, LIMIT)
    assert attn.reports() == [("decision.applied", "d1")]


async def test_a_cancelled_wait_ends_although_a_wake_up_comes_at_the_same_moment() -> None:
    """`asyncio.wait_for` of Python 3.11 returns in this case, and swallows the cancellation."""
    wakeups = Wakeups()
    task = asyncio.create_task(wakeups.wait(3600, 0))
    await asyncio.sleep(0)
    wakeups.notify()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
