"""`python -m bench idle`: what an idle `attn up` costs, how fast it answers after silence, and how it starts with much
data.

A real `attn up` runs in a temporary directory, on the embedded broker or, with `--kafka`, on Apache Kafka, whose own
process is not counted. Without flags it measures CPU, memory, context switches and fetches of each process. `--latency`
measures an event and a dismiss after silence. `--events N` replays N events, stops attn and measures the next start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from support.processes.up import Up

from bench.idle import latency, start
from bench.idle.memory import find_processes, memory
from ops.kafka import Cluster

__all__ = ["main"]

_SAMPLES = re.compile(r'^attn_kafka_fetches_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench idle", description=__doc__)
    parser.add_argument("--kafka", action="store_true", help="on one node of Apache Kafka")
    parser.add_argument("--settle", type=float, default=20.0, help="seconds of silence before the measurement")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the measurement")
    parser.add_argument("--latency", type=int, default=0, metavar="N", help="N events and N dismisses after silence")
    parser.add_argument("--silence", type=float, default=10.0, help="seconds before each of them")
    parser.add_argument("--events", type=int, default=0, metavar="N", help="replay N events and start again")
    asyncio.run(_run(parser.parse_args()))


async def _run(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as home:
        async with _kafka(home if given.kafka else None) as kafka:
            up = Up(Path(home), kafka=kafka)
            try:
                sys.stdout.write(f"ready in {up.start():.1f} s\n")
                if given.latency:
                    await latency.run(up, given.latency, given.silence)
                elif given.events:
                    await start.run(up, given.events)
                else:
                    await asyncio.sleep(given.settle)
                    sys.stdout.write(await _idle(up, given.seconds))
            finally:
                up.close()
        sys.stdout.flush()


@contextlib.asynccontextmanager
async def _kafka(home: str | None) -> AsyncIterator[str | None]:
    """Yields the address of an Apache Kafka in `home`, or None without one."""
    if home is None:
        yield None
        return
    async with Cluster(f"{home}/kafka", brokers=1) as cluster:
        yield cluster.bootstrap


@dataclass
class _Usage:
    """What a process and its children have used so far."""

    cpu: float = 0.0  # seconds
    switches: int = 0  # voluntary and involuntary, of all threads
    fetches: float = 0.0


async def _idle(up: Up, seconds: float) -> str:
    """Returns a Markdown table of one measurement."""
    processes = await asyncio.to_thread(find_processes, up)
    before = {name: _usage(up, name, process) for name, process in processes.items()}
    began = time.monotonic()
    await asyncio.sleep(seconds)
    after = {name: _usage(up, name, process) for name, process in processes.items()}
    took = time.monotonic() - began
    rows, total = [], [0.0] * 5
    for name, process in processes.items():
        used, earlier, held = after[name], before[name], memory(process)
        values = [
            (used.cpu - earlier.cpu) / took * 100, held.pss, held.rss, (used.switches - earlier.switches) / took,
            (used.fetches - earlier.fetches) / took]
        total = [sum(pair) for pair in zip(total, values, strict=True)]
        rows.append(_row(name, values))
    head = "| idle | CPU % of a core | PSS MB | RSS MB | context switches/s | fetches/s |\n|" + " --- |" * 6
    return "\n".join([head, *rows, _row("all", total)]) + "\n"


def _row(name: str, values: list[float]) -> str:
    cpu, pss, rss, switches, fetches = values
    return f"| {name} | {cpu:.1f} | {pss:.0f} | {rss:.0f} | {switches:.0f} | {fetches:.0f} |"


def _family(name: str, process: psutil.Process) -> list[psutil.Process]:
    # The supervisor's children are the other processes of the table.
    return [process] if name == "supervisor" else [process, *process.children(recursive=True)]


def _usage(up: Up, name: str, process: psutil.Process) -> _Usage:
    usage = _Usage(fetches=_fetches(up, name))
    for each in _family(name, process):
        times = each.cpu_times()
        usage.cpu += times.user + times.system
        for thread in Path(f"/proc/{each.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended
                status = (thread / "status").read_text()
                usage.switches += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", status)))
    return usage


def _fetches(up: Up, name: str) -> float:
    """Returns the number of fetch requests that the process has sent, from its metrics. The broker sends none."""
    path = up.data_dir / "run" / f"{name}.url"
    if not path.exists():
        return 0.0
    text = httpx.get(f"{path.read_text().strip()}/metrics", timeout=10, trust_env=False).text
    return sum(float(value) for _, value in _SAMPLES.findall(text))
