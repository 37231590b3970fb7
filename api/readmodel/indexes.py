"""Indexes of a workspace: their names, and the entries that one row has in them. Pure.

An index is a sorted set of keys with an `IndexName`. The indexes of items come in families. A family is built when a
request needs it for the first time, because most workspaces are asked for some families only:

    family                          index name (fields that are not given are "")
    ranked                          ranked, audience                  listed items by rank
    ranked_by_kind                  ranked, audience, kind
    ranked_by_cluster               ranked, audience, cluster         an incident is in several clusters
    ranked_by_kind_and_cluster      ranked, audience, kind, cluster
    newest                          newest, audience, state, kind     items by opening time; kind "": all kinds
    case                            case, audience                    case and item
    asking                          asking, state                     items that ask, by opening time
    decisions                       decisions, audience, state        decisions by time; state "": all states
                                    decided, user, state              decisions that the user took part in
                                    all_decisions, state              decisions of the workspace by time
                                    decisions_of_subject              source id and time, of all decisions
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from struct import Struct
from typing import NamedTuple

from api.readmodel.readers import audiences_of, overlap_of
from schemas.asking.question import DecisionRow
from schemas.views import ActivityRow, ItemRow
from streams.core.domain.rank import returned_of, sort_key

__all__ = [
    "DECISIONS", "FAMILIES", "TIME", "IndexEntry", "IndexName", "TallyName", "decision_entries", "family_of",
    "index_entries", "same_index_entries", "tally_names", "text_prefix",
]

# A key of an index by time begins with the time: 8 bytes, microseconds, big-endian.
TIME = Struct(">Q")
_LENGTH = Struct(">I")


class IndexName(NamedTuple):
    """Name of one sorted set of a workspace. `owner` is an audience or a user; `audience` a second audience.

    `kind` is a kind of item or a type of activity. `selector` is a cluster (ranked) or a state (newest, decisions).
    """

    name: str
    owner: str = ""
    audience: str = ""
    kind: str = ""
    selector: str = ""


class TallyName(NamedTuple):
    """Name of the counts of one audience, or of what two audiences share. `user`: of the items the user dismissed."""

    audience: str
    second: str = ""
    user: str = ""


IndexEntry = tuple[IndexName, bytes]


def text_prefix(text: str) -> bytes:
    """Returns the first bytes of all entries of a case, or of a source id. The length comes first: no prefix begins
    another prefix."""
    return _LENGTH.pack(len(text.encode())) + text.encode()


def _ranked(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield IndexName("ranked", audience), rank


def _ranked_by_kind(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield IndexName("ranked", audience, kind=row.kind), rank


def _clusters(row: ItemRow) -> set[str]:
    return {row.data.cluster or "", *row.clusters} - {""}


def _ranked_by_cluster(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            for cluster in _clusters(row):
                yield IndexName("ranked", audience, selector=cluster), rank


def _ranked_by_kind_and_cluster(row: ItemRow) -> Iterator[IndexEntry]:
    if row.is_listed:
        rank = sort_key(row)
        for audience in audiences_of(row.target_user_id, row.target_role):
            for cluster in _clusters(row):
                yield IndexName("ranked", audience, kind=row.kind, selector=cluster), rank


def _newest(row: ItemRow) -> Iterator[IndexEntry]:
    if row.state != "hidden" and row.incident is None:
        key = TIME.pack(row.created_at) + row.id.encode()
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield IndexName("newest", audience, selector=row.state), key
            yield IndexName("newest", audience, kind=row.kind, selector=row.state), key


def _case(row: ItemRow) -> Iterator[IndexEntry]:
    case = row.data.case_id or (row.source_id if row.kind == "blocked_case" else None)
    if case is not None and row.state != "hidden":  # an item that no reader sees must not reveal its case
        entry = text_prefix(case) + row.id.encode()
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield IndexName("case", audience), entry


def _asking(row: ItemRow) -> Iterator[IndexEntry]:
    if row.question is not None and row.state != "hidden":
        yield IndexName("asking", selector=row.state), TIME.pack(row.created_at) + row.id.encode()


FAMILIES = {
    "ranked": _ranked, "ranked_by_kind": _ranked_by_kind, "ranked_by_cluster": _ranked_by_cluster,
    "ranked_by_kind_and_cluster": _ranked_by_kind_and_cluster, "newest": _newest, "case": _case,
    "asking": _asking,
}


def family_of(index: str, kind: str, selector: str) -> str:
    """Returns the family of an item index."""
    if index != "ranked":
        return index
    return {(False, False): "ranked", (True, False): "ranked_by_kind", (False, True): "ranked_by_cluster"}.get(
        (bool(kind), bool(selector)), "ranked_by_kind_and_cluster")


def index_entries(row: ItemRow, families: frozenset[str]) -> Iterator[IndexEntry]:
    """Yields the entries that an item has in the indexes of these families. Ignores families of other rows."""
    for family in families:
        if family in FAMILIES:
            yield from FAMILIES[family](row)


DECISIONS = "decisions"  # the family of the indexes of decisions


def decision_entries(row: DecisionRow) -> Iterator[IndexEntry]:
    """Yields the entries of a decision: for those who may see it by its targets, and for those who made it."""
    key = TIME.pack(max(0, row.decided_at)) + row.id.encode()
    for state in ("", row.state):
        for audience in audiences_of(row.target_user_id, row.target_role):
            yield IndexName(DECISIONS, audience, selector=state), key
        for user in {actor.user for actor in row.actors}:
            yield IndexName("decided", user, selector=state), key
        yield IndexName("all_decisions", selector=state), key  # for keys of sources, which are in no audience
    yield IndexName("decisions_of_subject"), text_prefix(row.subject) + key


_indexed_fields = attrgetter(
    "state", "incident", "kind", "target_user_id", "target_role", "priority", "surge", "band", "blocking", "due_at",
    "created_at", "clusters", "data.cluster", "data.case_id",
)


def same_index_entries(before: ItemRow, after: ItemRow) -> bool:
    """Returns whether both rows have the same index entries and counts. They may still show different text."""
    return (bool(_indexed_fields(before) == _indexed_fields(after)) and returned_of(before) == returned_of(after)
            and (before.question is None) == (after.question is None))


def tally_names(row: ItemRow | ActivityRow) -> list[TallyName]:
    """Returns the names under which a row is counted: each of its audiences, and the overlap if it has two."""
    names = [TallyName(audience) for audience in audiences_of(row.target_user_id, row.target_role)]
    if row.target_user_id is not None and row.target_role is not None:
        names.append(TallyName(*overlap_of(row.target_user_id, row.target_role)))
    return names
