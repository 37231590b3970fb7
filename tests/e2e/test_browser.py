"""A browser's EventSource with the session cookie on the whole stack: its copy equals the inbox, and a restarted edge
sends exactly the missed frames (laws 4 and 5)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fold.fold_driver import cloud_event
from support.processes.up import Up, wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
LIMIT = 5  # small, so items enter and leave the window

FOLLOW = """limit => {
  const bands = ["urgent", "high", "normal", "low"], copy = window.copy = {items: new Map(), frames: [], ids: []};
  const feed = window.feed = new EventSource(`/org/me/feed?limit=${limit}`);
  const note = (name, use) => feed.addEventListener(name, event => {
    const data = JSON.parse(event.data);
    if (name !== "heartbeat") { copy.frames.push(name); copy.ids.push(Number(event.lastEventId)); }
    use(data);
    if (data.counts) copy.counts = data.counts;
  });
  note("snapshot", data => { copy.items = new Map(data.items.map(item => [item.id, item])); });
  for (const name of ["added", "changed"]) note(name, data => copy.items.set(data.item.id, data.item));
  note("removed", data => copy.items.delete(data.id));
  note("heartbeat", () => {});
  copy.page = () => [...copy.items.values()].sort((a, b) => {
    const returned = item => item.rank_reasons.some(one => ["refused", "undeliverable", "unconfirmed"].includes(one));
    const stage = item => returned(item) ? 0 : item.blocking ? 1 : 2;
    const rank = item => [bands.indexOf(item.band), stage(item), !item.rank_reasons.includes("pinned"),
                          item.due_at ? Date.parse(item.due_at) : Infinity, Date.parse(item.created_at)];
    const x = rank(a), y = rank(b), at = x.findIndex((value, place) => value !== y[place]);
    return at < 0 ? (a.id < b.id ? -1 : 1) : x[at] - y[at];
  });
}"""
STATE = "() => ({items: copy.page().map(item => item.title), counts: copy.counts, frames: copy.frames, ids: copy.ids})"
INBOX = "limit => fetch(`/org/me/inbox?limit=${limit}`).then(answer => answer.json())"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path, env={"ATTN_HEARTBEAT_SECONDS": "1"})
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
def page(up: Up, tmp_path: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=quiet)
        context = browser.new_context()
        context.add_cookies([{"name": "attn_session", "value": up.token("ws", "ann", "MEMBER"), "url": up.url}])
        opened = context.new_page()
        opened.goto(f"{up.url}/healthz")
        yield opened
        browser.close()


def titles(page: Any) -> list[str]:
    return [item["title"] for item in page.evaluate(INBOX, LIMIT)["items"]]


def test_an_event_source_follows_and_resumes(up: Up, page: Any) -> None:
    page.evaluate(FOLLOW, LIMIT)
    wait_for(lambda: page.evaluate("() => copy.frames.length"), 10, "a snapshot")
    up.emit("messages", *(
        cloud_event("message.posted", f"m{n}", n, title=f"Message {n}", priority=("low", "normal", "high")[n % 3],
                    **({"target_role": "OWNER"} if n % 4 == 0 else {}))
        for n in range(20)))
    up.emit("messages", *(cloud_event("message.withdrawn", f"m{n}", 30) for n in range(0, 20, 3)))

    def settled() -> bool:
        seen = page.evaluate(STATE)
        shown = page.evaluate(INBOX, LIMIT)
        return bool(seen["counts"] == shown["counts"] and shown["counts"]["total"] == 10)

    wait_for(settled, 20, "the burst")
    seen = page.evaluate(STATE)
    assert seen["items"] == titles(page)
    assert len(seen["items"]) == LIMIT
    assert not {f"Message {n}" for n in range(0, 20, 4)} & set(seen["items"])

    before = up.kill("edge")
    up.wait_restarted("edge", before)
    up.emit("messages", cloud_event("message.posted", "late", 40, title="Late", priority="urgent"))
    wait_for(lambda: "Late" in page.evaluate(STATE)["items"], 20, "the feed came back by itself")
    seen = page.evaluate(STATE)
    assert seen["frames"].count("snapshot") == 1, "the feed resumed by its cursor, without a second snapshot"
    assert seen["ids"] == sorted(set(seen["ids"])), "a frame arrived twice or out of order"
    assert seen["items"] == titles(page)
