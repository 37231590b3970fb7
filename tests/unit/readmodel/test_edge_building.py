"""Indexes that are built on first use, while the workspace changes, equal indexes that existed from the start."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from support.edge.edges import settings as edge_settings
from support.edge.random_rows import World, item
from support.examples import law

from api.edge.index_builder import build_steps
from api.edge.services import Edge
from api.readmodel.indexes import FAMILIES
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.workspace import Workspace
from schemas.views import PositionRow, encode_row

SEEDS = st.integers(0, 2**32)
SPACES = ("w1", "w2")


def indexes(space: Workspace) -> object:
    for family in FAMILIES:
        space.ensure_family(family)
    assert isinstance(space.sets._sets, dict)  # type: ignore[union-attr]
    return (
        {name: list(keys.ascending()) for name, keys in space.sets._sets.items()},  # type: ignore[union-attr]
        {name: tally.to_counts() for name, tally in space.tallies.items()}, sorted(space.existing_keys()),
    )


@law(60)
@given(SEEDS, st.sampled_from([(), ("ranked_by_cluster",), ("newest", "case")]))
def test_changes_during_a_build_are_in_the_indexes(seed: int, families: tuple[str, ...]) -> None:
    world = World(seed)
    for _ in range(4):
        world.batch(10)
    lazy, eager = Replica(1), Replica(1)
    for replica in (lazy, eager):
        replica.load(0, world.rows, world.position)
    for name in SPACES:
        eager.workspace(name)
    makers = [build_steps(space, families) for name in SPACES if (space := lazy.find_workspace(name)) is not None]
    while makers:
        for maker in list(makers):
            if next(maker, "done") == "done":
                makers.remove(maker)
        if world.random.random() < 0.2:
            batch = world.batch()
            lazy.apply(0, *batch)
            eager.apply(0, *batch)
    for name in SPACES:
        assert name not in lazy._workspaces or lazy._workspaces[name].is_indexed
        assert indexes(lazy.workspace(name)) == indexes(eager.workspace(name))


@law(40)
@given(SEEDS)
def test_families_are_added_to_a_workspace_that_changes(seed: int) -> None:
    world, replica, other = World(seed), Replica(1), Replica(1)
    for batch in world.batches(4, 10):
        replica.apply(0, *batch)
        other.apply(0, *batch)
    space = replica.workspace("w1")
    maker = build_steps(space, ("newest",))
    for _ in range(3):
        next(maker, None)
    batch = world.batch()
    assert [update.workspace.workspace_id for update in replica.apply(0, *batch)] == [
        update.workspace.workspace_id for update in other.apply(0, *batch)], (
            "readers get the updates while the indexes are built")
    for _ in maker:
        pass
    # otherwise the workspace was empty for a moment, and the replica removed it
    if replica.find_workspace("w1") is space:
        assert "newest" in space.families
        assert indexes(space) == indexes(other.workspace("w1"))


def test_keys_of_deleted_rows_are_removed() -> None:
    rows: dict[bytes, bytes] = {}
    space = Workspace("w1", rows)
    key, row = item()
    for _ in range(5000):
        space.store_row(key, encode_row(row))
        space.store_row(key, None)
    assert len(space.keys) < 2500
    space.store_row(key, encode_row(row))
    assert space.existing_keys() == [key]


async def test_concurrent_readers_wait_for_the_same_index_build() -> None:
    edge = Edge(edge_settings())
    rows = dict(item("w1", f"s{number}") for number in range(3000))
    edge.replica.load(0, {key: encode_row(row) for key, row in rows.items()}, PositionRow(next=1))
    edge.ready = True
    reader = Reader("w1", "ann", frozenset({"OWNER"}))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    spaces = await asyncio.gather(*(edge.workspace(reader) for _ in range(20)), edge.workspace(reader, "newest"))
    task.cancel()
    assert len({id(space) for space in spaces}) == 1
    assert spaces[0].counts(reader).total == 3000
    assert {"ranked", "newest"} <= spaces[0].families
    assert turns > 5, "the event loop ran during the build"
