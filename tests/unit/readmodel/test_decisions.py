"""Decisions that a reader made or may see: pages from every cursor, filters, and invisible decisions."""

from __future__ import annotations

import json
import re
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.edge.expected_view import Truth
from support.edge.feeds import Edge, readers
from support.edge.random_questions import decision_row
from support.edge.random_rows import World
from support.examples import law

from api.contract.page_tokens import InvalidPageToken, encode_page_token
from api.readmodel import listing
from api.readmodel.filtered_pages import DecisionFilter, decision_of_token, decision_page
from api.readmodel.indexes import DECISIONS
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.sorted_sets import SortedKeys, SortedSets, SortedSetsOverlay
from schemas.asking.question import Vote
from schemas.views import PositionRow, encode_row
from streams.core.domain.visibility import can_see

SEEDS = st.integers(0, 2**32)
STATES = ("", "made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired")


def pages_of(replica: Replica, reader: Reader, state: str, limit: int) -> list[dict[str, Any]]:
    """Returns all pages of the reader's decisions."""
    pages, before = [], None
    while True:
        workspace = replica.workspace(reader.workspace_id)
        page = json.loads(decision_page(workspace, reader, limit, DecisionFilter(state), before).body(7))
        pages.append(page)
        if "next" not in page:
            return pages
        before = decision_of_token(page["next"])


def ids(pages: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for page in pages for entry in page["decisions"]]


@law(40)
@given(SEEDS, st.integers(1, 4))
def test_pages_are_the_list_at_every_cursor(seed: int, limit: int) -> None:
    world, edge = World(seed), Edge(limits=())
    for batch in world.batches(10, 12):
        edge.apply(*batch)
        for reader in readers():
            truth = Truth(world.rows, reader)
            for state in STATES:
                pages = pages_of(edge.replica, reader, state, limit)
                assert ids(pages) == [row.id for row in truth.decisions(state)]
                assert all(len(page["decisions"]) == limit for page in pages[:-1])


@law(40)
@given(SEEDS)
def test_nothing_invisible_is_in_a_page(seed: int) -> None:
    """Law 6: each entry names its targets in its texts. Deciders see their decision with any targets."""
    world, edge = World(seed), Edge(limits=())
    for batch in world.batches(12, 12):
        edge.apply(*batch)
        for reader in readers():
            for page in pages_of(edge.replica, reader, "", 50):
                for entry in page["decisions"]:
                    markers = re.findall(r"<(\w+)/([\w-]+)/([\w-]+)>", json.dumps(entry))
                    assert markers
                    is_decider = reader.user in [actor["user"] for actor in entry["actors"]]
                    for ws, user, role in markers:
                        targets = [None if name == "-" else name for name in (user, role)]
                        assert ws == reader.workspace_id
                        assert is_decider or can_see(*targets, reader.user, reader.roles)


@law(30)
@given(SEEDS, st.integers(1, 1500))
def test_a_page_ends_at_bytes_and_has_one_decision_at_least(seed: int, max_bytes: int) -> None:
    world, edge = World(seed), Edge(limits=())
    for batch in world.batches(6, 20):
        edge.apply(*batch)
    with mock.patch.object(listing, "PAGE_BYTES", max_bytes):
        for reader in readers():
            pages = pages_of(edge.replica, reader, "", 5)
            assert ids(pages) == [row.id for row in Truth(world.rows, reader).decisions()]
            for page in pages[:-1]:
                assert page["decisions"]
            for page in pages:
                rows = [world.rows[b"c:" + entry["id"].encode()] for entry in page["decisions"]]
                assert len(rows) <= 1 or sum(map(len, rows)) <= max_bytes


