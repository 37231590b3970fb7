"""Handlers of user commands: access check (law 6), decision, outcome.

The edge has checked the command against its replica, but only the fold knows the order of all commands and events. Each
command emits an outcome (HTTP status and JSON body) for the waiting edge, and a fact for each item that it changed. A
command with an Idempotency-Key is decided once: a retry within a day gets the same outcome from any edge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.facts import Fact
from schemas.log import Command, Dismiss, Restore, SetPreferences, SetState
from schemas.scalars import format_timestamp
from schemas.views import Close, ItemRow, MarkRow, PreferencesRow, Stamp
from streams.core.domain import items, periods, questions
from streams.core.domain.event_types import RESOLVED_MANUALLY
from streams.core.domain.keys import command_name, is_event_digest, mark_key, preferences_key
from streams.core.fold import incident_groups, outcomes
from streams.core.fold.context import FoldContext
from streams.core.fold.item_changes import NOT_FOUND, find_visible, store_item

__all__ = ["COMMAND_HANDLERS", "INCIDENT_RUNS_GONE", "SOURCE_MANAGED"]

SOURCE_MANAGED = (
    "use the source endpoint for this kind (e.g. /pipelines/waitpoints/{token}/approve) — inbox PATCH only supports "
    "'read' for source-managed items"
)
CLOSED_BY_SOURCE = (
    "its source closed this item ({action}); to open it again send the revision it has now in If-Match, to show that "
    "you have seen it closed"
)
DECIDED = "this item is decided and waits for its source; DELETE /api/v1/inbox/{id}/decision takes the decision back"
INCIDENT_RUNS_GONE = "the runs of this incident are gone; it opens when runs fail again"


def _patch(context: FoldContext, command: SetState) -> None:
    """Changes the state of one item: 404, 412, 409 or 200 (C18-C25)."""
    row = find_visible(context, command, command.items[0]) if command.items else None
    if row is None:
        outcomes.respond(context, command, 404, NOT_FOUND)
    elif command.if_rev is not None and command.if_rev != row.rev:
        outcomes.respond(context, command, 412, {"error": "the item has changed", "revision": row.rev})
    elif command.state != "read" and row.kind in context.config.source_managed:
        outcomes.respond(context, command, 409, {"error": SOURCE_MANAGED, "kind": row.kind})
    elif row.state == "decided" and command.state != "read":
        outcomes.respond(context, command, 409, {"error": DECIDED, "kind": row.kind, "revision": row.rev})
    elif _cannot_reopen(context, command, row):
        outcomes.respond(context, command, 409, {"error": INCIDENT_RUNS_GONE, "kind": row.kind})
    elif _needs_revision(context, command, row):
        error = CLOSED_BY_SOURCE.format(action=row.resolved_action or RESOLVED_MANUALLY)
        outcomes.respond(context, command, 409, {"error": error, "kind": row.kind, "revision": row.rev})
    else:
        changed = _change_state(context, command, row)
        outcomes.respond(context, command, 200, {"id": row.id, "state": command.state}, [row.id] if changed else [])


def _bulk(context: FoldContext, command: SetState) -> None:
    """Changes the state of many items; skips protected ones and counts unknown ones (C23, C24)."""
    changed: list[str] = []
    skipped: list[str] = []
    updated = not_found = 0
    for item in command.items:
        row = find_visible(context, command, item)
        if row is None:
            not_found += 1
        elif _is_protected(context, command, row):
            skipped.append(item)
        else:
            updated += 1  # also if nothing changed: the row has the requested state
            if _change_state(context, command, row):
                changed.append(item)
    outcomes.respond(context, command, 200, outcomes.bulk_body(updated, skipped, not_found, command.state), changed)


def _is_protected(context: FoldContext, command: SetState, row: ItemRow) -> bool:
    """Returns whether a bulk change must skip the item: only its source may decide it (C23, C24); `read` is allowed
    (C25)."""
    if command.state == "read":
        return False
    return (row.kind in context.config.source_managed or row.state == "decided"
            or (command.state == "resolved" and row.blocking)
            or _cannot_reopen(context, command, row) or _needs_revision(context, command, row))


def _needs_revision(context: FoldContext, command: SetState, row: ItemRow) -> bool:
    """Returns whether an `unread` without If-Match would reopen an item that its source closed: the caller may not have
    seen the close. An incident may be reopened while enough of its runs were resolved by users."""
    if command.state != "unread" or command.if_rev is not None or row.is_open:
        return False
    if row.kind == "incident":
        return _cluster_count(_runs_to_reopen(context, command, row)) < 2
    return _closed_by_source(row)


def _closed_by_source(row: ItemRow) -> bool:
    """Returns whether an event, not a user, closed the item. The id of a command is no event digest. The next proof of
    a case ends an item without a close of its own."""
    by_hand = (
        row.closed is not None and row.closed.time == row.resolved_at and not is_event_digest(row.closed.digest)
    )
    return not by_hand


def _runs_to_reopen(context: FoldContext, command: SetState, incident: ItemRow) -> list[ItemRow]:
    """Returns the runs that an `unread` of a closed incident reopens: with If-Match all, else those that users
    resolved."""
    runs = incident_groups.incident_runs(context, incident)
    return [run for run in runs if run.is_open or command.if_rev is not None or not _closed_by_source(run)]


def _cannot_reopen(context: FoldContext, command: SetState, row: ItemRow) -> bool:
    """Returns whether `unread` cannot reopen a closed incident: that needs runs of the outage on two clusters."""
    if row.kind != "incident" or row.is_open or command.state != "unread":
        return False
    return _cluster_count(incident_groups.incident_runs(context, row)) < 2


def _cluster_count(runs: list[ItemRow]) -> int:
    """Returns on how many clusters the runs failed."""
    return len({run.data.cluster for run in runs})


def _changes_nothing(command: SetState, row: ItemRow) -> bool:
    """Returns whether the row already has the requested state, including the user and action of a resolve."""
    if command.state == "read":
        return row.state != "unread" and row.read_at is not None
    if command.state == "unread":
        return row.state == "unread"
    return not row.is_open and (row.resolved_by, row.resolved_action) == (command.user, command.resolved_action or None)


def _change_state(context: FoldContext, command: SetState, row: ItemRow) -> bool:
    """Changes the item's state (C18-C20) and emits the facts. Returns whether anything changed; else nothing is
    written.

    A resolve closes the item at the time of the command; an unread of a resolved item reopens it.
    """
    if _changes_nothing(command, row):
        return False
    was_open, before = row.is_open, row.question
    if command.state == "read":
        row.read_at = row.read_at if row.read_at is not None else command.time
        row.read_by = row.read_by or command.user
        row.state = "read" if row.state == "unread" else row.state
    elif command.state == "unread":
        if not was_open and row.kind == "incident":
            for run in _runs_to_reopen(context, command, row):
                was = run.is_open
                _mark_unread(run, command)
                store_item(context, run, command.time)
                _emit_state_fact(context, command, run, was, command_name(command.id, row.id, run.id))
        _mark_unread(row, command)
    else:
        _resolve(context, row, _later_stamp(row, Stamp(command.time, command.id)), command)
    store_item(context, row, command.time)
    context.note_question(row, before)
    _emit_state_fact(context, command, row, was_open, command_name(command.id, row.id))
    return True


def _emit_state_fact(context: FoldContext, command: SetState, row: ItemRow, was_open: bool, event_id: str) -> None:
    """Emits the fact `item.unread`, `item.read` or `item.resolved`."""
    context.emit(Fact(
        ws=row.ws, pos=0, index=0, event_id=event_id, time=command.time,
        type=f"item.{command.state}", subject=row.source_id, at=context.log_clock, item=row.id, kind=row.kind,
        priority=row.priority, title=row.data.title, cluster=row.data.cluster, stack=row.data.stack,
        case_id=row.data.case_id, session_id=row.data.session_id, actor=command.user,
        resolved_action=(row.resolved_action or RESOLVED_MANUALLY) if command.state == "resolved" else None,
        seconds_open=items.seconds_open(row, command.time) if was_open and not row.is_open else None,
        target_user_id=row.target_user_id, target_role=row.target_role, opened=row.is_open and not was_open,
    ))


def _mark_unread(row: ItemRow, command: SetState) -> None:
    """Makes the row unread; reopens a closed item, except an incident, whose runs reopen it."""
    questions.ask_again(row)
    if not row.is_open and row.kind != "incident":
        periods.insert(row.periods, max(command.time, periods.newest_time(row.periods) + 1), closes=False)
        row.surge += 1  # dismissals and snoozes made before no longer apply
    row.state = "unread"
    row.read_at = row.read_by = row.resolved_at = row.resolved_by = row.resolved_action = None


def _resolve(context: FoldContext, row: ItemRow, stamp: Stamp, command: SetState) -> None:
    """Closes the item. Resolving an incident closes each of its runs and emits a fact for each."""
    action = command.resolved_action or ""
    if row.kind == "incident":
        for run in incident_groups.incident_runs(context, row):
            was, stamp = run.is_open, _later_stamp(run, stamp)
            items.record_close(run, stamp, action, command.user)
            store_item(context, run, command.time)
            _emit_state_fact(context, command, run, was, command_name(command.id, row.id, run.id))
        if not row.is_open:
            items.resolve(row, Close(*stamp, action, command.user))
        return
    items.record_close(row, stamp, action, command.user)


def _later_stamp(row: ItemRow, stamp: Stamp) -> Stamp:
    """Returns a stamp at or after `stamp`: not before the newest event of the row, and after its newest close. So the
    last command wins (C20), whatever the clock of its edge says."""
    stamp = Stamp(max(stamp.time, periods.newest_time(row.periods)), stamp.digest)
    if row.closed is None or stamp > row.closed.stamp:
        return stamp
    return Stamp(row.closed.time + 1, stamp.digest)


def _dismiss(context: FoldContext, command: Dismiss) -> None:
    """Dismisses or snoozes an item for the command's user: 404, 412, 400 or 200."""
    row = find_visible(context, command, command.item)
    if row is None:
        return outcomes.respond(context, command, 404, NOT_FOUND)
    if command.if_rev is not None and command.if_rev != row.rev:
        return outcomes.respond(context, command, 412, {"error": "the item has changed", "revision": row.rev})
    if command.until is not None and command.until <= context.log_clock:
        return outcomes.respond(context, command, 400, {"error": "dismissed_until must be in the future"})
    body: dict[str, object] = {"id": row.id, "dismissed": True}
    if command.until is not None:
        body["dismissed_until"] = format_timestamp(command.until)
    key = mark_key(row.id, command.user)
    known = context.state.get(key)
    if not isinstance(known, MarkRow) or (known.surge, known.until) != (row.surge, command.until):
        wake = items.mark_timer(row, command.until, context.log_clock, context.config.retention)
        context.state.put(key, MarkRow(row.ws, row.id, command.user, row.surge, command.until, context.revision, wake))
        _emit_personal_fact(context, command, row, "item.dismissed" if command.until is None else "item.snoozed")
    return outcomes.respond(context, command, 200, body, [row.id])


