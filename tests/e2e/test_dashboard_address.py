"""The address of the page names the open item: for reload, for links to others, and for the Back button."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients.browsers import CHROMIUM, Scene, moment, shows
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


def opened(page: Any, title: str) -> None:
    page.wait_for_selector(f"#detail-title:text-is('{title}')")


def closed(page: Any) -> None:
    page.wait_for_selector("#detail", state="detached")


def at(page: Any, item: str | None) -> None:
    page.wait_for_function("(hash) => location.hash === hash", arg=f"#item={item}" if item else "")


def listed(scene: Scene, title: str) -> str:
    """Returns the id of the item once it is listed."""
    def found() -> str:
        items = scene.up.get("/org/me/inbox", scene.token()).json()["items"]
        return next((str(item["id"]) for item in items if item["title"] == title), "")

    return str(wait_for(found, 30, title))


def click(page: Any, title: str) -> None:
    page.locator(f".row:has-text('{title}') .main").click()


def test_back_and_forward_open_and_close(scene: Scene) -> None:
    scene.messages("first", "second")
    page = scene.signed_in()
    shows(page, "first", "second")
    first, second = listed(scene, "first"), listed(scene, "second")
    click(page, "first")
    opened(page, "first")
    at(page, first)
    click(page, "second")
    at(page, second)
    page.go_back()
    closed(page)
    at(page, None)
    page.go_forward()
    opened(page, "second")
    page.keyboard.press("Escape")
    closed(page)
    at(page, None)
    page.keyboard.press("k")
    page.keyboard.press("o")
    opened(page, "first")
    at(page, first)
    page.keyboard.press("j")
    at(page, second)
    page.reload()
    opened(page, "second")
    page.go_back()
    closed(page)
    shows(page, "first", "second")
    at(page, None)


def test_quick_keys_keep_the_address_right(scene: Scene) -> None:
    scene.messages("only", "other")
    page = scene.signed_in()
    shows(page, "only", "other")
    page.keyboard.press("j")
    for _ in range(5):
        page.keyboard.press("o")
        page.keyboard.press("Escape")
    page.keyboard.press("o")
    opened(page, "only")
    at(page, listed(scene, "only"))
    page.keyboard.press("Escape")
    closed(page)
    at(page, None)


def test_a_link_opens_for_users_who_see_it(scene: Scene) -> None:
    scene.messages("for all")
    scene.messages("for ann", target_user_id="ann")
    everybodys, anns = listed(scene, "for all"), listed(scene, "for ann")
    context = scene.context()
    page = scene.page(context)
    page.goto(f"{scene.up.url}/#item={everybodys}")
    page.fill("#token", scene.token("bob", "MEMBER"))
    page.click("text=Sign in")
    opened(page, "for all")
    page.keyboard.press("Escape")
    closed(page)
    at(page, None)
    page.goto(f"{scene.up.url}/#item={anns}")
    page.wait_for_selector(".toast.bad:has-text('does not exist, or it is not addressed to you')")
    at(page, None)
    page.goto(f"{scene.up.url}/#item=%E0%A4%A")  # the fragment is no valid UTF-8
    shows(page, "for all")
    assert page.locator("#detail").count() == 0


def test_a_resolved_item_is_shown_without_actions(scene: Scene) -> None:
    scene.emit("waitpoints", scene.event("waitpoint.created", "w", title="gate", action_url="https://example.org/w"))
    page = scene.signed_in()
    shows(page, "gate")
    gate = listed(scene, "gate")
    scene.emit("waitpoints", scene.event("waitpoint.approved", "w", 0.1, by_user_id="bob"))
    shows(page)
    page.goto(f"{scene.up.url}/#item={gate}")
    opened(page, "gate")
    page.wait_for_selector(".notice:has-text('approved')")
    assert page.locator("#detail .actions button").count() == 0
    assert page.locator("#detail .actions a").get_attribute("href") == "https://example.org/w"


def test_the_skip_link_keeps_the_item_open(scene: Scene) -> None:
    scene.messages("stays")
    page = scene.signed_in()
    click(page, "stays")
    opened(page, "stays")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    at(page, listed(scene, "stays"))
    opened(page, "stays")
    page.keyboard.press("Escape")
    closed(page)
    at(page, None)
    entries = page.evaluate("history.length")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'list'")
    assert page.evaluate("history.length") == entries


def withdrawn(scene: Scene, title: str, **data: Any) -> str:
    """Returns the id of a message that its source has withdrawn from the list."""
    scene.messages(title, **data)
    item = listed(scene, title)
    scene.emit("messages", scene.event("message.withdrawn", title, 0.1))
    wait_for(lambda: scene.up.get(f"/org/me/inbox/{item}", scene.token()).json()["state"] == "resolved", 30, title)
    return item


class Slow:
    """Holds back the edge's responses about an item until `come` is called."""

    def __init__(self, page: Any, item: str) -> None:
        self._page, self._path, self._held = page, f"/org/me/inbox/{item}", []
        page.route(f"**{self._path}", self._hold)

    def _hold(self, route: Any) -> None:
        self._held.append((route, route.fetch()))

    def release(self) -> None:
        """Releases the responses, and waits until the page has rendered."""
        for route, answer in self._held:
            route.fulfill(response=answer)
        self._page.unroute(f"**{self._path}")
        self._page.evaluate("""(path) => fetch(path).then((answer) => answer.text())
          .then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))""", self._path)



