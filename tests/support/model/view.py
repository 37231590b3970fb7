"""One workspace at one clock, as each reader sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from support.model.effects import ACTIVITY
from support.model.types import BANDS, HOUR, Draft, Event, Item, Reader

__all__ = ["View"]


@dataclass
class View:
    """One workspace at one clock."""

    clock: int
    items: dict[tuple[str, ...], Item]
    draft_rows: dict[str, Draft]
    activity_events: list[tuple[Event, tuple[str | None, str | None]]]

    def ranked(
        self, reader: Reader, pins: Collection[str] = (), ids: Mapping[tuple[str, ...], str] | None = None
    ) -> list[Item]:
        """Returns the reader's list in rank order. `ids` (item key -> id) decides ties of time."""
        mine = [item for item in self.items.values() if item.listed and reader.sees(item.target)]
        return sorted(mine, key=lambda i: (BANDS.index(i.band), not i.blocking, not i.pinned(pins), i.due_at,
                                           i.created_at, (ids or {}).get(i.key, "")))

    def counts(self, reader: Reader) -> dict[str, Any]:
        mine = self.ranked(reader)
        return {
            "total": len(mine),
            "unread": len(mine),
            "by_kind": dict(Counter(item.kind for item in mine)),
            "by_priority": dict(Counter(item.priority for item in mine)),
        }

    def crewship(self, reader: Reader) -> list[Item]:
        """Returns open and resolved items, newest first, without members of open incidents."""
        mine = [item for item in self.items.values() if not item.grouped and reader.sees(item.target)]
        return sorted(mine, key=lambda item: -item.created_at)

    def activity(self, reader: Reader, window: int = 24 * HOUR) -> dict[str, int]:
        counts = Counter(
            ACTIVITY[event.type] for event, target in self.activity_events
            if reader.sees(target) and self.clock - window < event.time
        )
        return {name: counts[name] for name in ("sessions_completed", "plans_approved", "actions_resolved")}

    def drafts(self, reader: Reader) -> list[Draft]:
        mine = [d for d in self.draft_rows.values()
                if d.in_progress and (d.owner == reader.user or ("user", reader.user) in d.editors)]
        return sorted(mine, key=lambda draft: -draft.last_touched_at)
