"""`attn deliver` on a broker: the posts to receivers, their order, and the reports in the log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from standardwebhooks.webhooks import Webhook
from support.delivery.receiver import Answer, Post, Receiver, answer, receiver
from support.delivery.records import HMAC_SECRET, decision, deliver, endpoints_file, reports, send_decisions
from support.kafka.brokers import EMBEDDED_ONLY
from support.kafka.pipeline import Stack, eventually

from schemas.asking.decision_event import encode_decision
from schemas.log import Report
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import LOG, VIEWS, partition_of
from schemas.views import PositionRow, encode_row, position_key
from streams.delivery import dispatcher, main

pytestmark = pytest.mark.timeout(120)
P = partition_of("ws_01", 3)


@contextlib.asynccontextmanager
async def running(
    stack: Stack, tmp_path: Path, choose: Callable[[Post], Answer] | None = None, **given: Any
) -> AsyncIterator[tuple[Settings, Receiver]]:
    """Runs a broker, `attn deliver`, and a server which is the endpoint "receiver"."""
    path = tmp_path / "endpoints.toml"
    async with stack(endpoints=path, **given) as settings, receiver(choose) as server:
        endpoints_file(path, receiver=server.url)
        await main.topics.ensure_topics(settings)
        async with deliver(settings):
            yield settings, server


async def reported(settings: Settings, count: int = 1) -> list[Report]:
    async def enough() -> list[Report] | None:
        so_far = await reports(settings)
        return so_far if len(so_far) >= count else None

    result: list[Report] = await eventually(enough, f"{count} reports are in the log")
    return result


async def write_clock(settings: Settings, seconds: float) -> None:
    """Writes a position row of the workspace's partition, as the fold does after each batch."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        row = encode_row(PositionRow(next=1, clock=int(seconds * SECOND)))
        await producer.send_and_wait(VIEWS, row, key=position_key(P), partition=P)