def test_a_slow_link_does_not_override_a_click(scene: Scene) -> None:
    scene.messages("here")
    old = withdrawn(scene, "old")
    page = scene.signed_in()
    shows(page, "here")
    slow = Slow(page, old)
    with page.expect_request(f"**/org/me/inbox/{old}"):
        page.evaluate("(item) => { location.hash = `item=${item}`; }", old)
    click(page, "here")
    opened(page, "here")
    at(page, listed(scene, "here"))
    slow.release()
    opened(page, "here")
    at(page, listed(scene, "here"))
    page.go_back()
    opened(page, "old")
    at(page, old)
    page.keyboard.press("Escape")
    closed(page)
    at(page, None)


def test_a_link_of_one_user_is_not_shown_to_the_next_user(scene: Scene) -> None:
    secret = withdrawn(scene, "for ann", target_user_id="ann")
    page = scene.signed_in()
    slow = Slow(page, secret)
    with page.expect_request(f"**/org/me/inbox/{secret}"):
        page.evaluate("(item) => { location.hash = `item=${item}`; }", secret)
    page.click(".menu summary")
    page.click("text=Sign out")
    page.fill("#token", scene.token("bob", "MEMBER"))
    with page.expect_request(f"**/org/me/inbox/{secret}"):
        page.click(".sign-in >> text=Sign in")
    slow.release()
    page.wait_for_selector(".toast.bad:has-text('does not exist, or it is not addressed to you')")
    at(page, None)
    assert page.locator("#detail").count() == 0


def test_a_link_without_an_answer_is_kept(scene: Scene) -> None:
    old = withdrawn(scene, "old")
    page = scene.signed_in()
    page.route(f"**/org/me/inbox/{old}", lambda route: route.abort())
    page.goto(f"{scene.up.url}/#item={old}")
    page.wait_for_selector(".toast.bad:has-text('does not answer')")
    at(page, old)
    page.unroute(f"**/org/me/inbox/{old}")
    page.reload()
    opened(page, "old")


def test_a_dismissed_item_can_be_restored(scene: Scene) -> None:
    scene.messages("resting", "other")
    page = scene.signed_in()
    shows(page, "resting", "other")
    resting = listed(scene, "resting")
    page.keyboard.press("j")
    page.keyboard.press("d")
    shows(page, "other")
    page.goto(f"{scene.up.url}/#item={resting}")
    page.reload()
    opened(page, "resting")
    page.wait_for_selector(".notice:has-text('dismissed')")
    assert page.locator("#detail .actions >> text=Dismiss").count() == 0
    page.wait_for_selector("#detail [aria-label='Mark unread']")  # opening the item marked it as read
    page.keyboard.press("u")
    page.wait_for_selector("#detail [aria-label='Mark read']")
    page.click("#detail >> text=Restore")
    page.wait_for_selector(".notice", state="detached")
    page.wait_for_selector("#detail .actions >> text=Dismiss")
    shows(page, "resting", "other")
    number = ".side .nav:has-text('Dismissed') .count"
    page.wait_for_selector(f"{number}:text-is('0')")
    page.keyboard.press("d")
    closed(page)
    page.wait_for_selector(f"{number}:text-is('1')")
    at(page, None)


def test_a_link_to_a_grouped_run_opens_its_incident(scene: Scene) -> None:
    for cluster in ("a", "b"):
        scene.emit("run-failures", scene.event(
            "run.failed", cluster, -5, title=f"run on {cluster}", pipeline="p", step="s", error="403",
            cluster=cluster))
    page = scene.signed_in()
    page.wait_for_selector(".row:has-text('2 clusters')")
    incident = scene.up.get("/org/me/inbox", scene.token()).json()["items"][0]
    page.goto(f"{scene.up.url}/#item={incident['members'][0]}")
    page.wait_for_selector(".notice:has-text('Part of an incident')")
    page.click(".notice .link")
    opened(page, incident["title"])
    at(page, incident["id"])


def test_an_item_beyond_the_first_page_can_be_used(scene: Scene) -> None:
    scene.emit("messages", *(
        scene.event("message.posted", f"m{n}", -1, title=f"item {n:03}", due_at=moment(100 + n)) for n in range(520)))
    page = scene.signed_in()
    page.wait_for_selector(".views >> text=520")
    first = scene.up.get("/org/me/inbox?limit=500", scene.token()).json()
    second = scene.up.get(f"/org/me/inbox?limit=500&next={first['next']}", scene.token()).json()
    items = {item["title"]: item["id"] for item in first["items"] + second["items"]}
    page.goto(f"{scene.up.url}/#item={items['item 510']}")
    opened(page, "item 510")
    page.wait_for_selector("#detail [aria-label='Mark unread']")  # the item is marked as read
    page.keyboard.press("u")
    page.wait_for_selector("#detail [aria-label='Mark read']")
    page.keyboard.press("e")
    page.wait_for_selector(".toast:has-text('Resolved “item 510”')")
    closed(page)
    at(page, None)
    page.goto(f"{scene.up.url}/#item={items['item 300']}")
    opened(page, "item 300")
    page.wait_for_function("""(id) => {
      const row = document.querySelector(`[data-id="${id}"]`).getBoundingClientRect();
      const list = document.querySelector("#list").getBoundingClientRect();
      return row.top >= list.top && row.bottom <= list.bottom;
    }""", arg=items["item 300"])
