"""A workspace whose indexes were dropped and built again answers exactly as one that always had them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.edge.edges import Fed
from support.edge.feeds import readers
from support.edge.random_rows import CLUSTERS, KINDS, World, item
from support.edge.sinks import Kept
from support.examples import law

from api.edge import index_eviction
from api.edge.index_builder import build_steps
from api.edge.index_eviction import IndexEviction
from api.http.routes import history
from api.live.frames import FrameEncoder
from api.readmodel import filtered_pages
from api.readmodel.pages import PageRenderer, PageRequest
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from schemas.log import Data
from schemas.views import cursor_of

SEEDS = st.integers(0, 2**32)
SPACES = ("w1", "w2")
ANN = Reader("w1", "ann", frozenset({"OWNER"}))
LATER = 1e12  # monotonic seconds, after every request


def answers(replica: Replica, reader: Reader, chance: random.Random) -> Iterator[object]:
    """Yields what routes and feeds answer to a reader. `chance` chooses the filters and the cursor of a resume."""
    pages, space = PageRenderer(), replica.workspace(reader.workspace_id)
    cursor = replica.cursor(reader.workspace_id)
    filters = chance.choice((("", ""), (chance.choice(KINDS), ""), ("", chance.choice(CLUSTERS))))
    yield cursor
    yield pages.inbox_page(space, reader, cursor, PageRequest(4, None, *filters))
    yield pages.dismissed_page(space, reader, cursor, PageRequest(4))
    yield pages.personal(space, reader.user), space.unread_count(reader)
    yield filtered_pages.decision_page(space, reader, 5)
    wanted = filtered_pages.ItemFilter(("unread", "read"), chance.choice(("", *KINDS)), "", "")
    yield filtered_pages.item_page(space, reader, 5, wanted)
    yield space.has_case(reader, "k1"), space.has_personal_rows(reader.user, pages.activity_types)
    yield FrameEncoder(pages).encode_snapshot(space, Window(reader, 3, space), cursor)
    since = cursor_of(chance.randrange(1 + replica.position(reader.workspace_id)))
    missed = replica.missed_since(reader.workspace_id, since)
    yield missed and FrameEncoder(pages).encode_missed(missed, reader, 3, 1 << 30)


@law(60)
@given(SEEDS)
def test_dropped_and_rebuilt_indexes_answer_as_before(seed: int) -> None:
    world, chance = World(seed), random.Random(seed)
    for _ in range(3):
        world.batch(10)
    kept, dropping = Replica(1), Replica(1)
    for replica in (kept, dropping):
        replica.load(0, world.rows, world.position)
    for batch in world.batches(12):
        for name in SPACES:
            kept.workspace(name)
        kept.apply(0, *batch)
        dropping.apply(0, *batch)
        if chance.random() < 0.5:
            for _ in dropping.drop_indexes(LATER, chance.choice(((), ("w1",), ("w2",)))):
                pass
        reader, same = chance.choice(readers()), chance.getrandbits(32)
        assert list(answers(dropping, reader, random.Random(same))) == list(answers(kept, reader, random.Random(same)))
    for _ in dropping.drop_indexes(LATER, ()):
        pass
    assert dropping.indexed_count() == 0
    assert [dropping.cursor(name) for name in SPACES] == [kept.cursor(name) for name in SPACES]
    for reader in readers():
        assert list(answers(dropping, reader, random.Random(seed))) == list(answers(kept, reader, random.Random(seed)))


@law(40)
@given(SEEDS)
def test_an_open_workspace_gets_every_change_while_others_are_dropped(seed: int) -> None:
    world = World(seed)
    kept, dropping = Replica(1), Replica(1)
    windows = [Window(ANN, 3, replica.workspace("w1")) for replica in (kept, dropping)]
    for batch in world.batches(10):
        for _ in dropping.drop_indexes(LATER, {"w1"}):
            pass
        frames = [
            [FrameEncoder(PageRenderer()).encode_batch(update, window) for update in replica.apply(0, *batch)
             if update.workspace.workspace_id == "w1"]
            for replica, window in zip((kept, dropping), windows, strict=True)]
        assert frames[0] == frames[1]


def test_indexes_that_are_being_built_are_kept() -> None:
    world, replica = World(1), Replica(1)
    for batch in world.batches(4, 10):
        replica.apply(0, *batch)
    space = replica.workspace("w1")
    build = build_steps(space, ("newest",))
    next(build)
    assert replica.find_workspace("w1") is space
    assert not any(replica.drop_indexes(LATER, {"w2"}))
    for _ in build:
        pass
    assert space.is_indexed
    assert any(replica.drop_indexes(LATER, {"w2"}))


def test_a_read_without_indexes_raises_instead_of_showing_an_empty_list() -> None:
    world, replica = World(2), Replica(1)
    for batch in world.batches(4, 10):
        replica.apply(0, *batch)
    space = replica.workspace("w1")
    assert space.counts(ANN).total
    for _ in replica.drop_indexes(LATER, ()):
        pass
    with pytest.raises(RuntimeError, match="no indexes"):
        space.counts(ANN)
    with pytest.raises(RuntimeError, match="no indexes"):
        PageRenderer().inbox_page(space, ANN, 0, PageRequest(3))
    assert space.has_item(next(key for key in space.keys if key[:2] == b"i:")[2:].decode()), "rows are still there"


class Idle:
    """An edge with one item, and sweeps at a time that the test sets."""

    def __init__(self) -> None:
        self.fed = Fed(index_idle_seconds=900)
        self.fed.put(item("w1", "s1"))
        self.after = 0.0
        self.eviction = IndexEviction(self.fed.edge, lambda: asyncio.get_running_loop().time() + self.after)

    async def sweep(self, after: float) -> bool:
        """Sweeps so many seconds from now. Returns whether w1 still has indexes."""
        self.after = after
        await self.eviction.sweep()
        space = self.fed.edge.replica.find_workspace("w1")
        assert space is not None
        return space.is_indexed


async def test_a_workspace_is_dropped_after_the_idle_time_and_its_page_is_the_same() -> None:
    idle = Idle()
    async with idle.fed.client() as client:
        page = (await client.get("/org/me/inbox")).content
        assert await idle.sweep(890)
        assert not await idle.sweep(910)
        assert (await client.get("/org/me/inbox")).content == page
        assert await idle.sweep(890)


async def test_a_change_without_a_reader_does_not_keep_indexes() -> None:
    idle = Idle()
    assert not await idle.sweep(1e6)
    idle.fed.put(item("w1", "s2"))
    assert not await idle.sweep(1e6)
    async with idle.fed.client() as client:
        assert (await client.get("/org/me/inbox")).json()["counts"]["total"] == 2


async def test_a_stream_keeps_the_indexes_of_its_workspace() -> None:
    idle = Idle()
    edge, sink = idle.fed.edge, Kept()
    await edge.workspace(ANN)
    edge.connections.reserve("w1", "ann")
    assert await idle.sweep(1e6), "a connection that waits for its first frames"
    stream = edge.feed_hub.open(ANN, 100, None, sink)
    edge.connections.add(stream, None)
    assert await idle.sweep(1e6)
    idle.fed.put(item("w1", "s2"))
    assert b"event: added" in sink.raw
    edge.connections.remove(stream)
    assert not await idle.sweep(1e6)


async def test_history_of_a_case_is_answered_although_indexes_are_dropped_during_the_query(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Idle()
    idle.fed.put(item("w1", "s2", data=Data(case_id="k1")))

    async def slow_query(*_: object) -> list[object]:
        assert not await idle.sweep(1e6)
        return []

    monkeypatch.setattr(history, "fetch_events", slow_query)
    async with idle.fed.client() as client:
        assert (await client.get("/cases/k1/history")).status_code == 200
        assert (await client.get("/cases/k2/history")).status_code == 404


async def test_sweeps_run_in_the_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    idle, pauses = Idle(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    idle.after = 1e6
    monkeypatch.setattr(index_eviction, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await idle.eviction.run()
    assert pauses == [60, 60, 60]
    space = idle.fed.edge.replica.find_workspace("w1")
    assert space is not None
    assert not space.is_indexed


async def test_a_long_poll_is_answered_although_the_workspace_is_idle() -> None:
    idle = Idle()
    async with idle.fed.client(user="ann", role="OWNER") as client:
        tag = (await client.get("/org/me/decisions")).headers["etag"]
        headers = {"if-none-match": tag, "prefer": "wait=20"}
        poll: asyncio.Task[httpx.Response] = asyncio.create_task(client.get("/org/me/decisions", headers=headers))
        while not idle.fed.edge.long_polls.workspaces():
            await asyncio.sleep(0)
        assert await idle.sweep(1e6)
        world = World(3)
        key, row = world._decision()
        row.ws, row.target_user_id, row.target_role = "w1", "ann", None
        idle.fed.put((key, row))
        assert (await poll).status_code == 200
    assert not await idle.sweep(1e6)
