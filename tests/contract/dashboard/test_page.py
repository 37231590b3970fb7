"""Delivery of the dashboard: security headers, size, number of requests. A browser's list equals the server's list
after a reconnect."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest
from support.edge.edges import Fed, serving, token
from support.edge.random_rows import item

from schemas.log import Data

CHROMIUM = shutil.which("chromium")
STATIC = Path(__file__).parents[3] / "api" / "static"
# Gzipped bytes of the whole page, and of the part before the list. Comments count, because browsers load the modules
# with them.
MOST_BYTES, FIRST_BYTES = 194_000, 97_500
PATHS = {
    "/": "text/html", "/static/attn/main.js": "text/javascript", "/static/page.css": "text/css",
    "/static/icon.svg": "image/svg+xml", "/static/vendor/preact.js": "text/javascript",
}


async def test_the_page_is_served_strictly() -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers = {}  # type: ignore[assignment]
        for path, kind in PATHS.items():
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "require-trusted-types-for 'script'" in policy
            assert "unsafe" not in policy
            again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for path in ("none.js", "..%2Fapp.py", "%2e%2e/app.py", "../app.py", ""):
            assert (await client.get(f"/static/{path}")).status_code == 404


async def test_a_link_to_a_page_of_the_source_is_an_explaining_404_for_browsers() -> None:
    fed = Fed()
    async with fed.client() as client:
        client.headers = {}  # type: ignore[assignment]
        for path in ("/cases/c", "/cases/c/sessions/s"):
            response = await client.get(path, headers={"accept": "text/html,application/xhtml+xml"})
            assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
            assert "decided elsewhere" in response.text
            assert "default-src 'none'" in response.headers["content-security-policy"]
            program = await client.get(path, headers={"accept": "application/json"})
            assert (program.status_code, program.json()) == (404, {"error": "not found"})


async def test_compressed_for_clients_that_accept_it() -> None:
    fed = Fed()
    async with fed.client() as client:
        for path in PATHS:
            zipped = await client.get(path, headers={"accept-encoding": "gzip"})
            plain = await client.get(path, headers={"accept-encoding": "identity"})
            assert zipped.headers["content-encoding"] == "gzip"
            assert "content-encoding" not in plain.headers
            assert zipped.content == plain.content
            assert plain.headers["vary"] == "accept-encoding"


async def test_a_browser_keeps_the_files_and_asks_for_the_page_alone() -> None:
    fed = Fed()
    async with fed.client() as client:
        page = await client.get("/")
        assert page.headers["cache-control"] == "no-cache"
        named = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
        assert len({path.split("/")[2] for path in named}) == 1, "the page names files of one version only"
        for path in named:
            kept = await client.get(path)
            assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert (await client.get(path.replace("/static/v", "/static/w"))).status_code == 404
            # During an upgrade an edge may get requests for another version's files: it answers, but forbids caching.
            other_version = f"/static/v-0123456789ab/{path.split('/', 3)[3]}"
            for other in (other_version, "/static/" + path.split("/", 3)[3]):
                answer = await client.get(other)
                assert (answer.content, answer.headers["cache-control"]) == (kept.content, "no-cache")


def imports(path: Path, pattern: str) -> set[Path]:
    code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)  # comments name types by import
    return {(path.parent / name).resolve() for name in re.findall(pattern, code, re.MULTILINE)}


def imported(path: Path, seen: set[Path]) -> set[Path]:
    """Returns the module and all modules that it needs to start."""
    if path not in seen:
        seen.add(path)
        for module in imports(path, r'^(?:import|export)[^"]*? from "(\.[^"]+)"'):
            imported(module, seen)
    return seen


def with_later(modules: set[Path]) -> set[Path]:
    """Returns the modules and those that are loaded after the list, workers included."""
    modules_found, todo = set(modules), list(modules)
    while todo:
        before = set(modules_found)
        for later in imports(todo.pop(), r'(?:import|new URL)\("(\.[^"]+\.js)"'):
            imported(later, modules_found)
        todo += modules_found - before
    return modules_found


def test_the_page_is_small_and_requests_all_modules_at_once() -> None:
    html = (STATIC / "index.html").read_text()
    assert "<script>" not in html
    assert not re.search(r"\sstyle=|\son\w+=", html)
    begins = imported(STATIC / "attn" / "boot.js", set())
    modules = imported(STATIC / "attn" / "main.js", set(begins))
    named = re.findall(r'(?:src|href)="/static/([^"]+)"', html)
    requested = [STATIC / name for name in named if name.endswith(".js")]
    assert len(requested) == len(modules)
    assert set(requested) == modules, "the page preloads exactly the needed modules"
    assert set(requested[:len(begins)]) == begins, "modules of the first request come first"
    every = with_later(modules)
    later = {path.relative_to(STATIC).as_posix() for path in every - modules}
    assert {path for path in later if "/answer/" not in path and "/keys/" not in path} == {
        "attn/commands/decisions.js", "attn/shell/help.js", "attn/shell/shortcut_list.js", "attn/text/markdown.js",
        "attn/text/markdown_worker.js", "vendor/marked.js", "vendor/purify.js"}, (
        "answers, keys, shortcuts and markdown are loaded after the list")
    parts = {STATIC / "index.html", *(STATIC / name for name in named)}
    assert sum(len(gzip.compress(path.read_bytes())) for path in parts) < FIRST_BYTES, "bytes before the list"
    assert sum(len(gzip.compress(path.read_bytes())) for path in parts | every) < MOST_BYTES
    unused = {*(STATIC / "attn").rglob("*.js"), *(STATIC / "vendor").glob("*.js")} - every
    assert not unused


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
async def test_a_browser_follows_the_feed_over_a_reconnect() -> None:
    from playwright.async_api import async_playwright

    fed = Fed()
    fed.put(item(source_id="b", due_at=2, data=Data(title="second")))
    async with serving(fed.edge) as base, async_playwright() as play:
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(base)
        await page.fill("#token", token())
        await page.click("text=Sign in")
        await page.wait_for_selector(".row:has-text('second')")
        fed.put(item(source_id="a", due_at=1, data=Data(title="<img src=x onerror=alert(1)>")))
        await page.wait_for_selector(".row:has-text('onerror')")
        titles = "() => [...document.querySelectorAll('.row .title')].map(at => at.lastChild.textContent)"
        assert await page.evaluate(titles) == ["<img src=x onerror=alert(1)>", "second"]
        for slot in fed.edge.connections._slots:
            for stream in list(slot):
                stream.sink.abort()
        fed.put(item(source_id="c", due_at=3, data=Data(title="third")))
        await page.wait_for_selector(".row:has-text('third')")
        assert await page.title() == "(3) attn"
        # Aborted requests and the missing history service are no faults of the page.
        assert not [text for text in problems if "Failed to load resource" not in text]
        await browser.close()
