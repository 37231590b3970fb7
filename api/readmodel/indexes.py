"""Where rows are filed: the names of a workspace's sorted sets, and what a row adds to each. Pure.

An item's places come in families, as most workspaces are only ever asked for some of them:

    rank     rank audience "" ""             listed items by rank
    kind     rank audience kind ""           the same of one kind
    cluster  rank audience "" cluster        of one cluster (an incident is in several)
    both     rank audience kind cluster
    new      new audience state kind         items by when they opened; kind "" for any
    case     case audience                   case and item: who knows of a case
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from struct import Struct

from api.readmodel.readers import audiences_of, overlap_of
from api.readmodel.sorted_sets import Name
from schemas.views import ActivityRow, ItemRow
from streams.core.domain.rank import sort_key

__all__ = [
    "FAMILIES", "TIME", "IndexEntry", "case_prefix", "family_of", "index_entries", "same_index_entries", "tally_names",
]

# A key of an index by time: the time, then what it is the time of.
TIME = Struct(">Q")
_LENGTH = Struct(">I")

IndexEntry = tuple[Name, bytes]


def case_prefix(case: str) -> bytes:
    # The length first, so that no case's name is the beginning of another's.
    return _LENGTH.pack(len(case.encode())) + case.encode()


def _rank(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield ("rank", audience, "", ""), rank


def _kind(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield ("rank", audience, row.kind, ""), rank


def _clusters(row: ItemRow) -> set[str]:
    return {row.data.cluster or "", *row.clusters} - {""}


def _cluster(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            for cluster in _clusters(row):
                yield ("rank", audience, "", cluster), rank


def _both(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            for cluster in _clusters(row):
                yield ("rank", audience, row.kind, cluster), rank


def _new(row: ItemRow) -> Iterator[IndexEntry]:
    if row.state != "hidden" and row.incident is None:
        newest = TIME.pack(row.created_at) + row.id.encode()
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield ("new", audience, row.state, ""), newest
            yield ("new", audience, row.state, row.kind), newest


def _case(row: ItemRow) -> Iterator[IndexEntry]:
    case = row.data.case_id or (row.source_id if row.kind == "blocked_case" else None)
    if case is not None and row.state != "hidden":  # a case must not be known by an item that nobody is shown
        entry = case_prefix(case) + row.id.encode()
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield ("case", audience), entry


FAMILIES = {"rank": _rank, "kind": _kind, "cluster": _cluster, "both": _both, "new": _new, "case": _case}


def family_of(kind: str, rest: tuple[str, ...]) -> str:
    """The family that a list belongs to, named as in the table above without its audience."""
    if kind != "rank":
        return kind
    return {(False, False): "rank", (True, False): "kind", (False, True): "cluster"}.get(
        (bool(rest[0]), bool(rest[1])), "both")


def index_entries(row: ItemRow, families: frozenset[str]) -> Iterator[IndexEntry]:
    """Where an item belongs, of these families."""
    for family in families:
        yield from FAMILIES[family](row)


_indexed_fields = attrgetter(
    "state", "incident", "kind", "target_user_id", "target_role", "priority", "surge", "band", "blocking", "due_at",
    "created_at", "clusters", "data.cluster", "data.case_id",
)


def same_index_entries(one: ItemRow, other: ItemRow) -> bool:
    """Whether they only show something else: every place and count is the same."""
    return bool(_indexed_fields(one) == _indexed_fields(other))


def tally_names(row: ItemRow | ActivityRow) -> list[Name]:
    """The names a row is counted under: each of its audiences, and one that says it is in two."""
    names: list[Name] = [(audience,) for audience in audiences_of(row.target_user_id, row.target_role)]
    if row.target_user_id is not None and row.target_role is not None:
        names.append(overlap_of(row.target_user_id, row.target_role))
    return names
