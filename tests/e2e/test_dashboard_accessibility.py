"""Accessibility of the dashboard: keyboard only, screen readers, untrusted text, the user's own order."""

from __future__ import annotations

from typing import Any

import pytest
from support.clients.browsers import CHROMIUM, Scene, shows

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
HOSTILE = "<img src=x onerror='window.ran=1'><script>window.ran=1</script><svg/onload=window.ran=1>"
HOSTILE_MD = HOSTILE + """
[click](javascript:window.ran=1) [data](data:text/html,<script>window.ran=1</script>) ![pixel](https://example.org/p.png)
<a href="javascript:window.ran=1" onclick="window.ran=1">x</a> <style>body{display:none}</style>
<form action="/x"><input name=token></form>

```html
<script>window.ran=1</script>
```
"""


def furnish(scene: Scene) -> None:
    """Adds one item of each appearance."""
    scene.emit("waitpoints", scene.event(
        "waitpoint.created", "w", -20, title="Review deploy", priority="urgent", cluster="prod", stack="web",
        case_id="c1", case_title="Checkout",
        body_md="# Ready\n\n- **three** services\n\n- [x] tested\n- [ ] deployed\n\n"
                "```sh\nmake\n```\n\n|a|b|\n|-|-|\n|1|2|",
        payload={"target": "prod", "api_token": "sk_live_123456789", "nested": {"password": "hunter2", "on": True}},
        sender={"type": "agent", "id": "ag", "name": "Daniel"}, action_url="https://example.org/w"))
    scene.emit("actions", scene.event(
        "action.requested", "a", -5, title="Drop index", risk="critical", reversible=False, priority="high"))
    scene.emit("plans", scene.event(
        "plan.proposed", "p", -5, title="Upgrade nodes",
        steps=[{"title": "Drain", "mode": "auto"}, {"title": "Delete", "mode": "confirm"}]))
    scene.emit("run-failures", *(scene.event(
        "run.failed", f"r{cluster}", -5, title="Backup failed", pipeline="backup", step="up", error="403",
        cluster=cluster) for cluster in "ab"))
    scene.emit("drafts", scene.event(
        "draft.edited", "d", -5, title="values.yaml", owner_user_id="ann", editor={"type": "ai", "id": "ag"}))
    scene.emit("messages", scene.event("message.posted", "m", -5, title="Report", priority="low"))


