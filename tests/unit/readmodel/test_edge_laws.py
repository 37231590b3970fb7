"""Laws 4 to 6 of the edge over random rows: feed equals page, portable cursors, nothing invisible."""

from __future__ import annotations

import json
import re
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from support.clients.feed import frames
from support.edge.expected_view import Truth
from support.edge.feeds import Edge, readers
from support.edge.random_rows import USERS, World
from support.examples import law

from api.live.sse import encode_event
from api.readmodel import listing
from api.readmodel.indexes import DECISIONS, FAMILIES
from api.readmodel.pages import PageRenderer, PageRequest, sort_key_of_token
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from schemas.views import ItemRow, cursor_of
from streams.core.domain.rank import ID_OFFSET
from streams.core.domain.visibility import can_see

SEEDS = st.integers(0, 2**32)
EXAMPLES = law(60)


def page_of(edge: Edge, reader: Reader, limit: int) -> dict[str, object]:
    space = edge.replica.workspace(reader.workspace_id)
    body = json.loads(PageRenderer().inbox_page(space, reader, 0, PageRequest(limit)))
    return {name: body[name] for name in ("items", "counts", "activity")}


@EXAMPLES
@given(SEEDS, st.integers(0, 5))
def test_law_4_snapshot_and_frames_are_the_page(seed: int, before: int) -> None:
    world = World(seed)
    for _ in range(before):
        world.batch(20)
    edge = Edge(world)
    for batch in world.batches(12):
        edge.apply(*batch)
        for (reader, limit), (_, _, copy) in edge.feeds.items():
            truth = Truth(world.rows, reader).page(limit)
            assert copy.page == truth
            assert page_of(edge, reader, limit) == {name: truth[name] for name in ("items", "counts", "activity")}
            assert copy.cursor <= edge.replica.cursor(reader.workspace_id)


class _WorldOfLargeBodies(World):
    """A world whose items have bodies of many sizes, which also change while the item keeps its rank."""

    def _item(self) -> tuple[bytes, ItemRow]:
        key, row = super()._item()
        text, _, _ = (row.data.body_md or "").partition("\0")
        row.data.body_md = f"{text}\0{'x' * self.random.choice((0, 0, 300, 2000))}"
        return key, row


@EXAMPLES
@given(SEEDS, st.integers(1, 6000))
def test_law_4_holds_where_pages_end_at_bytes(seed: int, max_bytes: int) -> None:
    world = _WorldOfLargeBodies(seed)
    with mock.patch.object(listing, "PAGE_BYTES", max_bytes):
        edge, resuming = Edge(world, limits=(1, 4, 1000)), Edge(limits=(4,))
        for batch in world.batches(12):
            edge.apply(*batch)
            resuming.apply(*batch)
            for (reader, limit), (_, _, copy) in edge.feeds.items():
                truth = Truth(world.rows, reader).page(limit, max_bytes)
                assert copy.page == truth
                assert page_of(edge, reader, limit) == {name: truth[name] for name in ("items", "counts", "activity")}
        for (reader, limit), (_, sent, _) in resuming.feeds.items():
            missed = resuming.replica.missed_since(reader.workspace_id, cursor_of(0))
            assert missed is not None
            assert resuming.frames.encode_missed(missed, reader, limit, 1 << 30) == (sent[1:], None)


@EXAMPLES
@given(SEEDS, st.integers(1, 6000), st.booleans())
def test_pages_that_end_at_bytes_put_together_are_the_list(seed: int, max_bytes: int, dismissed: bool) -> None:
    world = _WorldOfLargeBodies(seed, items=30)
    for _ in range(6):
        world.batch(30)
    edge, answers = Edge(world, limits=()), PageRenderer()
    with mock.patch.object(listing, "PAGE_BYTES", max_bytes):
        for reader in readers():
            listed, after = [], b""
            while after is not None:
                page = answers.dismissed_page if dismissed else answers.inbox_page
                workspace = edge.replica.workspace(reader.workspace_id)
                body = json.loads(page(workspace, reader, 0, PageRequest(9, after or None)))
                assert len(body["items"]) <= 9
                listed += [item["id"] for item in body["items"]]
                after = sort_key_of_token(body["next"]) if "next" in body else None
            assert listed == [row.id for row in Truth(world.rows, reader).ranked(dismissed)]


