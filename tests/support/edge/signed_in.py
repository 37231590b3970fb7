"""attn with an OpenID provider: edges with one log, over real HTTP; browsers that keep the cookies of both sites."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from support.edge.edge_with_fold import Deciding
from support.peers.oidc_provider import CLIENT, SECRET, Provider, sign_in_at_provider

from api.http.app import create_app

__all__ = ["ROLES", "Site", "serve"]

ROLES = """
[[rule]]
claim = "groups"
match = "attn/{team}/{level}"
workspace = "ws_{team}"
role = "{level}"
"""


class Site:
    """attn at one address, with the provider as its issuer."""

    def __init__(self, deciding: Deciding, base: str, provider: Provider) -> None:
        self.deciding, self.base, self.provider = deciding, base, provider
        self.apps: list[Any] = []
        self._browsers: list[httpx.AsyncClient] = []

    def browser(self) -> httpx.AsyncClient:
        """Returns a new HTTP client that acts as a browser. It does not follow redirects."""
        made = httpx.AsyncClient(trust_env=False, timeout=30, headers={"user-agent": "Firefox/128.0 Linux"})
        self._browsers.append(made)
        return made

    async def begin(self, browser: httpx.AsyncClient, return_to: str = "/", **more: str) -> str:
        """Returns the URL of the provider to which `/auth/login` sends the browser."""
        answer = await browser.get(f"{self.base}/auth/login", params={"return_to": return_to, **more})
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def callback_url(self, browser: httpx.AsyncClient, user: str, return_to: str = "/", **more: str) -> str:
        return await sign_in_at_provider(browser, await self.begin(browser, return_to, **more), user)

    async def sign_in(self, browser: httpx.AsyncClient, user: str, return_to: str = "/", **more: str) -> httpx.Response:
        """Signs in and returns the answer of the callback."""
        return await browser.get(await self.callback_url(browser, user, return_to, **more))

    async def me(self, browser: httpx.AsyncClient, **headers: str) -> httpx.Response:
        return await browser.get(f"{self.base}/org/me", headers=headers)

    async def close(self) -> None:
        for browser in self._browsers:
            await browser.aclose()


@asynccontextmanager
async def serve(provider: Provider, port: int, folder: Path, edges: int = 1, **more: Any) -> AsyncIterator[Site]:
    """Serves the first of `edges` at `port`, over HTTP. `more`: settings."""
    roles = folder / "roles.toml"
    roles.write_text(more.pop("roles", ROLES))
    deciding = Deciding(edges, **{
        "oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET, "oidc_roles": roles,
        "oidc_scopes": "openid profile email groups offline_access", **more})
    deciding.now = time.time()
    deciding.happen()
    site = Site(deciding, f"http://127.0.0.1:{port}", provider)
    site.apps = [create_app(edge) for edge in deciding.edges]
    server = uvicorn.Server(uvicorn.Config(site.apps[0], port=port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield site
    finally:
        await site.close()
        server.should_exit = True
        await serving
