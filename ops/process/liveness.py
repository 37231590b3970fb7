"""Is a part still there? It is asked over HTTP; who does not answer any more is wedged, however alive its process is.

`LivenessTracker` decides and is pure (time is an argument); `probe` asks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["LivenessPolicy", "LivenessTracker", "probe"]


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """Seconds. A part that was never ready may be loading a large view, and has `starting`; then it has `silent`."""

    interval: float = 1.0
    timeout: float = 20.0
    startup_timeout: float = 120.0
    min_misses: int = 3  # in a row at least: our own process may have been stopped, and then all of them were silent

    @property
    def probe_timeout(self) -> float:
        """What one answer may take."""
        return self.timeout / self.min_misses


class LivenessTracker:
    """Of one process. `now`: when it was started."""

    def __init__(self, policy: LivenessPolicy, now: float) -> None:
        self.was_ready = False
        self._policy = policy
        self._last = now
        self._misses = 0

    def record_answer(self, now: float, ready: bool) -> None:
        self._last, self._misses = now, 0
        self.was_ready |= ready

    def record_miss(self, now: float) -> bool:
        """It did not answer. True: it is wedged."""
        self._misses += 1
        silent = self._policy.timeout if self.was_ready else self._policy.startup_timeout
        return self._misses >= self._policy.min_misses and now - self._last >= silent

    def silence(self, now: float) -> float:
        return now - self._last


async def probe(host: str, port: int, path: str, seconds: float) -> int | None:
    """The status of GET `path`, or None: no answer in time. (No thread for it: that would hold up our own end.)"""
    with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError, LookupError, ValueError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: attn\r\nconnection: close\r\n\r\n".encode())
                return int((await reader.readuntil(b"\r\n")).split()[1])
            finally:
                writer.close()
    return None
