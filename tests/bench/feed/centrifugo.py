"""Centrifugo as a candidate of the feed bench: the real server, built from the Go module proxy, and how it is used.

Each workspace is a channel. A reader connects by unidirectional SSE with a token that names its channel. Frames are
published through the HTTP API: one request for all frames of a workspace at one moment.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import jwt
import psutil
import pytest
from support.peers.environments import go_binary

from ops.process import parent_death
from ops.process.ports import free_port

__all__ = ["VERSION", "binary", "request", "start", "unavailable"]

VERSION = "v6.9.1"
_MODULE = "github.com/centrifugal/centrifugo/v6"
_KEY = "of the bench alone"
_SECONDS = 20.0


def binary() -> Path:
    """Returns the server, built if it is not in the cache. Raises pytest's Skipped if Go is missing or fails."""
    return go_binary(_MODULE, VERSION)


def unavailable() -> str:
    """Returns why the server cannot be built; "" if it can."""
    try:
        binary()
    except pytest.skip.Exception as skipped:
        return str(skipped)
    return ""


def request(workspace: int, user: int, secret: str) -> str:
    """Returns the request of a reader."""
    claims = {"sub": f"u{user}", "channels": [f"w{workspace}"], "exp": int(time.time()) + 3600}
    connect = quote(json.dumps({"token": jwt.encode(claims, secret, "HS256")}))
    return f"GET /connection/uni_sse?cf_connect={connect} HTTP/1.1\r\nhost: bench\r\n\r\n"


async def start(secret: str, text: Callable[[int], str]) -> tuple[int, Callable[[int, int], None], psutil.Process]:
    """Starts the server. Returns its port, the function that publishes frames to a workspace, and its process.

    `text`: the payload of a frame by its number. The server ends with this process.
    """
    port, directory = free_port(), Path(tempfile.mkdtemp(prefix="attn-bench-"))
    config = directory / "config.json"
    config.write_text(json.dumps({
        "http_server": {"address": "127.0.0.1", "port": port}, "http_api": {"key": _KEY}, "log": {"level": "error"},
        "client": {"token": {"hmac_secret_key": secret}}, "uni_sse": {"enabled": True},
        "usage_stats": {"disabled": True}}))
    command = parent_death.command([str(binary()), "-c", str(config)], signal.SIGKILL)
    child = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(_SECONDS):
        while not _answers(port):
            if child.returncode is not None:
                raise SystemExit(f"Centrifugo ended with code {child.returncode}")
            await asyncio.sleep(0.05)
    config.unlink()
    directory.rmdir()
    api = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)

    def publish(workspace: int, each: int) -> None:
        frames = [{"publish": {"channel": f"w{workspace}", "data": {"frame": text(number)}}} for number in range(each)]
        api.request("POST", "/api/batch", json.dumps({"commands": frames}), {"X-API-Key": _KEY})
        answer = api.getresponse()
        body = answer.read()
        if answer.status != 200 or b'"error"' in body:
            raise SystemExit(f"Centrifugo answered {answer.status}: {body[:300]!r}")

    return port, publish, psutil.Process(child.pid)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("POST", "/api/info", "{}", {"X-API-Key": _KEY})
        return connection.getresponse().status == 200
    except OSError:
        return False