def _restore(context: FoldContext, command: Restore) -> None:
    """Removes the user's dismissal or snooze of an item: 404 or 200."""
    row = find_visible(context, command, command.item)
    if row is None:
        return outcomes.respond(context, command, 404, NOT_FOUND)
    key = mark_key(row.id, command.user)
    if context.state.get(key) is not None:
        context.state.delete(key)
        _emit_personal_fact(context, command, row, "item.restored")
    return outcomes.respond(context, command, 200, {"id": row.id, "dismissed": False}, [row.id])


def _emit_personal_fact(context: FoldContext, command: Command, row: ItemRow, fact_type: str) -> None:
    """Emits the fact of a dismissal, snooze or restore. Its target is the user alone."""
    context.emit(Fact(
        ws=row.ws, pos=0, index=0, event_id=command_name(command.id, row.id), time=command.time, type=fact_type,
        subject=row.source_id, at=context.log_clock, item=row.id, kind=row.kind, priority=row.priority,
        actor=command.user, case_id=row.data.case_id, target_user_id=command.user,
    ))


def _set_preferences(context: FoldContext, command: SetPreferences) -> None:
    """Sets the preferences that the command names."""
    key = preferences_key(command.ws, command.user)
    row = context.state.get(key)
    if row is None:
        row = PreferencesRow(command.ws, command.user)
    assert isinstance(row, PreferencesRow)
    pinned = row.pinned_clusters if command.pinned_clusters is None else list(dict.fromkeys(command.pinned_clusters))
    widgets = row.widgets if command.widgets is None else command.widgets
    if (pinned, widgets) != (row.pinned_clusters, row.widgets):
        row.pinned_clusters, row.widgets, row.rev = pinned, widgets, context.revision
        context.state.put(key, row)
    outcomes.respond(context, command, 200, outcomes.preferences_body(row))


def _set_state(context: FoldContext, command: SetState) -> None:
    (_bulk if command.bulk else _patch)(context, command)


COMMAND_HANDLERS: dict[type[Command], Callable[[FoldContext, Any], None]] = {
    SetState: _set_state, Dismiss: _dismiss, Restore: _restore, SetPreferences: _set_preferences,
}
