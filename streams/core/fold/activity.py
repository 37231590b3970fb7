"""Activity rows: one per completed session, approved plan and resolved action of the activity window.

Each is a row of its own, so that an edge counts only those that the reader may see. A row has the target of its item,
in any arrival order of the two. It is deleted when it leaves the window (ATTN_ACTIVITY_WINDOW_HOURS).
"""

from __future__ import annotations

from schemas.log import Event
from schemas.views import ActivityRow, ItemRow, Stamp
from streams.core.domain.keys import activity_key, item_key
from streams.core.fold.context import FoldContext

__all__ = ["add_activity", "sync_activity"]

# Activity rows that an item keeps in step. Of a session that completes more often, older rows keep their last target.
MAX_ENTRIES_PER_ITEM = 16


def add_activity(context: FoldContext, row: ItemRow, event: Event, stamp: Stamp, by: str | None) -> None:
    """Adds an activity row for the event, unless its time is before the window. `by`: the actor of its fact."""
    wake = event.time + context.config.activity_window
    if wake <= context.log_clock:
        return
    key = activity_key(bytes.fromhex(stamp.digest))
    entry = ActivityRow(
        ws=row.ws, id=key.decode(), type=event.type, at=event.time, item="", kind=row.kind,
        by=by, target_user_id=event.data.target_user_id, target_role=event.data.target_role,
        cluster=event.data.cluster, case_id=event.data.case_id, session_id=event.data.session_id, wake=wake,
    )
    _copy_item_fields(entry, row)
    entry.rev = context.revision
    context.state.put(key, entry)
    row.done = [*row.done, key.decode()][-MAX_ENTRIES_PER_ITEM:]
    context.state.put(item_key(row.id), row)


def sync_activity(context: FoldContext, row: ItemRow) -> None:
    """Copies the changed item's target and texts to its activity rows."""
    for name in row.done:
        entry = context.state.get(name.encode())
        if isinstance(entry, ActivityRow) and _copy_item_fields(entry, row):
            entry.rev = context.revision
            context.state.put(name.encode(), entry)


def _copy_item_fields(entry: ActivityRow, row: ItemRow) -> bool:
    """Copies target and texts of the item. Returns whether that changed the activity row.

    Without an opening event of the item, the row keeps the fields of its own event and names no item.
    """
    if row.base is None:
        return False
    before = _copied_fields(entry)
    entry.item = row.id
    entry.target_user_id, entry.target_role, entry.title = row.target_user_id, row.target_role, row.data.title
    entry.cluster, entry.case_id, entry.session_id = row.data.cluster, row.data.case_id, row.data.session_id
    return before != _copied_fields(entry)


def _copied_fields(entry: ActivityRow) -> tuple[str | None, ...]:
    return (
        entry.item, entry.target_user_id, entry.target_role, entry.title, entry.cluster, entry.case_id,
        entry.session_id,
    )
