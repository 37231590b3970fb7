"""Another priority table for the same rank: what `attn rank-report` tries out on the past. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.views import ItemRow
from streams.core.domain.rank import band_of, priority_of

__all__ = ["CRITERIA", "Key", "Policy", "RankedItem", "due_of", "policy_rank_key", "ranked_item"]

# What decides, in the order of CONTRACT §3; the id comes last. Pins are each reader's own, so they are left out.
CRITERIA = ("band", "blocking", "due", "created")

Key = tuple[int | bool | str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """`targets`: priority -> how long after it opened an item is due, in microseconds. `priorities`: kind -> its
    priorities by those the source gave, "*" for any other. `order`: of the criteria, each once."""

    targets: Mapping[str, int]
    priorities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    order: tuple[str, ...] = CRITERIA
    overdue_raises: bool = True

    def priority(self, kind: str, given: str) -> str:
        table = self.priorities.get(kind)
        return priority_of(table.get(given, table.get("*", given))) if table else given


@dataclass(frozen=True, slots=True)
class RankedItem:
    """What of an item ranks it. `due`: the source's own time, if it gave one; times in microseconds."""

    item: str
    kind: str
    priority: str
    blocking: bool
    created: int
    due: int | None


def ranked_item(row: ItemRow) -> RankedItem:
    due = row.data.due_at if row.data.due_at is not None else row.data.expires_at
    return RankedItem(row.id, row.kind, row.priority, row.blocking, row.created_at, due)


def due_of(one: RankedItem, policy: Policy) -> int:
    if one.due is not None:
        return one.due
    return one.created + policy.targets[policy.priority(one.kind, one.priority)]


def policy_rank_key(one: RankedItem, policy: Policy, overdue: bool) -> Key:
    """Sorts ascending, as `rank_key` of a reader without pins does under today's table."""
    band = band_of(policy.priority(one.kind, one.priority), overdue and policy.overdue_raises)
    found: dict[str, int | bool] = {
        "band": band, "blocking": not one.blocking, "due": due_of(one, policy), "created": one.created,
    }
    return (*(found[name] for name in policy.order), one.item)
