"""Encodes questions and decisions as JSON (CONTRACT §7): the fields of an item that asks, and entries of decisions."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from schemas.asking.question import DecisionRow
from schemas.log import NO_PAYLOAD
from schemas.scalars import format_timestamp
from schemas.views import ItemRow
from streams.core.config import FoldConfig
from streams.core.domain import decisions, questions

__all__ = ["DECIDER_ROLES", "decision_entry", "question_fields", "raw_fragment"]

DECIDER_ROLES = FoldConfig().decider_roles  # default of ATTN_DECIDER_ROLES


def raw_fragment(raw: bytes) -> orjson.Fragment:
    """Returns JSON text as it is, so that no number is rounded.

    A newline between tokens would end a line of an event stream, so newlines are replaced.
    """
    return orjson.Fragment(raw.replace(b"\n", b" ").replace(b"\r", b" "))


def question_fields(row: ItemRow, decider_roles: frozenset[str] = DECIDER_ROLES) -> dict[str, Any]:
    """Returns the fields that only an item that asks has; empty if it does not ask.

    Anybody can compute `digest` from the item. `decider_roles`: ATTN_DECIDER_ROLES.
    """
    question = row.question
    state = questions.read_ask(row.data.ask, row.kind) if question is not None else None
    if question is None or state is None:
        return {}
    fields: dict[str, Any] = {
        "source": row.source, "ask": raw_fragment(state.shown), "digest": question.digest,
        "deciders": questions.deciders_of(state, row.data.by_user_id, decider_roles),
        "votes": questions.votes_json(question.votes),
    }
    if row.data.body_md == "":  # other items omit an empty body; here the digest contains it
        fields["body_md"] = ""
    if state.ask.quorum is not None and decisions.is_open(question):
        fields["needed"] = questions.needed_votes(question, questions.quorum_of(state))
    if question.decision is not None:
        fields["decision"] = questions.decision_json(question.decision, question)
    return fields


def decision_entry(row: DecisionRow) -> bytes:
    """Returns one entry of `GET /org/me/decisions`: the decision, its question, and what became of it."""
    entry: dict[str, Any] = {
        "id": row.id, "state": row.state, "item": row.item, "kind": row.kind, "source": row.source,
        "source_id": row.subject, "question": {"id": row.ask_id, "digest": row.digest},
        "opened_at": format_timestamp(row.opened_at), "at": format_timestamp(row.decided_at),
        "undo_until": format_timestamp(row.undo_until), "changed_at": format_timestamp(row.changed_at),
        "actors": questions.votes_json(row.actors), "confirm": row.confirm,
    }
    optional = {
        "title": row.title, "cluster": row.cluster, "option": row.option or None, "does": row.does or None,
        "option_title": row.option_title, "form": _raw_or_none(row.form), "args": _raw_or_none(row.args),
        "edited": list(row.edited) or None, "comment": row.comment, "returned": row.returned, "reason": row.reason,
        "expires_at": _time_or_none(row.expires_at), "delivered_at": _time_or_none(row.delivered_at),
        "to": row.reply_to, "batch": row.batch,
    }
    return orjson.dumps(entry | {name: value for name, value in optional.items() if value is not None})


def _raw_or_none(raw: msgspec.Raw) -> orjson.Fragment | None:
    return raw_fragment(bytes(raw)) if raw is not NO_PAYLOAD and bytes(raw) else None


def _time_or_none(us: int | None) -> str | None:
    return format_timestamp(us) if us is not None else None
