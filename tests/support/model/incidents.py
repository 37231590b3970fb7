"""Computes incidents from all failed runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from support.model.types import BANDS, Item

__all__ = ["incidents_of"]


def incidents_of(items: Iterable[Item]) -> Iterable[Item]:
    """Returns the groups of failed runs that were open on two clusters at the same time. Marks open members as grouped.
    """
    groups: dict[tuple[bool, str, str | None, str | None], list[Item]] = defaultdict(list)
    for item in items:
        shown = item.shown
        keyed = "incident_key" in shown
        parts = [shown["incident_key"]] if keyed else [shown.get("pipeline"), shown.get("step")]
        if item.kind == "failed_run" and "cluster" in shown and any(part is not None for part in parts):
            groups[keyed, "/".join(filter(None, parts)), *item.target].append(item)
    for (_, name, *_), runs in groups.items():
        times = sorted({time for run in runs for period in run.periods for time in period if time is not None})
        on: tuple[int, int | None] | None = None  # the newest open period: from, until
        for time in times:
            open_runs = [run for run in runs if any(a <= time and (b is None or time < b) for a, b in run.periods)]
            if on is not None and on[1] is None:
                if not open_runs:
                    on = (on[0], time)
            elif len({run.shown["cluster"] for run in open_runs}) > 1:
                on = (time, None)
        if on is None:
            continue
        since, ended = on
        members = [run for run in runs if run.open] if ended is None else []
        shown_by = members or [  # a closed incident: the runs open during its period
            run for run in runs if any(a < (ended or 0) and (b or 0) > since for a, b in run.periods)]
        incident = Item(
            "incident", name, {}, "unread" if ended is None else "resolved",
            created_at=since, due_at=min(run.due_at for run in shown_by),
            updated_at=ended or max([since, *(run.updated_at for run in runs)]),
            priority=min((run.priority for run in shown_by), key=BANDS.index),
            blocking=any(run.blocking for run in shown_by), target=runs[0].target, periods=[], resolved_at=ended,
            clusters=sorted({run.shown["cluster"] for run in shown_by}),
            members=sorted(run.source_id for run in members),
        )
        for run in members:
            run.grouped = True
        if ended is not None:
            ends = [run for run in runs if any(period[1] == ended for period in run.periods)]
            if len(ends) == 1:  # with several, the contract does not say whose action it is
                incident.resolved_action, incident.resolved_by = ends[0].resolved_action, ends[0].resolved_by
        yield incident
