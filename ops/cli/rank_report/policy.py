"""Ranks items by a policy: the policies that `attn rank-report` applies to past events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.views import ItemRow
from streams.core.domain.rank import NO_DUE, band_of, priority_of

__all__ = ["CRITERIA", "Key", "Policy", "RankedItem", "due_of", "policy_rank_key", "ranked_item"]

# The criteria of the rank in the order of CONTRACT §3; the id decides last. Pins belong to a user and do not count.
CRITERIA = ("band", "blocking", "due", "created")

Key = tuple[int | bool | str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A ranking policy.

    `targets`: priority -> time from opening an item to its due time, in microseconds. `priorities`: kind -> priority of
    the source ("*": any other) -> priority under this policy. `order`: each criterion once. `overdue_raises`: whether
    overdue items rise to a higher band.
    """

    targets: Mapping[str, int]
    priorities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    order: tuple[str, ...] = CRITERIA
    overdue_raises: bool = True

    def priority(self, kind: str, source_priority: str) -> str:
        table = self.priorities.get(kind)
        return priority_of(table.get(source_priority, table.get("*", source_priority))) if table else source_priority


@dataclass(frozen=True, slots=True)
class RankedItem:
    """The fields of an item that rank it. `due`: the source's own time, if any. Times are microseconds."""

    item: str
    kind: str
    priority: str
    blocking: bool
    created: int
    due: int | None


def ranked_item(row: ItemRow) -> RankedItem:
    due = row.data.due_at if row.data.due_at is not None else row.data.expires_at
    return RankedItem(row.id, row.kind, row.priority, row.blocking, row.created_at, due)


def due_of(ranked: RankedItem, policy: Policy) -> int:
    """Returns the due time in microseconds: the source's own, else creation plus the target of the priority.

    A message is never due.
    """
    if ranked.due is not None:
        return ranked.due
    if ranked.kind == "message":
        return NO_DUE
    return ranked.created + policy.targets[policy.priority(ranked.kind, ranked.priority)]


def policy_rank_key(ranked: RankedItem, policy: Policy, overdue: bool) -> Key:
    """Returns a sort key (ascending). Under today's policy it sorts as `rank_key` does for a user without pins."""
    band = band_of(policy.priority(ranked.kind, ranked.priority), overdue and policy.overdue_raises)
    criteria: dict[str, int | bool] = {
        "band": band, "blocking": not ranked.blocking, "due": due_of(ranked, policy), "created": ranked.created,
    }
    return (*(criteria[name] for name in policy.order), ranked.item)
