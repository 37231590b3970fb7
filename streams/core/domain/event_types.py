"""Table of event types: the kind of item that each concerns, and its effect on the item (CONTRACT §2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ACTIVITY_COUNTERS", "BLOCKING_BY_DEFAULT", "EVENT_RULES", "KINDS", "RESOLVED_MANUALLY", "EventRule"]

Effect = Literal["open", "update", "close", "note"]


@dataclass(frozen=True, slots=True)
class EventRule:
    """`kind`: kind of the item of the event's subject. `effect`: what the event does to the item; a `note` only emits a
    fact. `action`: the `resolved_action` of a close."""

    kind: str
    effect: Effect
    action: str = ""


EVENT_RULES: dict[str, EventRule] = {
    "waitpoint.created": EventRule("waitpoint", "open"),
    "waitpoint.approved": EventRule("waitpoint", "close", "approved"),
    "waitpoint.rejected": EventRule("waitpoint", "close", "rejected"),
    "waitpoint.cancelled": EventRule("waitpoint", "close", "cancelled"),
    "waitpoint.expired": EventRule("waitpoint", "close", "expired"),
    "escalation.opened": EventRule("escalation", "open"),
    "escalation.updated": EventRule("escalation", "update"),
    "escalation.resolved": EventRule("escalation", "close", "resolved"),
    "run.failed": EventRule("failed_run", "open"),
    "run.retried": EventRule("failed_run", "close", "retried"),
    "run.recovered": EventRule("failed_run", "close", "recovered"),
    "run.cancelled": EventRule("failed_run", "close", "cancelled"),
    "message.posted": EventRule("message", "open"),
    "message.withdrawn": EventRule("message", "close", "withdrawn"),
    "session.started": EventRule("session_waiting", "note"),
    "session.waiting": EventRule("session_waiting", "open"),
    "session.resumed": EventRule("session_waiting", "close", "resumed"),
    "session.completed": EventRule("session_waiting", "close", "completed"),
    "session.failed": EventRule("session_waiting", "close", "failed"),
    "plan.proposed": EventRule("plan_approval", "open"),
    "plan.approved": EventRule("plan_approval", "close", "approved"),
    "plan.rejected": EventRule("plan_approval", "close", "rejected"),
    "plan.superseded": EventRule("plan_approval", "close", "superseded"),
    "action.requested": EventRule("pending_action", "open"),
    "action.confirmed": EventRule("pending_action", "close", "confirmed"),
    "action.declined": EventRule("pending_action", "close", "declined"),
    "action.expired": EventRule("pending_action", "close", "expired"),
    # Whether an event of a draft or a case opens or closes depends on its data (drafts.py, event_handlers.py).
    "draft.edited": EventRule("draft_review", "open", "edited"),
    "draft.committed": EventRule("draft_review", "close", "committed"),
    "draft.discarded": EventRule("draft_review", "close", "discarded"),
    "case.state_changed": EventRule("blocked_case", "open", "state_left"),
    "task.blocked": EventRule("blocked_task", "open"),
    "task.unblocked": EventRule("blocked_task", "close", "unblocked"),
    "session.verifying": EventRule("verifying_no_proof", "open"),
    "proof.attached": EventRule("proof_expiring", "open", "attached"),
    "proof.expired": EventRule("proof_expiring", "close", "expired"),
}

KINDS = frozenset({rule.kind for rule in EVENT_RULES.values()} | {"incident"})
BLOCKING_BY_DEFAULT = frozenset({"waitpoint", "session_waiting", "plan_approval", "pending_action"})
# `resolved_action` in the history of a resolve that names no action; the item itself shows none.
RESOLVED_MANUALLY = "resolved"
# Event types that count as activity -> counter in the API. An expired action was resolved by no user, so it does not
# count.
ACTIVITY_COUNTERS = {
    "session.completed": "sessions_completed", "plan.approved": "plans_approved",
    "action.confirmed": "actions_resolved", "action.declined": "actions_resolved",
}
