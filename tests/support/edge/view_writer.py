"""Writes batches of random rows to the view, and facts to their topic, in place of a worker."""

from __future__ import annotations

from collections.abc import Iterable

from support.edge.random_rows import World

from schemas.facts import Fact, encode_fact
from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from schemas.views import PositionRow, encode_row, position_key
from streams.kafka import producer


class Writer:
    """Writes the batches of a `World` to attn.views, one record batch each, as the fold does."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.world = World(seed)
        self._producer = producer.idempotent_producer(settings, "test")

    async def __aenter__(self) -> Writer:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def write(self, batches: int) -> None:
        for rows, position in self.world.batches(batches):
            await self.put(rows, position)

    async def put(self, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow | None) -> None:
        """Writes a batch; without `position` an incomplete one."""
        last = [] if position is None else [(position_key(0), encode_row(position))]
        await producer.write_rows(self._producer, VIEWS, 0, [*rows, *last])

    async def write_facts(self, *facts: Fact) -> None:
        await producer.write_rows(self._producer, FACTS, 0, [(b"w1", encode_fact(fact)) for fact in facts])
