"""Effects of each event on items, and the periods in which an item is open."""

from __future__ import annotations

from support.model.types import Event

__all__ = ["ACTIVITY", "TABLE", "bearings", "periods"]

# type -> (kind, "open" | "update" | resolved_action). `bearings` handles the types whose effect depends on their data.
TABLE = {
    "waitpoint.created": ("waitpoint", "open"),
    "waitpoint.approved": ("waitpoint", "approved"),
    "waitpoint.rejected": ("waitpoint", "rejected"),
    "waitpoint.cancelled": ("waitpoint", "cancelled"),
    "waitpoint.expired": ("waitpoint", "expired"),
    "escalation.opened": ("escalation", "open"),
    "escalation.updated": ("escalation", "update"),
    "run.failed": ("failed_run", "open"),
    "run.retried": ("failed_run", "retried"),
    "run.recovered": ("failed_run", "recovered"),
    "run.cancelled": ("failed_run", "cancelled"),
    "message.posted": ("message", "open"),
    "message.withdrawn": ("message", "withdrawn"),
    "session.waiting": ("session_waiting", "open"),
    "session.resumed": ("session_waiting", "resumed"),
    "session.completed": ("session_waiting", "completed"),
    "session.failed": ("session_waiting", "failed"),
    "plan.proposed": ("plan_approval", "open"),
    "plan.approved": ("plan_approval", "approved"),
    "plan.rejected": ("plan_approval", "rejected"),
    "plan.superseded": ("plan_approval", "superseded"),
    "action.requested": ("pending_action", "open"),
    "action.confirmed": ("pending_action", "confirmed"),
    "action.declined": ("pending_action", "declined"),
    "action.expired": ("pending_action", "expired"),
    "draft.committed": ("draft_review", "committed"),
    "draft.discarded": ("draft_review", "discarded"),
    "task.blocked": ("blocked_task", "open"),
    "task.unblocked": ("blocked_task", "unblocked"),
    "session.verifying": ("verifying_no_proof", "open"),
}
ACTIVITY = {
    "session.completed": "sessions_completed",
    "plan.approved": "plans_approved",
    "action.confirmed": "actions_resolved",
    "action.declined": "actions_resolved",
}


def bearings(event: Event) -> list[tuple[str, str, str]]:
    """Returns the effects of an event: [(kind, source id, "open" | "update" | "note" | resolved action)]."""
    subject = event.subject
    if event.type == "escalation.resolved":
        return [("escalation", subject, event.data.get("action") or "resolved")]
    if event.type == "draft.edited":
        return [("draft_review", subject, "open" if event.data["editor"]["type"] == "ai" else "edited")]
    if event.type == "case.state_changed":
        return [("blocked_case", subject, "open" if event.data["state"] == "BLOCKED" else "state_left")]
    if event.type == "proof.attached":
        session = event.data.get("session_id")
        return [("verifying_no_proof", session, "attached")] if session else []
    if event.type in ("proof.expired", "session.started"):
        return []
    kind, role = TABLE[event.type]
    return [(kind, subject, role)]


def periods(opens: list[int], closes: list[int]) -> tuple[list[tuple[int, int | None]], int]:
    """Returns the open periods, [from, until), without empty ones, and the start of the newest, empty or not."""
    open_periods: list[tuple[int, int | None]] = []
    start, started = None, 0
    for time, closing in sorted([(t, False) for t in opens] + [(t, True) for t in closes]):
        if not closing and start is None:
            start = started = time
        elif closing and start is not None:
            if start < time:
                open_periods.append((start, time))
            start = None
    return (open_periods if start is None else [*open_periods, (start, None)]), started
