"""Law 7 at the edge: memory grows with the view, and the cost of a step with the size of its change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from sortedcontainers import SortedList
from support.edge.edges import Fed
from support.edge.random_rows import item
from support.edge.sinks import Kept

from api.live.notifications import Subscriber
from api.readmodel import listing
from api.readmodel.readers import Reader
from api.readmodel.sorted_sets import SortedKeys
from schemas.facts import Outcome
from schemas.log import Data
from schemas.views import ItemRow, MarkRow, decode_row
from streams.core.domain.keys import mark_key
from streams.core.domain.rank import sort_key


def test_a_push_of_a_batch_does_not_check_each_item_for_each_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fed = Fed()
    rows = [item(source_id=f"s{number}", target_user_id="ann") for number in range(500)]
    fed.put(*rows)
    listeners = [Subscriber(Reader("w1", user, frozenset({"MEMBER"}))) for user in ("ann", *map(str, range(200)))]
    for listener in listeners:
        fed.edge.notifications.subscribe(listener)
    checks, sees = [], Reader.can_see

    def counted(reader: Reader, *target: Any) -> bool:
        checks.append(target)
        return sees(reader, *target)

    monkeypatch.setattr(Reader, "can_see", counted)
    fed.edge.notifications.push(Outcome(
        ws="w1", pos=0, index=0, command="c", edge="1", user="ann", status=200, body=Raw(b"{}"),
        items=[row.id for _, row in rows], state="read", bulk=True))
    assert [listener.reader.user for listener in listeners if not listener.waiting.empty()] == ["ann"]
    assert len(checks) < 2 * len(listeners)


def test_workspaces_without_rows_are_removed() -> None:
    fed = Fed()
    for number in range(300):
        key, row = item(f"w{number}")
        fed.put((key, row))
        fed.put((key, None))
    assert len(fed.edge.replica._workspaces) < 5


def test_a_workspace_that_was_empty_for_a_while_is_unchanged() -> None:
    fed, outlet = Fed(), Kept()
    reader = Reader("w1", "ann", frozenset({"MEMBER"}))
    key, row = item()
    start = fed.put((key, row))
    fed.edge.feed_hub.open(reader, 5, None, outlet)
    fed.put((key, None))
    fed.put((key, row))
    again = Kept()
    fed.edge.feed_hub.open(reader, 5, start, again)
    assert [line for line in outlet.raw.split(b"\n") if line.startswith(b"event")] == [
        b"event: snapshot", b"event: removed", b"event: added"]
    assert outlet.raw.endswith(again.raw)
    assert again.raw.count(b"event: ") == 2


def test_keys_of_deleted_rows_do_not_accumulate() -> None:
    fed = Fed()
    fed.put(item(source_id="stays"))
    for number in range(900):
        key, row = item(source_id=f"s{number}")
        fed.put((key, row))
        fed.put((key, None))
    space = fed.edge.replica.find_workspace("w1")
    assert space is not None
    assert len(space.keys) < 100


def dismissed_inbox(count: int) -> tuple[Fed, Reader]:
    """Returns an inbox in which ann dismissed all items; a third of them are in cluster c1."""
    fed, rows = Fed(), []
    for number in range(count):
        key, row = item(source_id=f"s{number}", created_at=number, target_user_id="ann", blocking=number % 2 == 0,
                        data=Data(cluster=f"c{number % 3}"))
        rows += [(key, row), (mark_key(row.id, "ann"), MarkRow("w1", row.id, "ann", row.surge))]
    fed.put(*rows)
    return fed, Reader("w1", "ann", frozenset({"MEMBER"}))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Records all keys that are read from the sorted sets."""
    taken: list[bytes] = []
    ascending = SortedKeys.ascending

    def counted(keys: SortedKeys, after: bytes = b"", until: bytes | None = None) -> Iterator[bytes]:
        for key in ascending(keys, after, until):
            taken.append(key)
            yield key

    monkeypatch.setattr(SortedKeys, "ascending", counted)
    return taken


