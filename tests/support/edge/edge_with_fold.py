"""Edges with a log in memory instead of a broker. The real fold applies each appended command at once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from support.edge.edges import bearer, settings
from support.fold.fold_driver import event

from api.edge.services import Edge
from api.http.app import create_app
from schemas.log import Pack, decode_pack, encode_pack
from schemas.scalars import SECOND
from schemas.views import PositionRow, apply_changes, decode_row, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold
from streams.core.packs import PackRecord

__all__ = ["Deciding"]

WS = "ws"


class Deciding:
    """The fold of one partition and any number of edges. `now`: their clock in seconds, which only tests change."""

    def __init__(self, edges: int = 1, **more: Any) -> None:
        self.now = 1_779_278_400.0  # fold_driver.NOON, in seconds
        self.settings = settings(**{"log_partitions": 1, **more})
        self.rows: dict[bytes, bytes] = {}
        self.fold = Fold(self.rows, 0, FoldConfig.from_settings(self.settings))
        self.fold.load()
        self.fold.reconcile(0)
        self.log: list[bytes] = []
        self.facts: list[Any] = []
        self.held = False  # True: appended packs are not folded yet, as with a slow worker
        self.edges = [self._edge() for _ in range(edges)]

    def _edge(self) -> Edge:
        edge = Edge(self.settings, lambda: self.now)
        edge.ready = True
        edge.command_log.append = self._append
        return edge

    def restart(self) -> None:
        """Replaces the edges by new ones, which load the view and have no other state."""
        self.edges = [self._edge() for _ in self.edges]
        position = decode_row(position_key(0), self.rows[position_key(0)])
        assert isinstance(position, PositionRow)
        for edge in self.edges:
            edge.replica.load(0, self.rows, position)

    async def _append(self, pack: PackRecord) -> None:
        assert pack.partition == 0
        self.log.append(pack.value)
        while self.held:
            await asyncio.sleep(0.005)
        self.work()

    def happen(self, *entries: Any) -> None:
        """Appends source events or commands to the log as one pack, and folds it."""
        self.log.append(encode_pack(Pack(int(self.now * SECOND), list(entries))))
        self.work()

    def tick(self, seconds: float) -> None:
        """Advances the clock and appends an empty pack."""
        self.now += seconds
        self.happen()

    def work(self) -> None:
        """Folds the new records of the log. Applies the facts, then the rows, to each edge: a worker writes in this
        order."""
        while self.fold.position.next < len(self.log):
            offset, whole = self.fold.position.next, False
            while not whole:
                whole = self.fold.apply(decode_pack(self.log[offset]), offset)
                self._apply_to_edges()

    def _apply_to_edges(self) -> None:
        batch = self.fold.pending_batch()
        self.facts += batch.facts
        apply_changes(self.rows, batch.rows)
        self.fold.mark_durable()
        position = decode_row(position_key(0), self.rows[position_key(0)])
        assert isinstance(position, PositionRow)
        for edge in self.edges:
            for fact in batch.facts:
                edge.add_fact(0, fact)
            edge.release_pending()
            edge.apply_batch(0, batch.rows, position)
            edge.publish()

    def client(
        self, *args: Any, edge: int = 0, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.AsyncClient:
        """Returns a client of one edge with the token of the given user, or with `headers` instead of a token."""
        transport = httpx.ASGITransport(create_app(self.edges[edge]), raise_app_exceptions=False)
        own = headers if headers is not None else bearer(*args, **{"ws": WS, "seconds": 10 * 365 * 86400, **more})
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=own)


def message(source_id: str = "m", **data: Any) -> Any:
    return event("message.posted", source_id, **{"title": "T", **data})


def waitpoint(source_id: str = "w", **data: Any) -> Any:
    return event("waitpoint.created", source_id, **{"title": "T", **data})
