"""Keeps a failed run's group, its incident and the other members in step with the run (CONTRACT §2: incidents)."""

from __future__ import annotations

from schemas.log import Data
from schemas.views import GroupRow, ItemRow
from streams.core.domain import incidents
from streams.core.domain.keys import item_id, item_key
from streams.core.fold.context import FoldContext

__all__ = ["incident_runs", "propagate_grouping", "remove_from_group", "sync_group"]

# Members whose rows are changed at once when an incident begins or ends; the others follow with the next packs. A group
# of a thousand runs with large texts would not fit one batch.
MAX_MEMBERS_PER_PACK = 32


def sync_group(context: FoldContext, row: ItemRow) -> None:
    """Brings the group up to date with a run that changed. The caller stores the run's row."""
    key = incidents.group_of_run(row)
    if row.group is not None and row.group != key:
        remove_from_group(context, row)
        row.incident = None
    row.group = key
    if key is not None:
        group = _get_or_create_group(context, key, row)
        if incidents.upsert_member(group, row):
            _update_group(context, key, group, row)
        else:
            row.group = row.incident = None


def remove_from_group(context: FoldContext, row: ItemRow) -> None:
    """Takes a run out of its group: it moved to another one, or its row goes."""
    if row.group is None:
        return
    group = _get_or_create_group(context, row.group, row)
    incidents.remove_member(group, row.id)
    _update_group(context, row.group, group, row)


def incident_runs(context: FoldContext, incident: ItemRow) -> list[ItemRow]:
    """The runs that an incident stands for: the open ones, or once it is over those that were open meanwhile."""
    key = incidents.group_key_of(incident)
    group = context.state.get(key.encode()) if key is not None else None
    outage = incidents.find_outage(group) if isinstance(group, GroupRow) else None
    if outage is None:
        return []
    found = (context.state.item(item_key(member)) for member in incidents.outage_members(group, outage))  # type: ignore[arg-type]
    return [run for run in found if run is not None]


def _get_or_create_group(context: FoldContext, key: str, row: ItemRow) -> GroupRow:
    found = context.state.get(key.encode())
    if found is None:
        return GroupRow(row.ws, key)
    assert isinstance(found, GroupRow)
    return found


def _update_group(context: FoldContext, key: str, group: GroupRow, row: ItemRow) -> None:
    """Sweeps the group, renders its incident, and marks members grouped or not."""
    outage = incidents.find_outage(group)
    item = item_id(row.ws, "incident", key)
    incident = context.state.item(item_key(item))
    was_on = incident is not None and incident.is_open
    if incident is not None or outage is not None:
        incident = incident or _new_incident(item, row)
        incident.touched, incident.rev = context.log_clock, context.revision
        incidents.render_incident(incident, group, outage, context.log_clock, context.config)
        context.state.put(item_key(item), incident)
    on = incident is not None and incident.is_open
    if row.group == key:
        row.incident = item if on and row.is_open else None
    if on != was_on:
        group.regroup = [member for member in group.members if member != row.id]
    group.touched = context.log_clock
    propagate_grouping(context, key, group)


def _new_incident(item: str, row: ItemRow) -> ItemRow:
    """A new incident's row: it shows what all members share, so that it does not matter which of them came first."""
    cause = incidents.grouping_fields(row.data) or Data()
    cause.target_user_id, cause.target_role = row.target_user_id, row.target_role
    return ItemRow(
        id=item, ws=row.ws, kind="incident", source_id=incidents.incident_name(cause), data=cause,
        target_user_id=row.target_user_id, target_role=row.target_role,
    )


def propagate_grouping(context: FoldContext, key: str, group: GroupRow) -> None:
    """Marks the next members as grouped or not; the group's own wake-up brings the rest."""
    incident = context.state.item(item_key(item_id(group.ws, "incident", key)))
    on = incident is not None and incident.is_open
    for member in group.regroup[:MAX_MEMBERS_PER_PACK]:
        row = context.state.item(item_key(member))
        if row is None:
            continue
        grouped = incident.id if on and row.is_open and incident is not None else None
        if row.incident != grouped:
            row.incident, row.rev = grouped, context.revision
            context.state.put(item_key(member), row)
    del group.regroup[:MAX_MEMBERS_PER_PACK]
    if group.regroup:
        group.wake = context.log_clock
    elif group.wake is None or group.wake <= context.log_clock:
        group.wake = context.log_clock + context.config.retention
    context.state.put(key.encode(), group)
