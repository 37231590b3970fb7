"""The question of an item: what it asks, its digest, who may decide, and the state that follows from it (CONTRACT §7).

`sync_question` compares the question with what the item shows. All functions that take a row change it in place. The
functions that return JSON values are used by the fold's outcomes and by the edges.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from schemas.asking.ask import Ask, Form, Option
from schemas.asking.question import Decision, Question, Vote
from schemas.log import NO_PAYLOAD
from schemas.scalars import format_timestamp
from schemas.views import Close, ItemRow, Stamp
from streams.core.canonical_json import canonical_json, read_exact
from streams.core.config import FoldConfig
from streams.core.domain import decisions
from streams.core.domain.answers import check_answer, read_values
from streams.core.domain.keys import batch_key, is_event_digest
from streams.core.json_text import read_json

__all__ = [
    "DEFAULT_OPTIONS", "AskState", "answer_errors", "ask_again", "close_of", "close_question", "deciders_of",
    "decision_json", "expire_due", "form_of", "needed_votes", "next_timer", "option_of", "question_digest", "quorum_of",
    "read_ask", "restore_listed", "set_source", "shown_args", "shown_ask", "state_of_answered", "sync_question",
    "votes_json",
]

log = logging.getLogger(__name__)

_ANSWER = {"type": "object", "properties": {"text": {"type": "string", "title": "Answer", "minLength": 1}},
           "required": ["text"]}
_PLAIN: dict[str, list[dict[str, Any]]] = {
    "approve": [{"id": "approve", "does": "approve", "title": "Approve", "style": "primary"},
                {"id": "reject", "does": "reject", "title": "Reject", "style": "danger"}],
    "confirm": [{"id": "confirm", "does": "approve", "title": "Confirm", "style": "primary"},
                {"id": "decline", "does": "reject", "title": "Decline", "style": "danger"}],
    "answer": [{"id": "answer", "does": "respond", "title": "Answer", "style": "primary", "form": _ANSWER}],
    "commit": [{"id": "commit", "does": "approve", "title": "Commit", "style": "primary"},
               {"id": "discard", "does": "reject", "title": "Discard", "style": "danger"}],
    "retry": [{"id": "retry", "does": "retry", "title": "Retry", "style": "primary"},
              {"id": "ignore", "does": "ignore", "title": "Ignore"}],
    "resolve": [{"id": "resolve", "does": "acknowledge", "title": "Resolve", "style": "primary",
                 "comment": "optional"}],
    "resume": [{"id": "resume", "does": "approve", "title": "Resume", "style": "primary"},
               {"id": "skip", "does": "ignore", "title": "Skip"},
               {"id": "reject", "does": "reject", "title": "Reject", "style": "danger"}],
    "acknowledge": [{"id": "acknowledge", "does": "acknowledge", "title": "Acknowledge", "style": "primary"}],
}
# Kind of item -> the options of an ask that names none (CONTRACT §7). With ATTN_DECISIONS=all these kinds ask even
# without an ask. A message asks for nothing; its ask may still leave out the options.
DEFAULT_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "waitpoint": _PLAIN["approve"], "plan_approval": _PLAIN["approve"], "pending_action": _PLAIN["confirm"],
    "session_waiting": _PLAIN["answer"], "draft_review": _PLAIN["commit"], "failed_run": _PLAIN["retry"],
    "incident": _PLAIN["retry"], "escalation": _PLAIN["resolve"], "blocked_case": _PLAIN["resume"],
    "blocked_task": _PLAIN["acknowledge"], "verifying_no_proof": _PLAIN["acknowledge"],
    "proof_expiring": _PLAIN["acknowledge"],
}
_CACHED_BYTES = 8 << 10  # larger asks are not cached: 512 of 64 KiB could take 500 MB when they are parsed
_NO_SOURCE = ""  # the default of the row, as the same object: msgspec omits it
_SHOWN = ("id", "options", "form", "action", "deciders", "quorum", "expires_at", "on_expiry", "batch", "reply")
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class AskState(NamedTuple):
    """A validated ask: with options, without token. `sealed`: its sealed reply token. `shown`: its JSON for readers."""

    ask: Ask
    sealed: str | None
    shown: bytes

    @property
    def options(self) -> list[Option]:
        return self.ask.options or []


def read_ask(raw: msgspec.Raw, kind: str) -> AskState | None:
    """Returns the ask of `Data.ask` with the options of the item's kind, if it names none.

    An item without an ask (ATTN_DECISIONS=all) has the ask `{}`. None if the text is no ask that this version knows.
    """
    text = bytes(raw) or b"{}"
    return (_read_ask if len(text) <= _CACHED_BYTES else _read_ask.__wrapped__)(text, kind)


@lru_cache(maxsize=512)
def _read_ask(raw: bytes, kind: str) -> AskState | None:
    try:
        text, value = read_json(raw)
        members = {name: member for name, member in _decode_members(text).items()
                   if name in _SHOWN and bytes(member) != b"null"}
        reply = value.get("reply")
        sealed = reply.pop("token", None) if isinstance(reply, dict) else None
        if isinstance(reply, dict):
            kept = {name: member for name, member in _decode_members(members["reply"]).items()
                    if name in ("to", "confirm")}
            members["reply"] = msgspec.Raw(_encode(kept))
        if not value.get("options"):
            value["options"] = DEFAULT_OPTIONS.get(kind, _PLAIN["acknowledge"])
            members["options"] = msgspec.Raw(_encode(value["options"]))
        ask = Ask.model_validate(value)
    except (ValueError, ValidationError) as error:  # only a newer attn or a changed model can have written it
        log.error("an ask of kind %s cannot be read, its item asks nothing: %s", kind, error)
        return None
    return AskState(ask, sealed, _encode(members))


def shown_ask(raw: msgspec.Raw, kind: str) -> bytes:
    """Returns the JSON of the ask for readers: the source's fields, options always, never the token."""
    state = read_ask(raw, kind)
    return state.shown if state is not None else b"{}"


