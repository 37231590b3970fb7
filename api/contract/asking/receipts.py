"""The payload of a receipt: what was asked, what was decided by whom, and what had become of it (CONTRACT §7).

It is canonical JSON (RFC 8785). It follows from the rows and the settings alone, so each edge gives the same bytes for
the same state. Numbers that people or sources wrote keep their digits.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from schemas.asking.question import DecisionRow, Vote
from schemas.scalars import format_timestamp
from schemas.topics import partition_of
from schemas.views import ItemRow
from streams.core.canonical_json import canonical_json, read_exact
from streams.core.domain.questions import shown_ask

__all__ = ["PAYLOAD_TYPE", "PAYLOAD_VERSION", "receipt_payload", "shown_question"]

PAYLOAD_TYPE = "attn.decision-receipt"
PAYLOAD_VERSION = 1


def receipt_payload(row: DecisionRow, item: ItemRow | None, issuer: str, partitions: int) -> bytes:
    """Returns the payload. `item`: the decision's item, if it still exists. `partitions`: those of `attn.log`.

    `issued_at` is the log's time at which the row last changed, so it is the same on each edge.
    """
    shown = shown_question(row, item)
    return canonical_json({
        "type": PAYLOAD_TYPE, "v": PAYLOAD_VERSION, "issuer": issuer, "issued_at": format_timestamp(_as_of(row)),
        "workspace": row.ws, "item": row.item, "kind": row.kind,
        "question": _without_none({
            "id": row.ask_id, "source": row.source, "subject": row.subject, "title": row.title, "digest": row.digest,
            "opened_at": format_timestamp(row.opened_at), "expires_at": _time(row.expires_at), "shown": shown,
        }),
        "decision": _decision(row), "actors": [_actor(vote) for vote in row.actors],
        "fence": {"partition": partition_of(row.ws, partitions), "offset": row.revision},
    })


def shown_question(row: DecisionRow, item: ItemRow | None) -> dict[str, Any] | None:
    """Returns the object whose SHA-256 is the digest of the question; None if the item shows something else by now."""
    if item is None or item.question is None:
        return None
    shown = {
        "workspace": item.ws, "source": item.source, "subject": item.source_id, "title": item.data.title,
        "body": item.data.body_md, "ask": read_exact(shown_ask(item.data.ask, item.kind)),
    }
    return shown if hashlib.sha256(canonical_json(shown)).hexdigest() == row.digest else None


def _as_of(row: DecisionRow) -> int:
    return max(row.touched, row.changed_at, row.delivered_at or 0)


def _decision(row: DecisionRow) -> dict[str, Any]:
    return _without_none({
        "id": row.id, "option": row.option or None, "option_title": row.option_title, "does": row.does or None,
        "form": _value(row.form), "args": _value(row.args), "edited": list(row.edited) or None,
        "comment": row.comment, "made_at": format_timestamp(row.decided_at),
        "undo_until": format_timestamp(row.undo_until), "state": row.state,
        "state_since": format_timestamp(row.changed_at), "returned": row.returned, "reason": row.reason,
        "delivered_at": _time(row.delivered_at), "batch": row.batch,
    })


def _actor(vote: Vote) -> dict[str, Any]:
    return _without_none({
        "user": vote.user, "name": vote.name, "role": vote.role, "at": format_timestamp(vote.at), "vote": vote.option,
        "does": vote.does, "comment": vote.comment,
    })


def _value(raw: msgspec.Raw) -> Any:
    """Returns the JSON value of a text that people or sources wrote; None if there is none."""
    text = bytes(raw)
    return read_exact(text) if text else None


def _time(us: int | None) -> str | None:
    return format_timestamp(us) if us is not None else None


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