@EXAMPLES
@given(SEEDS)
def test_law_5_any_frame_resumes_on_any_edge_with_the_next_one(seed: int) -> None:
    world = World(seed)
    first = Edge(limits=(3, 1000))
    second = Replica(1)
    for batch in world.batches(8):
        first.apply(*batch)
        second.apply(0, *batch)
    for (reader, limit), (_, sent, _) in first.feeds.items():
        ids = [frames(frame)[0][0] for frame in sent]
        for number, cursor in enumerate(ids):
            missed = second.missed_since(reader.workspace_id, cursor)
            assert missed is not None
            rest = first.frames.encode_missed(missed, reader, limit, 1 << 30)
            assert rest == (sent[number + 1:], None)


@EXAMPLES
@given(SEEDS, st.integers(1, 2000))
def test_law_5_a_long_resume_comes_in_pieces(seed: int, max_bytes: int) -> None:
    world = World(seed)
    edge = Edge(limits=(4,))
    for batch in world.batches(8):
        edge.apply(*batch)
    for (reader, limit), (_, sent, _) in edge.feeds.items():
        received, cursor = [], cursor_of(0)
        while cursor is not None:
            missed = edge.replica.missed_since(reader.workspace_id, cursor)
            assert missed is not None
            piece, cursor = edge.frames.encode_missed(missed, reader, limit, max_bytes)  # type: ignore[misc]
            received += piece
        assert received == sent[1:]


@EXAMPLES
@given(SEEDS)
def test_a_resume_does_not_change_the_current_state(seed: int) -> None:
    world = World(seed)
    edge = Edge(limits=(1000,))
    for batch in world.batches(6):
        edge.apply(*batch)
    for reader in readers():
        missed = edge.replica.missed_since(reader.workspace_id, cursor_of(0))
        assert missed is not None
        edge.frames.encode_missed(missed, reader, 1000, 1 << 30)
        truth = Truth(world.rows, reader).page(1000)
        assert page_of(edge, reader, 1000) == {name: truth[name] for name in ("items", "counts", "activity")}


@EXAMPLES
@given(SEEDS)
def test_law_6_nothing_invisible_is_in_any_byte(seed: int) -> None:
    world = World(seed)
    edge = Edge(world, limits=(2, 1000))
    for batch in world.batches(12):
        edge.apply(*batch)
    for (reader, _), (_, sent, _) in edge.feeds.items():
        for ws, user, role in re.findall(rb"<(\w+)/([\w-]+)/([\w-]+)>", b"".join(sent)):
            targets = [None if name == b"-" else name.decode() for name in (user, role)]
            assert ws.decode() == reader.workspace_id
            assert can_see(*targets, reader.user, reader.roles)


@EXAMPLES
@given(SEEDS)
def test_each_reader_of_a_shared_window_gets_the_right_frames(seed: int) -> None:
    """Readers without personal rows share a window. The first personal row of a reader splits them, and the frames do
    not change."""
    world, edge = World(seed), Edge(limits=(3,))
    space = edge.replica.workspace("w1")
    roles = frozenset({"MEMBER"})
    shared = Window(Reader("w1", "", roles), 3, space)
    own = {user: Window(Reader("w1", user, roles), 3, space) for user in USERS}
    split: dict[str, Window] = {}
    for batch in world.batches(10):
        for update in edge.replica.apply(0, *batch):
            if update.workspace.workspace_id != "w1":
                continue
            for user in update.changes.affected_users() & set(USERS) - split.keys():
                split[user] = shared.fork_for(user)
            together = edge.frames.encode_batch(update, shared)
            for user in USERS:
                own_frames = edge.frames.encode_batch(update, split[user]) if user in split else together
                assert own_frames == edge.frames.encode_batch(update, own[user])


@EXAMPLES
@given(SEEDS)
def test_readers_of_a_shared_window_have_no_personal_rows(seed: int) -> None:
    world, edge = World(seed), Edge(limits=())
    for batch in world.batches(8):
        edge.apply(*batch)
        space = edge.replica.workspace("w1")
        for user in USERS:
            if not space.has_personal_rows(user, PageRenderer.activity_types):
                shared = Window(Reader("w1", "", frozenset({"MEMBER"})), 5, space)
                alone = Window(Reader("w1", user, frozenset({"MEMBER"})), 5, space)
                cursor = edge.replica.cursor("w1")
                assert edge.frames.encode_snapshot(space, shared, cursor) == edge.frames.encode_snapshot(
                    space, alone, cursor)


