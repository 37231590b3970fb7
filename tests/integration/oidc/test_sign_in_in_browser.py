"""A user signs in at the provider in a real browser: button, deep link, workspace switcher, sessions and sign-out. axe
checks the accessibility of the pages."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.clients.browsers import CHROMIUM, FLAGS, WATCH
from support.edge.signed_in import Site, serve
from support.fold.fold_driver import event
from support.peers.oidc_provider import oidc_provider

from ops.process.ports import free_port

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.browser, pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
ANN = {"name": "Ann Lee", "groups": ["attn/pay/admin", "attn/web/member"]}


async def findings(page: Any) -> list[str]:
    await page.wait_for_function("() => !document.getAnimations().length")
    violations = (await axe.Axe().run(page, options={"resultTypes": ["violations"]})).response["violations"]
    return [f"{rule['id']}: {node['target']}" for rule in violations
            if rule["impact"] in ("serious", "critical") for node in rule["nodes"]]


def message(site: Site, ws: str, subject: str) -> str:
    site.deciding.happen(event("message.posted", subject, ws=ws, title=f"Title of {subject}"))
    return next(str(fact.item) for fact in site.deciding.facts if fact.subject == subject and fact.item)


async def test_sign_in_with_a_link_switch_and_sign_out(tmp_path: Path) -> None:
    port = free_port()
    with oidc_provider({"ann": ANN, "eve": {}}, f"http://127.0.0.1:{port}") as provider:
        async with (
            serve(provider, port, tmp_path, oidc_name="Example login", oidc_contact="Ask Zoe.") as site,
            playwright.async_playwright() as play,
        ):
            chromium = await play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            context = await chromium.new_context()
            context.set_default_timeout(60_000)
            await context.add_init_script(WATCH)
            page = await context.new_page()
            item = message(site, "ws_pay", "in pay")  # in the first workspace
            message(site, "ws_web", "in web")
            await page.goto(f"{site.base}/#item={item}")
            await page.wait_for_selector("text=Sign in with Example login")
            assert await findings(page) == []
            await page.click("text=Sign in with Example login")
            await page.fill("[name=login]", "ann")
            await page.fill("[name=password]", "x")
            await page.click("[type=submit]")
            await page.click("[type=submit]")  # consent
            await page.wait_for_selector(".right >> text=Title of in pay")
            assert page.url == f"{site.base}/#item={item}"
            await page.click(".menu summary")
            await page.wait_for_selector(".menu [aria-label=Workspaces]")
            assert await findings(page) == []
            await page.click(".menu button:has-text('ws_web')")
            await page.wait_for_selector("text=Title of in web")
            assert await page.locator("text=Title of in pay").count() == 0
            await page.reload()  # a cookie has the workspace
            await page.wait_for_selector("text=Title of in web")
            await page.click(".menu summary")
            await page.click(".menu >> text=My sessions")
            await page.wait_for_selector("#sessions >> text=(this one)")
            assert await findings(page) == []
            other = site.browser()
            await site.sign_in(other, "ann")
            await page.keyboard.press("Escape")
            await page.click(".menu summary")
            await page.click(".menu >> text=My sessions")
            await page.click("#sessions button:has-text('End')")
            await page.wait_for_selector("#sessions button:has-text('End')", state="detached")
            assert (await site.me(other)).status_code == 401
            assert await page.evaluate("() => window.refused") == []
            await page.keyboard.press("Escape")
            await page.click(".menu summary")
            await page.click(".menu >> text=Sign out")
            await page.click("button:has-text('Yes, sign me out')")  # at the provider
            await page.wait_for_selector("text=Sign in with Example login")
            await page.click("text=Sign in with Example login")
            await page.fill("[name=login]", "eve")
            await page.fill("[name=password]", "x")
            await page.click("[type=submit]")
            await page.click("[type=submit]")
            await page.wait_for_selector("text=Ask Zoe.")
            assert await findings(page) == []
            await page.click("text=Try again")
            await asyncio.sleep(0)
            await context.close()
            await chromium.close()
