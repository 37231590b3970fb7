"""Keeps a failed run's group, its incident and the other members in step with the run (CONTRACT §2: incidents)."""

from __future__ import annotations

from schemas.log import Data
from schemas.views import GroupRow, ItemRow
from streams.core.domain import incidents
from streams.core.domain.keys import item_id, item_key
from streams.core.fold.context import FoldContext

__all__ = ["follow", "regroup", "remove", "runs_of"]

# Members whose rows are changed at once when an incident begins or ends; the others follow with the next packs. A group
# of a thousand runs with large texts would not fit one batch.
FLIPS = 32


def follow(context: FoldContext, row: ItemRow) -> None:
    """Brings the group up to date with a run that changed. The caller stores the run's row."""
    key = incidents.group_of(row)
    if row.group is not None and row.group != key:
        remove(context, row)
        row.incident = None
    row.group = key
    if key is not None:
        group = _group(context, key, row)
        if incidents.enter(group, row):
            _update(context, key, group, row)
        else:
            row.group = row.incident = None


def remove(context: FoldContext, row: ItemRow) -> None:
    """Takes a run out of its group: it moved to another one, or its row goes."""
    if row.group is None:
        return
    group = _group(context, row.group, row)
    incidents.leave(group, row.id)
    _update(context, row.group, group, row)


def runs_of(context: FoldContext, incident: ItemRow) -> list[ItemRow]:
    """The runs that an incident stands for: the open ones, or once it is over those that were open meanwhile."""
    key = incidents.key_of(incident)
    group = context.state.get(key.encode()) if key is not None else None
    outage = incidents.sweep(group) if isinstance(group, GroupRow) else None
    if outage is None:
        return []
    found = (context.state.item(item_key(member)) for member in incidents.took_part(group, outage))  # type: ignore[arg-type]
    return [run for run in found if run is not None]


def _group(context: FoldContext, key: str, row: ItemRow) -> GroupRow:
    found = context.state.get(key.encode())
    if found is None:
        return GroupRow(row.ws, key)
    assert isinstance(found, GroupRow)
    return found


def _update(context: FoldContext, key: str, group: GroupRow, row: ItemRow) -> None:
    """Sweeps the group, renders its incident, and marks members grouped or not."""
    outage = incidents.sweep(group)
    item = item_id(row.ws, "incident", key)
    incident = context.state.item(item_key(item))
    was_on = incident is not None and incident.open
    if incident is not None or outage is not None:
        incident = incident or _incident(item, row)
        incident.touched, incident.rev = context.log_clock, context.revision
        incidents.render(incident, group, outage, context.log_clock, context.config)
        context.state.put(item_key(item), incident)
    on = incident is not None and incident.open
    if row.group == key:
        row.incident = item if on and row.open else None
    if on != was_on:
        group.regroup = [member for member in group.members if member != row.id]
    group.touched = context.log_clock
    regroup(context, key, group)


def _incident(item: str, row: ItemRow) -> ItemRow:
    """A new incident's row: it shows what all members share, so that it does not matter which of them came first."""
    cause = incidents.cause_of(row.data) or Data()
    cause.target_user_id, cause.target_role = row.target_user_id, row.target_role
    return ItemRow(
        id=item, ws=row.ws, kind="incident", source_id=incidents.name_of(cause), data=cause,
        target_user_id=row.target_user_id, target_role=row.target_role,
    )


def regroup(context: FoldContext, key: str, group: GroupRow) -> None:
    """Marks the next members as grouped or not; the group's own wake-up brings the rest."""
    incident = context.state.item(item_key(item_id(group.ws, "incident", key)))
    on = incident is not None and incident.open
    for member in group.regroup[:FLIPS]:
        row = context.state.item(item_key(member))
        if row is None:
            continue
        grouped = incident.id if on and row.open and incident is not None else None
        if row.incident != grouped:
            row.incident, row.rev = grouped, context.revision
            context.state.put(item_key(member), row)
    del group.regroup[:FLIPS]
    if group.regroup:
        group.wake = context.log_clock
    elif group.wake is None or group.wake <= context.log_clock:
        group.wake = context.log_clock + context.config.retention
    context.state.put(key.encode(), group)
