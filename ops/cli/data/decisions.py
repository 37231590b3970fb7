"""Reads decisions from `attn.views` and `decisions`, and appends requests to send them again. Shows no token."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ops.cli.data.kafka import open_consumer, open_producer, read_to_end
from schemas.asking.decision_event import decode_decision
from schemas.asking.question import DecisionRow
from schemas.log import Report
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from schemas.topics import DECISIONS, LOG, VIEWS
from schemas.views import decode_row_or_none
from streams.core.packs import Packer
from streams.runtime.clock import now_us

__all__ = ["AGAIN_STATES", "DecisionFilter", "events_of", "read_decisions", "row_of", "send_again", "state_of"]

_PREFIX = b"c:"
# The fold sends these again (CONTRACT §7): what its source applied or refused, or a person took back, is over.
AGAIN_STATES = frozenset({"made", "sending", "undeliverable"})
_TIMES = ("opened_at", "decided_at", "undo_until", "expires_at", "changed_at", "delivered_at")
# Not shown: the sealed token, and what only the fold uses.
_HIDDEN = frozenset({"sealed", "rev", "touched", "wake"})


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """Which decisions to choose; None: any. `state`: a state, or why a decision came back (`unconfirmed`)."""

    workspace: str | None = None
    state: str | None = None
    endpoint: str | None = None
    id: str | None = None

    def takes(self, row: DecisionRow) -> bool:
        return (
            self.workspace in (None, row.ws) and self.endpoint in (None, row.reply_to) and self.id in (None, row.id)
            and self.state in (None, row.state, row.returned)
        )


def state_of(row: DecisionRow) -> str:
    """Returns the state, and why the item came back if that says more."""
    return row.state if row.returned in (None, row.state) else f"{row.state}, {row.returned}"


async def read_decisions(settings: Settings, chosen: DecisionFilter) -> list[DecisionRow]:
    """Returns the decisions of the view that match, by the time of the decision. Raises UserError."""
    found: dict[bytes, DecisionRow] = {}
    async with open_consumer(settings, VIEWS) as reader:
        async for record in read_to_end(reader):
            if record.key is None or not record.key.startswith(_PREFIX):
                continue
            row = decode_row_or_none(record.key, record.value)
            if isinstance(row, DecisionRow) and chosen.takes(row):
                found[record.key] = row
            else:
                found.pop(record.key, None)
    return sorted(found.values(), key=lambda row: (row.decided_at, row.id))


def row_of(row: DecisionRow) -> dict[str, Any]:
    """Returns a decision as one JSON object, with times as RFC 3339."""
    shown: dict[str, Any] = json.loads(msgspec.json.encode(row))
    for name in _TIMES:
        if shown.get(name):
            shown[name] = format_timestamp(shown[name])
    for actor in shown.get("actors", ()):
        actor["at"] = format_timestamp(actor["at"])
    return {name: value for name, value in shown.items() if name not in _HIDDEN}


async def events_of(settings: Settings, decision: str) -> AsyncIterator[dict[str, Any]]:
    """Yields what the topic `decisions` says about a decision: offset, type, time, endpoint and reason."""
    name = decision.encode()
    async with open_consumer(settings, DECISIONS) as reader:
        async for record in read_to_end(reader):
            if name not in (record.value or b""):
                continue
            try:
                event = decode_decision(record.value or b"")
            except (ValueError, RecursionError):
                continue
            if event.data.decision == decision:
                yield {
                    "record": f"{record.partition}/{record.offset}", "type": event.type, "time": event.time,
                    "endpoint": event.data.reply.to if event.data.reply is not None else None,
                    "reason": event.data.reason,
                }


async def send_again(settings: Settings, rows: Sequence[DecisionRow]) -> None:
    """Appends a report "again" for each decision: the worker then publishes it once more, with the same id."""
    packer = Packer(settings.log_partitions)
    for row in rows:
        packer.add(Report(row.ws, f"{row.id}.again.{secrets.token_hex(8)}", now_us(), row.id, "again"))
    async with open_producer(settings, [LOG]) as out:
        for pack in packer.drain(now_us()):
            await out.send(LOG, pack.value, partition=pack.partition)
        await out.finish()