@EXAMPLES
@given(SEEDS)
def test_pages_put_together_are_the_list(seed: int) -> None:
    world = World(seed, items=30)
    for _ in range(6):
        world.batch(30)
    edge = Edge(world, limits=())
    answers = PageRenderer()
    for reader in readers():
        truth = Truth(world.rows, reader)
        space = edge.replica.workspace(reader.workspace_id)
        for kind, cluster in (("", ""), ("waitpoint", ""), ("incident", "c2"), ("", "c1"), ("message", "c3")):
            wanted = [row.id for row in truth.ranked() if kind in ("", row.kind) and (
                not cluster or row.data.cluster == cluster or cluster in row.clusters)]
            listed, after = [], None
            while True:
                body = json.loads(answers.inbox_page(space, reader, 0, PageRequest(2, after, kind, cluster)))
                listed += [item["id"] for item in body["items"]]
                if "next" not in body:
                    break
                assert len(body["items"]) == 2
                after = sort_key_of_token(body["next"])
            assert listed == wanted
        away = json.loads(answers.dismissed_page(space, reader, 0, PageRequest(1000)))
        assert [item["id"] for item in away["items"]] == [row.id for row in truth.ranked(away=True)]
        for states in (("unread",), ("decided",), ("resolved",), ("unread", "read"),
                       ("unread", "read", "decided", "resolved")):
            expected = [key.decode() for key in listing.newest(space, reader, states)]
            assert expected == [row.id for row in truth.newest(*states)]
        assert space.unread_count(reader) == sum(row.is_listed and row.state == "unread" for row in truth.visible)


@EXAMPLES
@given(SEEDS)
def test_a_load_is_the_same_as_the_batches(seed: int) -> None:
    world = World(seed)
    edge = Edge(limits=())
    families = sorted([*FAMILIES, DECISIONS])
    for family, batch in zip(families, world.batches(len(families), 10), strict=True):
        edge.apply(*batch)
        for name in ("w1", "w2"):
            edge.replica.workspace(name).ensure_family(family)
    loaded = Replica(1)
    loaded.load(0, world.rows, world.position)
    for batch in world.batches(2):
        edge.apply(*batch)
        loaded.apply(0, *batch)  # without an index: no reader has asked for this workspace
    for name in ("w1", "w2"):
        live, reloaded = edge.replica.workspace(name), loaded.workspace(name)
        for family in families:
            live.ensure_family(family)
            reloaded.ensure_family(family)
        assert {key: list(keys.ascending()) for key, keys in live.sets._sets.items()} == {
            key: list(keys.ascending()) for key, keys in reloaded.sets._sets.items()}
        assert {key: tally.to_counts() for key, tally in live.tallies.items()} == {
            key: tally.to_counts() for key, tally in reloaded.tallies.items()}


def test_cursors_that_cannot_be_resumed() -> None:
    world, edge = World(7), Edge(limits=())
    for batch in world.batches(30):
        edge.apply(*batch)
    replica = edge.replica
    reader = readers()[0]
    assert replica.missed_since("w1", cursor_of(10**6)) is None, "a position that does not exist yet"
    assert replica.missed_since("w1", replica.cursor("w1") + 1) is None, (
        "between two states, of which the later one does not exist")
    unknown = next(at for at in range(1, 60) if at not in replica._partitions[0].starts)
    assert replica.missed_since("w1", cursor_of(unknown)) is None, "a position within a batch"
    missed = replica.missed_since("w1", cursor_of(0) + 4000)
    frames = edge.frames.encode_missed(missed, reader, 10, 1 << 30) if missed is not None else None
    assert frames is None, "a number of frames that no batch has"


def test_the_ring_is_bounded() -> None:
    world = World(3)
    replica = Replica(1, resume_bytes=20_000)
    for batch in world.batches(300):
        replica.apply(0, *batch)
    assert replica.retained_bytes <= 20_000
    assert replica.missed_since("w1", cursor_of(0)) is None
    assert replica.missed_since("w1", replica.cursor("w1")) is not None
    assert sum(map(len, replica._recent.values())) <= 2 * len(replica._batches)


def test_a_batch_that_does_not_advance_the_position_changes_nothing() -> None:
    world, replica = World(1), Replica(1)
    first = world.batch()
    replica.apply(0, *first)
    replica.apply(0, *world.batch())
    before, cursor = dict(replica._partitions[0].rows), replica.cursor("w1")
    assert replica.apply(0, *first) == []
    assert replica.apply(0, [(b"i:ibx_odd", None)], world.position) == []
    assert (replica._partitions[0].rows, replica.cursor("w1")) == (before, cursor)


def test_a_frame_is_one_block() -> None:
    assert encode_event(5, "added", b"{}") == b"id: 5\nevent: added\ndata: {}\n\n"
    assert ID_OFFSET == 19
