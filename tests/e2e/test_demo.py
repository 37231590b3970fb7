"""`attn up --demo` for a new user: a full list, and a question that is answered at its source."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.clients.browsers import CHROMIUM, Scene, stage
from support.processes.up import Up, wait_for

from ops.process import identity

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


def approved(page: Any, plan: dict[str, Any]) -> bool:
    """Maria approves it at its source. False: the team was quicker, as it plays on meanwhile."""
    page.fill("#search", plan["title"])
    page.wait_for_selector(f"[data-id='{plan['id']}'] .main, .empty, .row:not([data-id='{plan['id']}'])")
    row = page.locator(f"[data-id='{plan['id']}']:not(.gone) .main")
    if not row.count():
        return False
    row.click()
    page.wait_for_selector(f"#detail-title:has-text('{plan['title']}')")
    link = page.locator("#detail .actions a.primary")
    if not link.count():
        return False
    with page.context.expect_page() as opened:
        link.click()
    source = opened.value
    source.wait_for_selector(f"h1:has-text('{plan['title']}'), h1:has-text('Nothing waits here')")
    if source.locator("button:has-text('Approve')").count():
        source.set_viewport_size({"width": 844, "height": 240})
        source.mouse.move(422, 120)
        source.mouse.wheel(0, 2000)
        source.wait_for_function(
            "() => document.querySelector('main > p:last-child').getBoundingClientRect().bottom <= innerHeight")
        source.click("button:has-text('Approve')")
        source.wait_for_selector("h1:has-text('Approve: done'), h1:has-text('Nothing waits here')")
    assert source.evaluate("() => document.styleSheets.length") == 1
    done = source.locator("h1:has-text('Approve: done')").count() == 1
    source.close()
    return done


def test_a_question_is_answered_at_its_source(playing: tuple[Up, Any]) -> None:
    up, browser = playing
    scene = Scene(up, browser, ws="demo")
    try:
        wait_for(lambda: questions(scene, "plan_approval"), 60, "a plan in the inbox")
        page = scene.signed_in("maria")
        plan = next(one for _ in range(10) for one in questions(scene, "plan_approval")[:1] if approved(page, one))
        page.wait_for_selector(f"[data-id='{plan['id']}']:not(.gone)", state="detached")
        wait_for(lambda: item(scene, plan["id"])["state"] == "resolved", 20, "the answer in the inbox")
        assert item(scene, plan["id"])["resolved_action"] == "approved"
        assert item(scene, plan["id"])["resolved_by_user_id"] == "maria"
    finally:
        scene.close()


def test_links_of_the_demo_work_after_a_restart(playing: tuple[Up, Any]) -> None:
    scene = Scene(*playing, ws="demo")
    wait_for(lambda: questions(scene, "pending_action"), 60, "an action in the inbox")
    actions = questions(scene, "pending_action")  # whose links are from before
    before = identity.read(scene.up.data_dir / "run" / "demo.pid")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)

    def declined() -> bool:
        """The team answers too; so Maria declines the first one that is still open."""
        for action in actions:
            found = item(scene, action["id"])
            if (found.get("resolved_action"), found.get("resolved_by_user_id")) == ("declined", "maria"):
                return True
            if found["state"] != "resolved" and posted(f"{action['action_url']}/1"):
                return False  # until the inbox shows it
        known = {action["id"] for action in actions}
        actions.extend(one for one in questions(scene, "pending_action") if one["id"] not in known)
        return False

    def posted(url: str) -> bool:
        try:
            return httpx.post(url, timeout=60, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(declined, 90, "the demo at its port again, and the answer in the inbox")
