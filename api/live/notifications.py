"""`inbox.updated`: who subscribed, and what they are told when somebody changed the state of items (seeds C28, C29).

One for each PATCH, one for a whole bulk request that changed anything. It goes only to those who may see the item, or
one of the items, and not before this edge shows the change: who asks for the list then gets the new one.
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

# Messages that wait for a slow client. All they say is "ask again", so one who is so far behind is better cut off.
_MAX_WAITING = 64


def channel_of(ws: str) -> str:
    return f"workspace:{ws}"


class Subscriber:
    """One connection that wants to be told. `lost`: it was too slow."""

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
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._subscribers: dict[str, set[Subscriber]] = {}

    def subscribe(self, one: Subscriber) -> None:
        self._subscribers.setdefault(one.reader.workspace_id, set()).add(one)

    def unsubscribe(self, one: Subscriber) -> None:
        known = self._subscribers.get(one.reader.workspace_id, set())
        known.discard(one)
        if not known:
            self._subscribers.pop(one.reader.workspace_id, None)

    def wants(self, outcome: Outcome) -> bool:
        """Whether `push` would send anything: the command changed the state of items, and its workspace has
        subscribers. The command may come from any edge."""
        return (
            outcome.status == 200 and outcome.state is not None and bool(outcome.items)
            and outcome.ws in self._subscribers
        )

    def push(self, outcome: Outcome) -> None:
        """Sends `inbox.updated` to the subscribers who may see one of the items. The replica must show the change."""
        if not self.wants(outcome):
            return
        # A batch is hundreds of items, and there may be thousands who listen: but hardly ever more than two targets.
        targets = {(row.target_user_id, row.target_role) for row in self._rows(outcome.ws, outcome.items)}
        payload = {"bulk": "true"} if outcome.bulk else {"id": outcome.items[0]}
        told = InboxUpdated(channel_of(outcome.ws), payload | {"state": outcome.state or ""})
        message = msgspec.json.encode(told)
        for one in self._subscribers.get(outcome.ws, ()):
            if any(one.reader.can_see(*target) for target in targets):
                one.enqueue(message)

    def _rows(self, ws: str, items: Iterable[str]) -> Iterable[ItemRow]:
        space = self._replica.find_workspace(ws)
        for item in items if space is not None else ():
            raw = space.rows.get(item_key(item))  # type: ignore[union-attr]
            row = decode_row(item_key(item), raw) if raw is not None else None
            if isinstance(row, ItemRow) and row.ws == ws and row.state != "hidden":
                yield row
