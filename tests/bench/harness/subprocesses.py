"""Runs the candidates of a bench as child processes, and measures CPU and time inside of a child.

A candidate has its own process: its CPU then contains nothing of the others.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import uvloop

__all__ = ["Figures", "Meter", "cpu_seconds", "environment", "measure", "ready", "run"]

SECONDS = 180.0


class Figures(NamedTuple):
    """CPU seconds, wall seconds, and megabytes: bytes read or memory, depending on the candidate."""

    cpu: float
    wall: float
    megabytes: float = 0.0


def cpu_seconds() -> float:
    """Returns the CPU seconds that this process has used, threads included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Measures from its creation on. `tell` prints CPU and time since then; `measure` in the parent reads them."""

    def __init__(self) -> None:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()

    def tell(self, megabytes: float = 0.0) -> None:
        # Not print(): Faust replaces sys.stdout.
        os.write(1, f"\n{cpu_seconds() - self._cpu} {time.perf_counter() - self._wall} {megabytes}\n".encode())


def run(candidate: Coroutine[Any, Any, None]) -> None:
    """Runs the candidate in an event loop of uvloop, as the roles of attn do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(candidate)


def ready() -> None:
    """Tells the parent that the child is ready for its input."""
    os.write(1, b"ready\n")


def environment(**settings: object) -> dict[str, str]:
    """Returns the environment of a child with these settings and no other `ATTN_*` variables."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")}
    return own | {f"ATTN_{name.upper()}": str(value) for name, value in settings.items()}


async def measure(
    module: str, *args: object, feed: Callable[[], Awaitable[int]] | None = None,
    env: dict[str, str] | None = None, seconds: float = SECONDS,
) -> Figures:
    """Runs `python -m module args` and returns the figures that it prints.

    Once the child is ready, calls `feed` and writes its result, the number of records sent, to the child's stdin.
    Raises SystemExit if the child prints no figures.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, args), env=env, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            fed = b""
            if feed is not None:
                while (line := await child.stdout.readline()) and line != b"ready\n":
                    pass
                fed = b"%d\n" % await feed()
            out, err = await child.communicate(fed)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        return Figures(*map(float, out.split(b"\n")[-2].split()))
    except (ValueError, TypeError, IndexError):
        output = err.decode(errors="replace")[-2000:]
        raise SystemExit(f"{module} {' '.join(map(str, args))} printed no figures: {output}") from None
