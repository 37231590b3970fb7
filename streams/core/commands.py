"""What people do, as the fold decides it: the edge has checked already, but only the fold knows the order (law 6 too).

Each command leaves an outcome (status and JSON body) for the edge that waits, and a fact for each item it changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from schemas.codec import from_us
from schemas.facts import Fact, Outcome
from schemas.log import Command, Dismiss, Restore, SetPreferences, SetState
from schemas.views import ItemRow, MarkRow, PreferencesRow
from streams.core import groups, items, periods
from streams.core.keys import item_key, mark_key, preferences_key
from streams.core.visibility import can_see

if TYPE_CHECKING:
    from streams.core.fold import Fold

__all__ = ["SOURCE_MANAGED", "apply"]

SOURCE_MANAGED = (
    "use the source endpoint for this kind (e.g. /pipelines/waitpoints/{token}/approve) — inbox PATCH only supports "
    "'read' for source-managed items"
)
_NOT_FOUND = {"error": "not found"}


def apply(fold: Fold, command: Command) -> None:
    """Carries out a command that is not a repeat."""
    if isinstance(command, SetState):
        _bulk(fold, command) if command.bulk else _patch(fold, command)
    elif isinstance(command, Dismiss):
        _dismiss(fold, command)
    elif isinstance(command, Restore):
        _restore(fold, command)
    elif isinstance(command, SetPreferences):
        _prefer(fold, command)


def _answer(fold: Fold, command: Command, status: int, body: object, changed: list[str] | None = None) -> None:
    state = command.state if isinstance(command, SetState) else None
    fold.tell(Outcome(
        ws=command.ws, pos=0, index=0, command=command.id, edge=command.edge, user=command.user, status=status,
        body=msgspec.Raw(msgspec.json.encode(body)), items=changed or [], state=state,
        bulk=isinstance(command, SetState) and command.bulk,
    ))


def _visible(fold: Fold, command: Command, item: str) -> ItemRow | None:
    row = fold.state.item(item_key(item))
    if row is None or row.ws != command.ws or row.state == "hidden":
        return None
    return row if can_see(row.target_user_id, row.target_role, command.user, frozenset(command.roles)) else None


def _patch(fold: Fold, command: SetState) -> None:
    row = _visible(fold, command, command.items[0]) if command.items else None
    if row is None:
        _answer(fold, command, 404, _NOT_FOUND)
    elif command.if_rev is not None and command.if_rev != row.rev:
        _answer(fold, command, 412, {"error": "the item has changed", "revision": row.rev})
    elif command.state != "read" and row.kind in fold.rules.source_managed:
        _answer(fold, command, 409, {"error": SOURCE_MANAGED, "kind": row.kind})
    else:
        _flip(fold, command, row)
        _answer(fold, command, 200, {"id": row.id, "state": command.state}, [row.id])


def _bulk(fold: Fold, command: SetState) -> None:
    updated: list[str] = []
    skipped: list[str] = []
    not_found = 0
    for item in command.items:
        row = _visible(fold, command, item)
        if row is None:
            not_found += 1
        elif _is_protected(fold, command, row):
            skipped.append(item)
        else:
            _flip(fold, command, row)
            updated.append(item)
    _answer(fold, command, 200, {
        "updated": len(updated), "skipped": len(skipped), "skipped_ids": skipped, "not_found": not_found,
        "state": command.state,
    }, updated)


def _is_protected(fold: Fold, command: SetState, row: ItemRow) -> bool:
    """Decision items are left to their source (C23, C24); `read` is harmless (C25)."""
    if command.state == "read":
        return False
    return row.kind in fold.rules.source_managed or (command.state == "resolved" and row.blocking)


def _flip(fold: Fold, command: SetState, row: ItemRow) -> None:
    """Crewship's transitions (C18-C20). A resolve closes at its own time, an unread of a resolved item opens."""
    was_open = row.open
    stamp = (command.time, command.id)
    if command.state == "read":
        row.read_at = row.read_at if row.read_at is not None else command.time
        row.read_by = row.read_by or command.user
        row.state = "read" if row.state == "unread" else row.state
    elif command.state == "unread":
        if not was_open:
            periods.insert(row.periods, max(command.time, periods.newest(row.periods) + 1), closes=False)
        row.state = "unread"
        row.read_at = row.read_by = row.resolved_at = row.resolved_by = row.resolved_action = None
    else:
        _resolve(fold, row, (max(command.time, periods.newest(row.periods)), command.id), command)
    _store(fold, row, command.time)
    fold.tell(Fact(
        ws=row.ws, pos=0, index=0, event_id=f"command {command.id} {row.id}", time=stamp[0],
        type=f"item.{command.state}", subject=row.source_id, at=fold.clock, item=row.id, kind=row.kind,
        priority=row.priority, title=row.data.title, cluster=row.data.cluster, stack=row.data.stack,
        case_id=row.data.case_id, session_id=row.data.session_id, actor=command.user,
        resolved_action=row.resolved_action if command.state == "resolved" else None,
        seconds_open=(command.time - row.created_at) / 1e6 if was_open and not row.open else None,
        target_user_id=row.target_user_id, target_role=row.target_role,
    ))


