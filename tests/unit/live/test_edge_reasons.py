"""Reasons why an item leaves a reader's window. A reader gets no later change of that item."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from support.clients.feed import frames
from support.edge.random_rows import item

from api.live.frames import FrameEncoder
from api.readmodel import listing
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from schemas.asking.question import Decision, Question, Vote
from schemas.log import Data
from schemas.views import ItemRow, MarkRow, PositionRow, PreferencesRow, encode_row
from streams.core.domain.keys import mark_key, preferences_key
from streams.core.domain.rank import ID_OFFSET

ANN = Reader("w1", "ann", frozenset({"MEMBER"}))
MADE = Decision("dec_1", "yes", "approve", 3, 8, "made", (Vote("bob", "MEMBER", 3, "yes", "approve"),))


class Feed:
    def __init__(self, limit: int = 10, reader: Reader = ANN) -> None:
        self.replica, self.position = Replica(1), 0
        self.window = Window(reader, limit, self.replica.workspace("w1"))
        self.frames = FrameEncoder(PageRenderer())

    def put(self, *rows: tuple[bytes, Any]) -> list[tuple[str, Any]]:
        """Applies one batch. Returns its frames."""
        self.position += 1
        raw = [(key, None if row is None else encode_row(row)) for key, row in rows]
        sent = b""
        for update in self.replica.apply(0, raw, PositionRow(next=self.position)):
            sent += b"".join(self.frames.encode_batch(update, self.window))
        return [(event, data) for _, event, data in frames(sent)]


@pytest.mark.parametrize(("change", "reason", "action"), [
    ({"state": "resolved", "resolved_action": "approved"}, "resolved", "approved"),
    ({"state": "resolved"}, "resolved", None),
    ({"state": "hidden"}, "resolved", None),
    ({"state": "decided"}, "decided", None),
    ({"state": "decided", "question": Question("d", decision=MADE)}, "decided", None),
    ({"state": "decided", "target_user_id": "bob"}, "retargeted", None),
    ({"state": "decided", "target_role": "OWNER", "incident": "ibx_i"}, "retargeted", None),
    ({"target_user_id": "bob"}, "retargeted", None),
    ({"target_role": "OWNER"}, "retargeted", None),
    ({"target_role": "OWNER", "state": "resolved", "resolved_action": "secret"}, "retargeted", None),
    ({"target_user_id": "bob", "incident": "ibx_i"}, "retargeted", None),
    ({"incident": "ibx_i"}, "grouped", None),
])
def test_an_item_that_changes(change: dict[str, Any], reason: str, action: str | None) -> None:
    feed = Feed()
    assert [event for event, _ in feed.put(item())] == ["added"]
    [(event, data)] = feed.put(item(**change))
    assert (event, data["reason"], data.get("resolved_action")) == ("removed", reason, action)
    assert data["counts"] == {"total": 0, "unread": 0, "by_kind": {}, "by_priority": {}}
    assert feed.put(item(**change, rev=9)) == [], "no later frame about the item"


def test_a_decision_that_comes_back_is_added_at_the_top_of_its_band() -> None:
    feed = Feed()
    feed.put(item(source_id="a", blocking=True), item(source_id="b"), item(source_id="u", priority="urgent"))
    [(event, data)] = feed.put(item(source_id="b", state="decided", question=Question("d", decision=MADE)))
    assert (event, data["reason"], data["counts"]["total"]) == ("removed", "decided", 2)
    assert feed.put(item(source_id="b", state="decided", question=Question("d", decision=MADE), rev=9)) == []
    [(event, data)] = feed.put(item(
        source_id="b", question=Question("d", decision=replace(MADE, state="refused"), returned="refused")))
    assert (event, data["item"]["rank_reasons"], data["counts"]["total"]) == ("added", ["normal", "refused"], 3)
    page = [row.source_id for row in listing_of(feed)]
    assert page == ["u", "b", "a"]
    [(event, data)] = feed.put(item(source_id="b"))
    assert (event, data["item"]["rank_reasons"]) == ("changed", ["normal"]), "the new question has its usual position"
    assert [row.source_id for row in listing_of(feed)] == ["u", "a", "b"]


def listing_of(feed: Feed) -> list[ItemRow]:
    space = feed.replica.workspace("w1")
    keys = list(listing.ranked(space, ANN, frozenset()))
    assert keys == feed.window.keys
    return [row for key in keys if (row := space.item(key[ID_OFFSET:])) is not None]


def test_dismiss_marks_remove_and_restore() -> None:
    feed = Feed()
    key, row = item()
    feed.put((key, row))
    mark = mark_key(row.id, "ann")
    assert feed.put((mark, MarkRow("w1", row.id, "ann", 0)))[0][1]["reason"] == "dismissed"
    assert feed.put((mark, None))[0][0] == "added"
    assert feed.put((mark, MarkRow("w1", row.id, "ann", 0, 77)))[0][1]["reason"] == "snoozed"
    assert feed.put((mark_key(row.id, "bob"), MarkRow("w1", row.id, "bob", 0))) == [], (
        "a mark of another user changes nothing")
    [(event, data)] = feed.put(item(surge=1))
    assert (event, data["counts"]["total"]) == ("added", 1), (
        "the mark is older than the surge, so the item is listed again")


def test_an_item_pushed_out_of_the_window_comes_back() -> None:
    feed = Feed(limit=2)
    feed.put(item(source_id="b", due_at=2), item(source_id="c", due_at=3))
    pushed = feed.put(item(source_id="a", due_at=1))
    assert [(event, data.get("reason")) for event, data in pushed] == [("removed", "beyond"), ("added", None)]
    assert {data["counts"]["total"] for _, data in pushed} == {3}
    back = feed.put(item(source_id="a", state="resolved"))
    assert [(event, data.get("reason")) for event, data in back] == [("removed", "resolved"), ("added", None)]


def test_changes_beyond_the_window_are_sent_as_counts() -> None:
    feed = Feed(limit=1)
    feed.put(item(source_id="a", due_at=1))
    [(event, data)] = feed.put(item(source_id="z", due_at=9, priority="low"))
    assert (event, data["reason"], data["counts"]["by_priority"]) == ("removed", "beyond", {"normal": 1, "low": 1})
    assert feed.put(item(source_id="z", due_at=9, priority="low", data=Data(title="other"))) == []
    [(event, data)] = feed.put(item(source_id="z", state="resolved", resolved_action="done"))
    assert (event, data["reason"], data["resolved_action"]) == ("removed", "resolved", "done")


def test_pins_reorder_the_window() -> None:
    feed = Feed(limit=2)
    feed.put(*(item(source_id=name, due_at=at, data=Data(cluster=name)) for at, name in enumerate("abc")))
    received = feed.put((preferences_key("w1", "ann"), PreferencesRow("w1", "ann", ["c"])))
    assert [(event, data.get("item", data).get("source_id"), data.get("reason")) for event, data in received[:2]] == [
        ("removed", None, "beyond"), ("added", "c", None)]
    assert received[2] == ("preferences", {"pinned_clusters": ["c"], "widgets": []})
    again = feed.put((preferences_key("w1", "ann"), PreferencesRow("w1", "ann", ["a", "c"])))
    assert [(event, data.get("item", {}).get("rank_reasons")) for event, data in again] == [
        ("changed", ["normal", "pinned"]), ("preferences", None)]


def test_frames_of_a_batch_come_in_their_order() -> None:
    feed = Feed()
    feed.put(*(item(source_id=name, due_at=at) for at, name in enumerate("abcd")))
    received = feed.put(
        item(source_id="d", due_at=0), item(source_id="x", due_at=1), item(source_id="a", state="resolved"),
        (preferences_key("w1", "ann"), PreferencesRow("w1", "ann", [])), item(source_id="b", state="resolved"))
    assert [event for event, _ in received] == ["removed", "removed", "changed", "added", "preferences"]
    assert [data["id"] for _, data in received[:2]] == sorted(data["id"] for _, data in received[:2])
