"""The asks of the demo's events (`data.ask`, CONTRACT §7): approvals, choices, a form, edits, a quorum, expiries.

`expires_in` of an ask is seconds of the demo's time; the player turns it into `expires_at`.
"""

from __future__ import annotations

import random
from typing import Any

from ops.demo import phrases

__all__ = [
    "approval", "batch_of_refunds", "choice", "confirmation", "failed_run_retry", "form", "guarded_access",
    "handover", "safe_hold",
]

_MINUTE = 60.0
CURRENCIES = ["EUR", "USD", "GBP"]


def approval(image: str, where: dict[str, Any], canary: dict[str, Any], expires_in: float) -> dict[str, Any]:
    """A deploy: its arguments and risk are shown; a rejection requires a comment."""
    return {
        "options": [
            {"id": "approve", "does": "approve", "title": "Approve", "style": "primary"},
            {"id": "reject", "does": "reject", "title": "Reject", "style": "danger", "comment": "required"},
        ],
        "action": {
            "name": "deploy", "args": {"image": image, "cluster": where["cluster"], "canary": canary},
            "risk": "high" if where["cluster"].startswith("prod") else "low", "reversible": True,
        },
        "expires_in": expires_in,
    }


def guarded_access(who: str, stack: str, requester: str) -> dict[str, Any]:
    """Access to a production database: two people approve, but not the one who asks for it."""
    return {
        "options": [
            {"id": "grant", "does": "approve", "title": "Grant for one hour", "style": "primary"},
            {"id": "deny", "does": "reject", "title": "Deny", "style": "danger"},
        ],
        "action": {
            "name": "grant_access", "args": {"user": who, "database": f"{stack}-prod", "minutes": 60, "write": True},
            "risk": "critical", "reversible": True,
        },
        "deciders": {"roles": ["OWNER", "ADMIN", "MANAGER"], "not": ["requester"], "requester": requester},
        "quorum": {"approve": 2},
    }


def confirmation(args: dict[str, Any], name: str, risk: str, reversible: bool, expires_in: float) -> dict[str, Any]:
    """An action of an agent. If its arguments include an amount or a number of replicas, a person may edit them."""
    options: list[dict[str, Any]] = [
        {"id": "confirm", "does": "approve", "title": "Confirm", "style": "primary"},
        {"id": "decline", "does": "reject", "title": "Decline", "style": "danger"},
    ]
    action: dict[str, Any] = {"name": name, "args": args, "risk": risk, "reversible": reversible}
    editable = [field for field in ("amount", "reason", "replicas") if field in args]
    if editable:
        options.insert(1, {"id": "edit", "does": "edit", "title": "Change and confirm"})
        action["editable"] = editable
        action["args_schema"] = {"type": "object", "properties": {
            name: {"type": "string" if isinstance(value, str) else "number"} for name, value in args.items()}}
    return {"options": options, "action": action, "expires_in": expires_in}


def batch_of_refunds(key: str, amount: float, customer: str) -> dict[str, Any]:
    """One of two refunds that an agent asked for at once: it goes on when both are decided."""
    args = {"customer": customer, "amount": amount, "currency": "EUR", "reason": "double charge"}
    return {**confirmation(args, "refund", "medium", False, 4 * 3600.0), "batch": {"key": key}}


def choice(answers: list[str]) -> dict[str, Any]:
    """A question with fixed answers."""
    return {"options": [
        {"id": f"answer-{number}", "does": "choose", "title": answer, "style": "plain" if number else "primary"}
        for number, answer in enumerate(answers)]}


def form(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A question that is answered by a form."""
    return {
        "options": [
            {"id": "answer", "does": "respond", "title": "Answer", "style": "primary",
             "form": {"type": "object", "properties": fields, "required": required}},
            {"id": "skip", "does": "ignore", "title": "Decide for me"},
        ],
    }


def failed_run_retry(step: str) -> dict[str, Any]:
    """A failed run: retry it, or leave it."""
    return {
        "options": [
            {"id": "retry", "does": "retry", "title": f"Retry from {step}", "style": "primary"},
            {"id": "ignore", "does": "ignore", "title": "Leave it failed"},
        ],
    }


def handover() -> dict[str, Any]:
    """An escalation: it ends with an answer in words."""
    return {"options": [
        {"id": "resolve", "does": "acknowledge", "title": "Answer", "style": "primary", "comment": "required"},
        {"id": "take_over", "does": "acknowledge", "title": "I take it over"},
    ]}


def safe_hold(rng: random.Random, where: dict[str, Any]) -> dict[str, Any]:
    """A canary that waits: if nobody decides within some minutes, the safe option is taken."""
    return {
        "options": [
            {"id": "promote", "does": "approve", "title": "Promote to all", "style": "primary"},
            {"id": "hold", "does": "reject", "title": "Hold at the canary", "safe": True},
        ],
        "action": {
            "name": "promote", "risk": "medium", "reversible": True,
            "args": {"release": f"{where['stack']} {phrases.version(rng)}", "share": 1.0, "cluster": where["cluster"]},
        },
        "expires_in": rng.uniform(3, 8) * _MINUTE, "on_expiry": "hold",
    }
