"""/readyz of worker and edge during a stall and without a broker. A role that is stuck exits."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.edge.edge_on_broker import edge
from support.kafka import pipeline
from support.kafka.pipeline import send, worker

from api.edge.follower import TopicFollower
from ops.embedded.broker import EmbeddedBroker, binary
from ops.process.ports import free_port
from schemas.settings import Settings
from streams.consumer import watchdog
from streams.ingest.agent import Ingestor
from streams.kafka import topics
from streams.runtime.task_supervisor import WorkerFailed

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed"),
]


eventually = partial(pipeline.eventually, seconds=60.0)


def line(number: int) -> dict[str, Any]:
    return {"topic": "waitpoints", "key": "k", "value": {
        "specversion": "1.0", "id": f"e{number}", "source": "/s", "type": "waitpoint.created", "subject": f"s{number}",
        "time": "2026-05-20T08:14:00Z", "workspaceid": "ws_01", "data": {"title": "Go?"},
    }}


async def readyz_is(base: str, status: int, text: str = "") -> bool:
    """Returns whether /readyz answers with this status and a body that contains `text`."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        try:
            answer = await client.get(f"{base}/readyz")
        except httpx.TransportError:
            return False
    return answer.status_code == status and text in answer.text


async def started(tmp_path: Path) -> tuple[EmbeddedBroker, Settings, str]:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    port = free_port()
    settings = Settings(
        _env_file=None, kafka=broker.bootstrap, log_partitions=2, source_partitions=1, metrics_port=port,
        stall_seconds=3)
    await topics.ensure_topics(settings)
    return broker, settings, f"http://127.0.0.1:{port}"


async def test_a_worker_with_a_stalled_writer_is_not_ready_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, settings, base = await started(tmp_path)
    monkeypatch.setattr(watchdog, "_STALL_LIMIT", 12.0)
    hung = asyncio.Event()

    async def hang(self: Ingestor) -> None:
        await hung.wait()

    async def ends() -> None:
        async with worker(settings) as task:
            await eventually(lambda: readyz_is(base, 200, "ok"), "the worker is ready")
            monkeypatch.setattr(Ingestor, "_flush", hang)
            await send(settings, [line(1)])
            await eventually(lambda: readyz_is(base, 503, "stalled: waitpoints/0 stays at offset 0"), "stalled worker")
            await asyncio.wait({task}, timeout=60)

    try:
        with pytest.raises(WorkerFailed, match="ConsumerStalled: waitpoints/0 stays at offset 0, end offset 1"):
            await ends()
    finally:
        await broker.stop()


async def test_a_worker_and_an_edge_without_their_broker(tmp_path: Path) -> None:
    broker, settings, base = await started(tmp_path)
    try:
        async with worker(settings), edge(settings) as edge_base:
            await eventually(lambda: readyz_is(base, 200, "ok"), "the worker is ready")
            await eventually(lambda: readyz_is(edge_base, 200, "ready"), "the edge is ready")
            await broker.stop()
            silent = "the broker has not answered for"
            await eventually(lambda: readyz_is(base, 503, silent), "the worker reports the silent broker")
            await eventually(lambda: readyz_is(edge_base, 503, silent), "the edge reports the silent broker")
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{edge_base}/healthz")).status_code == 200
            await broker.start()
            await eventually(lambda: readyz_is(base, 200, "ok"), "the worker is ready again")
            await eventually(lambda: readyz_is(edge_base, 200, "ready"), "the edge is ready again")
    finally:
        await broker.stop()


async def test_an_edge_whose_view_stalls_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, settings, _ = await started(tmp_path)
    still, follow = asyncio.Event(), TopicFollower._follow

    async def wait_first(self: TopicFollower, consumer: Any) -> None:
        await still.wait()
        await follow(self, consumer)

    monkeypatch.setattr(TopicFollower, "_follow", wait_first)
    try:
        async with worker(settings), edge(settings) as edge_base:
            await eventually(lambda: readyz_is(edge_base, 200), "the edge is ready")
            await send(settings, [line(1)])
            await eventually(lambda: readyz_is(edge_base, 503, "stalled: attn.views/"), "the edge is stalled")
            still.set()
            await eventually(lambda: readyz_is(edge_base, 200), "the edge is ready again")
    finally:
        await broker.stop()
