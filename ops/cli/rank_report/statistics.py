"""Computes statistics of placements under two policies. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import ceil
from typing import Any

from ops.cli.rank_report.placements import FIRST, ListChange, Placement, placements
from ops.cli.rank_report.policy import Policy
from schemas.scalars import SECOND

__all__ = ["compare", "placement_statistics"]


def compare(changes: Mapping[str, Sequence[ListChange]], today: Policy, other: Policy, end: int) -> dict[str, Any]:
    """Returns the statistics of all placements, by kind, and by the priority that sources gave.

    Both policies have the same placements in each group.
    """
    both = [list(chain.from_iterable(placements(workspace, policy, end) for workspace in changes.values()))
            for policy in (today, other)]
    return {
        "all": _group(both),
        "kinds": _split(both, lambda stay: stay.kind), "priorities": _split(both, lambda stay: stay.priority),
    }


def _split(both: Sequence[Sequence[Placement]], name_of: Any) -> dict[str, Any]:
    names = sorted({name_of(stay) for stay in both[0]})
    return {name: _group([[stay for stay in stays if name_of(stay) == name] for stays in both]) for name in names}


def _group(both: Sequence[Sequence[Placement]]) -> dict[str, Any]:
    stays = both[0]
    lengths = sorted(stay.length / SECOND for stay in stays)
    return {
        "stays": len(stays), "still_open": sum(not stay.ended for stay in stays),
        "listed_seconds": _percentiles(lengths),
        "today": placement_statistics(both[0]), "policy": placement_statistics(both[1]),
    }


def placement_statistics(stays: Sequence[Placement]) -> dict[str, Any]:
    """Returns the statistics of placements under one policy.

    `place`: mean position (from 1) over the time of a placement. `share_of_time`: ratio of the time within the first
    positions to all time listed. `seconds_until_seen`: until the item came into the last of FIRST, or left the list.
    """
    total = sum(stay.length for stay in stays)
    return {
        "place": _percentiles(stay.position_time / stay.length for stay in stays),
        "share_of_time": {
            f"first_{first}": round(sum(stay.first[which] for stay in stays) / total, 6) if total else 0.0
            for which, first in enumerate(FIRST)
        },
        "seconds_until_seen": _percentiles(
            (stay.length if stay.seen is None else stay.seen) / SECOND for stay in stays),
        "never_seen": sum(stay.seen is None for stay in stays),
    }


def _percentiles(values: Iterable[float]) -> dict[str, float]:
    """Returns p50 and p90 by nearest rank; an empty dict without values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {name: round(ordered[max(0, ceil(share * len(ordered)) - 1)], 3)
            for name, share in (("p50", 0.5), ("p90", 0.9))}
