"""How `attn up` starts with much data: N events are replayed, attn is stopped and started again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
from support.processes.cli import COMMAND
from support.processes.up import Up

from bench.harness.workload import SOURCE, source_events
from bench.idle.memory import find_processes, memory
from schemas.scalars import SECOND

__all__ = ["run"]

_SECONDS = 240.0  # for the replay, and for attn to process it
_EVENTS_PER_SUBJECT = 8
_SQL = "SELECT count() FROM activity"


async def run(up: Up, count: int) -> None:
    """Prints the time and memory of the replay, the stop and the next start."""
    await asyncio.to_thread(_run, up, count)


def _run(up: Up, count: int) -> None:
    began = time.monotonic()
    _replay(up, count)
    sent = time.monotonic() - began
    _wait_stored(up, count)
    sys.stdout.write(
        f"{count} events: sent in {sent:.1f} s, in ClickHouse after {time.monotonic() - began:.1f} s\n")
    sys.stdout.write(f"before the stop: {_memory(up)}\n")
    code, seconds = up.stop(seconds=_SECONDS)
    sys.stdout.write(f"stopped in {seconds:.1f} s, exit code {code}\n")
    _wait_broker_ended(up)
    sys.stdout.write(f"on disk: {_sizes(up.data_dir)}\n")
    sys.stdout.write(f"ready again: {_start(up)}\n")
    time.sleep(10.0)
    sys.stdout.write(f"after the start: {_memory(up)}\n")


def _replay(up: Up, count: int) -> None:
    """Runs `attn replay` with a file of the events. Their times end now."""
    begin = int(time.time()) * SECOND - count * SECOND // 10
    path = up.home / "events.jsonl"
    with path.open("w") as file:
        for _, value in source_events(count, subjects=count // _EVENTS_PER_SUBJECT, begin=begin, step_us=SECOND // 10):
            file.write(json.dumps({"topic": SOURCE, "value": json.loads(value)}) + "\n")
    subprocess.run(
        [*COMMAND, "replay", str(path), "--data-dir", str(up.data_dir)], cwd=up.home, env=up.env, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS)


def _wait_stored(up: Up, count: int) -> None:
    """Waits until the history has a fact of each event."""
    until = time.monotonic() + _SECONDS
    while (stored := _stored(up)) < count:
        if time.monotonic() > until:
            raise SystemExit(f"only {stored} of {count} events are in ClickHouse after {_SECONDS:.0f} s")
        time.sleep(0.5)


def _stored(up: Up) -> int:
    runtime = json.loads((up.data_dir / "up.json").read_text())
    password = (up.data_dir / "clickhouse-password").read_text().strip()
    answer = httpx.post(
        f"http://127.0.0.1:{runtime['clickhouse_port']}/", content=_SQL, auth=("reader", password), trust_env=False)
    return int(answer.text) if answer.status_code == 200 else 0


def _wait_broker_ended(up: Up) -> None:
    """The broker may save its data after `attn up` has ended."""
    began = time.monotonic()
    while up.part("broker") is not None and time.monotonic() - began < _SECONDS:
        time.sleep(0.1)
    if (seconds := time.monotonic() - began) > 0.2:
        sys.stdout.write(f"the broker saved for {seconds:.1f} s more\n")


def _memory(up: Up) -> str:
    parts = {name: memory(process) for name, process in find_processes(up).items()}
    total = sum(each.pss for each in parts.values())
    return f"{total:.0f} MB PSS: " + ", ".join(f"{name} {each.pss:.0f}" for name, each in parts.items())


def _sizes(data_dir: Path) -> str:
    sizes = {
        path.name: sum(file.stat().st_size for file in _files(path)) / (1 << 20) for path in sorted(data_dir.iterdir())}
    return ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items() if size >= 1)


def _files(path: Path) -> Iterator[Path]:
    return (each for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file())


def _start(up: Up) -> str:
    """Starts it. Returns when the broker accepted requests and when each process was ready, in seconds."""
    began, began_at = time.monotonic(), time.time()
    up.start(None)
    checks: dict[str, Callable[[], bool]] = {
        name: partial(_is_ready, up.data_dir / "run" / f"{name}.url", began_at)
        for name in ("worker", "edge", "history")}
    if up.embedded:
        checks["broker"] = lambda: (file := up.data_dir / "broker" / "noida.control.json").exists() and (
            file.stat().st_mtime > began_at)
    took: dict[str, float] = {}
    while len(took) < len(checks):
        if not up.running or time.monotonic() - began > _SECONDS:
            raise SystemExit(f"not ready: {up.output_text()[-2000:]}")
        for name, holds in checks.items():
            if name not in took and holds():
                took[name] = time.monotonic() - began
        time.sleep(0.02)
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(took.items(), key=lambda pair: pair[1]))


def _is_ready(url: Path, since: float) -> bool:
    """Whether the process that wrote the file `url` after `since` is ready."""
    try:
        if url.stat().st_mtime < since:
            return False
        return httpx.get(f"{url.read_text().strip()}/readyz", timeout=2, trust_env=False).status_code == 200
    except (OSError, httpx.HTTPError):
        return False
