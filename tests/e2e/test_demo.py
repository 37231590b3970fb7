"""`attn up --demo` as a newcomer meets it: a full list, and a question that is answered at its source."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.browsers import CHROMIUM, Scene, stage
from support.up import Up, wait_for

from ops import processes

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Any]]:
    with stage(tmp_path_factory.mktemp("demo"), "--demo") as both:
        yield both


def item(scene: Scene, number: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.up.get(f"/org/me/inbox/{number}", scene.token("maria")).json()
    return found


def questions(scene: Scene, kind: str) -> list[dict[str, Any]]:
    """What is open for Maria, the last that the team would get to first."""
    items = scene.up.get(f"/org/me/inbox?kind={kind}&limit=500", scene.token("maria")).json()["items"]
    return sorted(items, key=lambda one: str(one["created_at"]), reverse=True)


def test_a_question_is_answered_at_its_source(playing: tuple[Up, Any]) -> None:
    up, browser = playing
    scene = Scene(up, browser, ws="demo")
    try:
        plan = wait_for(lambda: questions(scene, "plan_approval"), 60, "a plan in the inbox")[0]
        page = scene.signed_in("maria")
        page.fill("#search", plan["title"])
        page.locator(f"[data-id='{plan['id']}'] .main").click()
        page.wait_for_selector(f"#detail-title:has-text('{plan['title']}')")
        with page.context.expect_page() as opened:
            page.click("#detail .actions a.primary")
        source = opened.value
        source.wait_for_selector(f"h1:has-text('{plan['title']}')")
        source.set_viewport_size({"width": 844, "height": 240})
        source.mouse.move(422, 120)
        source.mouse.wheel(0, 2000)
        source.wait_for_function(
            "() => document.querySelector('main > p:last-child').getBoundingClientRect().bottom <= innerHeight")
        source.click("button:has-text('Approve')")
        source.wait_for_selector("h1:has-text('Approve: done')")
        page.wait_for_selector(f"[data-id='{plan['id']}']:not(.gone)", state="detached")
        assert item(scene, plan["id"])["resolved_action"] == "approved"
        assert source.evaluate("() => document.styleSheets.length") == 1
    finally:
        scene.close()


def test_its_links_outlive_a_restart(playing: tuple[Up, Any]) -> None:
    scene = Scene(*playing, ws="demo")
    action = wait_for(lambda: questions(scene, "pending_action"), 60, "an action in the inbox")[0]
    before = processes.read(scene.up.data_dir / "run" / "demo.pid")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)

    def declined() -> bool:
        try:
            page = httpx.get(action["action_url"], timeout=5, trust_env=False)
            return page.status_code == 200 and httpx.post(
                action["action_url"] + "/1", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(declined, 60, "the demo at its port again")
    wait_for(lambda: item(scene, action["id"]).get("resolved_action") == "declined", 20, "the answer in the inbox")