def findings(page: Any) -> list[str]:
    """Returns what axe reports as serious or critical, without animations and without pending writes."""
    page.wait_for_function("() => !document.querySelector('.row.busy') && !document.getAnimations().length")
    violations = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{violation['id']}: {node['target']} {node.get('failureSummary')}" for violation in violations
            if violation["impact"] in ("serious", "critical") for node in violation["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_violations(scene: Scene, scheme: str) -> None:
    furnish(scene)
    signing = scene.page(scene.context(color_scheme=scheme, reduced_motion="reduce"))
    signing.goto(scene.up.url)
    signing.wait_for_selector("#token")
    assert findings(signing) == []
    page = scene.signed_in(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector(".row:has-text('Report')")
    page.wait_for_selector(".row:has-text('2 clusters')")
    assert findings(page) == []
    page.locator(".pick input").first.check()
    page.click(".row:has-text('Review deploy') .main")
    page.wait_for_selector(".fields >> text=api token")
    page.wait_for_selector(".markdown table")  # the rendered markdown, not its source text
    page.wait_for_selector(".row.opened:not(.unread)")  # the write of the read mark has ended before axe runs
    assert findings(page) == []
    for key in ("?", "s"):
        page.keyboard.press(key)
        page.wait_for_selector("dialog[open]")
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog[open]", state="detached")
    page.set_viewport_size({"width": 390, "height": 800})
    page.keyboard.press("Escape")
    assert findings(page) == []


def test_by_keyboard_alone(scene: Scene) -> None:
    scene.messages("one", "two", "three")
    page = scene.page(scene.context())
    page.goto(scene.up.url)
    page.wait_for_selector("#token")
    page.keyboard.press("Tab")
    page.keyboard.type(scene.token())
    page.keyboard.press("Enter")
    shows(page, "one", "two", "three")
    focused = "() => document.activeElement.closest('.row')?.querySelector('.title').lastChild.textContent"
    for key, title in (("j", "one"), ("j", "two"), ("j", "three"), ("k", "two")):
        page.keyboard.press(key)
        page.wait_for_function(f"(title) => ({focused})() === title", arg=title)
    page.keyboard.press("u")
    page.wait_for_selector(".row:not(.unread):has-text('two')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail-title:has-text('two')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="detached")
    page.keyboard.press("e")
    page.wait_for_selector("#heard:has-text('Resolved “two” for everyone.')", state="attached")
    # the focus moves to the next row, not to the top of the page
    page.wait_for_function(f"() => ({focused})() === 'three'")
    page.keyboard.press("z")
    shows(page, "one", "three", "two")  # the item reopened, so its due time is later
    page.keyboard.press("x")
    page.wait_for_selector(".bulk:has-text('1 item selected')")
    page.keyboard.press("k")
    page.keyboard.press("x")
    page.wait_for_selector(".bulk:has-text('2 items selected')")
    page.keyboard.press("d")
    page.wait_for_selector(".toast:has-text('2 items')")
    page.keyboard.press("3")
    page.wait_for_selector(".nav[aria-current=page]:has-text('Dismissed')")
    page.wait_for_function("() => document.querySelectorAll('.row').length === 2")
    page.keyboard.press("1")
    page.keyboard.press("/")
    page.keyboard.type("nothing like it")
    page.wait_for_selector("text=Nothing matches")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_selector(".row")
    page.keyboard.press("?")
    page.wait_for_selector("dialog >> text=dismiss, for me only")


def test_html_in_foreign_text_is_escaped(scene: Scene) -> None:
    hostile = {"title": HOSTILE, "body_md": HOSTILE_MD, "cluster": HOSTILE, "stack": HOSTILE, "case_id": "c<b>1",
               "case_title": HOSTILE, "conversation_id": HOSTILE, "session_id": HOSTILE,
               "sender": {"type": "user", "id": HOSTILE, "name": HOSTILE},
               "payload": {HOSTILE: HOSTILE, "list": [HOSTILE], "deep": {"<b>": HOSTILE_MD},
                           "link": "javascript:window.ran=1"}}
    scene.emit("messages", scene.event("message.posted", "m<i>", -5, **hostile))
    scene.emit("run-failures", *(scene.event(
        "run.failed", f"r{n}", -5, **hostile | {
            "cluster": f"{n}{HOSTILE}", "incident_key": HOSTILE, "pipeline": HOSTILE, "step": HOSTILE,
            "error": HOSTILE}) for n in range(2)))
    scene.emit("plans", scene.event(
        "plan.proposed", "p", -5, **hostile | {"steps": [{"title": HOSTILE, "mode": "confirm"}]}))
    scene.emit("actions", scene.event("action.confirmed", "a", -5, title=HOSTILE, by_user_id=HOSTILE))
    scene.emit("drafts", scene.event("draft.edited", "d", -5, **hostile | {
        "owner_user_id": "ann", "editor": {"type": "ai", "id": HOSTILE, "name": HOSTILE}}))
    page = scene.signed_in()
    page.wait_for_function("() => document.querySelectorAll('.row').length === 4")
    page.wait_for_selector(".overview .recent >> text=onerror")
    for at in range(4):
        page.locator(".row .main").nth(at).click()
        page.wait_for_selector("#detail-title:has-text('onerror')")
        page.wait_for_selector(".row.opened:not(.unread)")
        page.keyboard.press("Escape")
    page.click(".row:has-text('Message') .main")
    body = page.locator(".markdown:not(.plain-text)")
    assert "<script>" in body.inner_text()
    assert body.locator("img, script, style, form, input, svg, [onclick]").count() == 0
    assert all(href is None or href.startswith("https://example.org/") for href in (
        link.get_attribute("href") for link in body.locator("a").all()))
    assert page.locator("a[href^='javascript:'], .app img").count() == 0
    assert page.evaluate("() => window.ran") is None


def test_secrets_are_masked_until_asked_for(scene: Scene) -> None:
    furnish(scene)
    page = scene.signed_in()
    page.click(".row:has-text('Review deploy') .main")
    card = page.locator("section:has(#payload-title)")
    card.wait_for()
    assert "prod" in card.inner_text()
    assert "sk_live" not in page.content()
    assert "hunter2" not in page.content()
    page.click("[aria-label='Show api token']")
    page.wait_for_selector("text=sk_live_123456789")
    assert "hunter2" not in page.content()


def test_the_users_own_order_is_kept(scene: Scene) -> None:
    for cluster in ("a", "b"):
        scene.emit("messages", scene.event(
            "message.posted", cluster, -ord(cluster), title=f"in {cluster}", cluster=cluster))
    page = scene.signed_in()
    shows(page, "in b", "in a")
    page.click("[aria-label='Pin a to the top']")
    shows(page, "in a", "in b")
    page.click("text=Arrange")
    cards = "() => [...document.querySelectorAll('.card h3')].map((at) => at.textContent)"
    before = page.evaluate(cards)
    page.focus("[aria-label='Move Momentum']")
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"(first) => ({cards})()[0] === first", arg=before[1])
    page.keyboard.press("ArrowDown")
    page.wait_for_function(f"(first) => ({cards})()[2] === first", arg=before[0])
    page.drag_and_drop(f"section.card:has-text('{before[3]}') header", f"section.card:has-text('{before[1]}') header")
    page.wait_for_function(f"(first) => ({cards})()[0] === first", arg=before[3])
    page.click("section.card:has-text('Recent drafts') >> text=Hide")
    page.click("text=Done")
    page.wait_for_selector("section.card:has-text('Recent drafts')", state="detached")
    kept = page.evaluate(cards)
    page.wait_for_function(
        "() => fetch('/org/me/preferences').then((a) => a.json()).then((p) => p.widgets.some((w) => !w.visible))")
    page.reload()
    page.wait_for_selector(".card")
    assert page.evaluate(cards) == kept
    shows(page, "in a", "in b")


def test_a_phone_shows_everything_uncut(scene: Scene) -> None:
    furnish(scene)
    page = scene.signed_in(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.wait_for_selector(".row:has-text('Review deploy')")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    avatar = page.locator(".avatar").bounding_box()
    assert avatar["x"] + avatar["width"] <= 390
    row = page.locator(".row:has-text('Review deploy')")
    for part in (".title", ".at:text-is('prod / web')", ".who:text-is('Daniel')", ".waits", ".due", ".blocking"):
        row.locator(part).wait_for(state="visible")
        box = row.locator(part).bounding_box()
        assert box["x"] + box["width"] <= 390, part
    row.locator(".main").click()
    page.wait_for_function("() => document.activeElement.id === 'detail'")  # the row that had the focus is hidden
    assert page.locator("main:visible, [role=main]:visible").count() == 1
    page.click("#detail .close")
    page.wait_for_selector("main:visible")
    page.wait_for_function("() => document.activeElement.closest('.row')?.textContent.includes('Review deploy')")


def test_a_deep_payload_is_visible(scene: Scene) -> None:
    scene.messages("deep", payload={"a": {"b": {"c": {"d": {"a_name_that_is_long": "the end of it"}}}}})
    page = scene.signed_in()
    page.click(".row .main")
    page.wait_for_selector("text=the end of it")
    ends = "(at) => at.getBoundingClientRect().right"
    assert page.locator("text=the end of it").evaluate(ends) <= page.locator("#detail").evaluate(ends)


def test_the_menu_closes(scene: Scene) -> None:
    page = scene.signed_in()
    opened = "() => document.querySelector('.menu').open"
    page.click(".menu summary")
    page.wait_for_function(opened)
    page.click(".empty")
    page.wait_for_function(f"() => !({opened})()")
    page.click(".menu summary")
    page.keyboard.press("Escape")
    page.wait_for_function(f"() => !({opened})()")
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
    page.click(".menu summary")
    page.click(".menu >> text=Keyboard shortcuts")
    page.wait_for_selector("dialog[open]")
    assert not page.evaluate(opened)


def test_filters_keep_their_order(scene: Scene) -> None:
    scene.emit("escalations", scene.event("escalation.opened", "e", -5, title="one"))
    scene.messages("a")
    page = scene.signed_in()
    shows(page, "one", "a")
    kinds = """() => [...document.querySelectorAll('#kinds-title + ul .nav')]
      .map((at) => at.innerText.split(/\\s+/).join(' '))"""
    assert page.evaluate(kinds) == ["Escalation 1", "Message 1"]
    scene.messages("b", "c")
    page.wait_for_function(f"() => ({kinds})()[1] === 'Message 3'")
    assert page.evaluate(kinds)[0] == "Escalation 1"
    empty = Scene(scene.up, scene.browser, f"{scene.ws}_empty")
    quiet = empty.signed_in()
    quiet.wait_for_selector("text=Nothing needs you")
    assert quiet.locator("#kinds-title, #clusters-title").count() == 0
    empty.close()


def test_the_focus_returns_to_the_list_after_an_item_closes(scene: Scene) -> None:
    scene.messages("one", "two", "three")
    page = scene.signed_in(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    shows(page, "one", "two", "three")
    focused = "(title) => document.activeElement.closest('.row')?.textContent.includes(title)"
    for close in (page.go_back, lambda: page.keyboard.press("Escape"), lambda: page.click("#detail .close")):
        page.click(".row:has-text('two') .main")
        page.wait_for_function("() => document.activeElement.id === 'detail'")
        close()
        page.wait_for_function(focused, arg="two")
    page.click(".row:has-text('two') .main")
    page.click("#detail >> text=Resolve")
    page.wait_for_function(focused, arg="three")


def test_keys_act_on_visible_rows_only(scene: Scene) -> None:
    scene.messages("one", "two")
    page = scene.signed_in()
    shows(page, "one", "two")
    page.keyboard.press("j")
    page.wait_for_selector(".row.active:has-text('one')")
    page.fill("#search", "two")
    shows(page, "two")
    page.keyboard.press("Escape")
    for key in "oxe":
        page.keyboard.press(key)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    assert page.locator(".bulk, #detail, .toast").count() == 0
    assert page.evaluate("location.hash") == ""


@pytest.mark.parametrize("width", [390, 900])
def test_search_and_filters_close_the_item_above_the_list(scene: Scene, width: int) -> None:
    scene.messages("one", case_id="k", case_title="Case one")
    scene.messages("two")
    page = scene.signed_in(viewport={"width": width, "height": 800})
    shows(page, "one", "two")

    def asked(does: Any, *wanted: str) -> None:
        page.click(".row:has-text('one') .main")
        page.wait_for_selector("#detail [aria-label='Mark unread']")  # the item is marked as read
        does()
        page.wait_for_selector("#list", state="visible")
        page.wait_for_function("() => location.hash === ''")
        shows(page, *wanted)

    asked(lambda: page.click("#detail >> text=Case one"), "one")
    page.click(".chip")
    shows(page, "one", "two")
    asked(lambda: page.fill("#search", "o"), "one", "two")
    asked(lambda: page.fill("#search", "two"), "two")
    page.fill("#search", "")
    shows(page, "one", "two")
    asked(lambda: page.click(".bell"), "two")


def test_the_sign_in_page_scrolls_on_a_low_screen(scene: Scene) -> None:
    page = scene.page(scene.context(viewport={"width": 844, "height": 240}))
    page.goto(scene.up.url)
    page.wait_for_selector("#token")
    assert page.locator(".sign-in .brand").bounding_box()["y"] >= 0
    page.mouse.move(422, 120)
    page.mouse.wheel(0, 1000)
    page.wait_for_function("() => document.querySelector('#token-help').getBoundingClientRect().bottom <= innerHeight")
