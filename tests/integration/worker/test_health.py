"""HTTP port of the worker and the history: metrics, health and readiness."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from ops.process.ports import free_port
from streams.runtime import health


async def test_the_health_server_serves_metrics_health_and_readiness() -> None:
    port, reasons = free_port(), ["loading partition 3"]
    async with (
        health.serve(port, lambda: reasons[0] if reasons else None),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        refused = await client.get("/readyz")
        assert (refused.status_code, refused.text) == (503, "loading partition 3\n")
        assert "attn_ready 0.0" in (await client.get("/metrics")).text
        reasons.clear()
        assert (await client.get("/readyz?x=1")).status_code == 200
        metrics = await client.get("/metrics")
        assert metrics.status_code == 200
        assert "attn_ready 1.0" in metrics.text
        assert (await client.head("/healthz")).status_code == 200
        assert (await client.post("/healthz")).status_code == 405
        assert (await client.get("/nothing")).status_code == 404


@pytest.mark.parametrize("request_", [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\x00\r\n\r\n", b"x" * 100_000])
async def test_an_invalid_request_does_not_end_the_health_server(request_: bytes) -> None:
    port = free_port()
    async with health.serve(port, lambda: None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(OSError):
            writer.write(request_)
            writer.write_eof()
            await reader.read()
        writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200


async def test_port_0_disables_the_health_server() -> None:
    async with health.serve(0, lambda: None):
        pass
