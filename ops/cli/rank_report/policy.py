"""Ranks items by a policy: the policies that `attn rank-report` applies to past events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.views import ItemRow
from streams.core.domain.rank import NO_DUE, band_of, priority_of, returned_of

__all__ = ["CRITERIA", "Key", "Policy", "RankedItem", "band_under", "due_of", "policy_rank_key", "ranked_item"]

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
    """The fields of an item that rank it. `due`: the source's own time, if any. Times are microseconds.

    `asks`: a message that asks is due as other items are. `returned`: its decision came back.
    """

    item: str
    kind: str
    priority: str
    blocking: bool
    created: int
    due: int | None
    asks: bool = False
    returned: bool = False


def ranked_item(row: ItemRow) -> RankedItem:
    due = row.data.due_at if row.data.due_at is not None else row.data.expires_at
    return RankedItem(
        row.id, row.kind, row.priority, row.blocking, row.created_at, due, row.question is not None,
        returned_of(row) is not None)


def due_of(ranked: RankedItem, policy: Policy) -> int:
    """Returns the due time in microseconds: the source's own, else creation plus the target of the priority.

    A message that asks nothing has the target `message`, by default none: then NO_DUE.
    """
    if ranked.due is not None:
        return ranked.due
    is_plain_message = ranked.kind == "message" and not ranked.asks
    name = "message" if is_plain_message else policy.priority(ranked.kind, ranked.priority)
    target = policy.targets.get(name)
    return NO_DUE if target is None else ranked.created + target


def band_under(ranked: RankedItem, policy: Policy, overdue: bool) -> int:
    """Returns the band of an item under a policy: 0 is `urgent`."""
    return band_of(policy.priority(ranked.kind, ranked.priority), overdue and policy.overdue_raises)


def policy_rank_key(ranked: RankedItem, policy: Policy, overdue: bool) -> Key:
    """Returns a sort key (ascending). Under today's policy it sorts as `rank_key` does for a user without pins.

    A decision that came back is before those that block.
    """
    criteria: dict[str, int | bool] = {
        "band": band_under(ranked, policy, overdue), "blocking": -1 if ranked.returned else not ranked.blocking,
        "due": due_of(ranked, policy), "created": ranked.created,
    }
    return (*(criteria[name] for name in policy.order), ranked.item)
