"""Source topics in memory: events that edges receive over HTTP are validated and folded at once, as workers do."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError
from support.edge.edge_with_fold import Deciding

from schemas.dead_letters import DeadLetter
from schemas.topics import DEAD_LETTERS
from streams.core.normalise import normalise
from streams.core.sealing import Sealer
from streams.runtime.keys import seal_keys

__all__ = ["TopicWriter", "Written"]


class Written(NamedTuple):
    topic: str
    value: bytes
    key: bytes
    headers: list[tuple[str, bytes]]


class TopicWriter:
    """The producer of the edges of `attn`. `held`: writes wait for `acknowledge`, as with a slow Kafka."""

    def __init__(self, attn: Deciding) -> None:
        self.records: list[Written] = []
        self.letters: list[DeadLetter] = []
        self.held = False
        self.failing = False
        self._attn = attn
        self._waiting: list[asyncio.Future[None]] = []
        self._sealer = Sealer(seal_keys(attn.settings))
        for edge in attn.edges:
            edge.event_sender.producer = self

    async def send(self, topic: str, value: bytes, key: bytes, headers: list[tuple[str, bytes]]) -> Any:
        self.records.append(Written(topic, value, key, headers))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.failing:
            written.set_exception(KafkaError("refused"))
            return written
        if topic == DEAD_LETTERS:
            self.letters.append(DeadLetter.from_record(None, value, headers))
            written.set_result(None)
            return written
        # A worker must accept every event that the edge accepts: Rejected fails the request, and thereby the test.
        self._attn.happen(normalise(topic, value, headers, sealer=self._sealer))
        if self.held:
            self._waiting.append(written)
        else:
            written.set_result(None)
        return written

    def acknowledge(self) -> None:
        """Acknowledges all waiting writes."""
        self.held = False
        for written in self._waiting:
            written.set_result(None)
        self._waiting.clear()
