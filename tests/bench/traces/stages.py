"""One process of the bench: ingest, fold and edge without a broker. Reads a line per round, writes the CPU per event.

It uses only what attn has had since before traces, so that an older checkout can run it too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from api.edge.follower import TopicFollower
from api.edge.services import Edge
from api.readmodel.readers import Reader
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings
from schemas.topics import LOG, VIEWS
from streams.consumer.gap_filler import GapFiller
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold
from streams.fold.partition import PartitionProcessor
from streams.ingest.agent import Ingestor

_EVENTS = 1000  # of a round
_GROUP = 100  # events that ingest packs together
_POLL = 200  # records of attn.views that the edge gets in one poll
_WORKSPACES, _STREAMS = 20, 40


class Sent:
    """In place of the producers: keeps records with their headers."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, bytes | None, Any]] = []

    async def send(self, topic: str, value: bytes, partition: int = 0, headers: Any = None) -> Any:
        self.records.append((topic, None, value, headers or []))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def write(self, topic: str, rows: list[tuple[bytes, bytes | None]]) -> int:
        return await self.write_records(topic, [(key, value, []) for key, value in rows])

    async def write_records(self, topic: str, records: list[tuple[bytes, bytes | None, Any]]) -> int:
        self.records += [(topic, key, value, headers) for key, value, headers in records]
        return len(self.records)


class Views:
    """In place of the Faust table."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def commit(self, partition: int, rows: list[tuple[bytes, bytes | None]], offset: int) -> None:
        for key, value in rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


class Sink:
    """Takes the frames of a stream."""

    ready = True
    on_ready = staticmethod(lambda: None)

    def write(self, piece: Any) -> None: ...

    def end(self) -> None: ...

    abort = end


class Stages:
    """The three stages with what lies between them in memory."""

    def __init__(self, settings: Settings, sampled: float) -> None:
        self.sampled = sampled
        self.sent, self.views = Sent(), Views()
        self.ingestor = Ingestor(settings, self.sent, GapFiller(None))  # type: ignore[arg-type]
        self.processor = PartitionProcessor(0, settings, None, self.views, GapFiller(None))  # type: ignore[arg-type]
        fold = self.processor.fold = Fold(self.views.rows, 0, FoldConfig.from_settings(settings))
        fold.load()
        fold.reconcile(0)
        self.processor._writer = self.sent  # type: ignore[assignment]
        self.edge = Edge(settings)
        self.edge.ready = True
        self.follower = TopicFollower(self.edge, settings)
        for number in range(_STREAMS):
            reader = Reader(f"ws_{number % _WORKSPACES}", f"u{number}", frozenset({"OWNER"}))
            self.edge.feed_hub.open(reader, 100, None, Sink())
        self.number = self.offset = 0

    def source_records(self) -> list[Any]:
        records, traced = [], int(self.sampled * _EVENTS)
        for index in range(_EVENTS):
            self.number += 1
            pair, closes = divmod(self.number, 2)
            event = {
                "specversion": "1.0", "id": f"e{self.number}", "source": "/bench", "subject": f"s{pair}",
                "type": "waitpoint.approved" if closes else "waitpoint.created",
                "time": format_timestamp(self.number * 1000 + 10**15), "workspaceid": f"ws_{pair % _WORKSPACES}",
                "data": {"title": "Deploy web 4.2.0 to production?", "body_md": "14 files changed. " * 6,
                         "priority": "high", "cluster": "prod-us-east-1"}}
            headers = [("traceparent", f"00-{self.number:032x}-{self.number:016x}-01".encode())]
            records.append(SimpleNamespace(
                topic="waitpoints", partition=0, offset=self.number, key=None, value=json.dumps(event).encode(),
                headers=headers if index < traced else (), timestamp=int(time.time() * 1000)))
        return records

    async def round(self) -> dict[str, float]:
        """Returns the CPU of each stage in µs per event."""
        records = self.source_records()
        gc.collect()
        gc.freeze()  # otherwise each round would go through the rows of all rounds before it
        gc.disable()
        started = time.process_time_ns()
        for index, record in enumerate(records, start=1):
            self.ingestor._process_record(record)
            if index % _GROUP == 0:
                await self.ingestor._flush()
        ingested = time.process_time_ns()
        packs, self.sent.records = [_record(*one, self.offset + n) for n, one in enumerate(self.sent.records)], []
        self.offset += len(packs)
        packed = time.process_time_ns()
        for pack in packs:
            await self.processor._apply_record(pack)
            await self.processor._commit_batch()
        folded = time.process_time_ns()
        rows = [_record(*one, n) for n, one in enumerate(self.sent.records) if one[0] == VIEWS]
        self.sent.records = []
        begun = time.process_time_ns()
        tp = TopicPartition(VIEWS, 0)
        for start in range(0, len(rows), _POLL):
            await self._poll({tp: rows[start:start + _POLL]})
        published = time.process_time_ns()
        gc.enable()
        spent = {"ingest": ingested - started, "fold": folded - packed, "edge": published - begun}
        return {name: nanoseconds / 1000 / _EVENTS for name, nanoseconds in spent.items()}

    async def _poll(self, records: dict[TopicPartition, list[Any]]) -> None:
        """As `TopicFollower._follow` handles one poll."""
        traces = getattr(self.follower, "_traces", None)
        if traces is not None:
            traces.polled()
        started = time.perf_counter()
        with self.edge.publishing():
            await self.follower._apply_records(records)
        self.follower._record_timestamps(records)
        if hasattr(self.follower, "_observe_published"):
            self.follower._observe_published(started)


def _record(topic: str, key: bytes | None, value: bytes | None, headers: Any, offset: int) -> Any:
    return SimpleNamespace(topic=topic, partition=0, offset=offset, key=key, value=value, headers=headers,
                           timestamp=int(time.time() * SECOND) // 1000)


async def main(sampled: float) -> None:
    settings = Settings(_env_file=None, log_partitions=1, jwt_secret="x" * 40)  # type: ignore[call-arg, arg-type]
    assert LOG
    if os.environ.get("ATTN_TRACES"):
        from streams.tracing import hooks
        hooks.start(settings, "bench")
    stages = Stages(settings, sampled)
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(json.dumps(await stages.round()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
