"""`attn deliver` and the receivers of docs/decisions.md are killed at every step. No decision is lost or applied twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.delivery import document
from support.delivery.receiver import Post, answer, receiver
from support.delivery.records import HMAC_SECRET, decision, deliver, endpoints_file, reports, send_decisions
from support.kafka.brokers import EMBEDDED_ONLY, KAFKA_ONLY
from support.kafka.pipeline import Stack, eventually, kill, read
from support.processes import fork_server
from support.processes.fork_server import Forked

from ops.process.ports import free_port
from schemas.settings import Settings

pytestmark = pytest.mark.timeout(240)
PROCESS = Path(document.__file__).parent / "deliver_process.py"
POINTS = ("read", "post", "posted", "report", "reported", "commit", "committed")
COUNT = 6


@contextlib.contextmanager
def deliver_process(settings: Settings, crash: str = "") -> Iterator[Forked]:
    given = {f"ATTN_{name.upper()}": str(value) for name, value in settings.model_dump(
        include=settings.model_fields_set, mode="json").items()}
    process = fork_server.start([str(PROCESS), crash], env=os.environ | given)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


@EMBEDDED_ONLY
@pytest.mark.parametrize("point", POINTS)
async def test_deliver_killed_at_every_step(stack: Stack, tmp_path: Path, point: str) -> None:
    """For each step a process kills itself at the first pass, another one at a later one. The last process finishes."""
    later = 2 if point == "report" else 3  # reports that are made during an append share the next one
    path, applied = tmp_path / "endpoints.toml", {}
    refused = decision(COUNT, subject="refused")

    def choose(post: Post) -> bytes:
        applied.setdefault(post.id, []).append(post.body)
        return answer(409, '{"error": "no"}') if post.id == refused.data.decision else answer(200)

    async with stack(endpoints=path) as settings, receiver(choose) as server:
        endpoints_file(path, receiver=server.url)
        events = [decision(number, subject=f"s{number % 3}") for number in range(COUNT)]
        undone = decision(COUNT + 1, undo=1.0)
        await send_decisions(settings, [*events, refused, undone, decision(COUNT + 1, "taken_back")])
        for passes in (1, later):
            with deliver_process(settings, f"{point}:{passes}") as process:
                await eventually(lambda process=process: process.poll() is not None, f"the end at {point}", 60)
                assert process.returncode == -signal.SIGKILL
        async with deliver(settings):
            async def all_reported() -> bool:
                return len(await reports(settings)) == COUNT + 1
            await eventually(all_reported, "a report of each decision")
        wanted = {event.data.decision for event in [*events, refused]}
        assert applied.keys() == wanted
        assert all(len(set(bodies)) == 1 for bodies in applied.values())  # repeats have the same body
        states = {report.decision: report.state for report in await reports(settings)}
        assert states == dict.fromkeys(wanted, "delivered") | {refused.data.decision: "refused"}
        for subject in range(3):  # first posts follow the order of decisions of their subject
            first = [name for name in applied if name in [e.data.decision for e in events[subject::3]]]
            assert first == [event.data.decision for event in events[subject::3]]


@KAFKA_ONLY
async def test_two_processes_share_the_partitions_and_one_takes_over(stack: Stack, tmp_path: Path) -> None:
    path, first_times = tmp_path / "endpoints.toml", []

    def choose(post: Post) -> bytes:
        if post.id not in first_times:
            first_times.append(post.id)
        return answer(200)

    async with stack(endpoints=path) as settings, receiver(choose) as server:
        endpoints_file(path, receiver=server.url)
        events = [decision(number, workspace=f"ws_{number % 12}", subject=f"s{number % 12}") for number in range(72)]
        await send_decisions(settings, events[:36])

        async def arrived(count: int) -> bool:
            return len(first_times) >= count

        with deliver_process(settings.model_copy(update={"instance": "1"})) as first:
            await eventually(lambda: arrived(36), "the first 36 decisions are posted")
            with deliver_process(settings.model_copy(update={"instance": "2"})):
                await send_decisions(settings, events[36:54])
                await eventually(lambda: arrived(54), "18 decisions are posted with two processes")
                kill(first)
                await send_decisions(settings, events[54:])
                await eventually(lambda: arrived(72), "18 decisions are posted after the first process was killed")

                async def all_reported() -> bool:
                    return len({report.decision for report in await reports(settings)}) == 72
                await eventually(all_reported, "a report of each decision")
        for number in range(12):
            names = [event.data.decision for event in events[number::12]]
            assert [name for name in first_times if name in names] == names


@EMBEDDED_ONLY
@pytest.mark.parametrize("step", ["read", "checked", "applied", "confirmed"])
async def test_the_http_receiver_of_the_documents_killed_at_every_step(
    stack: Stack, tmp_path: Path, step: str,
) -> None:
    path, database, port = tmp_path / "endpoints.toml", tmp_path / "done.sqlite", free_port()
    given = {"WEBHOOK_SECRET": HMAC_SECRET, "PORT": port}
    async with stack(endpoints=path) as settings:
        endpoints_file(path, receiver=f"http://127.0.0.1:{port}/")
        events = [decision(number) for number in range(3)]
        await send_decisions(settings, events)
        async with deliver(settings):
            killed = document.start_receiver("http", database, kill_at=step, **given)
            await eventually(lambda: killed.poll() is not None, f"the end of the receiver at {step}", 60)
            assert killed.returncode == -signal.SIGKILL
            # Sent after the kill, which may cut an answer between its status and its reason.
            await send_decisions(settings, [decision(9, subject="other")])
            again = document.start_receiver("http", database, **given)
            try:
                async def all_reported() -> bool:
                    return len(await reports(settings)) == 4
                await eventually(all_reported, "a report of each decision")
            finally:
                _end(again)
        assert document.done(database) == [
            (event.data.decision, event.subject, "approve") for event in events]
        results = {report.decision: (report.state, report.reason) for report in await reports(settings)}
        assert results.pop(decision(9).data.decision) == ("refused", "this run has ended")
        assert set(results.values()) == {("delivered", None)}


@EMBEDDED_ONLY
async def test_the_http_receiver_of_the_documents_refuses_a_wrong_signature(stack: Stack, tmp_path: Path) -> None:
    path, database, port = tmp_path / "endpoints.toml", tmp_path / "done.sqlite", free_port()
    async with stack(endpoints=path, delivery_limit="PT3S") as settings:
        endpoints_file(path, receiver=f"http://127.0.0.1:{port}/")
        await send_decisions(settings, [decision(1)])
        process = document.start_receiver(
            "http", database, WEBHOOK_SECRET="whsec_" + "b3RoZXIgc2VjcmV0IG9mIDI0IGJ5dGVz", PORT=port)
        try:
            async with deliver(settings):
                await eventually(lambda: reports(settings), "a report")
        finally:
            _end(process)
        report, = await reports(settings)
        assert report.state == "undeliverable"
        assert "HTTP 401" in (report.reason or "")
        assert document.done(database) == []


@EMBEDDED_ONLY
@pytest.mark.parametrize("step", ["read", "applied", "confirmed"])
async def test_the_topic_receiver_of_the_documents_killed_at_every_step(
    stack: Stack, tmp_path: Path, step: str,
) -> None:
    database = tmp_path / "done.sqlite"
    async with stack() as settings:
        events = [decision(number, to=None, undo=0.5) for number in range(3)]
        for event in events:
            event.data.source = "/payments"
        undone = decision(7, to=None, undo=0.5)
        undone.data.source = "/payments"
        back = decision(7, "taken_back", to=None)
        back.data.source = "/payments"
        await send_decisions(settings, [*events, decision(8, to=None), undone, back])
        killed = document.start_receiver("topic", database, kill_at=step, KAFKA=settings.kafka)
        await eventually(lambda: killed.poll() is not None, f"the end of the receiver at {step}", 60)
        assert killed.returncode == -signal.SIGKILL
        again = document.start_receiver("topic", database, KAFKA=settings.kafka)
        try:
            async def all_confirmed() -> bool:
                return len(await _confirmed(settings)) == 3
            await eventually(all_confirmed, "a confirmation of each decision", 40)
        finally:
            _end(again)
        assert document.done(database) == [(event.data.decision, event.subject, "approve") for event in events]
        assert await _confirmed(settings) == {event.data.decision for event in events}


async def _confirmed(settings: Settings) -> set[str]:
    sent = [json.loads(record.value) for records in (await read(settings, "waitpoints")).values() for record in records]
    assert {event["type"] for event in sent} <= {"decision.applied"}
    return {event["data"]["decision"] for event in sent}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
