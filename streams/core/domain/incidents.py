"""Groups failed runs into incidents by a sweep line over their open periods (CONTRACT §2, A6).

A group is the failed runs of one workspace, one incident key (else pipeline and step) and one target: exactly those
who may see its members may see the incident. An outage starts when members are open on two clusters, and ends when no
member is open. `find_outage` sorts the starts and ends of all periods by event time and counts the open members of each
cluster, so the arrival order of events does not matter (law 2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from msgspec import json

from schemas.log import Data
from schemas.views import Close, GroupMember, GroupRow, ItemRow, Stamp
from streams.core.config import FoldConfig
from streams.core.domain import periods, questions
from streams.core.domain.event_types import RESOLVED_MANUALLY
from streams.core.domain.items import derive_question, derive_rank, hide, reopen, resolve
from streams.core.domain.keys import group_key
from streams.core.domain.rank import BANDS, priority_of

__all__ = [
    "MAX_LISTED_MEMBERS",
    "Outage", "find_outage", "group_key_of", "group_of_run", "grouping_fields", "incident_name", "outage_members",
    "remove_member", "render_incident", "upsert_member",
]

MAX_LISTED_MEMBERS = 200  # ids that an incident row lists; `count` has all
# Open members of a group. Each change sweeps all of them, about 2 µs each, and writes a row that names them. The limit
# bounds the cost of one event in an outage of any size, and keeps the row well below the size of a batch.
MAX_OPEN_MEMBERS = 500
MAX_CLOSED_MEMBERS = 64  # closed members that a group keeps, for late events


@dataclass(frozen=True, slots=True)
class Outage:
    """The newest outage of a group, times in microseconds. `ended`: None while it lasts. `last_member`: item id of the
    member whose close ended it."""

    since: int
    ended: int | None = None
    last_member: str = ""


def grouping_fields(data: Data) -> Data | None:
    """Returns the fields that a run shares with its group: the incident key, else pipeline and step. None: no group."""
    if data.incident_key is not None:
        return Data(incident_key=data.incident_key)
    if data.pipeline is None and data.step is None:
        return None
    return Data(pipeline=data.pipeline or "", step=data.step or "")


def incident_name(fields: Data) -> str:
    """Returns the `source_id` of an incident: the incident key, else pipeline/step."""
    return fields.incident_key or "/".join(part for part in (fields.pipeline, fields.step) if part)


def group_of_run(row: ItemRow) -> str | None:
    """Returns the group key of a failed run. None: no opening event has arrived, or the run names no cluster."""
    return group_key_of(row) if row.base is not None and row.data.cluster is not None else None


def group_key_of(row: ItemRow) -> str | None:
    """Returns the key of the group of a run, or of the group that an incident stands for. None: no group."""
    shared = grouping_fields(row.data)
    if shared is None:
        return None
    name = json.encode((shared.incident_key, shared.pipeline, shared.step)).decode()
    return group_key(row.ws, name, row.target_user_id, row.target_role)


def upsert_member(group: GroupRow, row: ItemRow) -> bool:
    """Stores what the group needs to know of a member. Returns False if the group is full: the run stays ungrouped."""
    if row.is_open and row.id not in group.members and len(group.members) >= MAX_OPEN_MEMBERS + MAX_CLOSED_MEMBERS:
        return False
    action, by = (row.closed.action, row.closed.by) if row.closed is not None else (None, None)
    group.members[row.id] = GroupMember(
        row.data.cluster or "", list(row.periods), row.priority, row.blocking, row.due_at, row.data.title or "",
        action, by,
    )
    closed = [
        (member.periods[-1], item) for item, member in group.members.items() if periods.is_close(member.periods[-1])
    ]
    if len(closed) > MAX_CLOSED_MEMBERS:
        _drop_closed_members(group, sorted(closed)[:-MAX_CLOSED_MEMBERS])
    return True


def _drop_closed_members(group: GroupRow, closed: list[tuple[int, str]]) -> None:
    """Removes closed members. `held` keeps the outage that they proved, as far as it lasted while they were open."""
    outage = find_outage(group)
    for code, item in closed:
        del group.members[item]
        if outage is not None and outage.since < periods.time_of(code):
            group.held = (outage.since, periods.time_of(code))


def remove_member(group: GroupRow, item: str) -> None:
    """Removes a member, if the group has it."""
    group.members.pop(item, None)


def find_outage(group: GroupRow) -> Outage | None:
    """Returns the newest outage of the group, None if there was none.

    Sweep line: steps through all starts and ends of periods in order of time. The state is evaluated after all steps of
    one time.
    """
    steps = [
        (time, opens, item, member.cluster)
        for item, member in group.members.items()
        for start, end in periods.intervals(member.periods) if start != end
        for time, opens in ((start, True), (end, False)) if time is not None
    ]
    if group.held is not None:  # two clusters that no member can have stand for the removed members
        held_since, _ = group.held
        steps += [(time, time == held_since, "", cluster) for time in group.held for cluster in ("\0a", "\0b")]
    open_members: Counter[str] = Counter()  # by cluster
    since: int | None = None
    newest: Outage | None = None
    for time, simultaneous in groupby(sorted(steps), key=itemgetter(0)):
        last_item = ""
        for _, opens, last_item, cluster in simultaneous:  # noqa: B007 - the last item of this time ends the outage
            open_members[cluster] += 1 if opens else -1
        open_clusters = sum(count > 0 for count in open_members.values())
        if since is None and open_clusters > 1:
            since = time
            newest = Outage(since)
        elif since is not None and not open_clusters:
            newest = Outage(since, time, last_item)
            since = None
    return newest


def render_incident(row: ItemRow, group: GroupRow, outage: Outage | None, clock: int, config: FoldConfig) -> None:
    """Derives the incident's item row from its group, in place. The row is hidden if there was no outage."""
    row.count, row.members = 0, []
    answered = questions.restore_listed(row)
    if outage is None:
        hide(row)
        row.clusters = []
    else:
        raised = _show_members(row, group, outage)
        row.created_at = outage.since
        if outage.ended is not None:
            last = group.members.get(outage.last_member)
            action, by = (last.action, last.by) if last is not None else (None, None)
            resolve(row, Close(outage.ended, "", RESOLVED_MANUALLY if action is None else action, by))
        elif not row.is_open:
            reopen(row)
        elif raised:
            row.surge += 1
    row.base = row.base or Stamp(row.created_at, "")
    derive_question(row, answered, clock, config)
    derive_rank(row, clock, config)


