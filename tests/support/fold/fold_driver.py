"""Drives a fold over a dict as the worker does, for the unit tests of the core."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from support.fold.pipeline_driver import SEALER

from schemas.facts import Fact, Outcome
from schemas.log import Event, Pack, decode_pack, encode_pack
from schemas.scalars import format_timestamp, parse_timestamp
from schemas.topics import TOPIC_OF_TYPE
from schemas.views import DraftRow, ItemRow, Row, apply_changes, decode_row
from streams.core.config import FoldConfig
from streams.core.domain.rank import rank_key
from streams.core.domain.visibility import can_see
from streams.core.fold.fold import Fold
from streams.core.normalise import normalise

__all__ = ["NOON", "Folding", "at", "cloud_event", "event"]

NOON = parse_timestamp("2026-05-20T12:00:00Z")
_serial = 0


def at(minutes: float) -> str:
    """Converts minutes after noon to RFC 3339."""
    return format_timestamp(NOON + int(minutes * 60_000_000))


def cloud_event(kind: str, subject: str = "s1", minutes: float = 0, ws: str = "ws", **data: Any) -> dict[str, Any]:
    """Returns a structured CloudEvent with a new id, or with `id` of `data`."""
    global _serial
    _serial += 1
    given = data.pop("id", None)
    return {
        "specversion": "1.0", "id": given or f"e{_serial}", "source": "/test", "type": kind, "subject": subject,
        "time": at(minutes), "workspaceid": ws, "data": data,
    }


def event(kind: str, subject: str = "s1", minutes: float = 0, ws: str = "ws", **data: Any) -> Event:
    topic = TOPIC_OF_TYPE.get(kind, "waitpoints")  # reports of decisions are on every topic
    return normalise(topic, orjson.dumps(cloud_event(kind, subject, minutes, ws, **data)), sealer=SEALER)


class Folding:
    """A fold and its durable rows. Encodes and decodes every pack, as the log does. `clock`: minutes after noon."""

    def __init__(self, rules: FoldConfig = FoldConfig()) -> None:  # noqa: B008 - frozen
        self.rules = rules
        self.rows: dict[bytes, bytes] = {}
        self.facts: list[Fact | Outcome] = []
        self.batches = 0
        self.restart()

    def restart(self) -> None:
        """Replaces the fold by a new one that loads the durable rows, as after a crash."""
        self.fold = Fold(self.rows, 0, self.rules)
        self.fold.load()
        self.fold.reconcile(self.fold.position.next)

    def pack(self, *entries: Any, clock: float = 0) -> None:
        pack = decode_pack(encode_pack(Pack(NOON + int(clock * 60_000_000), list(entries))))
        while not self.fold.apply(pack, self.fold.position.next):
            self.commit()
        self.commit()

    def commit(self) -> None:
        batch = self.fold.pending_batch()
        self.facts += batch.facts
        apply_changes(self.rows, batch.rows)
        self.fold.mark_durable()
        self.batches += 1

    def all(self, kind: type[Row]) -> list[Any]:
        rows = (decode_row(key, value) for key, value in self.rows.items())
        return [row for row in rows if isinstance(row, kind)]

    def items(self, state: str | None = None) -> list[ItemRow]:
        """Returns the visible items, or those of a state, sorted by kind and source id."""
        rows = (row for row in self.all(ItemRow) if row.state != "hidden" and state in (None, row.state))
        return sorted(rows, key=lambda row: (row.kind, row.source_id))

    def item(self, kind: str, source_id: str = "s1") -> ItemRow:
        return next(row for row in self.items() if (row.kind, row.source_id) == (kind, source_id))

    def listed(self, user: str = "u", roles: Iterable[str] = (), ws: str = "ws") -> list[ItemRow]:
        """Returns the ranked list of a reader without marks and pins."""
        rows = [
            row for row in self.all(ItemRow)
            if row.ws == ws and row.is_listed and can_see(row.target_user_id, row.target_role, user, frozenset(roles))
        ]
        return sorted(rows, key=rank_key)

    def drafts(self) -> list[DraftRow]:
        return [row for row in self.all(DraftRow) if row.in_progress]
