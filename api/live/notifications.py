"""Fan-out of `inbox.updated` to WebSocket subscribers after a user changed the state of items (seeds C28, C29).

A PATCH causes one message. A bulk request that changed an item causes one message in total. Only subscribers who may
see one of the items get it, and only once this edge shows the change: a list that they read afterwards is up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from api.contract.messages import InboxUpdated
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from schemas.facts import Outcome
from schemas.views import ItemRow, decode_row
from streams.core.domain.keys import item_key

__all__ = ["NotificationHub", "Subscriber", "channel_of"]

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