def option_of(state: AskState, option: str | None) -> Option | None:
    return next((one for one in state.options if one.id == option), None)


def form_of(state: AskState, option: Option) -> Form | None:
    """Returns the form of an option: its own, else the ask's. A reject or ignore does not fill in the ask's form."""
    return option.form or (None if option.does in ("reject", "ignore") else state.ask.form)


def answer_errors(
    state: AskState, option: Option, form: msgspec.Raw, args: msgspec.Raw, comment: str | None,
) -> dict[str, str]:
    """Returns the errors of an answer by field (`answers.check_answer`). `form` and `args` are JSON texts."""
    errors: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, raw in (("form", form), ("args", args)):
        try:
            values[name] = read_values(bytes(raw)) if bytes(raw) else None
        except ValueError as error:
            errors[name] = str(error)
            continue
        if values[name] is not None and not isinstance(values[name], dict):
            errors[name] = "must be an object"
    if errors:
        return errors
    action = state.ask.action
    if action is not None and values["args"] is not None:
        action = action.model_copy(update={"args": shown_args(state)})
    return check_answer(option, form_of(state, option), action, values["form"], values["args"], comment)


def shown_args(state: AskState) -> dict[str, Any]:
    """Returns the arguments of the action as `read_values` reads them; none without an action."""
    action = read_values(state.shown).get("action")
    return dict(action.get("args", {})) if action is not None else {}


def quorum_of(state: AskState) -> int:
    return state.ask.quorum.approve if state.ask.quorum is not None else 1


def question_digest(row: ItemRow, shown: bytes) -> str:
    """Returns the SHA-256 in hex of the canonical JSON of what the item shows. Readers can compute it from the item."""
    return hashlib.sha256(canonical_json({
        "workspace": row.ws, "source": row.source, "subject": row.source_id, "title": row.data.title,
        "body": row.data.body_md, "ask": read_exact(shown),
    })).hexdigest()


def set_source(row: ItemRow, source: str, stamp: Stamp, config: FoldConfig) -> None:
    """Stores the CloudEvents source of the event that asks: the newest opening, or the update that set the ask."""
    if not row.source and row.data.ask is NO_PAYLOAD and config.decisions != "all":
        return
    if row.over.get("ask") == stamp:
        row.source = source
    elif row.base == stamp and "ask" not in row.over:
        asks = row.data.ask is not NO_PAYLOAD or config.decisions == "all"
        row.source = source if asks else _NO_SOURCE


def sync_question(row: ItemRow, config: FoldConfig) -> bool:
    """Sets the question of what the item shows now. Returns whether it replaced another question.

    The same question is asked anew after its source closed and opened the item again, and by a newer opening event
    after its decision became final.
    """
    asks = row.data.ask is not NO_PAYLOAD or (config.decisions == "all" and row.kind in DEFAULT_OPTIONS)
    if not asks or row.base is None or config.decisions == "off":
        _drop_question(row)
        return False
    state = read_ask(row.data.ask, row.kind)
    if state is None:
        _drop_question(row)
        return False
    batch = state.ask.batch
    key = batch_key(row.ws, row.source, batch.key).decode() if batch is not None else None
    digest, before = question_digest(row, state.shown), row.question
    if before is None:
        row.question = Question(digest=digest, batch=key, attempts=row.attempts)
        return False
    decision = before.decision
    is_final = before.closing is None and decision is not None and decision.state in ("applied", "expired")
    if row.kind == "incident" and state_of_answered(row) == "decided":
        return False  # its title counts the runs that are still open, which the answer closes one by one
    if before.digest != digest:
        row.question = _asked_anew(before, digest, key)
        return True
    if row.is_open and (before.closing is not None or (before.final is not None and before.final != row.base.digest)):
        row.question = _asked_anew(before, digest, key)
    elif is_final and before.final is None:
        row.question = replace(before, final=row.base.digest)
    return False


