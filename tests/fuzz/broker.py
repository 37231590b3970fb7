"""Variant of `fuzz.records` with a broker: sends the same batches by Produce requests to an embedded broker with a
worker.

A batch that the broker accepts must become events or dead letters, or be skipped. A valid event follows each batch and
must arrive. The worker process must not exit.
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

_AT_ONCE = 25  # batches between two checks
_MOST = 1000  # limit of the record count that a batch states
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
                            # noida-db 0.2.3 exits if a batch states a count of billions of records.
                            batch = replace(batch, count=batch.count and min(batch.count, _MOST))
                            # It assigns offsets by this field: with a wrong value two records get the same offset.
                            batch = replace(batch, last_delta=None)
                            # It opens a transaction for a batch with this attribute, and nothing ends it.
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
    except ConnectionError:  # the broker closes the connection if it cannot parse a batch
        return -1


def _event(name: str) -> bytes:
    return json.dumps({
        "specversion": "1.0", "id": name, "source": "/f", "type": "plan.proposed", "subject": name,
        "time": "2026-05-20T08:14:00Z", "workspaceid": "w", "data": {"title": "Go?"},
    }).encode()
