"""Fan-out of `inbox.updated` to WebSocket subscribers after a user changed the state of items (seeds C28, C29), and
after a vote, a decision, its undo, or what became of it changed an item (CONTRACT §7).

A PATCH causes one message. A bulk request that changed an item causes one message in total; so do the decisions of one
record of the log. Only subscribers who may see one of the items get it, and only once this edge shows the change: a
list that they read afterwards is up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from api.contract.messages import InboxUpdated
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from schemas.facts import Fact, Outcome
from schemas.views import ItemRow, decode_row
from streams.core.domain.keys import item_key
from streams.core.domain.visibility import Targets

__all__ = ["NotificationHub", "Subscriber", "channel_of"]

# Facts after which an item shows another vote or another state of its decision. A vote that decides is followed by
# `decision.made`; one message is sent for both.
_DECISION_FACTS = frozenset({"vote.cast", *(f"decision.{verb}" for verb in (
    "made", "taken_back", "expired", "applied", "refused", "undeliverable", "unconfirmed"))})
# Messages that may wait for a slow client. They only say "read again", therefore a slower client is disconnected.
_MAX_WAITING = 64


def channel_of(ws: str) -> str:
    return f"workspace:{ws}"


class Subscriber:
    """One subscribed connection. `overflowed` is set if it was too slow and lost a message."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING)
        self.overflowed = asyncio.Event()

    def enqueue(self, message: bytes) -> None:
        try:
            self.waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.overflowed.set()


class NotificationHub:
    """Subscribers of one edge, by workspace."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._subscribers: dict[str, set[Subscriber]] = {}

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.setdefault(subscriber.reader.workspace_id, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        subscribers = self._subscribers.get(subscriber.reader.workspace_id, set())
        subscribers.discard(subscriber)
        if not subscribers:
            self._subscribers.pop(subscriber.reader.workspace_id, None)

    def wants(self, outcome: Outcome) -> bool:
        """Returns whether `push` would send a message: the command changed items, and the workspace has subscribers.

        The command may have been sent by any edge.
        """
        return (
            outcome.status == 200 and outcome.state is not None and bool(outcome.items)
            and outcome.ws in self._subscribers
        )

    def push(self, outcome: Outcome) -> None:
        """Sends `inbox.updated` to the subscribers who may see one of the items. The replica must show the change."""
        if not self.wants(outcome):
            return
        # Check each target once: a bulk request may name hundreds of items but rarely more than two targets, and a
        # workspace may have thousands of subscribers.
        targets = {(row.target_user_id, row.target_role) for row in self._rows(outcome.ws, outcome.items)}
        payload = {"bulk": "true"} if outcome.bulk else {"id": outcome.items[0]}
        message = msgspec.json.encode(
            InboxUpdated(channel_of(outcome.ws), payload | {"state": outcome.state or ""}))
        for subscriber in self._subscribers.get(outcome.ws, ()):
            if any(subscriber.reader.can_see(*target) for target in targets):
                subscriber.enqueue(message)

    def wants_fact(self, fact: Fact) -> bool:
        """Returns whether `push_decisions` may send a message about the fact."""
        return fact.type in _DECISION_FACTS and fact.item is not None and fact.ws in self._subscribers

    def push_decisions(self, facts: Iterable[Fact]) -> None:
        """Sends `inbox.updated` after facts of votes and decisions: one message for the facts of one position, with the
        state of the item, or of the first of several items. The replica must show the changes."""
        changed: dict[tuple[str, int], dict[str, None]] = {}
        for fact in facts:
            if fact.item is not None:
                changed.setdefault((fact.ws, fact.pos), {})[fact.item] = None
        for (ws, _), items in changed.items():
            self._push_rows(ws, list(self._rows(ws, items)))

    def _push_rows(self, ws: str, rows: list[ItemRow]) -> None:
        # Hundreds of rows rarely have more than two targets; a workspace may have thousands of subscribers.
        rows_of: dict[Targets, list[ItemRow]] = {}
        for row in rows:
            rows_of.setdefault((row.target_user_id, row.target_role), []).append(row)
        messages: dict[tuple[Targets, ...], bytes] = {}
        for subscriber in self._subscribers.get(ws, ()):
            seen = tuple(targets for targets in rows_of if subscriber.reader.can_see(*targets))
            if seen and seen not in messages:
                visible = [row for targets in seen for row in rows_of[targets]]
                about = {"id": visible[0].id} if len(visible) == 1 else {"bulk": "true"}
                messages[seen] = msgspec.json.encode(
                    InboxUpdated(channel_of(ws), about | {"state": visible[0].state}))
            if seen:
                subscriber.enqueue(messages[seen])

    def _rows(self, ws: str, items: Iterable[str]) -> Iterable[ItemRow]:
        """Yields the rows of those items that are shown."""
        workspace = self._replica.find_workspace(ws)
        if workspace is None:
            return
        for item in items:
            raw = workspace.rows.get(item_key(item))
            row = decode_row(item_key(item), raw) if raw is not None else None
            if isinstance(row, ItemRow) and row.ws == ws and row.state != "hidden":
                yield row
