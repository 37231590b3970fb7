"""Requests to an issuer that misbehaves are bounded in time and bytes. Their errors have a cause and no secret."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from api.http.auth.oidc.errors import IssuerRefused, IssuerUnavailable
from api.http.auth.oidc.issuer import Issuer

DISCOVERY = "/.well-known/openid-configuration"


@asynccontextmanager
async def serving(answer: Callable[[web.Request, str], Any]) -> AsyncIterator[Issuer]:
    """Yields an issuer whose every path is answered by `answer(request, base)`."""
    async def handle(request: web.Request) -> web.StreamResponse:
        made = answer(request, str(request.url.origin()))
        return await made if asyncio.iscoroutine(made) else made

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # one answer never comes
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield Issuer(f"http://127.0.0.1:{port}", "attn", "hidden-secret", time.time)
    finally:
        await runner.cleanup()


def document(base: str, **more: Any) -> dict[str, Any]:
    return {"issuer": base, "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token",
            "jwks_uri": f"{base}/jwks", **more}


async def _hang(*_: Any) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


@pytest.mark.parametrize(("answer", "cause"), [
    (lambda r, base: web.json_response(document(base + "/")), "names the issuer"),
    (lambda r, base: web.json_response(document(base, token_endpoint="http://example.com/token")), "token_endpoint"),
    (lambda r, base: web.json_response(document(base, jwks_uri=None)), "jwks_uri"),
    (lambda r, base: web.json_response(document(base, jwks_uri="file:///etc/passwd")), "jwks_uri"),
    (lambda r, base: web.json_response(document(base, authorization_endpoint="https://u:p@example.com/")), "authoriz"),
    (lambda r, base: web.json_response([1]), "not a JSON object"),
    (lambda r, base: web.Response(text="<html>"), "not a JSON object"),
    (lambda r, base: web.Response(status=500), "status 500"),
    (lambda r, base: web.Response(status=302, headers={"location": "http://169.254.169.254/"}), "status 302"),
    (lambda r, base: web.Response(text="[" * (1 << 21)), "more than"),
    (lambda r, base: web.Response(text="[" * 100_000), "not a JSON object"),
    (lambda r, base: web.Response(body=gzip.compress(b" " * (1 << 26)), headers={"content-encoding": "gzip"}),
     "encoding"),
    (_hang, "no answer within"),
], ids=["issuer", "other-host", "no-keys", "file", "user", "list", "html", "500", "redirect", "large", "deep", "gzip",
        "hang"])
async def test_a_document_that_cannot_be_used(
    answer: Any, cause: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.http.auth.oidc.issuer._SECONDS", 1.0)
    async with serving(answer) as issuer:
        with pytest.raises(IssuerUnavailable, match=cause):
            await issuer.discover()


async def test_a_document_stays_while_the_issuer_is_down_and_attempts_are_few() -> None:
    requests, now, down = 0, 1000.0, False

    def answer(request: web.Request, base: str) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(status=503) if down else web.json_response(document(base))

    async with serving(answer) as issuer:
        issuer._clock = lambda: now
        await issuer.discover()
        down, now = True, now + 7200
        for _ in range(20):
            assert (await issuer.discover()).token_endpoint.endswith("/token")
        assert requests == 2


@pytest.mark.parametrize(("status", "body", "expected"), [
    (400, {"error": "invalid_grant"}, IssuerRefused),
    (401, {"error": "invalid_client"}, IssuerRefused),
    (400, {}, IssuerUnavailable),
    (429, {"error": "slow_down"}, IssuerUnavailable),
    (502, {"error": "server_error"}, IssuerUnavailable),
    (307, {}, IssuerUnavailable),
    (200, [1], IssuerUnavailable),
])
async def test_errors_of_the_token_endpoint(status: int, body: Any, expected: type[Exception]) -> None:
    def answer(request: web.Request, base: str) -> web.Response:
        if request.path == DISCOVERY:
            return web.json_response(document(base))
        return web.Response(status=status, text=json.dumps(body), headers={"location": f"{base}/elsewhere"})

    async with serving(answer) as issuer:
        with pytest.raises(expected) as raised:
            await issuer.exchange("the-code", "the-verifier", "http://127.0.0.1/auth/callback")
    for secret in ("the-code", "the-verifier", "hidden-secret"):
        assert secret not in str(raised.value)


@pytest.mark.parametrize("url", [
    "http://login.example.com", "ftp://login.example.com", "https://", "login.example.com", "https://u:p@example.com",
    "https://example.com/#x", "https://[::1"])
def test_an_issuer_is_an_https_url(url: str) -> None:
    with pytest.raises(ValueError, match="ATTN_OIDC_ISSUER"):
        Issuer(url, "attn", None, time.time)
