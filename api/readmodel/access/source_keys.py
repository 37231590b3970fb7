"""The keys of sources that an edge knows: by id for authentication, by workspace for lists; and what a key may read.

A key reads what its own source asked: items that ask, and decisions, of the kinds of its topics and of its source. The
targets of an item do not matter to a key, because it is no user. Pure.
"""

from __future__ import annotations

from functools import cache

from api.readmodel.workspace import Workspace
from schemas.asking.question import DecisionRow
from schemas.topics import TOPIC_OF_TYPE
from schemas.views import ItemRow, SourceKeyRow, decode_row
from streams.core.domain.event_types import EVENT_RULES
from streams.core.domain.keys import item_key
from streams.runtime.source_keys import covers_source

__all__ = ["SourceKeys", "item_of_key", "may_read_decision", "topics_of_kind"]

_PREFIX = b"x:"


@cache
def topics_of_kind(kind: str) -> frozenset[str]:
    """Returns the topics whose events concern items of a kind."""
    kind = "failed_run" if kind == "incident" else kind
    return frozenset(TOPIC_OF_TYPE[name] for name, rule in EVENT_RULES.items() if rule.kind == kind)


def item_of_key(workspace: Workspace, key: SourceKeyRow, item: str) -> ItemRow | None:
    """Returns the row of an item if the source of the key asked its question."""
    row = workspace.item(item_key(item)[2:])
    if row is None or row.state == "hidden" or not row.source or not _is_own(key, row.kind, row.source):
        return None
    return row


def may_read_decision(key: SourceKeyRow, row: DecisionRow) -> bool:
    """Returns whether the decision answers a question of the key's source."""
    return row.ws == key.ws and _is_own(key, row.kind, row.source)


def _is_own(key: SourceKeyRow, kind: str, source: str) -> bool:
    return covers_source(key.source, source) and not topics_of_kind(kind).isdisjoint(key.topics)


class SourceKeys:
    """The keys of all workspaces of the replica. An edge refuses a key as soon as its row is gone."""

    def __init__(self) -> None:
        self._by_id: dict[str, SourceKeyRow] = {}
        self._by_workspace: dict[str, set[str]] = {}

    def apply(self, key: bytes, raw: bytes | None) -> None:
        """Applies one row of the view; None deletes it. Ignores rows of other kinds."""
        if key[:2] != _PREFIX:
            return
        known = self._by_id.pop(key[2:].decode(), None)
        if known is not None:
            ids = self._by_workspace[known.ws]
            ids.discard(known.id)
            if not ids:
                del self._by_workspace[known.ws]
        row = decode_row(key, raw) if raw is not None else None
        if isinstance(row, SourceKeyRow):
            self._by_id[row.id] = row
            self._by_workspace.setdefault(row.ws, set()).add(row.id)

    def get(self, key: str) -> SourceKeyRow | None:
        """Returns the key with this id, expired or not."""
        return self._by_id.get(key)

    def of_workspace(self, ws: str) -> list[SourceKeyRow]:
        """Returns the keys of a workspace, the newest first."""
        rows = (self._by_id[key] for key in self._by_workspace.get(ws, ()))
        return sorted(rows, key=lambda row: (-row.created_at, row.id))