def _drop_question(row: ItemRow) -> None:
    """Ends the question of an item that asks nothing. The number of its decisions stays, so that no id returns."""
    if row.question is not None:
        row.attempts = row.question.attempts + (row.question.decision is not None)
        row.question = None


def _asked_anew(before: Question, digest: str, batch: str | None) -> Question:
    return Question(digest=digest, attempts=before.attempts + (before.decision is not None), batch=batch)


def ask_again(row: ItemRow) -> None:
    """Asks the same question once more: a user reopened the item after its decision took effect."""
    question = row.question
    if question is not None and state_of_answered(row) == "resolved":
        row.question = _asked_anew(question, question.digest, question.batch)


def restore_listed(row: ItemRow) -> bool:
    """Makes an item open that its question had removed from the list, before its state is derived again.

    Returns whether it did.
    """
    question = row.question
    if question is None or question.closing is not None or row.is_open or state_of_answered(row) is None:
        return False
    if row.state not in ("decided", "resolved"):
        return False
    row.state = "read"
    return True


def state_of_answered(row: ItemRow) -> str | None:
    """Returns `decided` or `resolved` if the question removes its item from the list; None if it does not."""
    question = row.question
    if question is None or question.decision is None or question.returned is not None:
        return None
    return {
        "made": "decided", "sending": "decided", "applied": "resolved", "expired": "resolved",
    }.get(question.decision.state)


def close_of(row: ItemRow) -> Close:
    """Returns how an item with an applied or expired decision was closed: time, option, first decider."""
    assert row.question is not None
    decision = row.question.decision
    assert decision is not None
    if decision.state == "expired":
        return Close(decision.changed_at, "", "expired", None)
    return Close(decision.changed_at, "", decision.option, decision.actors[0].user if decision.actors else None)


def close_question(row: ItemRow, clock: int) -> None:
    """Ends the question of an item that its source or a user closed. A decision under way took effect, if a source
    closed it."""
    question = row.question
    if question is None or row.state != "resolved" or question.closing is not None:
        return
    by_user = row.closed is not None and row.closed.digest != "" and not is_event_digest(row.closed.digest)
    closed = replace(question, closing="withdrawn") if by_user else decisions.close_by_source(question, clock)
    row.question = closed


def expire_due(row: ItemRow, clock: int) -> bool:
    """Ends the row's undecided question if its time is over: by the option that `on_expiry` names, else without one.

    Returns whether it did.
    """
    state = read_ask(row.data.ask, row.kind) if row.question is not None and decisions.is_open(row.question) else None
    if state is None or row.question is None or state.ask.expires_at is None or clock < state.ask.expires_at:
        return False
    option = option_of(state, state.ask.on_expiry)
    row.question = decisions.expire(
        row.question, row.id, clock, option.id if option else None, option.does if option else None)
    return True


def next_timer(row: ItemRow, wake: int | None) -> int | None:
    """Returns the earlier one of `wake` and the expiry of the row's undecided question, in microseconds."""
    if row.question is None or not decisions.is_open(row.question):
        return wake
    state = read_ask(row.data.ask, row.kind)
    expires = state.ask.expires_at if state is not None else None
    return wake if expires is None else expires if wake is None else min(wake, expires)


def deciders_of(state: AskState, requester: str | None, default_roles: frozenset[str]) -> dict[str, list[str]]:
    """Returns who may decide, of those who see the item: `users`, `roles`, and the `excluded` users."""
    deciders = state.ask.deciders
    if deciders is None:
        return {"users": [], "roles": sorted(default_roles), "excluded": []}
    asked_by = deciders.requester or requester
    excluded = [asked_by] if "requester" in deciders.excluded and asked_by is not None else []
    roles: list[str] = list(deciders.roles)
    if not (deciders.users or deciders.roles):
        roles = sorted(default_roles)
    return {"users": list(deciders.users), "roles": roles, "excluded": excluded}


def needed_votes(question: Question, quorum: int) -> int:
    """Returns how many votes the most advanced answer still needs; a reject needs one."""
    most = max((sum(one.same_answer(other) for other in question.votes) for one in question.votes), default=0)
    return max(0, quorum - most)


def votes_json(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    return [_without_none({
        "user": vote.user, "name": vote.name, "role": vote.role, "at": format_timestamp(vote.at), "vote": vote.option,
        "comment": vote.comment,
    }) for vote in votes]


def decision_json(decision: Decision, question: Question) -> dict[str, Any]:
    """Returns the `decision` of an item, a 201 or a 409."""
    return _without_none({
        "id": decision.id, "option": decision.option or None, "does": decision.does or None, "state": decision.state,
        "at": format_timestamp(decision.at), "undo_until": format_timestamp(decision.undo_until),
        "actors": votes_json(decision.actors), "reason": decision.reason, "returned": question.returned,
    })


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
