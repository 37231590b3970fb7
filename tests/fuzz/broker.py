"""The small form of `fuzz.records`: the same batches, by Produce requests, to an embedded broker with a worker.

What the broker accepts must be an event, a dead letter or skipped; each batch is followed by a good event, which must
arrive; and the worker, a process of its own, must not end.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from support.kafka import raw_produce
from support.kafka.pipeline import caught_up_events, kill, spawn, stack
from support.kafka.record_batches import Batch, Rec

from fuzz.records import _records, odd_batch
from streams.kafka import topics

__all__ = ["run"]

_AT_ONCE = 25
_MOST = 1000
_TRANSACTIONAL = 0x10


async def run(minutes: float, seed: int) -> int:
    deadline, failed, rounds, accepted, sent = time.monotonic() + minutes * 60, [], 0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        async with stack(Path(directory), source_partitions=1, log_partitions=1) as settings:
            await topics.ensure_topics(settings)
            process = spawn(settings)
            try:
                while time.monotonic() < deadline and not failed:
                    wanted = set()
                    for step in range(_AT_ONCE):
                        number = seed + rounds * _AT_ONCE + step
                        rng = random.Random(number)
                        batch = Batch(_records(rng), 0, rng.randint(0, 4))
                        if rng.random() < 0.8:
                            batch = odd_batch(rng, batch)
                            # noida-db 0.2.3 ends where a batch says that it has billions of records.
                            batch = replace(batch, count=batch.count and min(batch.count, _MOST))
                            # It gives offsets by this field, and two records one offset where it is odd.
                            batch = replace(batch, last_delta=None)
                            # It also takes the mark of a transaction for one, which nobody would ever end.
                            batch = replace(batch, attributes=batch.attributes & ~_TRANSACTIONAL)
                        sent += 1
                        accepted += _put(settings.kafka, batch.encode()) == 0
                        wanted.add(f"good{number}")
                        code = _put(settings.kafka, Batch([Rec(value=_event(f"good{number}"))]).encode())
                        assert code == 0, f"seed {number}: the broker answers {code} after {batch}"[:3000]
                    if not await caught_up_events(settings, wanted, process):
                        failed = [seed + rounds * _AT_ONCE]
                    rounds += 1
            finally:
                ended = process.poll()
                kill(process)
    print(json.dumps({"sent": sent, "accepted": accepted, "worker_ended": ended, "failed_from_seed": failed}))
    return 1 if failed or ended is not None else 0


def _put(kafka: str, batch: bytes) -> int:
    try:
        return raw_produce.produce(kafka, "plans", batch)[0]
    except ConnectionError:  # how a broker refuses what it can't even parse
        return -1


def _event(name: str) -> bytes:
    return json.dumps({
        "specversion": "1.0", "id": name, "source": "/f", "type": "plan.proposed", "subject": name,
        "time": "2026-05-20T08:14:00Z", "workspaceid": "w", "data": {"title": "Go?"},
    }).encode()
