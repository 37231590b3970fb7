"""Is a part still there? It is asked over HTTP; who does not answer any more is wedged, however alive its process is.

`Pulse` decides and is pure (time is an argument); `ask` asks.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Patience", "Pulse", "ask"]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. A part that was never ready may be loading a large view, and has `starting`; then it has `silent`."""

    every: float = 1.0
    silent: float = 20.0
    starting: float = 120.0
    misses: int = 3  # in a row at least: our own process may have been stopped, and then all of them were silent

    @property
    def answer(self) -> float:
        """What one answer may take."""
        return self.silent / self.misses


class Pulse:
    """Of one process. `now`: when it was started."""

    def __init__(self, patience: Patience, now: float) -> None:
        self.was_ready = False
        self._patience = patience
        self._last = now
        self._misses = 0

    def answered(self, now: float, ready: bool) -> None:
        self._last, self._misses = now, 0
        self.was_ready |= ready

    def missed(self, now: float) -> bool:
        """It did not answer. True: it is wedged."""
        self._misses += 1
        silent = self._patience.silent if self.was_ready else self._patience.starting
        return self._misses >= self._patience.misses and now - self._last >= silent

    def silence(self, now: float) -> float:
        return now - self._last


async def ask(host: str, port: int, path: str, seconds: float) -> int | None:
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
