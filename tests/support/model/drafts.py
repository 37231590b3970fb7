"""Computes drafts from all their edits."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from support.model.types import Draft, Event

__all__ = ["drafts_of"]


def drafts_of(events: list[Event]) -> dict[str, Draft]:
    """Returns every edited draft. Each field is that of the newest event with this field."""
    drafts = {}
    by_draft: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.type.startswith("draft."):
            by_draft[event.subject].append(event)
    for draft_id, of_draft in by_draft.items():
        edits = [event for event in of_draft if event.type == "draft.edited"]
        if not edits:
            continue
        done = max((event.time for event in of_draft if event.type != "draft.edited"), default=0)
        ai = max((event.time for event in edits if event.data["editor"]["type"] == "ai"), default=0)

        def newest(name: str, among: list[Event] = of_draft) -> Any:
            return next((event.data[name] for event in reversed(among) if name in event.data), None)

        editors = [(e.data["editor"]["type"], e.data["editor"]["id"]) for e in reversed(edits)]
        drafts[draft_id] = Draft(
            draft_id, newest("owner_user_id"), newest("title"), newest("cluster"), newest("stack"), edits[-1].time,
            ai > done, edits[-1].time > done, list(dict.fromkeys(editors)),
        )
    return drafts
