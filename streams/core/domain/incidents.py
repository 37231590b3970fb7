"""Failed runs that become one incident (CONTRACT §2, A6).

A group is the failed runs of one workspace, one incident key (else pipeline and step) and one target: an incident must
be seen by exactly those who may see its members. It is on from the moment its members are open on two clusters until
none is open any more. That moment is found by sweeping the members' periods in event time, so arrival order does not
matter (law 2).
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
from streams.core.domain import periods
from streams.core.domain.event_types import RESOLVED_MANUALLY
from streams.core.domain.items import derive_rank, hide, reopen, resolve
from streams.core.domain.keys import group_key
from streams.core.domain.rank import BANDS, priority_of

__all__ = [
    "Outage", "find_outage", "group_key_of", "group_of_run", "grouping_fields", "incident_name", "outage_members",
    "remove_member", "render_incident", "upsert_member",
]

MAX_LISTED_MEMBERS = 200  # ids an incident lists; `count` goes on counting
# Open members of a group. A change costs a sweep over all of them, about 2 µs each, and one row that names them: this
# bounds what an outage of any size may cost an event, and keeps the row far from what a batch can hold.
MAX_OPEN_MEMBERS = 500
MAX_CLOSED_MEMBERS = 64  # closed members a group remembers, for events that come late


@dataclass(frozen=True, slots=True)
class Outage:
    """The newest time a group was on: `ended` is None while it is, `last` the member whose close ended it."""

    since: int
    ended: int | None = None
    last_member: str = ""


def grouping_fields(data: Data) -> Data | None:
    """What the runs of its group share: the incident key, else pipeline and step; None: it belongs to none."""
    if data.incident_key is not None:
        return Data(incident_key=data.incident_key)
    if data.pipeline is None and data.step is None:
        return None
    return Data(pipeline=data.pipeline or "", step=data.step or "")


def incident_name(cause: Data) -> str:
    """What an incident is called: its `source_id`."""
    return cause.incident_key or "/".join(part for part in (cause.pipeline, cause.step) if part)


def group_of_run(row: ItemRow) -> str | None:
    """The key of the group a failed run belongs to, if any: it needs a cluster to be open on."""
    return group_key_of(row) if row.base is not None and row.data.cluster is not None else None


def group_key_of(row: ItemRow) -> str | None:
    """The key of the group of a run with these data, or of the incident with them."""
    cause = grouping_fields(row.data)
    if cause is None:
        return None
    name = json.encode((cause.incident_key, cause.pipeline, cause.step)).decode()
    return group_key(row.ws, name, row.target_user_id, row.target_role)


def upsert_member(group: GroupRow, row: ItemRow) -> bool:
    """Writes down what the group needs to know of a member. False: the group is full, the run stays on its own."""
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
    """Drops closed members, but not what they proved: that the group was on while they were open."""
    outage = find_outage(group)
    for code, item in closed:
        del group.members[item]
        if outage is not None and outage.since < periods.time_of(code):
            group.held = (outage.since, periods.time_of(code))


def remove_member(group: GroupRow, item: str) -> None:
    group.members.pop(item, None)


def find_outage(group: GroupRow) -> Outage | None:
    """The newest time the group was on, or None; by how things stood after all that happened at one time."""
    steps = [
        (time, opens, item, member.cluster)
        for item, member in group.members.items()
        for start, end in periods.intervals(member.periods) if start != end
        for time, opens in ((start, True), (end, False)) if time is not None
    ]
    if group.held is not None:  # two clusters stand for the members forgotten
        steps += [(time, time == group.held[0], "", place) for time in group.held for place in ("\0a", "\0b")]
    open_on: Counter[str] = Counter()
    since: int | None = None
    found: Outage | None = None
    for time, at_once in groupby(sorted(steps), key=itemgetter(0)):
        item = ""
        for _, opens, item, cluster in at_once:  # noqa: B007 - the last one counts
            open_on[cluster] += 1 if opens else -1
        there = sum(count > 0 for count in open_on.values())
        if since is None and there > 1:
            since = time
            found = Outage(since)
        elif since is not None and not there:
            found, since = Outage(since, time, item), None
    return found


def render_incident(row: ItemRow, group: GroupRow, outage: Outage | None, clock: int, rules: FoldConfig) -> None:
    """The incident's own item row, from its group. It is hidden where the group never was on."""
    row.count, row.members = 0, []
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
    derive_rank(row, clock, rules)


def _show_members(row: ItemRow, group: GroupRow, outage: Outage) -> bool:
    """What its members make of it. True: the priority rose."""
    found = outage_members(group, outage)
    members = [group.members[item] for item in found]
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
        row.count, row.members = len(found), found[:MAX_LISTED_MEMBERS]
    return BANDS.index(row.priority) < BANDS.index(before)


def outage_members(group: GroupRow, outage: Outage) -> list[str]:
    """The members that are open, or once it is over those that were; the one that opened first comes first."""
    found = {
        item: (start, item)
        for item, member in group.members.items()
        for start, end in periods.intervals(member.periods)
        if (end is None if outage.ended is None else start < outage.ended and (end or 0) > outage.since)
    }
    return [item for _, item in sorted(found.values())]