async def test_a_decision_arrives_signed_and_is_reported(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    async with stack(endpoints=path) as settings, receiver() as server:
        endpoints_file(path, receiver=server.url)
        event = decision(1)
        async with deliver(settings):
            await send_decisions(settings, [event, decision(2, to=None)])
            await eventually(lambda: reports(settings), "a report is in the log")
        post, = server.posts
        assert post.body == encode_decision(event)
        assert post.id == event.data.decision
        assert post.headers["content-type"] == "application/cloudevents+json"
        Webhook(HMAC_SECRET).verify(post.body, post.headers)
        report, = await reports(settings)
        assert (report.ws, report.decision, report.state) == ("ws_01", event.data.decision, "delivered")
        async with deliver(settings):
            later = decision(3)
            await send_decisions(settings, [later])
            await eventually(lambda: len(server.posts) > 1, "the second decision is posted")
        assert server.ids() == [event.data.decision, later.data.decision]


@EMBEDDED_ONLY
async def test_decisions_of_a_subject_arrive_in_order_and_others_do_not_wait(stack: Stack, tmp_path: Path) -> None:
    fails = [503, 503]

    def choose(post: Post) -> bytes:
        return answer(fails.pop()) if post.event["subject"] == "first" and fails else answer(200)

    async with running(stack, tmp_path, choose) as (settings, server):
        earlier, later, other = decision(1, subject="first"), decision(2, subject="first"), decision(3, subject="other")
        await send_decisions(settings, [earlier, later, other])
        assert {report.state for report in await reported(settings, 3)} == {"delivered"}
        first, second, third = (event.data.decision for event in (earlier, later, other))
        assert [post for post in server.ids() if post != third] == [first, first, first, second]
        assert server.ids().index(third) < 3


@EMBEDDED_ONLY
async def test_a_decision_is_not_posted_while_it_can_be_taken_back(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        until = time.time() + 4.0
        kept, undone = decision(1, undo=4.0), decision(2, undo=4.0)
        await send_decisions(settings, [kept, undone, decision(2, "taken_back")])
        await reported(settings)
        assert time.time() >= until - 0.01
        await send_decisions(settings, [decision(3)])
        await reported(settings, 2)
        assert server.ids() == [kept.data.decision, decision(3).data.decision]


@EMBEDDED_ONLY
async def test_a_decision_waits_for_a_worker_that_may_still_accept_an_undo(stack: Stack, tmp_path: Path) -> None:
    """The wall clock is past `undo_until`, but the log's clock is not, so a worker still accepts an undo."""
    async with running(stack, tmp_path) as (settings, server):
        now = time.time()
        await write_clock(settings, now)
        undone, kept = decision(1, undo=0.5), decision(2, undo=0.5)
        await send_decisions(settings, [undone, kept, decision(3)])
        await reported(settings)
        await asyncio.sleep(1.5)
        assert server.ids() == [decision(3).data.decision]
        await send_decisions(settings, [decision(1, "taken_back")])
        await write_clock(settings, time.time())
        await reported(settings, 2)
        assert server.ids() == [decision(3).data.decision, kept.data.decision]


@EMBEDDED_ONLY
async def test_an_idle_log_gets_a_tick(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(stack, tmp_path) as (settings, server):
        await write_clock(settings, time.time() - 100)
        await send_decisions(settings, [decision(1, undo=0.2)])
        await eventually(lambda: _count(settings, LOG), "a tick is in the log")
        assert server.posts == []
        await write_clock(settings, time.time())  # as the fold does after the tick
        await reported(settings)
        assert len(server.posts) == 1


async def _count(settings: Settings, topic: str) -> int:
    from support.kafka.pipeline import count

    return await count(settings, topic)


@EMBEDDED_ONLY
async def test_other_events_are_posted_with_ids_of_their_own(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        made = decision(1)
        await send_decisions(settings, [made])
        await reported(settings)
        await send_decisions(settings, [decision(1, "taken_back"), decision(2, "expired"), decision(1, "delivered")])
        await eventually(lambda: len(server.posts) == 3, "three records are posted")
        name = made.data.decision
        assert server.ids()[0] == name
        assert set(server.ids()) == {name, f"{name}_taken_back", f"{decision(2).data.decision}_expired"}
        for post in server.posts:
            Webhook(HMAC_SECRET).verify(post.body, post.headers)
        assert len(await reports(settings)) == 1


@EMBEDDED_ONLY
@pytest.mark.parametrize("status", [409, 410, 422])
async def test_a_refusal_is_reported_with_its_reason_and_without_the_token(
    stack: Stack, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture,
) -> None:
    token = "one-time-token-0815"

    def choose(post: Post) -> bytes:
        return answer(status, b'{"error": "gone: ' + post.body.replace(b'"', b'\\"') + b'"}')

    async with running(stack, tmp_path, choose) as (settings, server):
        await send_decisions(settings, [decision(1, token=token)])
        report, = await reported(settings)
        assert (report.state, len(server.posts)) == ("refused", 1)
        assert (report.reason or "").startswith("gone: ")
        assert server.posts[0].event["data"]["reply"]["token"] == token
        assert token not in (report.reason or "")
        assert token not in caplog.text
        await send_decisions(settings, [decision(2)])  # 410 refuses the decision; the endpoint stays in use
        await reported(settings, 2)


@EMBEDDED_ONLY
async def test_unknown_endpoints_are_undeliverable_at_once(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        endpoints_file(settings.endpoints or Path(), theirs={"url": server.url, "workspaces": ["ws_02"]})
        await asyncio.sleep(2.5)  # `attn deliver` checks the file every 2 s
        await send_decisions(settings, [decision(1, to="nobody", undo=60.0), decision(2, to="theirs")])
        unknown, theirs = await reported(settings, 2)
        assert (unknown.state, theirs.state) == ("undeliverable", "undeliverable")
        assert unknown.reason == 'no endpoint "nobody" is configured for this workspace'
        assert theirs.reason == 'no endpoint "theirs" is configured for this workspace'
        await send_decisions(settings, [decision(3, to="theirs", workspace="ws_02")])
        assert sorted(report.state for report in await reported(settings, 3))[0] == "delivered"
        assert server.ids() == [decision(3, workspace="ws_02").data.decision]


@EMBEDDED_ONLY
async def test_retries_end_when_the_question_expires(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path, lambda _: answer(500)) as (settings, server):
        expires = time.time() + 4.0
        await send_decisions(settings, [decision(1, expires=4.0)])
        report, = await reported(settings)
        assert report.state == "undeliverable"
        assert report.reason == (
            f"not delivered before the question expired; attempts: {len(server.posts)}; the last answer: HTTP 500")
        assert time.time() >= expires - 0.01
        assert 1 <= len(server.posts) <= 6
        assert set(server.ids()) == {decision(1).data.decision}


@EMBEDDED_ONLY
async def test_retries_end_at_the_time_limit(stack: Stack, tmp_path: Path) -> None:
    moved = answer(302, location="/elsewhere")
    async with running(stack, tmp_path, lambda _: moved, delivery_limit="PT3S") as (settings, server):
        await send_decisions(settings, [decision(1), decision(2, decided=-1.0, expires=-2.0)])
        assert {(report.state, (report.reason or "").split(";")[0]) for report in await reported(settings, 2)} == {
            ("undeliverable", "not delivered before the time limit of deliveries was reached")}
        assert {post.path for post in server.posts} == {"/decisions"}


@EMBEDDED_ONLY
async def test_a_decision_that_expired_on_the_way_is_tried_once(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        await send_decisions(settings, [decision(1, decided=-20.0, expires=-10.0)])
        assert (await reported(settings))[0].state == "delivered"
        assert len(server.posts) == 1


@EMBEDDED_ONLY
async def test_retry_after_is_kept(stack: Stack, tmp_path: Path) -> None:
    waits = ["3"]

    def choose(post: Post) -> bytes:
        return answer(503, retry_after=waits.pop()) if waits else answer(200)

    async with running(stack, tmp_path, choose) as (settings, server):
        await send_decisions(settings, [decision(1)])
        await eventually(lambda: server.posts, "the decision is posted once")
        await send_decisions(settings, [decision(2)])
        await reported(settings, 2)
        assert min(post.at for post in server.posts[1:]) - server.posts[0].at >= 2.9


@EMBEDDED_ONLY
async def test_a_dead_and_a_hung_endpoint_delay_no_other(stack: Stack, tmp_path: Path) -> None:
    async def hang(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    path = tmp_path / "endpoints.toml"
    async with stack(endpoints=path) as settings, receiver() as server, receiver(lambda _: hang) as hung:
        endpoints_file(path, dead="http://127.0.0.1:1/", hung=hung.url, receiver=server.url)
        async with deliver(settings):
            await send_decisions(settings, [
                *(decision(number, to=("dead", "hung")[number % 2]) for number in range(60)), decision(99)])
            await eventually(lambda: server.posts, "the decision for the working endpoint is posted", 60)
            assert hung.most_open <= settings.delivery_concurrency
        assert server.ids() == [decision(99).data.decision]


@EMBEDDED_ONLY
async def test_memory_is_bounded_and_all_arrive_once_the_endpoint_is_back(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 10 waiting decisions the process stops reading. It reads bodies again from the topic."""
    monkeypatch.setattr(main, "_MAX_BODY_BYTES", 2000)
    monkeypatch.setattr(dispatcher, "_MAX_DELAY", 1.0)
    most, up = [0], [False]
    observe = main._Process._measure

    def measure(self: Any) -> None:
        most[0] = max(most[0], len(self._backlog), self._backlog.body_bytes // 200)
        observe(self)

    monkeypatch.setattr(main._Process, "_measure", measure)
    choose = lambda _: answer(204) if up[0] else answer(503)  # noqa: E731
    async with running(stack, tmp_path, choose, delivery_max_waiting=10) as (settings, server):
        monkeypatch.setattr("streams.delivery.consumer._MAX_RECORDS", 1)
        events = [decision(number) for number in range(60)]
        await send_decisions(settings, events)
        await asyncio.sleep(3.0)
        assert server.posts
        up[0] = True
        all_reports = await reported(settings, 60)
        assert {report.decision for report in all_reports} == {event.data.decision for event in events}
        assert {report.state for report in all_reports} == {"delivered"}
        assert most[0] <= 12
        for post in server.posts:
            assert post.id == post.event["data"]["decision"]


@EMBEDDED_ONLY
async def test_outcomes_in_the_topic_keep_a_restart_from_posting_again(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The group reads from the first offset again, as after a new incarnation. `attn deliver` posts only decisions
    without an outcome in the topic."""
    async with running(stack, tmp_path) as (settings, server):
        events = [decision(1), decision(2), decision(3)]
        await send_decisions(settings, events)
        await reported(settings, 3)
        await send_decisions(settings, [decision(1, "delivered"), decision(2, "refused"), decision(4),
                                        decision(4, "taken_back"), decision(5, to=None), decision(6, "made")])
        await reported(settings, 4)
        server.posts.clear()
        async with deliver(settings.model_copy(update={"incarnation": 7, "instance": "2"})):
            await eventually(lambda: len(server.posts) >= 2, "the decisions without an outcome are posted")
        assert sorted(server.ids()) == sorted([decision(3).data.decision, decision(6).data.decision])


@EMBEDDED_ONLY
async def test_records_that_are_no_decisions_are_skipped(stack: Stack, tmp_path: Path) -> None:
    async with running(stack, tmp_path) as (settings, server):
        odd = [b"", b"{", b"null", b"[" * 5000, b'{"type": "decision.made"}', b"\xff", b'{"type": 5}',
               encode_decision(decision(7)).replace(b"decision.made", b"decision.invented"),
               encode_decision(decision(8, undo=1.0)).replace(b'"undo_until":"', b'"undo_until":"x')]
        await send_decisions(settings, [*odd, decision(1)])
        await reported(settings, 2)
        # The order of two subjects is undefined.
        assert sorted(server.ids()) == sorted([decision(8).data.decision, decision(1).data.decision])
