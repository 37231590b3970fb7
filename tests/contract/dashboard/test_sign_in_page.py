"""Sign-in and sign-out in a browser show an error for a cookie that the browser drops or cannot delete."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from support.edge.edge_with_fold import Deciding, message
from support.edge.edges import serving, token, until
from support.edge.sessions import new_link

from api.http.auth.cookies import csrf_of

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
PATIENCE = 60_000  # milliseconds; generous for a slow machine
DECADE = 10 * 365 * 86400
HOST = "inbox.attn.test"  # a host name for plain http that is not loopback to the browser


def own_token(user: str = "ann", **more: Any) -> str:
    return token(user, "OWNER", ws="ws", seconds=DECADE, **more)


class BrowserOnEdge:
    """One browser on an edge. `here` is the edge's loopback address, `there` the same edge under a host name."""

    def __init__(self, attn: Deciding, address: str, browser: Any) -> None:
        self.attn, self.here, self._browser = attn, address, browser
        self.there = address.replace("127.0.0.1", HOST)
        self.errors: list[str] = []

    async def page(self) -> Any:
        context = await self._browser.new_context()
        context.set_default_timeout(PATIENCE)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    async def sign_in(self, page: Any, address: str, encoded: str) -> None:
        if not page.url.startswith(address):
            await page.goto(address)
        await page.fill("#token", encoded)
        await page.click(".sign-in button")

    async def sign_out(self, page: Any) -> None:
        await page.click(".menu summary")
        await page.click("text=Sign out")


@asynccontextmanager
async def browsing(**settings: Any) -> AsyncIterator[BrowserOnEdge]:
    from playwright.async_api import async_playwright

    attn = Deciding(**settings)
    attn.happen(message("m", title="Read me"))
    async with serving(attn.edges[0]) as address, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.attn.test 127.0.0.1"])
        seen = BrowserOnEdge(attn, address, browser)
        yield seen
        await browser.close()
    assert seen.errors == []


def problem(text: str) -> str:
    return f"#token-problem:has-text('{text}')"


async def test_the_form_reports_a_session_cookie_that_the_browser_would_drop() -> None:
    largest = next(encoded for extra in range(3000) if len(encoded := own_token(name="n" * (2600 + extra))) == 3968)
    async with browsing() as seen:
        page = await seen.page()
        await seen.sign_in(page, seen.here, own_token(name="n" * 5000))
        await page.wait_for_selector(problem("a browser keeps at most 3968"))
        await seen.sign_in(page, seen.here, "no token")
        await page.wait_for_selector(problem("The token was rejected"))

        async def without_cookies(route: Any) -> None:
            await route.fulfill(json={"user_id": "ann", "workspace_id": "ws", "role": "OWNER", "expires_at": ""})

        await page.route("**/auth/session", without_cookies)
        await seen.sign_in(page, seen.here, own_token())
        await page.wait_for_selector(problem("did not keep the session cookie. Allow cookies for 127.0.0.1"))
        await page.unroute("**/auth/session")
        await seen.sign_in(page, seen.here, largest)
        await page.wait_for_selector(".row:has-text('Read me')")

        other = await seen.page()
        await seen.sign_in(other, seen.there, own_token())
        await other.wait_for_selector(problem(f"plain http from {HOST}"))
        await other.wait_for_selector(problem("ATTN_SESSION_OVER_HTTP"))


async def test_sign_in_over_http_works_despite_cookies_of_a_sibling_domain() -> None:
    """The sibling's cookies come first in the header. Writes need the value of the second one."""
    evil = own_token()[:-9] + "AAAAAAAAA"
    async with browsing(session_over_http=True) as seen:
        page = await seen.page()
        await page.context.add_cookies([
            {"name": name, "value": value, "domain": ".attn.test", "path": "/"}
            for name, value in (("attn_session", evil), ("attn_csrf", csrf_of(evil)))])
        await seen.sign_in(page, seen.there, own_token())
        await page.wait_for_selector(".row:has-text('Read me')")
        kept = [cookie["value"] for cookie in await page.context.cookies(seen.there) if cookie["name"] == "attn_csrf"]
        assert len(kept) == 2
        assert kept[0] == csrf_of(evil)
        await page.reload()
        written = len(seen.attn.log)
        await page.click(".row:has-text('Read me')")  # opening the item marks it as read
        await until(lambda: len(seen.attn.log) == written + 1, 60)
        await seen.sign_out(page)
        await page.wait_for_selector("#token")
        assert await page.context.cookies(seen.there) == []


