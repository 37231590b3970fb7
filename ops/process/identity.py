"""Processes known by pid and start time, so that a pid which was given to another process is never taken for ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from streams.runtime import private_files

__all__ = ["ProcessIdentity", "end", "identify", "is_alive", "read", "wait_until", "write"]

_POLL = 0.02  # seconds


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process at one moment. `started` is opaque: only equality with the same pid's later value means anything."""

    pid: int
    started: str


def _started(pid: int) -> str | None:
    """When the process started, or None: it is not there, or is dead and only waits to be reaped.

    One whose first thread has ended still holds its ports until the others have.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    except ProcessLookupError:
        return None
    fields = stat[stat.rindex(")") + 2:].split()  # the name before may hold anything, brackets too
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else fields[19]


def identify(pid: int) -> ProcessIdentity | None:
    started = _started(pid)
    return None if started is None else ProcessIdentity(pid, started)


def is_alive(process: ProcessIdentity) -> bool:
    return _started(process.pid) == process.started


def write(path: Path, process: ProcessIdentity) -> None:
    """Write the process to a file, whole or not at all."""
    with private_files.replace_atomically(path) as draft:
        draft.write_text(json.dumps(asdict(process)))


def read(path: Path) -> ProcessIdentity | None:
    """The process of a file, or None where there is none or it is not readable."""
    try:
        found = json.loads(path.read_text())
        return ProcessIdentity(int(found["pid"]), str(found["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until `holds()`, at most so long; for what nobody tells us of, such as a process that is not our child."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_POLL)
    return True


async def end(process: ProcessIdentity, timeout: float) -> bool:  # noqa: ASYNC109 - it also kills the process
    """SIGTERM, wait at most `timeout` seconds, SIGKILL. True: it ended by itself (or was not there)."""
    for signum, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        if not is_alive(process):
            return True
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)
        if await wait_until(lambda: not is_alive(process), seconds) and signum is signal.SIGTERM:
            return True
    return False
