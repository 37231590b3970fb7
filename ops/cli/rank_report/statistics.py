"""How long items waited at which place, under two policies: stays -> figures. Pure."""

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
    """Figures of all stays, by kind and by the priority that sources gave; a group of one policy and of the other has
    the same stays."""
    both = [list(chain.from_iterable(placements(mine, policy, end) for mine in changes.values()))
            for policy in (today, other)]
    return {
        "all": _group(both),
        "kinds": _split(both, lambda stay: stay.kind), "priorities": _split(both, lambda stay: stay.priority),
    }


def _split(both: Sequence[Sequence[Placement]], name_of: Any) -> dict[str, Any]:
    names = sorted({name_of(stay) for stay in both[0]})
    return {name: _group([[stay for stay in found if name_of(stay) == name] for found in both]) for name in names}


def _group(both: Sequence[Sequence[Placement]]) -> dict[str, Any]:
    found = both[0]
    lengths = sorted(stay.length / SECOND for stay in found)
    return {
        "stays": len(found), "still_open": sum(not stay.ended for stay in found),
        "listed_seconds": _percentiles(lengths),
        "today": placement_statistics(both[0]), "policy": placement_statistics(both[1]),
    }


def placement_statistics(found: Sequence[Placement]) -> dict[str, Any]:
    """`place`: a stay's mean place over its time. `share_of_time`: of all time listed, how much within the first
    places. `seconds_until_seen`: until an item came into the last of these, or left."""
    whole = sum(stay.length for stay in found)
    return {
        "place": _percentiles(stay.places / stay.length for stay in found),
        "share_of_time": {
            f"first_{first}": round(sum(stay.first[which] for stay in found) / whole, 6) if whole else 0.0
            for which, first in enumerate(FIRST)
        },
        "seconds_until_seen": _percentiles(
            (stay.length if stay.seen is None else stay.seen) / SECOND for stay in found),
        "never_seen": sum(stay.seen is None for stay in found),
    }


def _percentiles(values: Iterable[float]) -> dict[str, float]:
    """Nearest ranks."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {name: round(ordered[max(0, ceil(share * len(ordered)) - 1)], 3)
            for name, share in (("p50", 0.5), ("p90", 0.9))}
