"""The dashboard on the whole stack in a real browser: what users see and do."""

from __future__ import annotations

import time
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Route
from support.clients.browsers import CHROMIUM, Scene, moment, shows, titles
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


def requests_of(page: Any) -> list[str]:
    """Returns a list that collects the paths of later requests, except for the page's own files."""
    paths: list[str] = []
    page.on("request", lambda request: paths.append(request.url.split("/", 3)[3].split("?")[0]))
    return paths


def row(page: Any, title: str) -> Any:
    return page.locator(f".row:has-text('{title}')")


def test_sign_in_and_out(scene: Scene) -> None:
    scene.messages("One", "Two")
    page = scene.page(scene.context())
    page.goto(scene.up.url)
    page.fill("#token", "not a token")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-problem:has-text('rejected')")
    requested = requests_of(page)
    page.fill("#token", scene.token())
    page.keyboard.press("Enter")
    shows(page, "One", "Two")
    assert {path for path in requested if path.startswith("org/")} <= {"org/me/feed", "org/me", "org/me/insights"}
    assert requested.count("org/me/feed") == 1, "the page requested the feed once"
    page.reload()
    shows(page, "One", "Two")
    page.click(".menu summary")
    page.click("text=Sign out")
    page.wait_for_selector("#token")
    assert {cookie["name"] for cookie in page.context.cookies()} & {"attn_session", "attn_csrf"} == set()


def test_new_items_are_inserted_by_rank(scene: Scene) -> None:
    page = scene.signed_in()
    page.wait_for_selector("text=Nothing needs you")
    scene.messages("calm", priority="low")
    shows(page, "calm")
    scene.emit("waitpoints", scene.event("waitpoint.created", "w", title="pressing", priority="urgent"))
    scene.emit("messages", scene.event("message.posted", "m", title="usual"))
    shows(page, "pressing", "usual", "calm")
    assert [text.split() for text in page.locator(".heading").all_inner_texts()] == [
        ["Urgent", "1"], ["Normal", "1"], ["Low", "1"]]
    assert page.title() == "(3) attn"
    assert "blocking" in row(page, "pressing").inner_text()
    scene.emit("waitpoints", scene.event("waitpoint.approved", "w", 0.1))
    shows(page, "usual", "calm")


def test_the_list_is_stable_under_the_pointer(scene: Scene) -> None:
    scene.messages("first", "second")
    page = scene.signed_in()
    shows(page, "first", "second")
    row(page, "first").hover()
    scene.emit("messages", scene.event("message.posted", "n", title="newer", priority="urgent"))
    scene.emit("messages", scene.event("message.withdrawn", "second", 1))
    page.wait_for_selector(".pill:has-text('1 new')")
    page.wait_for_selector(".row.gone:has-text('second') .due:has-text('withdrawn')")
    assert titles(page) == ["first"]
    page.click(".pill")
    shows(page, "newer", "first")
    scene.messages("later", priority="low")
    page.wait_for_selector(".pill")
    page.mouse.move(5, 5)
    shows(page, "newer", "first", "later")


def test_a_write_is_shown_to_other_users(scene: Scene) -> None:
    scene.messages("shared", "kept")
    own_page, other_page = scene.signed_in("ann"), scene.signed_in("bob", "MEMBER")
    shows(other_page, "shared", "kept")
    row(own_page, "shared").locator(".main").click()
    own_page.wait_for_selector("#detail-title:has-text('shared')")
    other_page.wait_for_selector(".row:not(.unread):has-text('shared')")
    own_page.click("#detail >> text=Resolve")
    own_page.wait_for_selector(".toast:has-text('Resolved “shared” for everyone')")
    shows(own_page, "kept")
    shows(other_page, "kept")
    own_page.click(".toast >> text=Undo")
    shows(other_page, "kept", "shared")  # the item reopened, so its due time is later
    row(own_page, "kept").hover()
    row(own_page, "kept").locator("[title^='Dismiss']").click()
    own_page.wait_for_selector(".toast:has-text('for you only')")
    own_page.mouse.move(5, 5)
    shows(own_page, "shared")
    assert titles(other_page) == ["kept", "shared"]
    own_page.click(".side >> text=Dismissed")
    shows(own_page, "kept")
    row(own_page, "kept").hover()
    row(own_page, "kept").locator("[title='Restore']").click()
    own_page.click(".side >> text=Open")
    shows(own_page, "kept", "shared")


def test_a_source_managed_item_links_to_its_source(scene: Scene) -> None:
    scene.emit("waitpoints", scene.event("waitpoint.created", "w", title="gate", action_url="https://example.org/w"))
    page = scene.signed_in()
    shows(page, "gate")
    page.keyboard.press("j")
    page.keyboard.press("e")
    toast = page.locator(".toast.bad")
    assert "Its source decides this" in toast.inner_text()
    assert toast.locator("a").get_attribute("href") == "https://example.org/w"
    shows(page, "gate")


