"""Identifies processes by pid and start time. The kernel reuses pids; a reused pid has another start time."""

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

from streams.runtime.private_files import replace_atomically

__all__ = ["ProcessIdentity", "end", "identify", "is_alive", "read", "wait_until", "write"]

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process. `started` is opaque: compare it only with another value for the same pid."""

    pid: int
    started: str


def _start_time(pid: int) -> str | None:
    """Returns when the process started; None if it does not exist or is a zombie.

    A process whose main thread has ended while other threads run counts as alive: it still holds its ports.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return ps.stdout.strip() or None
    except ProcessLookupError:
        return None
    fields = stat[stat.rindex(")") + 2:].split()  # the name before the last bracket may contain brackets
    state, threads, started = fields[0], int(fields[17]), fields[19]
    return None if state in "ZX" and threads <= 1 else started


def identify(pid: int) -> ProcessIdentity | None:
    """Returns the identity of the running process `pid`; None if there is none."""
    started = _start_time(pid)
    return None if started is None else ProcessIdentity(pid, started)


def is_alive(process: ProcessIdentity) -> bool:
    """Returns whether that very process runs, not another one with its pid."""
    return _start_time(process.pid) == process.started


def write(path: Path, process: ProcessIdentity) -> None:
    """Writes a pid file, atomically."""
    with replace_atomically(path) as draft:
        draft.write_text(json.dumps(asdict(process)))


def read(path: Path) -> ProcessIdentity | None:
    """Reads a pid file; returns None if it is missing or invalid."""
    try:
        content = json.loads(path.read_text())
        return ProcessIdentity(int(content["pid"]), str(content["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Polls `holds` every 20 ms; returns True once it holds, False after `seconds`.

    For events without a notification, such as the end of a process that is not a child of this one.
    """
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def end(process: ProcessIdentity, timeout: float) -> bool:  # noqa: ASYNC109 - it also kills the process
    """Sends SIGTERM, and SIGKILL after `timeout` seconds.

    Returns True if the process ended without SIGKILL, or was gone already.
    """
    for signum, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        if not is_alive(process):
            return True
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)
        if await wait_until(lambda: not is_alive(process), seconds) and signum is signal.SIGTERM:
            return True
    return False
