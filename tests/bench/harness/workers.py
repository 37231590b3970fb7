"""Whole workers as children of a bench. `fold` runs until all input is folded, `load` until all rows are loaded."""

from __future__ import annotations

import asyncio
import os
import resource
import sys

from bench.harness.subprocesses import Meter, ready, run
from schemas.settings import Settings
from streams.worker.app import Worker

__all__: list[str] = []

_LOOK = 0.01  # seconds between two polls of the worker's state


async def _started() -> Worker:
    """Builds a worker with the settings of the environment, which `measure` sets."""
    from streams.kafka import topics
    from streams.worker.app import build

    settings = Settings(_env_file=None)
    await topics.ensure_topics(settings)
    return build(settings)


async def fold(what: str) -> None:
    """Runs a worker until it has folded the records of the input. `what`: "sources" or "log". A line on stdin has the
    number of records."""
    worker = await _started()
    await worker.start()
    while not worker.ready:
        await asyncio.sleep(_LOOK)
    meter = Meter()
    ready()
    fed = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))

    async def done() -> bool:
        if not fed.done():
            return False
        folded, records = worker.partitions.committable_offsets, int(fed.result())
        if what == "log":
            return sum(folded.values()) >= records
        if sum(worker.ingestor.committable_offsets.values()) < records:
            return False
        ends = await worker.fold.offsets.end_offsets(shard.tp for shard in worker.partitions.processors.values())
        return bool(ends) and all(folded.get(tp, 0) >= end for tp, end in ends.items())

    while not await done():
        if worker.supervisor.failure:
            sys.exit(worker.supervisor.failure)
        await asyncio.sleep(5 * _LOOK)
    meter.tell()
    await worker._commit_once()


async def load() -> None:
    """Measures from the assignment of the partitions until the worker folds: the load of the rows, without the time to
    join the group."""
    worker = await _started()
    starting = asyncio.create_task(worker.start())
    while not worker.partitions.processors:
        await asyncio.sleep(_LOOK)
    meter = Meter()
    while not worker.ready:
        if worker.supervisor.failure:
            sys.exit(worker.supervisor.failure)
        await asyncio.sleep(_LOOK)
    meter.tell(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    await starting


async def _main(role: str, *what: str) -> None:
    await (fold(*what) if role == "fold" else load())
    os._exit(0)  # without a clean shutdown, which is not measured


if __name__ == "__main__":
    run(_main(*sys.argv[1:]))
