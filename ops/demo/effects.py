"""The events by which the demo's sources apply or refuse a decision. Pure; each id follows from the decision's id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.scalars import format_timestamp

__all__ = ["FREEZE_SECONDS", "PAYMENTS", "events_of", "freeze_reason", "is_frozen", "refusal"]

FREEZE_SECONDS = 120  # deploys of payments are refused for this long after the first approval
PAYMENTS = ("billing", "ledger")
_REPEATED = ("case_id", "case_title", "task_id", "session_id", "cluster", "stack", "title")

# (kind of item, what the chosen option does) -> type and data of the event of its source. "decision.applied" leaves the
# state of the source to attn: the item closes without an event of its own.
_EFFECTS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("waitpoint", "approve"): ("waitpoint.approved", {}),
    ("waitpoint", "reject"): ("waitpoint.rejected", {}),
    ("plan_approval", "approve"): ("plan.approved", {}),
    ("plan_approval", "reject"): ("plan.rejected", {}),
    ("pending_action", "approve"): ("action.confirmed", {}),
    ("pending_action", "edit"): ("action.confirmed", {}),
    ("pending_action", "reject"): ("action.declined", {}),
    ("session_waiting", "respond"): ("session.resumed", {}),
    ("session_waiting", "choose"): ("session.resumed", {}),
    ("session_waiting", "ignore"): ("session.resumed", {}),
    ("draft_review", "approve"): ("draft.committed", {}),
    ("draft_review", "reject"): ("draft.discarded", {}),
    ("failed_run", "retry"): ("run.retried", {}),
    ("failed_run", "ignore"): ("run.cancelled", {}),
    ("escalation", "acknowledge"): ("decision.applied", {}),
    ("blocked_case", "approve"): ("case.state_changed", {"state": "IN_PROGRESS"}),
    ("blocked_case", "ignore"): ("case.state_changed", {"state": "IN_PROGRESS"}),
    ("blocked_case", "reject"): ("case.state_changed", {"state": "CANCELLED"}),
    ("blocked_task", "acknowledge"): ("task.unblocked", {}),
}
# What a message to the decider says once it is done.
_DONE = {
    "deploy": "Deployed: {title}", "grant_access": "Access granted: {title}", "promote": "Promoted to all: {title}",
    "run.retried": "Passed on the second try: {title}", "plan.approved": "Step 1 of the plan is done: {title}",
    "action.confirmed": "Done: {title}", "draft.committed": "Committed: {title}",
    "session.resumed": "Going on with your answer: {title}", "case.state_changed": "At work again: {title}",
}


def is_frozen(opened: Mapping[str, Any], decision: Mapping[str, Any]) -> bool:
    """Whether the decision approves a production deploy of payments: the source refuses it at first."""
    data = opened["data"]
    return (decision.get("does") == "approve" and _tool(opened) == "deploy" and data.get("stack") in PAYMENTS
            and str(data.get("cluster", "")).startswith("prod"))


def freeze_reason(ends: int) -> str:
    return f"payments freeze until {format_timestamp(ends)[11:16]} UTC; approve it again then"


def refusal(opened: Mapping[str, Any], decision: Mapping[str, Any], now: int, reason: str) -> list[dict[str, Any]]:
    """The source does not do it. The item comes back to the list with this reason."""
    return [_event(opened, decision, 1, "decision.refused", now, {
        "decision": decision["decision"], "reason": reason})]


def events_of(opened: Mapping[str, Any], decision: Mapping[str, Any], now: int) -> list[dict[str, Any]]:
    """The event that closes the item or reports `decision.applied`, and a message to the last person who decided.

    No option of the decision: the question expired without an answer, and the item is closed already.
    """
    kind, does = str(decision["kind"]), str(decision.get("does") or "")
    if not does:
        return []
    if (kind, does) not in _EFFECTS:
        return refusal(opened, decision, now, f"this source cannot {does} an item of kind {kind}")
    event_type, more = _EFFECTS[kind, does]
    actor: Mapping[str, Any] = (decision.get("actors") or [{}])[-1]
    if event_type == "decision.applied":
        data = {"decision": decision["decision"]}
    else:
        by = {"by_user_id": actor["user"]} if actor else {}
        data = {**{name: opened["data"][name] for name in _REPEATED if name in opened["data"]}, **more, **by}
    events = [_event(opened, decision, 1, event_type, now, data)]
    said = _DONE.get(_tool(opened)) or _DONE.get(event_type)
    if actor and said and does not in ("reject", "ignore"):
        events.append(_message(opened, decision, actor, said.format(title=opened["data"]["title"]), now))
    return events


def _message(
    opened: Mapping[str, Any], decision: Mapping[str, Any], actor: Mapping[str, Any], title: str, now: int,
) -> dict[str, Any]:
    names = ", ".join(str(one.get("name") or one["user"]) for one in decision["actors"])
    lines = [f"Decided by {names}: **{decision.get('title') or decision['option']}**."]
    before = (opened["data"].get("ask", {}).get("action") or {}).get("args") or {}
    after = decision.get("args") or {}
    lines += [f"- `{pointer[1:]}`: {before.get(pointer[1:])} → {after.get(pointer[1:])}"
              for pointer in decision.get("edited") or ()]
    lines += [f"- {name}: {value}" for name, value in (decision.get("form") or {}).items()]
    shared = {name: opened["data"][name] for name in ("cluster", "stack", "sender") if name in opened["data"]}
    event = _event(opened, decision, 2, "message.posted", now, {
        "title": title[:512], "body_md": "\n".join(lines), "priority": "low", "target_user_id": actor["user"],
        **shared})
    return {**event, "subject": f"msg_{decision['decision']}", "source": "/demo/messages"}


def _event(
    opened: Mapping[str, Any], decision: Mapping[str, Any], number: int, event_type: str, now: int,
    data: dict[str, Any],
) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"{decision['decision']}-{number}", "source": opened["source"], "type": event_type,
        "subject": opened["subject"], "time": format_timestamp(now), "workspaceid": opened["workspaceid"], "data": data,
    }


def _tool(opened: Mapping[str, Any]) -> str:
    return str(((opened["data"].get("ask") or {}).get("action") or {}).get("name") or "")