def test_an_item_that_closes_while_it_is_marked_read_has_no_actions(scene: Scene) -> None:
    """The response of the write arrives after the frame that removed the item."""
    scene.messages("note")
    page = scene.signed_in()
    shows(page, "note")
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if route.request.method == "PATCH":
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route("**/api/v1/inbox/*", hold)
    row(page, "note").locator(".main").click()
    page.wait_for_selector("#detail .actions button")
    while not held:  # the page marks an open item as read after a moment
        page.wait_for_timeout(50)
    scene.emit("messages", scene.event("message.withdrawn", "note", 0.1))
    page.wait_for_selector(".notice:has-text('withdrawn')")
    page.wait_for_selector("#detail .actions button", state="detached")
    [(route, response)] = held
    assert response.status == 200
    with page.expect_response("**/api/v1/inbox/*"):
        route.fulfill(response=response)
    page.wait_for_timeout(200)
    assert page.locator("#detail .actions button").count() == 0


def test_an_open_item_closed_by_its_source_has_no_actions(scene: Scene) -> None:
    scene.emit("waitpoints", scene.event("waitpoint.created", "w", title="gate", action_url="https://example.org/w"))
    scene.messages("note")
    page = scene.signed_in()
    shows(page, "gate", "note")
    for title, topic, closing, key in (
            ("gate", "waitpoints", scene.event("waitpoint.approved", "w", 0.1), "approved"),
            ("note", "messages", scene.event("message.withdrawn", "note", 0.1), "withdrawn")):
        row(page, title).locator(".main").click()
        page.wait_for_selector(f"#detail-title:text-is('{title}')")
        page.wait_for_selector("#detail .actions button")
        scene.emit(topic, closing)
        page.wait_for_selector(f".notice:has-text('{key}')")
        page.wait_for_selector("#detail .actions button", state="detached")
        page.keyboard.press("e")
    assert page.locator(".toast").count() == 0


def test_a_bulk_resolve_lists_the_skipped_items(scene: Scene) -> None:
    scene.messages(*(f"note {n}" for n in range(1, 5)))
    scene.emit("waitpoints", *(
        scene.event("waitpoint.created", f"w{n}", title=f"gate {n}", priority="low", action_url=f"/gates/{n}")
        for n in range(1, 3)))
    page = scene.signed_in()
    shows(page, "note 1", "note 2", "note 3", "note 4", "gate 1", "gate 2")
    row(page, "note 2").locator("input").click()
    row(page, "gate 2").locator("input").click(modifiers=["Shift"])
    page.wait_for_selector(".bulk:has-text('5 items selected')")
    page.click(".bulk >> text=Resolve")
    toast = page.locator(".toast")
    toast.wait_for()
    assert "3 resolved, 2 left open" in toast.inner_text()
    assert [link.get_attribute("href") for link in toast.locator("a").all()] == ["/gates/1", "/gates/2"]
    page.mouse.move(5, 5)
    page.wait_for_selector(".bulk:has-text('2 items selected')")
    page.keyboard.press("Escape")
    page.locator("body").click(position={"x": 5, "y": 5})
    shows(page, "note 1", "gate 1", "gate 2")
    page.keyboard.press("z")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 6")
    assert titles(page)[0] == "note 1"


def test_a_snoozed_item_returns(scene: Scene) -> None:
    scene.messages("sleepy")
    page = scene.signed_in()
    shows(page, "sleepy")
    page.keyboard.press("j")
    page.keyboard.press("s")
    page.wait_for_selector("dialog[open]")
    # The page asks for 20 minutes; the test shortens this to seconds.
    page.route("**/dismiss", lambda route: route.fallback(post_data={"dismissed_until": moment(4 / 60)}))
    page.click("dialog >> text=In 20 minutes")
    page.wait_for_selector(".toast:has-text('Snoozed')")
    page.keyboard.press("Escape")
    page.wait_for_selector("text=Nothing needs you")
    shows(page, "sleepy")


def test_two_tabs_share_one_connection(scene: Scene) -> None:
    scene.messages("before")
    context = scene.context()
    feeds: list[Any] = []
    context.on("request", lambda request: feeds.append(request) if "/org/me/feed" in request.url else None)
    first = scene.signed_in(context=context)
    second = scene.page(context)
    second.goto(scene.up.url)
    shows(second, "before")
    scene.messages("both", priority="high")
    for page in (first, second):
        shows(page, "both", "before")
    assert len(feeds) == 1
    first.close()
    scene.messages("after", priority="urgent")
    shows(second, "after", "both", "before")
    assert len(feeds) == 2
    assert feeds[1].headers.get("last-event-id"), "the second tab resumes from its own cursor"


def test_a_restarted_edge_loses_no_frame(scene: Scene) -> None:
    scene.messages("old")
    page = scene.signed_in()
    shows(page, "old")
    before = scene.up.kill("edge")
    page.wait_for_selector(".banner:has-text('no change is lost')")
    scene.messages("meanwhile", priority="high")
    scene.up.wait_restarted("edge", before)
    shows(page, "meanwhile", "old")
    page.wait_for_selector(".banner", state="detached")
    page.wait_for_selector(".link.live")


