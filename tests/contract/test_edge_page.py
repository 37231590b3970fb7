"""The page: served strictly, and its copy of the inbox is the server's (in a browser, where there is one)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.edges import Fed, serving, token
from support.rows import item

from schemas.log import Data

CHROMIUM = shutil.which("chromium")


async def test_the_page_is_served_strictly() -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers = {}  # type: ignore[assignment]
        types = {"/": "text/html", "/static/page.js": "text/javascript", "/static/page.css": "text/css"}
        for path, kind in types.items():
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
        html = (await client.get("/")).text
        assert "<script>" not in html
        assert "style=" not in html
        for path in ("/static/none.js", "/static/..%2Fapp.py", "/static/%2e%2e/app.py"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
async def test_a_browser_follows_the_feed_over_a_reconnect(tmp_path: Path) -> None:
    from playwright.async_api import async_playwright

    fed = Fed()
    fed.put(item(source_id="b", due_at=2, data=Data(title="second")))
    async with serving(fed.edge) as base, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(base)
        await page.fill("#token", token())
        await page.click("button")
        await page.wait_for_selector("#list li:has-text('second')")
        fed.put(item(source_id="a", due_at=1, data=Data(title="<img src=x onerror=alert(1)>")))
        await page.wait_for_selector("#list li:nth-child(2)")
        assert await page.locator("#list b").all_text_contents() == ["<img src=x onerror=alert(1)>", "second"]
        for slot in fed.edge.connections._slots:
            for stream in list(slot):
                stream.outlet.cut()
        fed.put(item(source_id="c", due_at=3, data=Data(title="third")))
        await page.wait_for_selector("#list li:has-text('third')")
        assert await page.locator("#counts").text_content() == "3 open, 3 unread"
        assert not [text for text in problems if "ERR_" not in text]
        await browser.close()
