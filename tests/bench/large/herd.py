"""The herd: readers of an edge that is killed and started again connect by themselves. Part of `bench large`.

The readers have one source address, or nginx with the configuration of `ops/deploy/nginx` is between them and the edge.
They connect again after the delay that the edge sent, as an EventSource does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from bench.large.readers import Readers
from bench.large.rows import workspace_name
from bench.large.running_edge import RunningEdge
from ops.process.ports import free_port

__all__ = ["measure_herd"]

_SECONDS, _LOOK = 100.0, 0.25
_AT_ONCE = 50
_PER_PROCESS = 9_800  # readers
_NGINX, _MODULE = Path("/usr/sbin/nginx"), Path("/usr/lib/nginx/modules/ngx_http_js_module.so")
_DEPLOY = Path(__file__).parents[3] / "ops" / "deploy" / "nginx"
_METRICS = ("attn_edge_streams_deferred_total", "attn_edge_connections_evicted_total")


async def measure_herd(edge: RunningEdge, streams: int, workspaces: int, nginx: bool) -> str:
    """Returns when the streams are open again after the edge was killed, and what their attempts met."""
    specs = [(workspace_name(number % workspaces), number) for number in range(streams)]
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(_nginx(edge.port)) if nginx else edge.port
        addresses = 120 if nginx else 1
        readers = await stack.enter_async_context(
            Readers(port, specs, -(-streams // _PER_PROCESS), addresses=addresses))
        await readers.all("connect", at_once=_AT_ONCE, resume=False)
        await readers.all("returning")
        begun, overflows = time.monotonic(), _overflows()
        await edge.restart()
        ready = asyncio.create_task(edge.wait_ready())
        lines = [f"\nherd of {streams:,} streams, {'nginx' if nginx else 'one address'}; edge killed and started:"]
        shares = [0.1, 0.5, 0.9, 0.99, 1.0]
        at: list[str] = []
        while shares and time.monotonic() - begun < _SECONDS:
            answers = await readers.all("status")
            number = sum(answer["open"] for answer in answers)
            while shares and ready.done() and number >= shares[0] * streams:
                at.append(f"{shares.pop(0):.0%} after {time.monotonic() - begun:.1f} s")
            await asyncio.sleep(_LOOK)
        lost = sum((Counter(answer["losses"]) for answer in answers), Counter[str]())
        lines.append(f"- ready after {await ready:.1f} s; open: {', '.join(at)}; {number:,} at the end")
        lines.append(f"- ends of attempts: {dict(lost)}; CPU of the edge {edge.cpu():.1f} s; {await _metrics(edge)}; "
                     f"connections lost at full accept queues {_overflows() - overflows:,}")
        return "\n".join(lines)


def _overflows() -> int:
    """Returns how many connections the kernel of this machine dropped because a process accepted too slowly."""
    names, values = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines()
                     if line.startswith("TcpExt:"))
    return int(values[names.index("ListenOverflows")])


async def _metrics(edge: RunningEdge) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        text = (await client.get(f"http://127.0.0.1:{edge.port}/metrics")).text
    return ", ".join(line for line in text.splitlines() if line.startswith(_METRICS))


@contextlib.asynccontextmanager
async def _nginx(edge: int) -> AsyncIterator[int]:
    """Runs nginx as deployed before one edge. Four processes, because each may have too few open files for all."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="attn-bench-") as name:
        text = (_DEPLOY / "nginx.conf").read_text()
        for old, new in {
            "modules/ngx_http_js_module.so": str(_MODULE), "/etc/nginx/attn/": f"{_DEPLOY}/",
            "listen 8080": f"listen 127.0.0.1:{port}", "worker_processes auto": "worker_processes 4",
            "edge-1:8080 max_fails=2 fail_timeout=5s": f"127.0.0.1:{edge}",
            "        server edge-2:8080 max_fails=2 fail_timeout=5s;\n": "",
            "edge-1:8080 max_fails=0": f"127.0.0.1:{edge}", "        server edge-2:8080 max_fails=0;\n": "",
            "/dev/stdout": f"{name}/access.log", "/dev/stderr": f"{name}/error.log",
            "worker_rlimit_nofile 65536": f"pid {name}/nginx.pid;\ndaemon off;\nworker_rlimit_nofile 20000",
        }.items():
            assert re.search(re.escape(old), text), old
            text = text.replace(old, new)
        (Path(name) / "nginx.conf").write_text(text)
        child = await asyncio.create_subprocess_exec(_NGINX, "-c", f"{name}/nginx.conf", "-e", f"{name}/error.log")
        try:
            async with asyncio.timeout(60):
                while child.returncode is None:
                    with contextlib.suppress(OSError):
                        (await asyncio.open_connection("127.0.0.1", port))[1].close()
                        break
                    await asyncio.sleep(0.05)
            if child.returncode is not None:
                raise RuntimeError(f"nginx exited with code {child.returncode}")
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            await child.wait()