async def test_sign_out_reports_a_session_cookie_that_attn_cannot_delete() -> None:
    async with browsing() as seen:
        page = await seen.page()
        await seen.sign_in(page, seen.here, own_token())
        await page.wait_for_selector(".row:has-text('Read me')")
        await page.context.add_cookies([
            {"name": "attn_session", "value": own_token(), "domain": "127.0.0.1", "path": "/org"}])
        await seen.sign_out(page)
        await page.wait_for_selector(".toast.bad:has-text('You are still signed in: the browser keeps another')")


async def test_a_link_signs_in_once_and_leaves_the_address() -> None:
    async with browsing() as seen:
        link = f"{seen.here}/#signin={new_link(seen.attn)}"
        page = await seen.page()
        await page.goto(link)
        await page.wait_for_selector(".row:has-text('Read me')")
        assert page.url == f"{seen.here}/"
        await page.reload()
        await page.wait_for_selector(".row:has-text('Read me')")
        other = await seen.page()
        await other.goto(link)
        await other.wait_for_selector(problem("sign-in link is not valid"))
        assert other.url == f"{seen.here}/"
        await other.goto(f"{seen.here}/#signin={new_link(seen.attn, of_user='eve')}")  # in the tab that shows the page
        await other.wait_for_selector(".row:has-text('Read me')")
        async with page.expect_event("load"):  # the page loads itself again with the link
            await page.goto(f"{seen.here}/#signin={new_link(seen.attn, of_user='mallory')}")
        await page.wait_for_selector(".row:has-text('Read me')")
        me = await page.evaluate("fetch('/org/me').then((answer) => answer.json())")
        assert me["user_id"] == "me", "a link of another user does not replace the session"


async def test_the_page_approves_a_terminal_by_its_code() -> None:
    async with browsing() as seen, httpx.AsyncClient(base_url=seen.here, trust_env=False) as terminal:
        started = (await terminal.post("/auth/device", json={"device": "attn on <b>host</b>"})).json()
        page = await seen.page()
        await page.goto(started["verification_uri"])
        # signed out: the address keeps the fragment, and the sign-in returns to it
        await page.wait_for_selector("#token")
        assert page.url == started["verification_uri"]
        await page.goto(f"{seen.here}/#signin={new_link(seen.attn)}")
        await page.wait_for_selector(".row:has-text('Read me')")
        await page.goto(started["verification_uri"])
        await page.wait_for_selector("#terminal >> text=attn on <b>host</b> asks from 127.0.0.1")
        assert page.url == f"{seen.here}/"
        for typed, says in (("BCDF", "Type the 8 letters"), ("BBBB-BBBB", "This is not the code")):
            await page.fill("#terminal input", typed)
            await page.press("#terminal input", "Enter")
            await page.wait_for_selector(f"#terminal-problem:has-text('{says}')")
        await page.fill("#terminal input", started["user_code"].lower())
        await page.click("#terminal button:has-text('Let it in')")
        await page.wait_for_selector("#terminal >> text=The terminal is signed in")
        answer = await terminal.post("/auth/device/token", json={"device_code": started["device_code"]})
        assert (answer.status_code, answer.json()["user_id"]) == (200, "me")

        other = (await terminal.post("/auth/device", json={})).json()
        await page.goto(other["verification_uri"])
        await page.click("#terminal button:has-text('Refuse')")
        await page.wait_for_selector("#terminal >> text=The terminal was refused")
        answer = await terminal.post("/auth/device/token", json={"device_code": other["device_code"]})
        assert answer.json() == {"error": "access_denied"}
