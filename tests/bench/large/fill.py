"""Fills `attn.views` with rows, by two processes that each make half of the partitions. Part of `bench large`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from api.readmodel.workspace import PREFIXES
from bench.harness.workload import send
from bench.large.memory import PARTITIONS, Record, position_row, records
from bench.large.rows import Shape, hot_rows
from schemas.settings import Settings
from schemas.topics import VIEWS, partition_of
from schemas.views import encode_row, position_key
from streams.kafka import topics

__all__ = ["HOT", "Filled", "Shape", "fill", "settings_for"]

HOT = "ws_hot"
_PROCESSES = 2
_IN_FLIGHT = 20_000
# The rows of the hot workspace follow all others of its partition.
_HOT_POSITION = 100_000_000


class Filled(NamedTuple):
    """Rows that an edge keeps, and the average bytes of their keys and values; the same of a worker's rows."""

    kept: int
    size: float
    all: int
    all_size: float


def settings_for(bootstrap: str) -> Settings:
    return Settings(_env_file=None, kafka=bootstrap, log_partitions=PARTITIONS, source_partitions=1)


async def fill(bootstrap: str, shape: Shape, hot: int, marker: Path) -> Filled:
    """Fills the topic unless `marker` says that it is filled with the same rows."""
    wanted = [*shape, hot]
    if marker.exists():
        known = json.loads(marker.read_text())
        if known["wanted"] != wanted:
            raise SystemExit(f"{marker.parent} has {known['wanted']}, not {wanted}: use another directory")
        return Filled(*known["filled"])
    await topics.ensure_topics(settings_for(bootstrap))
    parts = await asyncio.gather(*(_part(bootstrap, shape, hot, part) for part in range(_PROCESSES)))
    kept, size, others, others_size = (sum(column) for column in zip(*parts, strict=True))
    filled = Filled(kept, size / kept, kept + others, (size + others_size) / (kept + others))
    marker.write_text(json.dumps({"wanted": wanted, "filled": filled}))
    return filled


async def _part(bootstrap: str, shape: Shape, hot: int, part: int) -> list[int]:
    command = [sys.executable, "-m", "bench.large.fill", bootstrap, *map(str, (*shape, hot, part))]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    if child.returncode:
        raise SystemExit("a process that fills the topic failed")
    return list(json.loads(out.splitlines()[-1]))


def _all(shape: Shape, hot: int, part: int) -> Iterator[Record]:
    yield from records(shape, PARTITIONS, part, _PROCESSES)
    partition = partition_of(HOT, PARTITIONS)
    if hot and partition % _PROCESSES == part:
        for number, (key, value) in enumerate(hot_rows(HOT, hot), 1):
            yield partition, key, value
            if number % 200 == 0 or number == hot:
                yield partition, position_key(partition), encode_row(position_row(_HOT_POSITION + number))


async def _send(bootstrap: str, shape: Shape, hot: int, part: int) -> None:
    kept: set[bytes] = set()
    size = others = others_size = 0

    def counted() -> Iterator[Record]:
        nonlocal size, others, others_size
        for partition, key, value in _all(shape, hot, part):
            if key[:2] not in PREFIXES:
                others += 1
                others_size += len(key) + len(value)
            elif key not in kept:
                kept.add(key)
                size += len(key) + len(value)
            yield partition, key, value

    await send(bootstrap, VIEWS, counted(), _IN_FLIGHT, linger_ms=20, max_batch_size=256 << 10)
    sys.stdout.write(json.dumps([len(kept), size, others, others_size]) + "\n")


if __name__ == "__main__":
    address, rows, workspaces, skew, hot_items, number = sys.argv[1:]
    asyncio.run(_send(address, Shape(int(rows), int(workspaces), float(skew)), int(hot_items), int(number)))
