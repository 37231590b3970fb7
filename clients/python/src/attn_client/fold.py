"""The feed's fold: a snapshot and the frames after it give the inbox at each cursor. Pure.

The same rules as `fold.js` of the dashboard; the vectors of attn test both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["EMPTY", "Frame", "Inbox", "apply"]

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Frame:
    """One event of the feed. `id` is the cursor; `retry`: seconds to wait before a reconnect."""

    event: str
    data: Any
    id: str | None = None
    retry: float | None = None


def _no_counts() -> dict[str, Any]:
    return {"total": 0, "unread": 0, "by_kind": {}, "by_priority": {}}


@dataclass(frozen=True)
class Inbox:
    """What `GET /org/me/inbox?limit=N` answers at `cursor`, with drafts and preferences. `cursor` is None before the
    first snapshot. `items` are the first N of the ranked list; `counts` are those of the whole inbox."""

    cursor: str | None = None
    items: Sequence[Item] = ()
    counts: Mapping[str, Any] = field(default_factory=_no_counts)
    activity: Mapping[str, Any] | None = None
    drafts: Sequence[Mapping[str, Any]] = ()
    preferences: Mapping[str, Any] = field(default_factory=lambda: {"pinned_clusters": [], "widgets": []})


EMPTY = Inbox()


def apply(inbox: Inbox, frame: Frame) -> Inbox:
    """Returns the inbox after a frame. A frame that is not after the cursor changes nothing."""
    data = frame.data
    if frame.event == "snapshot":
        cursor = frame.id if frame.id is not None else str(data["cursor"])
        return Inbox(cursor, sorted(data["items"], key=_order), data["counts"], data["activity"], data["drafts"],
                     data["preferences"])
    if frame.id is None or inbox.cursor is None or int(frame.id) <= int(inbox.cursor):
        return inbox
    if frame.event in ("added", "changed"):
        return replace(inbox, cursor=frame.id, counts=data["counts"], items=_put(inbox.items, data["item"]))
    if frame.event == "removed":
        rest = [item for item in inbox.items if item["id"] != data["id"]]
        return replace(inbox, cursor=frame.id, counts=data["counts"], items=rest)
    if frame.event in ("activity", "drafts", "preferences"):
        return replace(inbox, cursor=frame.id, **{frame.event: data})
    return replace(inbox, cursor=frame.id)  # a heartbeat, or an event that this client does not know


def _order(item: Item) -> tuple[bytes, bytes]:
    """Returns the sort key: rank, then id, by UTF-16 code unit as in JavaScript."""
    return item["rank"].encode("utf-16-be", "surrogatepass"), item["id"].encode("utf-16-be", "surrogatepass")


def _put(items: Sequence[Item], item: Item) -> list[Item]:
    rest = [one for one in items if one["id"] != item["id"]]
    rest.insert(bisect_left([_order(one) for one in rest], _order(item)), item)
    return rest
