"""`python -m bench large`: one edge and one worker with many rows, many workspaces and many streams.

Fills `attn.views` of a one-node Apache Kafka with rows as the fold writes them, then measures: bytes of memory and CPU
per row of an edge and of a worker in processes of their own; `attn edge` from its start until it is ready; streams in
all workspaces, and changes until their frames arrive. `--data DIR` keeps the broker's data and the rows for further
runs, and `--fill-only` makes them. `--hot ITEMS` adds one workspace with so many open items, on which `--hot-readers`
readers are. The readers are in processes of their own, because a process may open 20,000 files on some machines.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.large import fill, memory
from bench.large.herd import measure_herd
from bench.large.running_edge import RunningEdge
from bench.large.running_worker import measure_worker, weigh_empty_worker
from bench.large.streams import Streams
from ops.kafka import Cluster

__all__ = ["main"]

_DESCRIPTORS = 100_000


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _memory(given: argparse.Namespace, directory: Path) -> None:
    path = directory / f"rows-{given.memory_rows}"
    if not path.exists():
        memory.write_rows(path, given.memory_shape)
    if given.fill_only:
        return
    floor = memory.measure("read only", path)
    size = floor["bytes"] / floor["rows"]
    _say(f"{floor['rows']:,} rows of an edge, {size:.0f} bytes each; goal: edge {1.15 * size + 60:.0f}, worker 1,200\n")
    _say("| held | bytes of memory per row | peak | CPU µs per row |\n| --- | --- | --- | --- |")
    for variant in memory.VARIANTS:
        if variant != "read only":
            found = memory.measure(variant, path)
            rows = found["rows"]
            cpu = found["cpu"] / rows - floor["cpu"] / floor["rows"]
            _say(f"| {variant} | {found['rss'] / rows:,.0f} | {found['peak'] / rows:,.0f} | {cpu * 1e6:.1f} |")


async def _edge(given: argparse.Namespace, directory: Path) -> None:
    async with Cluster(directory / "kafka", 1) as kafka:
        rows = await fill.fill(kafka.bootstrap, given.shape, given.hot, directory / "filled")
        if given.fill_only:
            return
        if given.worker:
            await _worker(kafka.bootstrap, rows)
            return
        empty = await RunningEdge.weigh_empty()
        async with RunningEdge(kafka.bootstrap) as edge:
            seconds = await edge.wait_ready()
            cpu, rss = edge.cpu(), edge.rss()
            _say(f"\n`attn edge`, {rows.kept:,} rows of {rows.size:.0f} bytes in {given.shape.workspaces:,} "
                 f"workspaces: ready after {seconds:.1f} s, {cpu:.1f} s of CPU "
                 f"({(cpu - empty.cpu) / rows.kept * 1e6:.1f} µs per row), {rss / 1e6:,.0f} MB "
                 f"({(rss - empty.rss) / rows.kept:.0f} bytes per row; goal {1.15 * rows.size + 60:.0f})")
            if given.herd:
                for nginx in {"bare": [False], "nginx": [True], "both": [False, True]}[given.herd]:
                    _say(await measure_herd(edge, given.streams, given.shape.workspaces, nginx))
                return
            streams = Streams(edge, kafka.bootstrap, given.shape)
            if given.streams:
                _say(await streams.measure(given.streams, given.changes))
            if given.hot and given.hot_readers:
                _say(await streams.measure_hot(given.hot, given.hot_readers, given.hot_personal))


async def _worker(bootstrap: str, rows: fill.Filled) -> None:
    empty = await weigh_empty_worker()
    _say(f"\n`attn worker` without rows: {empty.summary()}")
    found = await measure_worker(bootstrap)
    cpu, rss = (found.cpu - empty.cpu) / rows.all, (found.rss - empty.rss) / rows.all
    _say(f"\n`attn worker`, {rows.all:,} rows of {rows.all_size:.0f} bytes: {found.summary()}; {cpu * 1e6:.1f} µs and "
         f"{rss:.0f} bytes per row")


def _raise_descriptors() -> None:
    """Raises the limit of open files, for this process and the edge that it starts: a stream takes one on each side."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _DESCRIPTORS), max(hard, _DESCRIPTORS)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench large", description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--workspaces", type=int, default=1_000)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--changes", type=int, default=2_000, help="changes whose frames are timed")
    parser.add_argument("--memory-rows", type=int, default=200_000, help="rows of the parts without a broker; 0: none")
    parser.add_argument("--hot", type=int, default=0, help="open items of the hot workspace")
    parser.add_argument("--hot-readers", type=int, default=1_000)
    parser.add_argument("--hot-personal", action="store_true", help="each hot reader has a window of its own")
    parser.add_argument("--worker", action="store_true", help="measure `attn worker` instead of the edge")
    parser.add_argument("--herd", choices=("bare", "nginx", "both"), help="kill the edge; its streams connect again")
    parser.add_argument("--data", type=Path, help="directory that keeps the data")
    parser.add_argument("--fill-only", action="store_true")
    given = parser.parse_args()
    given.shape = fill.Shape(given.rows, given.workspaces)
    given.memory_shape = fill.Shape(given.memory_rows, max(1, given.memory_rows // 500))
    _raise_descriptors()
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as scratch:
        directory = given.data or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        if given.memory_rows:
            _memory(given, directory)
        if given.rows:
            uvloop.run(_edge(given, directory))


if __name__ == "__main__":
    main()
