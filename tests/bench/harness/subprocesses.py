"""Candidates are processes of their own, so that their CPU is theirs. What runs one, and what runs in one."""

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
    """Seconds of CPU and of time, and megabytes: what was read, or memory, as the candidate says."""

    cpu: float
    wall: float
    megabytes: float = 0.0


def cpu_seconds() -> float:
    """CPU of this process so far, its threads included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Starts when it is made; `tell` prints what was used since, which is what `measure` reads."""

    def __init__(self) -> None:
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()

    def tell(self, megabytes: float = 0.0) -> None:
        # Past Faust, which takes over stdout.
        os.write(1, f"\n{cpu_seconds() - self._cpu} {time.perf_counter() - self._wall} {megabytes}\n".encode())


def run(candidate: Coroutine[Any, Any, None]) -> None:
    """Runs it in the loop that attn's roles run in."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(candidate)


def ready() -> None:
    """The child waits for its input."""
    os.write(1, b"ready\n")


def environment(**settings: object) -> dict[str, str]:
    """The environment in which a child has these settings, and none of ours besides."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")}
    return own | {f"ATTN_{name.upper()}": str(value) for name, value in settings.items()}


async def measure(
    module: str, *args: object, feed: Callable[[], Awaitable[int]] | None = None,
    env: dict[str, str] | None = None, seconds: float = SECONDS,
) -> Figures:
    """Starts `python -m module args`, feeds it once it is ready, returns what it tells. How much it was fed is a line
    on its stdin. SystemExit: it tells nothing."""
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
        said = err.decode(errors="replace")[-2000:]
        raise SystemExit(f"{module} {' '.join(map(str, args))} gave no figures: {said}") from None
