"""An undelivered decision comes back in the browser: its form holds the same answer, which is sent again."""

from __future__ import annotations

import asyncio
import re
import shutil
import time

import pytest
from support.clients.answering import ACTION, ask, event_text
from support.edge.edge_with_fold import WS, Deciding
from support.edge.edges import serving, token
from support.fold.fold_driver import cloud_event

from schemas.log import Report
from schemas.scalars import SECOND, format_timestamp
from streams.core.normalise import normalise

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


async def test_an_undelivered_answer_is_sent_again_as_it_was() -> None:
    from playwright.async_api import async_playwright

    decided = Deciding()
    decided.now = time.time()

    async def pass_time() -> None:
        while True:
            await asyncio.sleep(0.3)
            decided.now = time.time()
            decided.happen()

    edit = {"id": "edit", "does": "edit", "title": "Edit"}
    made = cloud_event("action.requested", "a", title="refund", ask={"action": ACTION, "options": [
        *ask()["options"], edit]}) | {"time": format_timestamp(int((time.time() - 60) * SECOND))}
    decided.happen(normalise("actions", event_text(made).encode()))
    clock = asyncio.create_task(pass_time())
    async with serving(decided.edges[0]) as base, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = await browser.new_context()
        context.set_default_timeout(60_000)
        await context.request.post(f"{base}/auth/session", data={"token": token("ann", "OWNER", WS)})
        page = await context.new_page()
        await page.goto(base)
        await page.click(".row:has-text('refund') .main")
        await page.wait_for_selector("#detail .answers.ready")
        await page.keyboard.press("e")
        await page.fill("#answer-args_2e_amount", "2.50")
        await page.keyboard.press("Control+Enter")
        await page.wait_for_selector(".outcome:has-text('waiting for test to take it')")
        entries = (await (await context.request.get(f"{base}/org/me/decisions")).json())["decisions"]
        decision = entries[0]["id"]
        decided.happen(Report(WS, "r1", int(time.time() * SECOND), decision, "undeliverable", "410 gone"))
        await page.wait_for_selector(".returned:has-text('could not be delivered to test: 410 gone')")
        # Another browser of the same user does not have the typed values.
        await page.evaluate("() => sessionStorage.clear()")
        await page.reload()
        await page.wait_for_selector("#detail .answers.ready")
        await page.wait_for_selector(".answers .answer:has-text('Send with 1 change')")
        assert await page.locator(".answers .answer").count() == 1, "only the same answer may be sent again"
        assert await page.locator(".diff ins").inner_text() == "2.50"
        await page.click(".answers .answer")
        await page.wait_for_selector(".outcome:has-text('Decided by you')")
        again = await (await context.request.get(f"{base}/org/me/decisions")).text()
        assert again.count(decision) == 1, "the answer belongs to the same decision"
        assert re.search(r'"amount":\s*2\.50\b', again)
        await browser.close()
    clock.cancel()
