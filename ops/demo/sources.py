"""Reads topic `decisions` as any source does: a consumer group, offsets committed after the decision is stored.

What was decided is applied once it can no longer be taken back. The order of the steps is store, commit, send, mark
done: a crash at any point repeats events with the same ids, and loses none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog
from aiokafka import AIOKafkaConsumer

from ops.demo.desk import DecisionDesk
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import DECISIONS
from streams.kafka.connection import client_arguments, close_client
from streams.runtime.clock import now_us

__all__ = ["Send", "apply_decisions", "apply_due"]

Send = Callable[[list[dict[str, Any]]], Awaitable[None]]

_POLL_SECONDS = 1.0

log = structlog.get_logger("attn.demo")


async def apply_decisions(
    settings: Settings, desk: DecisionDesk, send: Send, group: str, workspace: str,
) -> None:
    """Applies the decisions of one workspace without end. Raises KafkaError if Kafka refuses a request.

    `send` returns once Kafka has acknowledged the events.
    """
    consumer = AIOKafkaConsumer(
        DECISIONS, **client_arguments(settings), group_id=group, group_instance_id=group, enable_auto_commit=False,
        auto_offset_reset="earliest", isolation_level="read_committed",
    )
    try:
        await consumer.start()
        while True:
            found = await consumer.getmany(timeout_ms=int(_wait(desk) * 1000))
            records = [orjson.loads(record.value) for run in found.values() for record in run if record.value]
            for record in records:
                if record["workspaceid"] == workspace:
                    desk.receive(record)
            if records:
                desk.save()
                await consumer.commit()
            await apply_due(desk, send)
    finally:
        await close_client(consumer)


def _wait(desk: DecisionDesk) -> float:
    """Seconds until the next decision is due, at most one second."""
    due = desk.next_due()
    return _POLL_SECONDS if due is None else min(max((due - now_us()) / SECOND, 0.0), _POLL_SECONDS)


async def apply_due(desk: DecisionDesk, send: Send) -> None:
    """Sends the events of each decision that is due, then marks it as done."""
    for decision, events in desk.due(now_us()):
        if events:
            await send(events)
            log.info("demo source answered a decision", decision=decision, type=events[0]["type"],
                     subject=events[0]["subject"])
        desk.mark_done(decision, events)
