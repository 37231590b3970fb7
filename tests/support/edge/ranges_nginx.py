"""A real nginx with ops/deploy/nginx/ranges.conf before edges that each serve a range of partitions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from ops.process.ports import free_port

__all__ = ["MODULE", "NGINX", "RangesNginx", "running_nginx"]

NGINX = Path("/usr/sbin/nginx")
MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
_DEPLOY = Path(__file__).parents[3] / "ops" / "deploy" / "nginx"


class RangesNginx:
    """`ranges`: for example "0-1=range_a, 2-2=range_b". The edges of `range_a` and `range_b` are given by address."""

    def __init__(self, directory: Path, partitions: int) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._directory, self._partitions = directory, partitions
        self._conf = directory / "nginx.conf"
        self._process: asyncio.subprocess.Process | None = None

    def configure(self, ranges: str, edges: tuple[str, str]) -> None:
        text = (_DEPLOY / "ranges.conf").read_text()
        for old, new in {
            "modules/ngx_http_js_module.so": str(MODULE), "/etc/nginx/attn/": f"{_DEPLOY}/",
            "listen 8080": f"listen 127.0.0.1:{self.port}", "worker_processes auto": "worker_processes 1",
            "edge-a:8080": edges[0].removeprefix("http://"), "edge-b:8080": edges[1].removeprefix("http://"),
            "$attn_partitions 64": f"$attn_partitions {self._partitions}", "0-31=range_a, 32-63=range_b": ranges,
            "/dev/stdout": str(self._directory / "access.log"), "/dev/stderr": str(self._directory / "error.log"),
            "worker_rlimit_nofile 65536": f"pid {self._directory}/nginx.pid;\ndaemon off",
            "worker_connections 16384": "worker_connections 1024",
        }.items():
            assert old in text, old
            text = text.replace(old, new)
        self._conf.write_text(text)

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            NGINX, "-c", self._conf, "-e", self._directory / "error.log")
        for _ in range(200):
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                return
            await asyncio.sleep(0.05)
        raise AssertionError((self._directory / "error.log").read_text())

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def last_upstreams(self, path: str) -> list[str]:
        """Returns the addresses that answered the newest request of a path: two after a 421."""
        lines = [line for line in (self._directory / "access.log").read_text().splitlines() if f" {path} " in line]
        return re.findall(r"127\.0\.0\.1:\d+", lines[-1].split(path, 1)[1]) if lines else []

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@contextlib.asynccontextmanager
async def running_nginx(
    directory: Path, partitions: int, ranges: str, edges: tuple[str, str]
) -> AsyncIterator[RangesNginx]:
    nginx = RangesNginx(directory, partitions)
    nginx.configure(ranges, edges)
    try:
        await nginx.start()
        yield nginx
    finally:
        await nginx.stop()
