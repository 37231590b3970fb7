"""`python -m bench sessions`: CPU of a request with a session, compared with one with a token; memory of many sessions.

One edge in this process has the sessions as the fold writes them. The same request passes the whole ASGI application,
alternately with a session, with a token whose verification is cached, and with a new token.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import secrets
import statistics
import time
from typing import Any

import jwt
import psutil
from rich.console import Console
from rich.table import Table

from api.edge.services import Edge
from api.http.app import create_app
from schemas.scalars import DAY, HOUR, SECOND
from schemas.settings import Settings
from schemas.views import PositionRow, SessionRow, encode_row
from streams.core.domain.keys import session_key
from streams.runtime.secret_texts import ENTROPY_BYTES, SESSIONS

__all__ = ["main"]

_SECRET = "a secret of the bench that is long enough for HS256"
_WORKSPACES = 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench sessions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    asyncio.run(_run(given.sessions, given.requests, Console()))


async def _run(sessions: int, requests: int, console: Console) -> None:
    edge = Edge(Settings(_env_file=None, jwt_secret=_SECRET, log_partitions=1))  # type: ignore[call-arg, arg-type]
    edge.ready = True
    before = _memory()
    texts = _load(edge, sessions)
    each = (_memory() - before) / sessions
    app, now = create_app(edge), int(time.time())
    tokens = [jwt.encode(
        {"sub": f"user{number}", "workspace_id": f"ws{number % _WORKSPACES}", "role": "MEMBER", "exp": now + 3600},
        _SECRET) for number in range(2 * requests)]
    kinds = {
        "token, cached": lambda number: tokens[number % 100],
        "token, new": lambda number: tokens[100 + number],
        "session": lambda number: texts[number * 7 % sessions],
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(requests):
        for name, text in kinds.items():
            begun = time.process_time()
            await _request(app, text(number))
            seconds[name].append(time.process_time() - begun)
    table = Table("credential", "CPU per request, median", "beside a cached token")
    base = statistics.median(seconds["token, cached"])
    for name, values in seconds.items():
        median = statistics.median(values)
        table.add_row(name, f"{median * 1e6:.0f} µs", f"{median / base:.2f}x")
    console.print(f"{sessions} sessions: {each:.0f} bytes each, {each * sessions / 1e6:.1f} MB")
    console.print(table)


def _load(edge: Edge, sessions: int) -> list[str]:
    """Loads sessions into the replica. Returns their texts."""
    rows, texts, now = {}, [], int(time.time() * SECOND)
    for number in range(sessions):
        made = SESSIONS.new(secrets.token_bytes(ENTROPY_BYTES))
        texts.append(made.text)
        ws = f"ws{number % _WORKSPACES}"
        rows[session_key(ws, made.id)] = encode_row(SessionRow(
            id=made.id, ws=ws, user=f"user{number}@example.com", role="MEMBER", digest=made.digest, via="oidc",
            created_at=now, used_at=now, expires_at=now + 30 * DAY, idle=72 * HOUR, name=f"User {number}",
            device="Firefox on Linux", address="192.0.2.1", issuer="https://id.example.com",
            issuer_sid=f"sid-{number}", subject=f"subject-{number}", auth_time=now, wake=now + 72 * HOUR))
    edge.replica.load(0, rows, PositionRow(next=1))
    return texts


async def _request(app: Any, text: str) -> None:
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/org/me/inbox", "raw_path": b"/org/me/inbox",
        "query_string": b"", "headers": [(b"host", b"attn"), (b"cookie", b"attn_session=" + text.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "",
    }
    status = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    await app(scope, receive, send)
    assert status == [200], status


def _memory() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)
