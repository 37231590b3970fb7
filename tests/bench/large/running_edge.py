"""`attn edge` as a process of its own, and what it uses. Part of `bench large`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

import httpx
import psutil

from bench.harness.subprocesses import environment
from bench.large.memory import PARTITIONS
from ops.kafka import Cluster
from ops.process.ports import free_port

__all__ = ["SECRET", "RunningEdge"]

SECRET = "a secret for the bench, long enough for an HMAC"
_LOOK = 0.05  # seconds
_SECONDS = 900.0


class Used(NamedTuple):
    """Seconds of CPU, and bytes of resident memory."""

    cpu: float
    rss: int


class RunningEdge:
    """Starts the edge on a broker. All rows are older than a feed could resume from, as after a quiet night."""

    def __init__(self, bootstrap: str, **settings: object) -> None:
        self.port = free_port()
        self._environment = environment(
            kafka=bootstrap, log_partitions=PARTITIONS, port=self.port, jwt_secret=SECRET, resume_hours=0.0001,
            log_level="WARNING", max_streams=1_000_000, **settings)
        self._child: asyncio.subprocess.Process | None = None

    @staticmethod
    async def weigh_empty() -> Used:
        """Returns what an edge uses until it is ready on a broker without rows."""
        with tempfile.TemporaryDirectory(prefix="attn-bench-") as scratch:
            async with Cluster(Path(scratch) / "kafka", 1) as kafka, RunningEdge(kafka.bootstrap) as edge:
                await edge.wait_ready()
                return Used(edge.cpu(), edge.rss())

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def restart(self) -> None:
        """Kills the process and starts it again, at the same port."""
        assert self._child is not None
        self._child.kill()
        await self._child.wait()
        await self._start()

    async def _start(self) -> None:
        self._started = time.monotonic()
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ops.cli", "edge", env=self._environment)
        self._process = psutil.Process(self._child.pid)

    async def __aexit__(self, *_: object) -> None:
        assert self._child is not None
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()

    async def wait_ready(self) -> float:
        """Returns the seconds from the start until /readyz is 200."""
        assert self._child is not None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False) as client:
            async with asyncio.timeout(_SECONDS):
                while True:
                    if self._child.returncode is not None:
                        raise SystemExit(f"the edge ended with code {self._child.returncode}")
                    try:
                        if (await client.get("/readyz")).status_code == 200:
                            return time.monotonic() - self._started
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(_LOOK)

    def cpu(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def used(self) -> Used:
        return Used(self.cpu(), self.rss())

    def rss(self) -> int:
        return int(self._process.memory_info().rss)
