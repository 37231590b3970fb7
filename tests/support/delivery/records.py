"""Records of the topic `decisions`, endpoint files, and a running `attn deliver`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from support.kafka.pipeline import read

from schemas.asking.decision_event import DecisionData, DecisionEvent, Fence, QuestionRef, ReplyTo, encode_decision
from schemas.log import Report, decode_pack
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings
from schemas.topics import DECISIONS, LOG, partition_of
from streams.delivery.main import run
from streams.kafka.topics import ensure_topics

__all__ = [
    "HMAC_SECRET", "decision", "deliver", "endpoints_file", "reports", "send_decisions", "source_id",
]

HMAC_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def source_id(number: int) -> str:
    return f"wp_{number}"


def decision(
    number: int, verb: str = "made", *, to: str | None = "receiver", workspace: str = "ws_01",
    subject: str | None = None, undo: float | None = None, expires: float | None = None, decided: float | None = None,
    token: str | None = None, **more: Any,
) -> DecisionEvent:
    """Returns a decision event. `undo`, `expires`, `decided`: seconds from now."""
    def at(seconds: float) -> str:
        return format_timestamp(int((time.time() + seconds) * SECOND))

    name = "dec_" + hashlib.sha256(f"{workspace} {number}".encode()).hexdigest()[:32]
    data = DecisionData(
        decision=name, item=f"item-{number}", kind="waitpoint", source="/tests",
        question=QuestionRef(f"q{number}", "0" * 64),
        opened_at=at(-60), decided_at=at(decided or 0), fence=Fence(0, number), option="approve", does="approve",
        undo_until=None if undo is None else at(undo), expires_at=None if expires is None else at(expires),
        reply=None if to is None else ReplyTo(to, token), **more)
    return DecisionEvent(
        id=f"{name}.{verb}", type=f"decision.{verb}", subject=subject or source_id(number), time=at(0),
        workspaceid=workspace, data=data)


def endpoints_file(path: Path, **urls: str | dict[str, Any]) -> Path:
    """Writes a file of endpoints on loopback: name=URL, or name={url, timeout, ...} with TOML values."""
    lines = []
    for name, given in urls.items():
        fields = {"url": given} if isinstance(given, str) else dict(given)
        fields = {"secrets": [HMAC_SECRET], "allow_private": True, "timeout": 5} | fields
        lines += ["[[endpoint]]", f'name = "{name}"', *(f"{key} = {_toml(value)}" for key, value in fields.items())]
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(lines) + "\n")
    draft.replace(path)
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return msgspec.json.encode(value).decode()


async def send_decisions(settings: Settings, events: Iterable[DecisionEvent | bytes]) -> None:
    """Appends records to `decisions` as the worker does: the key is the workspace."""
    await ensure_topics(settings)
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for event in events:
            workspace = "ws_01" if isinstance(event, bytes) else event.workspaceid
            value = event if isinstance(event, bytes) else encode_decision(event)
            await producer.send_and_wait(
                DECISIONS, value, key=workspace.encode(), partition=partition_of(workspace, settings.log_partitions))


async def reports(settings: Settings) -> list[Report]:
    """Returns the distinct reports in the log, in its order."""
    distinct: dict[str, Report] = {}
    for records in (await read(settings, LOG)).values():
        for record in records:
            for entry in decode_pack(record.value or b"").entries:
                if isinstance(entry, Report):
                    distinct.setdefault(entry.id, entry)
    return list(distinct.values())


@contextlib.asynccontextmanager
async def deliver(settings: Settings) -> AsyncIterator[asyncio.Task[None]]:
    """Runs `attn deliver` in this process. Stops it cleanly at the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))
    try:
        yield task
    finally:
        stop.set()
        await task
