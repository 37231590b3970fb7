"""Failed runs that become one incident (CONTRACT §2, A6).

A group is the failed runs of one workspace, one incident key (else pipeline and step) and one target: an incident must
be seen by exactly those who may see its members. It is on from the moment its members are open on two clusters until
none is open any more. That moment is found by sweeping the members' periods in event time, so arrival order does not
matter (law 2).
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import json

from schemas.log import Data
from schemas.views import GroupRow, ItemRow, Member
from streams.core import periods
from streams.core.items import rank, reopen, resolve
from streams.core.keys import group_key
from streams.core.rank import BANDS
from streams.core.rules import Rules

__all__ = ["Outage", "cause_of", "enter", "group_of", "leave", "name_of", "render", "sweep"]

MAX_MEMBERS = 200  # ids an incident lists; `count` goes on counting
MAX_CLOSED = 64  # closed members a group remembers, for events that come late


@dataclass(frozen=True, slots=True)
class Outage:
    """The newest time a group was on: `ended` is None while it is, `last` the member whose close ended it."""

    since: int
    ended: int | None = None
    last: str = ""


def cause_of(data: Data) -> Data | None:
    """What the runs of its group share: the incident key, else pipeline and step; None: it belongs to none."""
    if data.incident_key is not None:
        return Data(incident_key=data.incident_key)
    if data.pipeline is None and data.step is None:
        return None
    return Data(pipeline=data.pipeline or "", step=data.step or "")


def name_of(cause: Data) -> str:
    """What an incident is called: its `source_id`."""
    return cause.incident_key or "/".join(part for part in (cause.pipeline, cause.step) if part)


def group_of(row: ItemRow) -> str | None:
    """The key of the group a failed run belongs to, if any: it needs a cluster to be open on."""
    cause = cause_of(row.data)
    if row.base is None or cause is None or row.data.cluster is None:
        return None
    name = json.encode((cause.incident_key, cause.pipeline, cause.step)).decode()
    return group_key(row.ws, name, row.target_user_id, row.target_role)


def enter(group: GroupRow, row: ItemRow) -> None:
    """Writes down what the group needs to know of a member."""
    action, by = (row.closed[2], row.closed[3]) if row.closed is not None else (None, None)
    group.members[row.id] = Member(
        row.data.cluster or "", list(row.periods), row.priority, row.blocking, row.due_at, row.data.title or "",
        action, by,
    )
    closed = [(member.periods[-1], item) for item, member in group.members.items() if member.periods[-1] & 1]
    if len(closed) > MAX_CLOSED:
        for _, item in sorted(closed)[:-MAX_CLOSED]:
            del group.members[item]


def leave(group: GroupRow, item: str) -> None:
    group.members.pop(item, None)


def sweep(group: GroupRow) -> Outage | None:
    """The newest time the group was on, or None. At equal times a close comes before an opening."""
    steps = sorted(
        (time, opens, item, member.cluster)
        for item, member in group.members.items()
        for start, end in periods.intervals(member.periods) if start != end
        for time, opens in ((start, True), (end, False)) if time is not None
    )
    open_on: dict[str, int] = {}
    since: int | None = None
    found: Outage | None = None
    for time, opens, item, cluster in steps:
        open_on[cluster] = open_on.get(cluster, 0) + (1 if opens else -1)
        if not open_on[cluster]:
            del open_on[cluster]
        if since is None and len(open_on) > 1:
            since = time
            found = Outage(since)
        elif since is not None and not open_on:
            found, since = Outage(since, time, item), None
    return found


def render(row: ItemRow, group: GroupRow, outage: Outage | None, clock: int, rules: Rules) -> None:
    """The incident's own item row, from its group. It is hidden where the group never was on."""
    opened = sorted(
        (periods.opened_at(member.periods) or 0, item)
        for item, member in group.members.items() if periods.is_open(member.periods)
    )
    members = [group.members[item] for _, item in opened]
    row.count = len(opened) if outage is not None and outage.ended is None else 0
    if outage is None:
        row.state = "hidden"
        row.clusters, row.members = [], []
    elif outage.ended is not None:
        last = group.members[outage.last]
        row.created_at = outage.since
        resolve(row, (outage.ended, "", last.action or "resolved", last.by))
    else:
        before = row.priority
        row.clusters = sorted({member.cluster for member in members})
        row.members = [item for _, item in opened[:MAX_MEMBERS]]
        row.priority = row.data.priority = min((member.priority for member in members), key=BANDS.index)
        row.blocking = row.data.blocking = any(member.blocking for member in members)
        row.data.due_at = min(member.due_at for member in members)
        row.data.title = f"{members[0].title} ({len(row.clusters)} clusters)"[:512]
        row.created_at = outage.since
        if not row.open:
            reopen(row)
        elif BANDS.index(row.priority) < BANDS.index(before):
            row.surge += 1
    row.base = row.base or (row.created_at, "")
    rank(row, clock, rules)
