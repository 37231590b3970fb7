"""What each event type does, as one table (CONTRACT §2), and the settings the fold goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["BLOCKING_BY_DEFAULT", "BY_HAND", "COUNTED", "KINDS", "RULES", "Rule"]

Effect = Literal["open", "update", "close", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`kind` of the item the subject is, and the resolved_action a close leaves. A `note` leaves a fact only."""

    kind: str
    effect: Effect
    action: str = ""


RULES: dict[str, Rule] = {
    "waitpoint.created": Rule("waitpoint", "open"),
    "waitpoint.approved": Rule("waitpoint", "close", "approved"),
    "waitpoint.rejected": Rule("waitpoint", "close", "rejected"),
    "waitpoint.cancelled": Rule("waitpoint", "close", "cancelled"),
    "waitpoint.expired": Rule("waitpoint", "close", "expired"),
    "escalation.opened": Rule("escalation", "open"),
    "escalation.updated": Rule("escalation", "update"),
    "escalation.resolved": Rule("escalation", "close", "resolved"),
    "run.failed": Rule("failed_run", "open"),
    "run.retried": Rule("failed_run", "close", "retried"),
    "run.recovered": Rule("failed_run", "close", "recovered"),
    "run.cancelled": Rule("failed_run", "close", "cancelled"),
    "message.posted": Rule("message", "open"),
    "message.withdrawn": Rule("message", "close", "withdrawn"),
    "session.started": Rule("session_waiting", "note"),
    "session.waiting": Rule("session_waiting", "open"),
    "session.resumed": Rule("session_waiting", "close", "resumed"),
    "session.completed": Rule("session_waiting", "close", "completed"),
    "session.failed": Rule("session_waiting", "close", "failed"),
    "plan.proposed": Rule("plan_approval", "open"),
    "plan.approved": Rule("plan_approval", "close", "approved"),
    "plan.rejected": Rule("plan_approval", "close", "rejected"),
    "plan.superseded": Rule("plan_approval", "close", "superseded"),
    "action.requested": Rule("pending_action", "open"),
    "action.confirmed": Rule("pending_action", "close", "confirmed"),
    "action.declined": Rule("pending_action", "close", "declined"),
    "action.expired": Rule("pending_action", "close", "expired"),
    # Whether a draft or a case opens or closes depends on the event's content; `drafts` and `fold` decide.
    "draft.edited": Rule("draft_review", "open", "edited"),
    "draft.committed": Rule("draft_review", "close", "committed"),
    "draft.discarded": Rule("draft_review", "close", "discarded"),
    "case.state_changed": Rule("blocked_case", "open", "state_left"),
    "task.blocked": Rule("blocked_task", "open"),
    "task.unblocked": Rule("blocked_task", "close", "unblocked"),
    "session.verifying": Rule("verifying_no_proof", "open"),
    "proof.attached": Rule("proof_expiring", "open", "attached"),
    "proof.expired": Rule("proof_expiring", "close", "expired"),
}

KINDS = frozenset({rule.kind for rule in RULES.values()} | {"incident"})
BLOCKING_BY_DEFAULT = frozenset({"waitpoint", "session_waiting", "plan_approval", "pending_action"})
# What the history calls a resolve whose action nobody named; the item shows none.
BY_HAND = "resolved"
# What "momentum" counts. An action that expired was resolved by nobody, so it does not count.
COUNTED = frozenset({"session.completed", "plan.approved", "action.confirmed", "action.declined"})