def _resolve(fold: Fold, row: ItemRow, stamp: tuple[int, str], command: SetState) -> None:
    """An incident is its members: resolving it resolves them."""
    action = command.resolved_action or "resolved"
    if row.kind == "incident":
        for member in list(row.members):
            run = fold.state.item(item_key(member))
            if run is not None and run.open:
                items.close(run, stamp, action, command.user)
                _store(fold, run, command.time)
        return
    items.close(row, stamp, action, command.user)


def _store(fold: Fold, row: ItemRow, time: int) -> None:
    row.updated_at = max(row.updated_at, time)
    row.touched, row.rev = fold.clock, fold.at
    if row.kind not in ("incident", "proof_expiring"):
        items.settle(row, fold.clock, fold.rules)
    elif row.kind == "proof_expiring" and row.closed is not None and row.open:
        items.resolve(row, row.closed)
    if row.kind == "failed_run":
        groups.follow(fold, row)
    fold.state.put(item_key(row.id), row)


def _dismiss(fold: Fold, command: Dismiss) -> None:
    row = _visible(fold, command, command.item)
    if row is None:
        return _answer(fold, command, 404, _NOT_FOUND)
    if command.if_rev is not None and command.if_rev != row.rev:
        return _answer(fold, command, 412, {"error": "the item has changed", "revision": row.rev})
    if command.until is not None and command.until <= fold.clock:
        return _answer(fold, command, 400, {"error": "dismissed_until must be in the future"})
    wake = command.until if command.until is not None else fold.clock + fold.rules.retention
    fold.state.put(
        mark_key(row.id, command.user),
        MarkRow(row.ws, row.id, command.user, row.surge, command.until, fold.at, wake),
    )
    body: dict[str, object] = {"id": row.id, "dismissed": True}
    if command.until is not None:
        body["dismissed_until"] = from_us(command.until)
    _told(fold, command, row, "item.dismissed" if command.until is None else "item.snoozed")
    return _answer(fold, command, 200, body, [row.id])


def _restore(fold: Fold, command: Restore) -> None:
    row = _visible(fold, command, command.item)
    if row is None:
        return _answer(fold, command, 404, _NOT_FOUND)
    key = mark_key(row.id, command.user)
    if fold.state.get(key) is not None:
        fold.state.drop(key)
        _told(fold, command, row, "item.restored")
    return _answer(fold, command, 200, {"id": row.id, "dismissed": False}, [row.id])


def _told(fold: Fold, command: Command, row: ItemRow, what: str) -> None:
    """A personal act: its fact is the person's own, and nobody else's business."""
    fold.tell(Fact(
        ws=row.ws, pos=0, index=0, event_id=f"command {command.id} {row.id}", time=command.time, type=what,
        subject=row.source_id, at=fold.clock, item=row.id, kind=row.kind, priority=row.priority, actor=command.user,
        case_id=row.data.case_id, target_user_id=command.user,
    ))


def _prefer(fold: Fold, command: SetPreferences) -> None:
    key = preferences_key(command.ws, command.user)
    row = fold.state.get(key)
    if row is None:
        row = PreferencesRow(command.ws, command.user)
    assert isinstance(row, PreferencesRow)
    if command.pinned_clusters is not None:
        row.pinned_clusters = list(dict.fromkeys(command.pinned_clusters))
    if command.widgets is not None:
        row.widgets = command.widgets
    row.rev = fold.at
    fold.state.put(key, row)
    _answer(fold, command, 200, {
        "pinned_clusters": row.pinned_clusters,
        "widgets": [{"id": widget.id, "visible": widget.visible} for widget in row.widgets],
    })
