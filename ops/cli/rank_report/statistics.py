"""Computes statistics of placements under two policies. Pure."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from math import ceil
from types import MappingProxyType
from typing import Any

from ops.cli.rank_report.placements import FIRST, ListChange, Placement, placements
from ops.cli.rank_report.policy import Policy
from schemas.scalars import SECOND
from streams.core.domain.rank import BANDS

__all__ = ["compare", "placement_statistics"]

# Highest position of each group of decided items -> name of the group: the ranges of FIRST, and the rest.
_POSITIONS = {1: "1", 3: "2-3", 10: "4-10", sys.maxsize: "11+"}


def compare(
    changes: Mapping[str, Sequence[ListChange]], today: Policy, other: Policy, end: int,
    decided: Mapping[str, Collection[tuple[str, int]]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the statistics of all placements, by kind, and by the priority that sources gave; those of placements
    that a decision ended also by band and position.

    Both policies have the same placements in each group, except in `decisions`. `decided`: workspace -> items and when
    people decided them.
    """
    both = [
        list(chain.from_iterable(
            _placements(changes[name], policy, end, decided.get(name, ())) for name in changes))
        for policy in (today, other)
    ]
    return {
        "all": _group(both),
        "kinds": _split(both, lambda stay: stay.kind), "priorities": _split(both, lambda stay: stay.priority),
        "decisions": {name: _decisions(stays) for name, stays in zip(("today", "policy"), both, strict=True)},
    }


def _placements(
    changes: Sequence[ListChange], policy: Policy, end: int, decided: Collection[tuple[str, int]],
) -> list[Placement]:
    found = placements(changes, policy, end)
    for stay in found:
        stay.decided = stay.ended and (stay.item, stay.end) in decided
    return found


def _split(both: Sequence[Sequence[Placement]], name_of: Any) -> dict[str, Any]:
    names = sorted({name_of(stay) for stay in both[0]})
    return {name: _group([[stay for stay in stays if name_of(stay) == name] for stays in both]) for name in names}


def _group(both: Sequence[Sequence[Placement]]) -> dict[str, Any]:
    stays = both[0]
    lengths = sorted(stay.length / SECOND for stay in stays)
    return {
        "stays": len(stays), "still_open": sum(not stay.ended for stay in stays),
        "listed_seconds": _percentiles(lengths), "decided": sum(stay.decided for stay in stays),
        "seconds_until_decided": _percentiles(stay.length / SECOND for stay in stays if stay.decided),
        "today": placement_statistics(both[0]), "policy": placement_statistics(both[1]),
    }


def _decisions(stays: Sequence[Placement]) -> dict[str, Any]:
    """Returns how long items waited until people decided them, by their band and by their position at that moment."""
    bands: dict[str, list[Placement]] = {name: [] for name in BANDS}
    positions: dict[str, list[Placement]] = {name: [] for name in _POSITIONS.values()}
    for stay in stays:
        if stay.decided:
            bands[BANDS[stay.last_band]].append(stay)
            positions[next(name for most, name in _POSITIONS.items() if stay.last_position <= most)].append(stay)
    return {
        "bands": {name: _waits(group) for name, group in bands.items() if group},
        "positions": {name: _waits(group) for name, group in positions.items() if group},
    }


def _waits(stays: Sequence[Placement]) -> dict[str, Any]:
    return {
        "decided": len(stays), "seconds_until_decided": _percentiles(stay.length / SECOND for stay in stays),
        "position": _percentiles(float(stay.last_position) for stay in stays),
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
