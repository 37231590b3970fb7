"""A real nginx with ops/deploy/nginx/nginx.conf before two edges on this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from ops.process.ports import free_port

__all__ = ["JS_MODULE", "NGINX", "nginx_conf", "running"]

NGINX = Path("/usr/sbin/nginx")
JS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
_DEPLOY = Path(__file__).parents[3] / "ops" / "deploy" / "nginx"


def nginx_conf(directory: Path, port: int, edges: tuple[int, int], connections: int = 256) -> Path:
    """Writes nginx.conf with the paths and addresses of a test. Returns its path. `edges`: ports of the edges.
    `connections`: those that one address may have."""
    text = (_DEPLOY / "nginx.conf").read_text()
    for old, new in {
        "limit_conn addresses 256": f"limit_conn addresses {connections}",
        "modules/ngx_http_js_module.so": str(JS_MODULE), "/etc/nginx/attn/": f"{_DEPLOY}/",
        "listen 8080": f"listen 127.0.0.1:{port}", "edge-1:8080": f"127.0.0.1:{edges[0]}",
        "edge-2:8080": f"127.0.0.1:{edges[1]}", "worker_processes auto": "worker_processes 1",
        "/dev/stdout": str(directory / "access.log"), "/dev/stderr": str(directory / "error.log"),
        "worker_rlimit_nofile 65536": f"pid {directory}/nginx.pid;\ndaemon off",
        "worker_connections 16384": "worker_connections 256",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    path = directory / "nginx.conf"
    path.write_text(text)
    return path


@contextlib.asynccontextmanager
async def running(directory: Path, edges: tuple[int, int], connections: int = 256) -> AsyncIterator[int]:
    """Runs nginx before the edges. Yields the port of nginx."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        NGINX, "-c", nginx_conf(directory, port, edges, connections), "-e", directory / "error.log")
    try:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()
