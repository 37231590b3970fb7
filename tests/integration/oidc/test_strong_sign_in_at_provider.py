"""A critical decision is refused, the user signs in again over `/auth/login?strong` at a real provider, and decides."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.edge.asking import APPROVAL, asking, get_item
from support.edge.signed_in import Site, serve
from support.peers.oidc_provider import oidc_provider, sign_in_at_provider

from ops.process.ports import free_port
from streams.core.domain.keys import item_id

pytestmark = pytest.mark.timeout(900)  # the first run installs the provider

CRITICAL = {**APPROVAL, "action": {"name": "drop", "risk": "critical"}}
ITEM = item_id("ws_pay", "waitpoint", "a")
ACCOUNTS: dict[str, dict[str, Any]] = {"ann": {"name": "Ann", "groups": ["attn/pay/admin"]}}
MAX_AGE = 4  # seconds


async def decide(site: Site, browser: httpx.AsyncClient) -> httpx.Response:
    browser.base_url = httpx.URL(site.base)
    body = {"option": "ok", "digest": (await get_item(browser, ITEM))["digest"]}
    return await browser.post(
        f"/api/v1/inbox/{ITEM}/decision", json=body, headers={"x-csrf-token": browser.cookies["attn_csrf"]})


async def test_a_user_signs_in_again_and_then_decides(tmp_path: Path) -> None:
    port = free_port()
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}") as provider:
        async with serve(provider, port, tmp_path, critical_max_age=MAX_AGE) as site:
            site.deciding.happen(asking(CRITICAL, "a", ws="ws_pay"))
            browser = site.browser()
            assert (await site.sign_in(browser, "ann")).status_code == 303
            await asyncio.sleep(MAX_AGE + 2)
            site.deciding.now = time.time()
            refused = await decide(site, browser)
            assert refused.status_code == 403
            assert "new sign-in" in refused.json()["error"]
            before = browser.cookies["attn_session"]
            target = f"/#item={ITEM}"
            begun = await browser.get(refused.json()["sign_in"] + f"&return_to=%2F%23item%3D{ITEM}")
            url = begun.headers["location"]
            assert parse_qs(urlsplit(url).query)["max_age"] == [str(MAX_AGE)]
            back = await browser.get(await sign_in_at_provider(browser, url, "ann"))
            assert (back.status_code, back.headers["location"]) == (303, target)
            assert browser.cookies["attn_session"] != before
            assert (await decide(site, browser)).status_code == 201


async def test_a_weak_sign_in_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The provider supports the authentication class `mfa`, but this account signs in with a password only."""
    port = free_port()
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}") as provider:
        async with serve(provider, port, tmp_path, critical_acr="mfa") as site:
            site.deciding.happen(asking(CRITICAL, "a", ws="ws_pay"))
            browser = site.browser()
            await site.sign_in(browser, "ann")
            refused = await decide(site, browser)
            assert refused.status_code == 403
            begun = await browser.get(refused.json()["sign_in"])
            url = begun.headers["location"]
            assert parse_qs(urlsplit(url).query)["acr_values"] == ["mfa"]
            page = await browser.get(await sign_in_at_provider(browser, url, "ann"))
            assert page.status_code == 400
            assert "This needs a stronger sign-in" in page.text
            assert (await decide(site, browser)).status_code == 403


async def test_the_address_of_a_terminal_survives_the_sign_in(tmp_path: Path) -> None:
    port = free_port()
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}") as provider:
        async with serve(provider, port, tmp_path) as site:
            browser = site.browser()
            started = (await browser.post(f"{site.base}/auth/device", json={"device": "d" * 200})).json()
            fragment = started["verification_uri"].removeprefix(site.base)
            back = await site.sign_in(browser, "ann", fragment)
            assert (back.status_code, back.headers["location"]) == (303, fragment)
            body = {"request": fragment.removeprefix("/#device="), "allow": True, "user_code": started["user_code"]}
            csrf = {"x-csrf-token": browser.cookies["attn_csrf"]}
            answer = await browser.post(f"{site.base}/auth/device/answer", json=body, headers=csrf)
            assert answer.json() == {"allowed": True}
            got = await browser.post(f"{site.base}/auth/device/token", json={"device_code": started["device_code"]})
            assert got.json()["workspace_id"] == "ws_pay"
