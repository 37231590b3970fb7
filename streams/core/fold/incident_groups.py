"""Updates the group of a failed run, the group's incident and the other members after the run changed (CONTRACT §2)."""

from __future__ import annotations

from schemas.log import Data
from schemas.views import GroupRow, ItemRow
from streams.core.domain import incidents
from streams.core.domain.keys import item_id, item_key
from streams.core.fold.context import FoldContext

__all__ = ["incident_runs", "propagate_grouping", "remove_from_group", "sync_group"]

# Member rows that one pack changes when an incident opens or closes; later packs change the others. The rows of a group
# of a thousand runs with large texts would not fit into one batch.
MAX_MEMBERS_PER_PACK = 32


def sync_group(context: FoldContext, row: ItemRow) -> None:
    """Updates the group of a run that changed. The caller stores the row of the run."""
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
    """Removes a run from its group: it now belongs to another one."""
    if row.group is None:
        return
    group = _get_or_create_group(context, row.group, row)
    incidents.remove_member(group, row.id)
    _update_group(context, row.group, group, row)


def incident_runs(context: FoldContext, incident: ItemRow) -> list[ItemRow]:
    """Returns the runs of an incident: the open ones; of a closed incident those that were open during the outage."""
    key = incidents.group_key_of(incident)
    group = context.state.get(key.encode()) if key is not None else None
    outage = incidents.find_outage(group) if isinstance(group, GroupRow) else None
    if outage is None:
        return []
    assert isinstance(group, GroupRow)
    runs = (context.state.item(item_key(member)) for member in incidents.outage_members(group, outage))
    return [run for run in runs if run is not None]


def _get_or_create_group(context: FoldContext, key: str, row: ItemRow) -> GroupRow:
    group = context.state.get(key.encode())
    if group is None:
        return GroupRow(row.ws, key)
    assert isinstance(group, GroupRow)
    return group


def _update_group(context: FoldContext, key: str, group: GroupRow, row: ItemRow) -> None:
    """Finds the newest outage of the group, renders its incident, and updates the members."""
    outage = incidents.find_outage(group)
    item = item_id(row.ws, "incident", key)
    incident = context.state.item(item_key(item))
    was_open = incident is not None and incident.is_pending
    if incident is not None or outage is not None:
        incident = incident or _new_incident(item, row)
        incident.touched, incident.rev = context.log_clock, context.revision
        before = incident.question
        incidents.render_incident(incident, group, outage, context.log_clock, context.config)
        context.note_question(incident, before)
        context.state.put(item_key(item), incident)
    incident_is_open = incident is not None and incident.is_pending
    if row.group == key:
        row.incident = item if incident_is_open and row.is_open else None
    if incident_is_open != was_open:
        group.regroup = [member for member in group.members if member != row.id]
    group.touched = context.log_clock
    propagate_grouping(context, key, group)


def _new_incident(item: str, row: ItemRow) -> ItemRow:
    """Returns the row of a new incident. It shows what all members share, so their arrival order does not matter."""
    fields = incidents.grouping_fields(row.data) or Data()
    fields.target_user_id, fields.target_role = row.target_user_id, row.target_role
    return ItemRow(
        id=item, ws=row.ws, kind="incident", source_id=incidents.incident_name(fields), data=fields,
        target_user_id=row.target_user_id, target_role=row.target_role,
    )


def propagate_grouping(context: FoldContext, key: str, group: GroupRow) -> None:
    """Sets or clears the incident of the next MAX_MEMBERS_PER_PACK members; a timer of the group continues."""
    incident = context.state.item(item_key(item_id(group.ws, "incident", key)))
    for member in group.regroup[:MAX_MEMBERS_PER_PACK]:
        row = context.state.item(item_key(member))
        if row is None:
            continue
        grouped = incident.id if incident is not None and incident.is_pending and row.is_open else None
        if row.incident != grouped:
            row.incident, row.rev = grouped, context.revision
            context.state.put(item_key(member), row)
    del group.regroup[:MAX_MEMBERS_PER_PACK]
    if group.regroup:
        group.wake = context.log_clock
    elif group.wake is None or group.wake <= context.log_clock:
        group.wake = context.log_clock + context.config.retention
    context.state.put(key.encode(), group)
