"""The dashboard while items change in the background: writes with an outdated revision, and desktop notifications."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.clients.browsers import CHROMIUM, Scene, shows
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
# Records the desktop notifications of the page, which a headless browser does not show.
NOTES = """
window.notes = [];
window.Notification = class extends Notification {
  constructor(title, options) {
    super(title, options);
    notes.push({ title, body: this.body, made: this });
  }
};
"""
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
TOLD = "(titles) => JSON.stringify(notes.map((note) => note.title)) === JSON.stringify(titles)"


def during_write(page: Any, method: str, path: str, does: Callable[[], None]) -> list[tuple[str | None, int]]:
    """Runs `does` while the page's first such write is in flight. Returns (revision of the write, status) for each."""
    seen: list[tuple[str | None, int]] = []

    def handle(route: Any) -> None:
        if route.request.method == method:
            if not seen:
                does()
            answer = route.fetch()
            seen.append((route.request.headers.get("if-match"), answer.status))
            route.fulfill(response=answer)
        else:
            route.fallback()

    page.route(path, handle)
    return seen


def item_of(scene: Scene, title: str) -> dict[str, Any]:
    items = scene.up.get("/org/me/inbox", scene.token("bob")).json()["items"]
    return next((item for item in items if item["title"] == title), {})


def test_a_write_is_retried_after_a_read_by_others(scene: Scene) -> None:
    import httpx

    scene.messages("shared", "other")
    page = scene.signed_in()
    shows(page, "shared", "other")

    def bob_reads_it() -> None:
        answer = httpx.patch(
            f"{scene.up.url}/api/v1/inbox/{item_of(scene, 'shared')['id']}", json={"state": "read"},
            headers={"authorization": f"Bearer {scene.token('bob')}"}, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text

    sent = during_write(page, "PATCH", "**/api/v1/inbox/*", bob_reads_it)
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.wait_for_selector(".toast:has-text('Resolved “shared” for everyone')")
    assert [status for _, status in sent] == [412, 200]
    assert sent[0][0] != sent[1][0], "the page repeated the write with the newer revision"
    page.keyboard.press("Escape")
    shows(page, "other")


def test_a_write_on_a_changed_item_is_refused(scene: Scene) -> None:
    scene.messages("harmless", "other", body_md="as it was")
    page = scene.signed_in()
    shows(page, "harmless", "other")

    def change_item() -> None:
        scene.emit("messages", scene.event("message.posted", "harmless", title="dangerous"))
        wait_for(lambda: item_of(scene, "dangerous"), 60, "the change")

    sent = during_write(page, "POST", "**/dismiss", change_item)
    page.keyboard.press("j")
    page.keyboard.press("d")
    page.wait_for_selector(".toast.bad:has-text('It has changed since you saw it')")
    assert [status for _, status in sent] == [412]
    page.wait_for_selector(".row:not(.gone):has-text('dangerous')")
    page.keyboard.press("d")  # the write has the current revision
    page.wait_for_selector(".toast:has-text('Dismissed “dangerous”')")
    assert [status for _, status in sent] == [412, 200]


def test_desktop_notifications_need_consent(scene: Scene) -> None:
    context = scene.context()
    context.add_init_script(NOTES)
    context.grant_permissions(["notifications"], origin=scene.up.url)
    scene.messages("there before", priority="urgent")
    page = scene.signed_in(context=context)
    shows(page, "there before")
    page.evaluate(HIDE, True)
    scene.messages("not asked for", priority="urgent")
    shows(page, "there before", "not asked for")
    page.evaluate(HIDE, False)
    page.click(".menu summary")
    page.click("text=Notify me of urgent items")
    page.wait_for_selector(".menu [aria-pressed=true]:has-text('Notifying of urgent items')")
    other = scene.signed_in(context=context)  # this tab follows the leading tab, and does not notify
    scene.messages("looked at", priority="urgent")
    for tab in (page, other):
        shows(tab, "there before", "not asked for", "looked at")
        tab.evaluate(HIDE, True)
    scene.messages("calm", priority="high")
    scene.messages("wake up", priority="urgent", cluster="prod", sender={"type": "agent", "id": "a", "name": "Otto"})
    page.wait_for_function(TOLD, arg=["wake up"])
    assert page.evaluate("() => notes[0].body") == "prod, Otto"
    shows(other, "there before", "not asked for", "looked at", "wake up", "calm")
    assert other.evaluate("() => notes.length") == 0
    page.evaluate("() => notes[0].made.dispatchEvent(new Event('click'))")
    page.wait_for_selector("#detail-title:has-text('wake up')")
    for tab in (page, other):
        tab.evaluate(HIDE, False)
    page.click("text=Notifying of urgent items")  # the menu stays open
    page.wait_for_selector(".menu [aria-pressed=false]:has-text('Notify me')")
    page.evaluate(HIDE, True)
    scene.messages("no more", priority="urgent")
    page.wait_for_selector(".row:has-text('no more')")
    page.evaluate(HIDE, False)
    assert page.evaluate("() => notes.length") == 1


def test_denied_notifications_are_reported(scene: Scene) -> None:
    page = scene.signed_in()
    assert page.evaluate("() => Notification.permission") != "granted"
    page.click(".menu summary")
    page.click("text=Notify me of urgent items")
    page.wait_for_selector(".toast:has-text('does not allow notifications')")
    page.wait_for_selector(".menu [aria-pressed=false]:has-text('Notify me')")
