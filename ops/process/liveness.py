"""Decides from HTTP probes whether a process still works. A process that stopped responding may look alive to the
operating system, for instance after a deadlock or SIGSTOP.

`LivenessTracker` decides and is pure (time is an argument); `probe` sends the requests.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["LivenessPolicy", "LivenessTracker", "probe"]


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """`interval`: seconds between probes. `timeout`: seconds without a response after which a process is unresponsive.
    `startup_timeout` applies until it was ready once, because loading a large view takes long. `min_misses`: probes in
    a row that must fail as well: if the supervisor itself was suspended, all processes appear silent afterwards."""

    interval: float = 1.0
    timeout: float = 20.0
    startup_timeout: float = 120.0
    min_misses: int = 3

    @property
    def probe_timeout(self) -> float:
        """Seconds that one probe waits for its response."""
        return self.timeout / self.min_misses


class LivenessTracker:
    """Probe results of one process. Times are seconds of a monotonic clock; `now` is when the process was started."""

    def __init__(self, policy: LivenessPolicy, now: float) -> None:
        self.was_ready = False
        self._policy = policy
        self._last_answer = now
        self._misses = 0

    def record_answer(self, now: float, ready: bool) -> None:
        """Records a response to a probe. `ready`: it was a 200 of `/readyz` or of `/healthz`."""
        self._last_answer, self._misses = now, 0
        self.was_ready |= ready

    def record_miss(self, now: float) -> bool:
        """Records a probe without a response. Returns True if the process is unresponsive."""
        self._misses += 1
        timeout = self._policy.timeout if self.was_ready else self._policy.startup_timeout
        return self._misses >= self._policy.min_misses and now - self._last_answer >= timeout

    def silence(self, now: float) -> float:
        """Returns the seconds since the last response, or since the start."""
        return now - self._last_answer


async def probe(host: str, port: int, path: str, seconds: float) -> int | None:
    """Sends GET `path`; returns the HTTP status, or None if there is no valid response within `seconds`.

    It uses no thread: a pending thread would delay the shutdown of the supervisor.
    """
    with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, LookupError, ValueError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: attn\r\nconnection: close\r\n\r\n".encode())
                return int((await reader.readuntil(b"\r\n")).split()[1])
            finally:
                writer.close()
    return None