def test_a_failed_sign_out_is_shown(scene: Scene) -> None:
    scene.messages("still here")
    page = scene.signed_in()
    page.route("**/auth/session", lambda route: route.abort())
    page.click(".menu summary")
    page.click("text=Sign out")
    page.wait_for_selector(".toast.bad:has-text('still signed in')")
    shows(page, "still here")
    page.unroute("**/auth/session")
    page.click("text=Sign out")
    page.wait_for_selector("#token")


def test_too_many_connections_are_explained(scene: Scene) -> None:
    import httpx

    headers = {"authorization": f"Bearer {scene.token()}"}
    with httpx.Client(trust_env=False, timeout=30) as client:
        held = [client.send(client.build_request("GET", f"{scene.up.url}/org/me/feed", headers=headers), stream=True)
                for _ in range(8)]
        assert {answer.status_code for answer in held} == {200}
        page = scene.page(scene.context())
        page.goto(scene.up.url)
        page.fill("#token", scene.token())
        page.keyboard.press("Enter")
        page.wait_for_selector(".banner:has-text('8 live connections')")
        for answer in held:
            answer.close()
    page.click(".banner >> text=Try now")
    page.wait_for_selector(".link.live")


def test_five_thousand_items_scroll(scene: Scene) -> None:
    now = time.time()
    scene.emit("messages", *(
        scene.event("message.posted", f"m{n}", -1, title=f"item {n:04}", due_at=moment(100 + n)) for n in range(5000)))
    page = scene.signed_in()
    page.wait_for_function("() => document.title === '(999+) attn'")
    page.wait_for_selector(".views >> text=5,000")
    assert titles(page)[0] == "item 0000"
    for _ in range(60):
        page.evaluate("() => { const at = document.querySelector('.scroll'); at.scrollTop = at.scrollHeight; }")
        page.wait_for_timeout(50)
        if titles(page)[-1:] == ["item 4999"]:
            break
    page.wait_for_function(
        "() => [...document.querySelectorAll('.title')].some((at) => at.textContent.endsWith('item 4999'))")
    assert page.locator(".row").count() < 80, "only visible rows are rendered"
    page.fill("#search", "item 3141")
    shows(page, "item 3141")
    assert time.time() - now < 240


def test_views_filters_and_search(scene: Scene) -> None:
    scene.messages("alpha", cluster="c1", case_id="k1", case_title="Case one")
    scene.emit("messages", scene.event("message.posted", "b", -1, title="beta", cluster="c2", body_md="about alpha"))
    scene.emit("run-failures", scene.event("run.failed", "r", -1, title="gamma", cluster="c1", priority="low"))
    page = scene.signed_in()
    shows(page, "alpha", "beta", "gamma")
    page.click(".side >> text=Failed run")
    shows(page, "gamma")
    page.click(".chip")
    shows(page, "alpha", "beta", "gamma")
    page.click(".cluster >> text=c1")
    shows(page, "alpha", "gamma")
    page.keyboard.press("Escape")
    page.fill("#search", "alpha")
    shows(page, "alpha", "beta")
    page.fill("#search", "")
    shows(page, "alpha", "beta", "gamma")
    row(page, "alpha").locator(".main").click()
    page.wait_for_selector(".row:not(.unread):has-text('alpha')")
    page.click("#detail >> text=Case one")
    shows(page, "alpha")
    page.click(".side >> text=Unread")
    page.click(".chip")
    shows(page, "beta", "gamma")


def test_history_in_the_item_and_in_charts(scene: Scene) -> None:
    scene.emit("escalations", scene.event("escalation.opened", "e", -30, title="closed one", case_id="k", cluster="c1"))
    page = scene.signed_in()
    # The item must open first: the history does not count a close that arrives before the opening.
    shows(page, "closed one")
    scene.emit("escalations", scene.event("escalation.resolved", "e", -10, case_id="k", by_user_id="bob"))
    scene.emit("messages", scene.event("message.posted", "m", -5, title="open one", case_id="k"))
    shows(page, "open one")
    wait_for(lambda: scene.up.get("/org/me/insights", scene.token()).json()["total"]["closed"], 60, "the history")
    page.reload()
    page.wait_for_selector(".chart .up")
    assert "Closed 1" in page.locator("figcaption").inner_text()
    assert "Escalation" in page.locator("#widget-times").inner_text()
    assert "bob" in page.locator("#widget-people").inner_text()
    row(page, "open one").locator(".main").click()
    page.wait_for_selector(".timeline >> text=escalation resolved")
    assert "by bob" in page.locator(".timeline").inner_text()
    eve = scene.signed_in("eve", "MEMBER")  # the page neither shows nor requests insights for a MEMBER
    requested = requests_of(eve)
    eve.reload()
    eve.wait_for_selector(".avatar:text-is('E')")
    eve.wait_for_selector("#widget-kinds .label")
    assert eve.locator("#widget-flow, #widget-times, #widget-people").count() == 0
    assert "org/me/insights" not in requested
