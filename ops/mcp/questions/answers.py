"""What became of a question, read from attn's item and decision, as the result of a tool. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ops.mcp.questions.handles import subject_of
from schemas.scalars import parse_timestamp

__all__ = ["OUTPUT_SCHEMA", "Ended", "Standing", "closed", "ended_of", "handle_of", "standing_of", "waiting"]

Status = Literal["waiting", "answered", "expired", "withdrawn", "unknown"]

_MESSAGES: dict[Status, str] = {
    "waiting": "No answer yet. Call get_answer with the handle to go on waiting. Do not assume an answer.",
    "expired": "Nobody answered in time. Treat it as not approved.",
    "withdrawn": "The question was closed without an answer. Treat it as not approved.",
    "unknown": "attn has no question with this handle: it was never recorded, was asked anew since, or ended more than "
               "30 days ago. Treat it as not approved.",
}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object", "required": ["status", "handle", "message"], "properties": {
        "status": {"type": "string", "enum": ["waiting", "answered", "expired", "withdrawn", "unknown"]},
        "handle": {"type": "string", "description": "Names this question in get_answer and withdraw."},
        "message": {"type": "string"},
        "option": {"type": "string", "description": "Id of the chosen option."},
        "option_title": {"type": "string"},
        "does": {"type": "string", "description": "Meaning of the option, such as approve or reject."},
        "form": {"type": "object", "description": "Values of the form, with their JSON types."},
        "comment": {"type": "string"},
        "decided_by": {"type": "array", "items": {"type": "object"}, "description": "user, name, role and time"},
        "decided_at": {"type": "string"},
        "decision": {"type": "string"},
        "handed_out_before": {"type": "boolean", "description": "Whether an earlier call already had this answer."},
    },
}


@dataclass(frozen=True)
class Standing:
    """How a question stands. `result`: of the tool. `decision`: id of the decision that nobody has taken, or None."""

    status: Status
    handle: str
    decision: str | None = None
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether waiting longer changes nothing."""
        return self.status not in ("waiting", "unknown")


@dataclass(frozen=True)
class Ended:
    """How the newest question of a subject ended: `how` for the next handle, `at` in microseconds."""

    how: str
    at: int


def waiting(handle: str) -> Standing:
    """Returns how a question stands that attn has, but no worker has read yet."""
    return _plain("waiting", handle)


def closed(handle: str) -> Standing:
    """Returns how a question stands that was withdrawn."""
    return _plain("withdrawn", handle)


def standing_of(handle: str, item: Mapping[str, Any] | None, decisions: Sequence[Mapping[str, Any]]) -> Standing:
    """Returns how the question stands. `decisions`: those of its subject, newest first."""
    decision = next((one for one in decisions if one["question"]["id"] == handle), None)
    current = item is not None and handle_of(item) == handle
    if decision is not None:
        state = decision["state"]
        if state in ("sending", "applied", "undeliverable"):
            return _answered(handle, decision)
        if state == "expired":
            return _plain("expired", handle)
        if state == "made":  # its people can still take it back
            return _plain("waiting", handle, decision["id"])
    if not current:  # without a decision of its own a question is lost when its subject is asked anew
        return _plain("withdrawn" if decision is not None else "unknown", handle)
    assert item is not None
    if item["state"] != "resolved" or (decision is None and _was_decided(item)):
        return _plain("waiting", handle)
    return _plain("withdrawn", handle)


def _was_decided(item: Mapping[str, Any]) -> bool:
    """Whether the item knows of a decision. If the list of decisions lacks it, the edge that answered is behind."""
    decision = item.get("decision")
    return decision is not None and decision["state"] in ("made", "sending", "undeliverable", "applied", "expired")


def ended_of(item: Mapping[str, Any] | None) -> Ended | None:
    """Returns how the newest question of a subject ended; None if it is open or its answer counts.

    An answer counts until it was handed to a caller: a repeated call gets it, a later call asks anew.
    """
    if item is None:
        return None
    decision, closed = item.get("decision"), item["state"] == "resolved"
    state = decision["state"] if decision is not None else None
    if state in ("applied", "expired") or (closed and state == "refused"):
        how = decision["id"]  # type: ignore[index]
    elif closed and state in (None, "taken_back"):
        how = item["resolved_at"]
    else:
        return None
    return Ended(f"{handle_of(item)}|{how}", parse_timestamp(item["updated_at"]))


def handle_of(item: Mapping[str, Any]) -> str:
    """Returns the handle of an item's question; "" if the item asks nothing."""
    ask = item.get("ask")
    found = ask.get("id") if isinstance(ask, dict) else None
    return found if isinstance(found, str) and subject_of(found) == item["source_id"] else ""


def _plain(status: Status, handle: str, decision: str | None = None) -> Standing:
    return Standing(status, handle, decision, {"status": status, "handle": handle, "message": _MESSAGES[status]})


def _answered(handle: str, decision: Mapping[str, Any]) -> Standing:
    people = [{name: actor[name] for name in ("user", "name", "role", "at") if actor.get(name)}
              for actor in decision["actors"]]
    who = ", ".join(str(one.get("name") or one.get("user")) for one in people) or "the expiry"
    chosen = decision.get("option_title") or decision.get("option")
    result = {
        "status": "answered", "handle": handle, "message": f"Answered by {who}: {chosen}.",
        "decided_by": people, "decided_at": decision["at"], "decision": decision["id"],
        "handed_out_before": decision["state"] == "applied",
    }
    result |= {name: decision[name] for name in ("option", "option_title", "does", "form", "comment")
               if decision.get(name) is not None}
    return Standing("answered", handle, None if decision["state"] == "applied" else decision["id"], result)
