"""Momentum: what was completed, approved and resolved lately, a row each, so that counts hold for every reader.

A row takes its target from the item it is about, whichever of them arrived first, and goes when it leaves the window.
"""

from __future__ import annotations

from schemas.log import Event
from schemas.views import ActivityRow, ItemRow, Stamp
from streams.core.domain.keys import activity_key, item_key
from streams.core.fold.context import FoldContext

__all__ = ["add_activity", "sync_activity"]

# Completions an item knows of; a session that completes more often keeps the older ones' targets.
MAX_ENTRIES_PER_ITEM = 16


def add_activity(context: FoldContext, row: ItemRow, event: Event, stamp: Stamp, by: str | None) -> None:
    """Adds the event to the activity, if it is still within the window. `by`: who did it, as its fact says."""
    wake = event.time + context.config.activity_window
    if wake <= context.log_clock:
        return
    key = activity_key(bytes.fromhex(stamp.digest))
    done = ActivityRow(
        ws=row.ws, id=key.decode(), type=event.type, at=event.time, item="", kind=row.kind,
        by=by, target_user_id=event.data.target_user_id, target_role=event.data.target_role,
        cluster=event.data.cluster, case_id=event.data.case_id, session_id=event.data.session_id, wake=wake,
    )
    _copy_item_fields(done, row)
    done.rev = context.revision
    context.state.put(key, done)
    row.done = [*row.done, key.decode()][-MAX_ENTRIES_PER_ITEM:]
    context.state.put(item_key(row.id), row)


def sync_activity(context: FoldContext, row: ItemRow) -> None:
    """The item changed: its activity rows go where it goes."""
    for name in row.done:
        done = context.state.get(name.encode())
        if isinstance(done, ActivityRow) and _copy_item_fields(done, row):
            done.rev = context.revision
            context.state.put(name.encode(), done)


def _copy_item_fields(done: ActivityRow, row: ItemRow) -> bool:
    """Copies what the item shows; returns whether that changed something. An entry whose item nothing opened keeps its
    event's own fields and names no item."""
    if row.base is None:
        return False
    before = _copied_fields(done)
    done.item = row.id
    done.target_user_id, done.target_role, done.title = row.target_user_id, row.target_role, row.data.title
    done.cluster, done.case_id, done.session_id = row.data.cluster, row.data.case_id, row.data.session_id
    return before != _copied_fields(done)


def _copied_fields(done: ActivityRow) -> tuple[str | None, ...]:
    return (done.item, done.target_user_id, done.target_role, done.title, done.cluster, done.case_id, done.session_id)
