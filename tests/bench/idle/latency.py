"""How fast `attn up` answers after silence: a source event until its frame, and a dismiss until its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import httpx
from aiokafka import AIOKafkaProducer
from support.processes.up import Up

__all__ = ["run"]

_TOPIC = "escalations"
_SECONDS = 60.0


async def run(up: Up, count: int, silence: float) -> None:
    """Measures `count` events and as many dismisses in turns, each after `silence` seconds without any request."""
    token = await asyncio.to_thread(up.token, "ws_idle")
    events: list[float] = []
    dismisses: list[float] = []
    async with (
        _producer(up.kafka) as producer,
        httpx.AsyncClient(
            base_url=up.url, headers={"Authorization": f"Bearer {token}"}, timeout=_SECONDS, trust_env=False) as client,
        client.stream("GET", "/org/me/feed") as feed,
    ):
        lines = feed.aiter_lines()
        await _frame(lines, "snapshot")
        for number in range(count + 1):
            await _send(producer, number)  # the item that is dismissed
            item = await _frame(lines, "added")
            await asyncio.sleep(silence)
            began = time.perf_counter()
            await _send(producer, number + 1_000_000)
            await _frame(lines, "added")
            events.append(time.perf_counter() - began)
            await asyncio.sleep(silence)
            began = time.perf_counter()
            answer = await client.post(f"/org/me/inbox/{item}/dismiss")
            dismisses.append(time.perf_counter() - began)
            answer.raise_for_status()
            await _frame(lines, "removed")
    head = f"| ms after {silence:g} s of silence, {count} of each | p50 | p90 | max |\n|" + " --- |" * 4
    rows = [
        "| {} | {:.0f} | {:.0f} | {:.0f} |".format(name, *_quantiles(values[1:]))
        for name, values in (("source event → frame", events), ("dismiss, request → answer", dismisses))]
    sys.stdout.write("\n".join([head, *rows]) + "\n")


@contextlib.asynccontextmanager
async def _producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=0) as producer:
        yield producer


async def _send(producer: AIOKafkaProducer, number: int) -> None:
    event = {
        "specversion": "1.0", "id": f"idle-{number}", "source": "/bench", "type": "escalation.opened",
        "subject": f"idle_{number}", "time": datetime.now(UTC).isoformat(), "workspaceid": "ws_idle",
        "data": {"title": f"Escalation {number}", "priority": "high"},
    }
    await producer.send_and_wait(_TOPIC, json.dumps(event).encode())


async def _frame(lines: AsyncIterator[str], wanted: str) -> str:
    """Reads frames until one of the type `wanted`. Returns the id of its item; empty for a snapshot."""
    async with asyncio.timeout(_SECONDS):
        name = ""
        while True:
            line = await anext(lines)
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: ") and name == wanted:
                data = json.loads(line.removeprefix("data: "))
                return str(data.get("id") or data.get("item", {}).get("id", ""))


def _quantiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    ordered = sorted(value * 1000 for value in seconds)
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.9))], ordered[-1]