def test_a_page_of_dismissed_items_costs_its_length(steps: list[bytes]) -> None:
    fed, reader = dismissed_inbox(3000)
    space, after = fed.edge.replica.workspace("w1"), None
    for _ in range(3):
        del steps[:]
        page = list(islice(listing.dismissed(space, reader, frozenset(), after), 10))
        assert len(page) == 10
        assert len(steps) <= 12
        after = page[-1]


@pytest.mark.parametrize("pins", [frozenset(), frozenset({"c1"}), frozenset({"c0", "c2", "none"})])
def test_pages_of_dismissed_items_are_complete_and_ordered(pins: frozenset[str]) -> None:
    fed, reader = dismissed_inbox(60)
    space = fed.edge.replica.workspace("w1")
    rows = [row for key, raw in space.rows.items() if isinstance(row := decode_row(key, raw), ItemRow)]
    wanted = sorted(sort_key(row, row.data.cluster in pins) for row in rows)
    listed, after = [], None
    while page := list(islice(listing.dismissed(space, reader, pins, after), 7)):
        listed += page
        after = page[-1]
    assert listed == wanted


class _CountingKeys(list[bytes]):
    """The keys of a plain set; counts each read of a key."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        _CountingKeys.looks += 1
        return super().__getitem__(at)


@pytest.mark.parametrize("left", [0, 1000, 1999])
def test_dismissed_keys_before_the_first_listed_key_are_skipped(left: int) -> None:
    names = [b"%04d" % number for number in range(2000)]
    targeted, dismissed = SortedKeys(), SortedKeys()
    targeted._keys = _CountingKeys(names)
    dismissed._keys = _CountingKeys(name for name in names if name != names[left])
    _CountingKeys.looks = 0
    assert list(targeted.difference_after(dismissed, b"")) == [names[left]]
    assert _CountingKeys.looks < 120


def test_the_first_page_does_not_read_all_dismissed_items(steps: list[bytes]) -> None:
    fed, reader = dismissed_inbox(3000)
    space = fed.edge.replica.workspace("w1")
    key, row = item(source_id="left", created_at=9999, target_user_id="ann", blocking=True)
    fed.put((key, row))
    del steps[:]
    assert list(islice(listing.ranked(space, reader, frozenset()), 10)) == [sort_key(row)]
    assert len(steps) < 20


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans())), st.integers(0, 99), st.booleans())
def test_difference_after_skips_the_other_set(drawn: list[tuple[int, bool]], after: int, sorted_lists: bool) -> None:
    chosen = {b"%02d" % number: left for number, left in drawn}
    targeted, dismissed = SortedKeys(chosen), SortedKeys(name for name, left in chosen.items() if not left)
    if sorted_lists:
        targeted._keys, dismissed._keys = SortedList(targeted._keys), SortedList(dismissed._keys)
    wanted = sorted(name for name, left in chosen.items() if left and name > b"%02d" % after)
    assert list(targeted.difference_after(dismissed, b"%02d" % after)) == wanted


class _CountingSet(set[Any]):
    """A set of streams that counts its iterations."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return super().__iter__()


def test_joining_or_leaving_a_group_of_readers_does_not_scan_it() -> None:
    fed, outlets = Fed(), [Kept() for _ in range(90)]
    key, row = item()
    fed.put((key, row))
    feeds = [fed.edge.feed_hub.open(Reader("w1", f"u{number}", frozenset({"MEMBER"})), 5, None, outlet)
             for number, outlet in enumerate(outlets)]
    [channel] = fed.edge.feed_hub._channels["w1"].values()
    many = channel.streams = _CountingSet(channel.streams)
    for number, outlet in enumerate(outlets):
        outlet.ready = number % 3 == 0  # a third of the streams lags from the first frame on, a third from the second
    fed.put((key, None))
    for outlet in outlets:
        outlet.ready = False
    fed.put((key, row))
    assert len(channel.ring) == 2
    many.walks = 0
    for number, outlet in enumerate(outlets):
        outlet.ready = True
        if number % 2:
            feeds[number].catch_up()
        else:
            feeds[number].on_disconnect()
    assert many.walks < 5
    assert not channel.ring, "no stream lags, so the ring is empty"
    assert len({outlet.raw for number, outlet in enumerate(outlets) if number % 2}) == 1
