"""The class `Model`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from support.model.drafts import drafts_of
from support.model.effects import ACTIVITY, TABLE, bearings, periods
from support.model.incidents import incidents_of
from support.model.types import BANDS, BLOCKING, HOUR, NOT_SHOWN, TARGETS, Event, Item, event_of, target_of, us
from support.model.view import View

__all__ = ["Model"]


class Model:
    """All distinct events by workspace; `at` computes the views at a clock."""

    def __init__(self, lines: Iterable[str | dict[str, Any]], proof_window: int = 24 * HOUR,
                 targets: Mapping[str, int] = TARGETS) -> None:
        self.proof_window, self.targets = proof_window, targets
        self.events: dict[str, list[Event]] = defaultdict(list)
        seen = set()
        for line in lines:
            event = event_of(json.loads(line) if isinstance(line, str) else line)
            if (event.ws, event.source, event.id) not in seen:
                seen.add((event.ws, event.source, event.id))
                self.events[event.ws].append(event)

    def __len__(self) -> int:
        """Returns the number of distinct events."""
        return sum(map(len, self.events.values()))

    def at(self, clock: int, *workspaces: str) -> dict[str, View]:
        """Returns the views of these workspaces, or of all, at this value of the log's clock."""
        return {
            ws: self._view(sorted(self.events[ws], key=lambda event: event.time), clock)
            for ws in workspaces or self.events
        }

    def _view(self, events: list[Event], clock: int) -> View:
        borne_by: dict[tuple[str, str], list[tuple[str, Event]]] = defaultdict(list)
        for event in events:
            for kind, source_id, role in bearings(event):
                borne_by[kind, source_id].append((role, event))
        items = {}
        for (kind, source_id), borne in borne_by.items():
            if item := self._mirror(kind, source_id, borne):
                items[item.key] = item
        drafts = drafts_of(events)
        for draft_id, draft in drafts.items():
            if item := items.get(("draft_review", draft_id)):
                person = next((who for kind, who in draft.editors if kind == "user"), None)
                if draft.owner or person:
                    item.target = (draft.owner or person, None)
        items |= {item.key: item for item in self._proofs(events, clock)}
        items |= {item.key: item for item in incidents_of(items.values())}
        for item in items.values():
            item.overdue = item.open and clock >= item.due_at
            item.band = BANDS[max(0, BANDS.index(item.priority) - item.overdue)]
        activity = []
        for event in events:
            if event.type in ACTIVITY:
                item = items.get((TABLE[event.type][0], event.subject))
                activity.append((event, item.target if item else target_of(event.data)))
        return View(clock, items, drafts, activity)

    def _mirror(self, kind: str, source_id: str, borne: list[tuple[str, Event]]) -> Item | None:
        """Returns the item of one source row; None if no event opened it. `borne` is sorted by time."""
        opens = [event for role, event in borne if role == "open"]
        closes = [(event, role) for role, event in borne if role not in ("open", "update")]
        if not opens:
            return None
        base = opens[-1]
        shown = {name: value for name, value in base.data.items() if name not in NOT_SHOWN}
        for role, event in borne:
            if role == "update" and event.time > base.time:
                if event.names & {"target_user_id", "target_role"}:
                    shown.pop("target_user_id", None)
                    shown.pop("target_role", None)
                for name in event.nulls - {"title"}:  # null does not remove the title
                    shown.pop(name, None)
                shown |= {name: value for name, value in event.data.items() if name not in NOT_SHOWN}
        opened, started = periods([e.time for e in opens], [e.time for e, _ in closes])
        item = self._item(kind, source_id, shown, started, opened)
        item.updated_at = max(event.time for _, event in borne)
        if closes and closes[-1][0].time >= base.time:
            close, action = closes[-1]
            by = close.data.get("by_user_id") or (close.data["editor"]["id"] if action == "edited" else None)
            item.state, item.resolved_at, item.resolved_action, item.resolved_by = "resolved", close.time, action, by
        return item

    def _item(self, kind: str, source_id: str, shown: dict[str, Any], started: int,
              periods: list[tuple[int, int | None]]) -> Item:
        priority = shown.get("priority", "normal")
        due = shown.get("due_at") or shown.get("expires_at")
        asks_nothing, never = kind == "message" and "ask" not in shown, 2**63 - 1
        return Item(
            kind, source_id, shown, "unread", created_at=started, updated_at=started, periods=periods,
            due_at=us(due) if due else never if asks_nothing else started + self.targets[priority], priority=priority,
            blocking=shown.get("blocking", kind in BLOCKING), target=target_of(shown),
        )

    def _proofs(self, events: list[Event], clock: int) -> Iterable[Item]:
        """Yields the items of expiring proofs. They open `proof_window` before the expiry, or when attached if later.

        No item opens if the proof expired, or its case got a newer proof, by then.
        """
        newest = {e.subject: e for e in events if e.type == "proof.attached"}  # the last attachment counts
        for proof in newest.values():
            if "expires_at" not in proof.data:
                continue
            opened = max(us(proof.data["expires_at"]) - self.proof_window, proof.time)
            ends = [(e.time, "expired", e) for e in events
                    if e.type == "proof.expired" and e.subject == proof.subject and e.time >= proof.time][-1:]
            case = proof.data.get("case_id")
            of_case = {e.subject: e for e in events if e.type == "proof.attached" and e.data.get("case_id") == case}
            newer = [(e.time, "attached", e) for e in of_case.values() if case is not None
                     and e.subject != proof.subject and e.time > proof.time]
            ends += sorted(newer, key=lambda end: end[0])[:1]
            if opened > clock or any(time <= opened for time, _, _ in ends):
                continue
            shown = {name: value for name, value in proof.data.items() if name not in NOT_SHOWN}
            item = self._item("proof_expiring", proof.subject, shown, opened, [])
            if ends:
                time, action, end = min(ends, key=lambda end: end[0])
                item.state, item.resolved_at, item.resolved_action = "resolved", time, action
                item.resolved_by = end.data.get("by_user_id") if action == "expired" else None
            item.updated_at = max([opened, *(time for time, _, _ in ends)])
            yield item
