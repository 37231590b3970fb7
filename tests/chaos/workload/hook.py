"""The HTTP receiver of `attn deliver`: it deduplicates by `webhook-id`, fails some posts, and closes applied items."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.delivery.receiver import Answer, Post, Receiver, answer, receiver

from chaos.workload.load import Send
from chaos.workload.producers import Producer
from chaos.workload.receiver import answer as report_of
from chaos.workload.receiver import refuses
from schemas.settings import Settings

__all__ = ["Hook"]

_FAILS = 0.15  # share of posts that get a 503


class Hook:
    """`effects`: effects by decision; `posts`: posts by message. A repeated id has no further effect."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.effects: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.posts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._out = Producer(settings, "hook")
        self._closing: asyncio.Queue[Send] = asyncio.Queue()

    @asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[Receiver]:
        async with receiver(self._answer, port) as there:
            task = asyncio.create_task(self._close(), name="hook")
            try:
                yield there
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self._out.close()

    @property
    def idle(self) -> bool:
        return self._closing.empty()

    def _answer(self, post: Post) -> Answer:
        self.posts[post.id] += 1
        if self._rng.random() < _FAILS:
            return answer(503)
        decision = post.event["data"]["decision"]
        if post.event["type"] != "decision.made":
            return answer(204)
        if refuses(decision):
            self.refused.add(decision)
            return answer(409, json.dumps({"error": "freeze"}), content_type="application/json")
        if not self.effects[decision]:
            self.effects[decision] += 1
            topic, event = report_of(post.event)
            self._closing.put_nowait(Send(topic, event["subject"].encode(), json.dumps(event).encode()))
        return answer(204)

    async def _close(self) -> None:
        while True:
            send = await self._closing.get()
            await self._out.send([send])
