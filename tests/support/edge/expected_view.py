"""Expected responses for a reader, computed from the rows by loops, without indexes and windows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from api.contract import serializers
from api.readmodel.readers import Reader
from api.readmodel.workspace import PREFIXES
from schemas.asking.question import DecisionRow
from schemas.views import ActivityRow, DraftRow, ItemRow, MarkRow, PreferencesRow, decode_row
from streams.core.domain.rank import is_pinned, rank_key
from streams.core.domain.visibility import can_see

_DONE = {
    "session.completed": "sessions_completed", "plan.approved": "plans_approved",
    "action.confirmed": "actions_resolved", "action.declined": "actions_resolved",
}


class Truth:
    """The content that one reader must see, given these rows."""

    def __init__(self, rows: Mapping[bytes, bytes], reader: Reader) -> None:
        decoded = {key: decode_row(key, raw) for key, raw in rows.items() if key[:2] in PREFIXES}
        mine = {key: row for key, row in decoded.items() if row.ws == reader.workspace_id}  # type: ignore[union-attr]
        self.reader, self.rows = reader, mine
        self._sizes = {row.id: len(rows[key]) for key, row in mine.items() if isinstance(row, ItemRow)}
        preferences = [row for row in mine.values() if isinstance(row, PreferencesRow) and row.user == reader.user]
        self.preferences = preferences[0] if preferences else None
        self.pins = self.preferences.pinned_clusters if self.preferences else []
        self.marks = {row.item: row for row in mine.values() if isinstance(row, MarkRow) and row.user == reader.user}
        self.visible = [row for row in mine.values() if isinstance(row, ItemRow) and self._sees(row)]

    def _sees(self, row: ItemRow | ActivityRow | DecisionRow) -> bool:
        return can_see(row.target_user_id, row.target_role, self.reader.user, self.reader.roles)

    def _is_away(self, row: ItemRow) -> bool:
        return row.id in self.marks and self.marks[row.id].surge == row.surge

    def ranked(self, away: bool = False) -> list[ItemRow]:
        rows = [row for row in self.visible if row.is_listed and self._is_away(row) is away]
        return sorted(rows, key=lambda row: rank_key(row, is_pinned(row, self.pins)))

    def newest(self, *states: str) -> list[ItemRow]:
        rows = [row for row in self.visible if row.state in states and row.incident is None]
        return sorted(rows, key=lambda row: (row.created_at, row.id), reverse=True)

    def decisions(self, state: str = "") -> list[DecisionRow]:
        """Returns the decisions that the reader made or may see, the latest first."""
        rows = [
            row for row in self.rows.values() if isinstance(row, DecisionRow) and state in ("", row.state)
            and (self._sees(row) or self.reader.user in [actor.user for actor in row.actors])
        ]
        return sorted(rows, key=lambda row: (row.decided_at, row.id), reverse=True)

    def page(self, limit: int, most: int = 1 << 40) -> dict[str, Any]:
        """Returns the page in the form of `Copy.page`. `most`: limit of the total size of its rows in bytes."""
        ranked = self.ranked()
        sums = accumulate(self._sizes[row.id] for row in ranked)
        limit = min(limit, max(1, sum(size <= most for size in sums)))
        return {
            "items": [json.loads(serializers.ankra_item(row, is_pinned(row, self.pins))) for row in ranked[:limit]],
            "counts": {
                "total": len(ranked), "unread": sum(row.state == "unread" for row in ranked),
                "by_kind": dict(Counter(row.kind for row in ranked)),
                "by_priority": dict(Counter(row.priority for row in ranked)),
            },
            "activity": self.activity(), "drafts": self.drafts(),
            "preferences": serializers.preferences(self.preferences),
        }

    def activity(self) -> dict[str, Any]:
        done = {key: row for key, row in self.rows.items() if isinstance(row, ActivityRow) and self._sees(row)}
        number = Counter(_DONE[row.type] for row in done.values())
        recent = sorted(done.items(), key=lambda pair: (pair[1].at, pair[0]), reverse=True)[:20]
        return {"window": "24h", **{name: number[name] for name in _DONE.values()},
                "recent": [serializers.activity_entry(row) for _, row in recent]}

    def drafts(self) -> list[dict[str, Any]]:
        user = self.reader.user
        drafts = [
            (row.touched_at, key, row) for key, row in self.rows.items()
            if isinstance(row, DraftRow) and row.in_progress
            and (row.owner == user or any(editor.type == "user" and editor.id == user for editor in row.editors))
        ]
        return [serializers.draft(row, user) for _, _, row in sorted(drafts, key=lambda draft: draft[:2], reverse=True)]
