"""The push `inbox.updated` after votes, decisions, undo, and reports (CONTRACT §4, §7)."""

from __future__ import annotations

import json
from typing import Any

from support.edge.asking import APPROVAL, W, asking, decide, deciding
from support.edge.edge_with_fold import Deciding
from support.fold.fold_driver import event

from api.live.notifications import Subscriber
from api.readmodel.readers import Reader
from schemas.log import Report
from streams.core.domain.keys import item_id

A, B = item_id("ws", "waitpoint", "a"), item_id("ws", "waitpoint", "b")


class Watching:
    """Subscribers of one edge: `pushed` returns the messages of a subscriber since the last call."""

    def __init__(self, attn: Deciding, edge: int = 0) -> None:
        self._subscribers = {}
        for user, role in (("ann", "OWNER"), ("bob", "MEMBER")):
            self._subscribers[user] = Subscriber(Reader("ws", user, frozenset({role})))
            attn.edges[edge].notifications.subscribe(self._subscribers[user])

    def pushed(self, user: str = "ann") -> list[Any]:
        waiting = self._subscribers[user].waiting
        return [json.loads(waiting.get_nowait())["payload"] for _ in range(waiting.qsize())]


async def test_each_change_of_a_decision_is_pushed_once_with_the_state_of_the_item() -> None:
    attn = deciding(asking({**APPROVAL, "quorum": {"approve": 2}}))
    watching = Watching(attn)
    async with attn.client("ann") as ann, attn.client("bob", "MEMBER") as bob:
        await decide(ann)
        assert watching.pushed() == [{"id": W, "state": "unread"}], "a vote changes the item's votes"
        _, made = await decide(bob)
        assert watching.pushed() == [{"id": W, "state": "decided"}]
        await bob.delete(f"/api/v1/inbox/{W}/decision")
        assert watching.pushed() == [{"id": W, "state": "unread"}]
        _, made = await decide(bob)
        watching.pushed()
        attn.tick(6)
        assert watching.pushed() == [], "sending the decision changes nothing that a client shows"
        attn.happen(Report("ws", "r1", 1, made["decision"]["id"], "refused", "no"))
        assert watching.pushed() == [{"id": W, "state": "unread"}]
        await decide(ann, "no", comment="c")
        assert watching.pushed() == [{"id": W, "state": "decided"}]
        attn.happen(event("waitpoint.rejected", "w", 30))
        assert watching.pushed() == [{"id": W, "state": "resolved"}]


async def test_a_write_without_effect_is_not_pushed() -> None:
    attn = deciding()
    watching = Watching(attn)
    async with attn.client("ann") as ann, attn.client("bob") as bob:
        assert (await decide(ann, digest="other"))[0] == 412
        assert (await decide(ann, "maybe"))[0] == 422
        assert watching.pushed() == []
        await decide(ann)
        watching.pushed()
        assert (await decide(ann))[0] == 200
        assert (await decide(bob))[0] == 409
        assert (await bob.delete(f"/api/v1/inbox/{W}/decision")).status_code == 403
        assert watching.pushed() == []


async def test_many_decisions_are_pushed_once_to_those_who_see_one_of_them() -> None:
    names = [f"n{number}" for number in range(100)]
    attn = deciding(asking(APPROVAL, "a", target_role="OWNER"), asking(APPROVAL, "b"),
                    *(asking(APPROVAL, name) for name in names))
    watching = Watching(attn)
    url = "/api/v1/inbox/decisions"
    async with attn.client("cyd") as client:
        ids = [item_id("ws", "waitpoint", name) for name in names]
        assert (await client.post(url, json={"ids": ids, "option": "ok"})).json()["decided"] == 100
        assert watching.pushed() == watching.pushed("bob") == [{"bulk": "true", "state": "decided"}]
        await client.post(url, json={"ids": [A, B], "option": "ok"})
        assert watching.pushed() == [{"bulk": "true", "state": "decided"}]
        assert watching.pushed("bob") == [{"id": B, "state": "decided"}], "a member sees one of the two items"


async def test_a_push_follows_the_change_on_each_edge_and_only_to_readers_of_the_item() -> None:
    attn = Deciding(edges=2)
    attn.happen(asking(APPROVAL, target_role="OWNER"))
    watching = [Watching(attn, edge) for edge in (0, 1)]
    seen: list[str] = []
    for watching_edge in watching:
        subscriber = watching_edge._subscribers["ann"]
        enqueue = subscriber.enqueue

        def note(message: bytes, enqueue: Any = enqueue) -> None:
            for edge in attn.edges:
                row = edge.replica.workspace("ws").visible_item(Reader("ws", "ann", frozenset({"OWNER"})), W)
                seen.append(row.state if row is not None else "")
            enqueue(message)

        subscriber.enqueue = note  # type: ignore[method-assign]
    async with attn.client("ann") as client:
        await decide(client)
    assert [watching_edge.pushed() for watching_edge in watching] == [[{"id": W, "state": "decided"}]] * 2
    assert [watching_edge.pushed("bob") for watching_edge in watching] == [[], []]
    assert seen[0] == seen[3] == "decided", "the replica has the change when the push is sent"
