"""Source events with asks for tests of the page, and helpers to open the question and to read its outcome."""

from __future__ import annotations

from typing import Any

from support.clients.browsers import Scene

__all__ = ["ACTION", "FORM", "ask", "decision_of", "event_text", "item_of", "open_question", "says", "waitpoint"]

# The digits of these arguments are lost by parsers that use doubles.
ACTION: dict[str, Any] = {
    "name": "payments.refund", "risk": "high", "reversible": True,
    "editable": ["amount", "reason", "notify", "customer"],
    "args": {"order": "ord_1", "amount": "DIGITS:1.10", "trace": "DIGITS:9007199254740993", "reason": "double charge",
             "notify": True, "customer": {"id": "c_1", "password": "hunter2"}, "api_token": "sk_live_1234567890abcdef"},
}
FORM: dict[str, Any] = {
    "type": "object", "required": ["region", "replicas", "owner", "checks", "sure", "team"],
    "properties": {
        "region": {"type": "string", "title": "Region", "enum": ["eu", "us"], "enumNames": ["Europe", "States"]},
        "replicas": {"type": "integer", "title": "Replicas", "minimum": 1, "maximum": 9, "default": 3},
        "ratio": {"type": "number", "title": "Ratio", "minimum": 0},
        "owner": {"type": "string", "title": "Owner", "format": "email"},
        "link": {"type": "string", "title": "Link", "format": "uri"},
        "day": {"type": "string", "title": "Day", "format": "date"},
        "when": {"type": "string", "title": "When", "format": "date-time"},
        "sure": {"type": "boolean", "title": "Sure"},
        "team": {"type": "string", "title": "Team", "oneOf": [
            {"const": f"t{number}", "title": f"Team {number}"} for number in range(9)]},
        "checks": {"type": "array", "title": "Checks", "minItems": 1, "maxItems": 2, "items": {"anyOf": [
            {"const": "unit", "title": "Unit tests"}, {"const": "load", "title": "Load test"},
            {"const": "scan", "title": "Scan"}]}},
        "note": {"type": "string", "title": "Note", "maxLength": 20},
    },
}


def ask(**more: Any) -> dict[str, Any]:
    """Returns an ask with the options approve and reject (dangerous). `more` adds or replaces members."""
    return {"options": [
        {"id": "approve", "does": "approve", "title": "Approve", "style": "primary"},
        {"id": "reject", "does": "reject", "title": "Reject", "style": "danger"}], **more}


def event_text(event: dict[str, Any]) -> str:
    """Returns an event as JSON. Replaces the texts `DIGITS:number` by numbers with these digits."""
    import json
    import re

    return re.sub(r'"DIGITS:([^"]+)"', r"\1", json.dumps(event))


def waitpoint(scene: Scene, subject: str, minutes: float = -1, **data: Any) -> None:
    """Sends a waitpoint that asks; its title is the subject, unless `data` has one."""
    scene.emit("waitpoints", event_text(scene.event(
        "waitpoint.created", subject, minutes, **{"title": subject, "ask": ask(), **data})))


def open_question(page: Any, title: str, touch: bool = False) -> None:
    """Opens an item of the list and waits until its question accepts an answer."""
    row = page.locator(f".row:has(.title:text('{title}')) .main").first
    row.tap() if touch else row.click()
    page.wait_for_selector(f".detail:has(#detail-title:text-is('{title}')) .answers.ready")


def says(page: Any, text: str) -> None:
    """Waits until the open item shows this text as the outcome of its question."""
    page.wait_for_selector(f".outcome:has-text('{text}'), .notice:has-text('{text}')")


def item_of(scene: Scene, title: str, user: str = "ann") -> dict[str, Any]:
    """Returns an item by its title, in any state."""
    rows: list[dict[str, Any]] = scene.up.get("/api/v1/inbox?state=all&limit=500", scene.token(user)).json()["rows"]
    return next(row for row in rows if row["title"] == title)


def decision_of(scene: Scene, title: str, user: str = "ann") -> dict[str, Any]:
    """Returns the newest decision about an item, as `GET /org/me/decisions` lists it."""
    entries: list[dict[str, Any]] = scene.up.get("/org/me/decisions", scene.token(user)).json()["decisions"]
    return next(entry for entry in entries if entry["title"] == title)