@law(30)
@given(SEEDS)
def test_an_index_updated_by_batches_equals_a_new_one(seed: int) -> None:
    world, live = World(seed), Edge(limits=())
    live.replica.workspace("w1").ensure_family(DECISIONS)
    for batch in world.batches(8, 12):
        live.apply(*batch)
        live.replica.workspace("w1").ensure_family(DECISIONS)
        assert live.replica.missed_since("w1", 0) is not None, "a resume from position 0 is still possible"
    loaded = Replica(1)
    loaded.load(0, world.rows, world.position)
    for reader in readers():
        for state in STATES:
            assert ids(pages_of(live.replica, reader, state, 3)) == ids(pages_of(loaded, reader, state, 3))


def test_a_page_costs_its_length() -> None:
    """Law 7: a page of 10 among 20,000 decisions reads 11 rows, from any cursor."""
    replica = Replica(1)
    rows = [decision_row(f"dec_{number:05}", decided_at=number) for number in range(20_000)]
    replica.apply(0, [(key, encode_row(row)) for key, row in rows], PositionRow(next=1))
    workspace, reader = replica.workspace("w1"), readers()[0]
    workspace.ensure_family(DECISIONS)

    class Counting(dict[bytes, bytes]):
        reads = 0

        def __getitem__(self, key: bytes) -> bytes:
            Counting.reads += 1
            return super().__getitem__(key)

    workspace.rows = Counting(workspace.rows)
    before = None
    for page in range(3):
        body = json.loads(decision_page(workspace, reader, 10, before=before).body(0))
        assert ids([body]) == [f"dec_{number:05}" for number in range(19_999 - 10 * page, 19_989 - 10 * page, -1)]
        before = decision_of_token(body["next"])
        assert Counting.reads == 11 * (page + 1)


def test_a_retargeted_decision_stays_visible_to_its_deciders() -> None:
    replica = Replica(1)
    bob, ann = (Reader("w1", name, frozenset({"MEMBER"})) for name in ("bob", "ann"))

    def put(position: int, **fields: Any) -> None:
        key, row = decision_row(**fields)
        replica.apply(0, [(key, encode_row(row))], PositionRow(next=position))

    actors = (Vote("bob", "MEMBER", 3, "yes", "approve"),)
    put(1, actors=actors)
    assert (ids(pages_of(replica, ann, "", 5)), ids(pages_of(replica, bob, "", 5))) == (["dec_1"], ["dec_1"])
    put(2, actors=actors, target_role="OWNER", state="applied")
    assert (ids(pages_of(replica, ann, "", 5)), ids(pages_of(replica, bob, "", 5))) == ([], ["dec_1"])
    assert (ids(pages_of(replica, bob, "made", 5)), ids(pages_of(replica, bob, "applied", 5))) == ([], ["dec_1"])
    replica.apply(0, [(b"c:dec_1", None)], PositionRow(next=3))
    assert ids(pages_of(replica, bob, "", 5)) == []


@pytest.mark.parametrize("payload", [b"", b"\0" * 8])
def test_a_token_without_time_and_id_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidPageToken):
        decision_of_token(encode_page_token(payload))


@law(50)
@given(st.sets(st.binary(max_size=2), max_size=30), st.sets(st.binary(max_size=2)), st.sets(st.binary(max_size=2)),
       st.binary(max_size=2), st.booleans())
def test_descending_from_below_a_key(
    keys: set[bytes], added: set[bytes], removed: set[bytes], before: bytes, large: bool,
) -> None:
    with mock.patch("api.readmodel.sorted_sets._MAX_LIST_KEYS", 3 if large else 2000):
        base = SortedSets()
        base.fill(("n",), keys)
        assert list(SortedKeys(keys).descending(before)) == sorted((key for key in keys if key < before), reverse=True)
        overlay = SortedSetsOverlay(base)
        for key in added - keys:
            overlay.add(("n",), key)
        for key in removed:
            overlay.discard(("n",), key)
        overlaid = overlay.get(("n",))
        wanted = sorted((keys | added) - removed, reverse=True)
        if not wanted:
            assert overlaid is None or not list(overlaid.descending(before))
        else:
            assert overlaid is not None
            assert list(overlaid.descending(before)) == [key for key in wanted if key < before]
            assert list(overlaid.descending()) == wanted
