"""Memory and CPU of the rows of an edge and of a worker, each in a process of its own. Part of `bench large`.

The rows come from a file, in batches of 200 with their positions, like the records of `attn.views`. The floor is a
dict of the same keys and values.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from api.edge.initial_state import BatchAssembler, InitialState
from api.readmodel.replica import Replica
from api.readmodel.workspace import PREFIXES
from bench.large.rows import BEGIN, Shape, sizes, workspace_name, workspace_rows
from schemas.topics import partition_of
from schemas.views import PositionRow, encode_row, position_key
from streams.core.fold.state import RowCache
from streams.fold.row_store import InMemoryRowStore

__all__ = ["PARTITIONS", "main", "measure", "position_row", "records", "write_rows"]

PARTITIONS = 64
BATCH = 200  # rows with one position row

Record = tuple[int, bytes, bytes]


def records(shape: Shape, partitions: int = PARTITIONS, part: int = 0, parts: int = 1) -> Iterator[Record]:
    """Yields partition, key and value of the rows of every `parts`-th partition from `part` on, in batches that end
    with their positions. Rows of the workspaces of a partition alternate, as events of many workspaces arrive."""
    own: dict[int, list[tuple[int, int]]] = {}
    for number, count in enumerate(sizes(shape)):
        partition = partition_of(workspace_name(number), partitions)
        if partition % parts == part:
            own.setdefault(partition, []).append((number, count))
    for partition, workspaces in own.items():
        position = 0
        sources = [workspace_rows(*workspace) for workspace in workspaces]
        while sources:
            left = []
            for source in sources:
                count = 0
                for count, (key, value) in enumerate(source, 1):
                    position += 1
                    yield partition, key, value
                    if position % BATCH == 0:
                        yield partition, position_key(partition), encode_row(position_row(position))
                    if count == 20:
                        left.append(source)
                        break
            sources = left
        yield partition, position_key(partition), encode_row(position_row(position + 1))


def position_row(position: int) -> PositionRow:
    """Returns the row of a position. The log is empty: a worker that loads the rows folds its first pack next."""
    return PositionRow(0, BEGIN + position, position)


def write_rows(path: Path, shape: Shape) -> None:
    with path.open("wb", 1 << 20) as file:
        for partition, key, value in records(shape):
            file.write(b"%d %d %d\n" % (partition, len(key), len(value)) + key + value)


def _read(path: Path) -> Iterator[Record]:
    with path.open("rb", 1 << 20) as file:
        while head := file.readline():
            partition, key, value = map(int, head.split())
            yield partition, file.read(key), file.read(value)


def _nothing(path: Path) -> tuple[Any, int, int]:
    """Reads the file and keeps nothing: the CPU that every variant has in common."""
    count = size = 0
    for _, key, value in _read(path):
        if key[:2] in PREFIXES:
            count += 1
            size += len(key) + len(value)
    return None, count, size


def _dict(path: Path) -> tuple[Any, int, int]:
    rows = {key: value for _, key, value in _read(path) if key[:2] in PREFIXES}
    return rows, len(rows), 0


def _replica(path: Path) -> Replica:
    """Loads the rows as an edge does. They are too old to be resumed from."""
    loading, assemblers = InitialState(1 << 20, 2), [BatchAssembler(number) for number in range(PARTITIONS)]
    for partition, key, value in _read(path):
        batch = assemblers[partition].add(key, value, 1)
        if batch is not None:
            loading.add(batch)
    loading.advance_horizon(2)
    state, _ = loading.finish()
    replica = Replica(PARTITIONS)
    for partition in list(state):
        replica.load(partition, *state.pop(partition))
    return replica


def _edge(path: Path) -> tuple[Any, int, int]:
    replica = _replica(path)
    return replica, replica.row_count(), 0


def _indexed(path: Path) -> tuple[Any, int, int]:
    replica = _replica(path)
    for name in list(replica._workspaces):
        replica.workspace(name)
    return replica, replica.row_count(), 0


def _worker(path: Path) -> tuple[Any, int, int]:
    """Loads the rows of all partitions as a worker does, which keeps every kind of row."""
    store, size = InMemoryRowStore(), 0
    waiting: dict[int, list[tuple[bytes, bytes | None]]] = {}
    for offset, (partition, key, value) in enumerate(_read(path)):
        size += len(key) + len(value)
        batch = waiting.setdefault(partition, [])
        batch.append((key, value))
        if key[:2] == b"~:":
            store.put(partition, batch, offset)
            waiting[partition] = []
    caches = [RowCache(store.rows(number), number) for number in range(PARTITIONS)]
    for cache in caches:
        cache.load()
    return (store, caches), sum(len(cache.rows) for cache in caches), size


VARIANTS: dict[str, Callable[[Path], tuple[Any, int, int]]] = {
    "read only": _nothing, "dict": _dict, "edge": _edge, "edge, all workspaces indexed": _indexed, "worker": _worker,
}


def measure(variant: str, path: Path) -> dict[str, Any]:
    """Returns seconds of CPU, bytes of RSS at the end and at the peak, rows, and bytes of the rows."""
    command = [sys.executable, "-m", "bench.large.memory", variant, str(path)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    variant, path = sys.argv[1], Path(sys.argv[2])
    gc.freeze()
    process = psutil.Process()
    before, begun = process.memory_info().rss, time.process_time()
    held, rows, size = VARIANTS[variant](path)
    cpu = time.process_time() - begun
    gc.collect()
    rss = process.memory_info().rss - before
    peak = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
    sys.stdout.write(json.dumps(
        {"cpu": cpu, "rss": rss, "peak": peak * 1024 - before, "rows": rows, "bytes": size}) + "\n")
    del held


if __name__ == "__main__":
    main()
