"""Runs a worker as a process that may kill itself at a chosen point: `worker_process.py [POINT:N]`.

The process kills itself at the Nth pass of POINT:
    claim    a partition is claimed, its rows are not read
    loading  rows are read, the fold has not loaded them
    facts    before facts are written
    rows     facts are durable, rows are not
    table    rows are durable, the table does not have them
    log      packs are sent, not acknowledged
    commit   packs are durable, offsets are not committed
    freeze   the process stops itself (SIGSTOP); facts are durable, rows are not
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from schemas.settings import Settings
from schemas.topics import FACTS, VIEWS
from streams.consumer.group_offsets import GroupOffsets
from streams.core.fold.fold import Fold
from streams.ingest import agent as ingest
from streams.kafka.fencing import FencedProducer, PartitionFencer
from streams.kafka.producer import Headers
from streams.worker.main import run


def arm(crash: str) -> None:
    point, _, count = crash.partition(":")
    left = int(count)

    def crashing(
        before: bool, function: Callable[..., Any], when: Callable[..., bool] = lambda *_: True,
        end: int = signal.SIGKILL,
    ) -> Any:
        async def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if not when(*args):
                return await function(*args, **kwargs)
            left -= 1
            this = left == 0  # computed before the await: two partitions may call this concurrently
            if before and this:
                os.kill(os.getpid(), end)
            result = await function(*args, **kwargs)
            if not before and this:
                os.kill(os.getpid(), end)
            return result
        return armed

    write = FencedProducer.write_records
    if point == "facts":
        FencedProducer.write_records = crashing(True, write, lambda _, topic, records: topic == FACTS)
    elif point == "rows":
        FencedProducer.write_records = crashing(False, write, lambda _, topic, records: topic == FACTS)
    elif point == "table":
        FencedProducer.write_records = crashing(False, write, _is_batch)
    elif point == "freeze":
        FencedProducer.write_records = crashing(True, write, _is_batch, signal.SIGSTOP)
    elif point == "claim":
        PartitionFencer.fence = crashing(False, PartitionFencer.fence)
    elif point == "log":
        ingest.wait_acknowledged = crashing(True, ingest.wait_acknowledged)
    elif point == "commit":
        GroupOffsets.commit = crashing(True, GroupOffsets.commit, lambda _, done: bool(done))
    elif point == "loading":
        def load(self: Fold) -> None:
            os.kill(os.getpid(), signal.SIGKILL)
        Fold.load = load
    else:
        raise SystemExit(f"unknown point: {point}")


def _is_batch(_: FencedProducer, topic: str, records: list[tuple[bytes, bytes | None, Headers]]) -> bool:
    return topic == VIEWS and records[-1][0].startswith(b"~:")


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(Settings(), stop)


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    line = "%(asctime)s %(process)d %(name)s %(levelname)s %(message)s"
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"), format=line)
    if sys.argv[1:] and sys.argv[1]:
        arm(sys.argv[1])
    asyncio.run(main())