def _show_members(row: ItemRow, group: GroupRow, outage: Outage) -> bool:
    """Derives priority, title, due time and member list from the members. Returns whether the priority rose."""
    items = outage_members(group, outage)
    members = [group.members[item] for item in items]
    if not members:
        return False
    before = row.priority
    row.clusters = sorted({member.cluster for member in members})
    row.priority = row.data.priority = priority_of(min((member.priority for member in members), key=BANDS.index))
    row.blocking = row.data.blocking = any(member.blocking for member in members)
    row.data.due_at = min(member.due_at for member in members)
    count = len(row.clusters)
    row.data.title = f"{members[0].title} ({count} cluster{'s' if count > 1 else ''})"[:512]
    newest = outage.ended or max(periods.newest_time(member.periods) for member in group.members.values())
    row.updated_at = max(outage.since, newest, row.read_at or 0)
    if outage.ended is None:
        row.count, row.members = len(items), items[:MAX_LISTED_MEMBERS]
    return BANDS.index(row.priority) < BANDS.index(before)


def outage_members(group: GroupRow, outage: Outage) -> list[str]:
    """Returns the ids of the open members; of an ended outage those open during it. First opened first."""
    opened = {
        item: (start, item)
        for item, member in group.members.items()
        for start, end in periods.intervals(member.periods)
        if (end is None if outage.ended is None else start < outage.ended and (end or 0) > outage.since)
    }
    return [item for _, item in sorted(opened.values())]
