"""The dashboard with hostile or unusual input: expensive texts, exact digits, wrong clocks, misleading addresses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from support.clients.browsers import CHROMIUM, Scene, moment, shows
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
# Measures the longest block of the page's main thread.
BUSY = """
window.longest = 0;
let last = performance.now();
setInterval(() => { longest = Math.max(longest, performance.now() - last); last = performance.now(); }, 20);
"""
TOO_MUCH = {
    "nested lists": "- " * 2000 + "x", "nested quotes": ">" * 5000 + "x",
    "a wide table": "|a" * 10_000 + "|\n" + "|-" * 10_000 + "|\n", "an address": "a" * 64_000 + "@",
    "emphasis": "_a" * 32_000, "spaces": "a" + " " * 64_000 + "b", "many entries": "- x\n" * 16_000,
}
# Sets a wrong clock before any script of the page runs.
CLOCK = """
{
  const Real = Date, shift = %d;
  globalThis.Date = class extends Real {
    constructor(...of) { super(...(of.length ? of : [Real.now() + shift])); }
    static now() { return Real.now() + shift; }
  };
}
"""


def test_no_text_stops_the_page(scene: Scene) -> None:
    scene.emit("messages", *(
        scene.event("message.posted", name, -30 + place, title=name, body_md=text)
        for place, (name, text) in enumerate(TOO_MUCH.items())))
    scene.messages("calm", body_md="**bold**\n\n- [x] tested\n- [ ] not")
    steps = [{"title": f"step {n}", "mode": "confirm"} for n in range(500)]
    scene.emit("plans", scene.event("plan.proposed", "p", -1, title="long plan", priority="high", steps=steps))
    many = {f"k{n}": [{"a": [1, 2, 3]}] * 3 for n in range(600)}
    scene.emit("actions", scene.event(
        "action.requested", "wide", -1, title="wide payload", priority="high", payload=many))
    scene.emit("run-failures", scene.event("run.failed", "r", -1, title="long error", error="e" * 64_000))
    context = scene.context()
    context.add_init_script(BUSY)
    page = scene.signed_in(context=context)
    page.wait_for_function("() => document.querySelectorAll('.row').length === 11")
    page.evaluate("() => { longest = 0; }")
    for title in (*TOO_MUCH, "long plan", "wide payload", "long error", "calm"):
        page.click(f".row:has-text('{title}') .main")
        page.wait_for_selector(f"#detail-title:text-is('{title}')")
        assert page.evaluate("() => document.querySelectorAll('*').length") < 12_000, title
    page.wait_for_selector(".markdown strong:text-is('bold')")  # the next text is rendered without delay
    boxes = page.locator(".markdown .task")
    assert [box.get_attribute("aria-label") for box in boxes.all()] == ["done", "not done"]
    looks = [box.evaluate("(at) => getComputedStyle(at).backgroundColor") for box in boxes.all()]
    assert looks[0] != looks[1]
    page.click(".row:has-text('nested lists') .main")
    page.wait_for_selector(".plain-text:has-text('- - - -')")
    page.click(".row:has-text('long plan') .main")
    page.wait_for_function("() => document.querySelectorAll('.steps li.confirm').length === 100")
    page.click(".steps >> text=Show more: 400 other steps")
    page.wait_for_function("() => document.querySelectorAll('.steps li.confirm').length === 300")
    assert page.evaluate("() => longest") < 2000, "milliseconds for which the main thread was blocked"


def test_numbers_keep_their_digits(scene: Scene) -> None:
    literals = ["9007199254740993", "8080", "1e400", "0.10", "-0", "12345678901234567890.123456789"]
    payload = {f"n{place}": f"literal {place}" for place in range(len(literals))}
    event = json.dumps(scene.event("action.requested", "a", title="digits", payload=payload))
    for place, literal in enumerate(literals):
        event = event.replace(f'"literal {place}"', literal)
    scene.emit("actions", event)
    context = scene.context()
    leader, follower = scene.signed_in(context=context), scene.page(context)
    follower.goto(scene.up.url)  # this tab gets the item from the other tab
    for page in (leader, follower):
        page.click(".row .main")
        page.wait_for_selector("#payload-title")
        assert page.locator("section:has(#payload-title) code.number").all_inner_texts() == literals


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_changes_no_times(scene: Scene, hours: int) -> None:
    scene.messages("sleepy", due_at=moment(5.5))
    context = scene.context()
    context.add_init_script(CLOCK % (hours * 3_600_000))
    page = scene.signed_in(context=context)
    page.wait_for_selector(".row .due:has-text('due in 5 min')")
    page.wait_for_selector(".row .waits:has-text('waits')")
    assert "h" not in page.locator(".row .waits").inner_text().removeprefix("waits")
    page.keyboard.press("j")
    page.keyboard.press("s")
    page.click("dialog >> text=In 20 minutes")
    page.wait_for_selector(".toast:has-text('Snoozed')")
    away = scene.up.get("/org/me/inbox?dismissed=true", scene.token()).json()["items"][0]
    left = datetime.fromisoformat(away["dismissed_until"]) - datetime.now(UTC)
    assert timedelta(minutes=18) < left < timedelta(minutes=21)
    page.keyboard.press("3")
    page.wait_for_selector(".row .due:has-text('back in')")
    assert page.locator(".row .due").inner_text() in ("back in 20 min", "back in 19 min", "back in 18 min")


def test_a_late_unread_reopens_nothing(scene: Scene) -> None:
    scene.messages("note", "other")
    page = scene.signed_in()
    shows(page, "note", "other")

    def state() -> dict[str, Any]:
        rows: list[dict[str, Any]] = scene.up.get("/api/v1/inbox?state=all", scene.token()).json()["rows"]
        return next(row for row in rows if row["title"] == "note")

    sent: list[tuple[str | None, int]] = []

    def late(route: Any) -> None:
        scene.emit("messages", scene.event("message.withdrawn", "note", 0.1))
        wait_for(lambda: state()["state"] == "resolved", 60, "its source withdraws it")
        answer = route.fetch()
        sent.append((route.request.headers.get("if-match"), answer.status))
        route.fulfill(response=answer)

    page.click(".row:has-text('note') .main")
    page.click("#detail [aria-label='Mark unread']")
    page.click("#detail [aria-label='Mark read']")
    page.wait_for_selector("#detail [aria-label='Mark unread']:enabled")
    page.route("**/api/v1/inbox/*", late)
    page.click("#detail [aria-label='Mark unread']")
    page.wait_for_selector(".toast.bad:has-text('It has changed since you saw it')")
    assert [status for _, status in sent] == [412]
    assert sent[0][0] is not None
    assert (state()["state"], state()["resolved_action"]) == ("resolved", "withdrawn")


def test_undo_reopens_only_own_resolves(scene: Scene) -> None:
    scene.messages("mine", "theirs")
    page = scene.signed_in()
    shows(page, "mine", "theirs")
    page.keyboard.press("j")
    page.keyboard.press("A")
    page.click(".bulk >> text=Resolve")
    page.wait_for_selector(".toast:has-text('2 resolved')")
    scene.emit("messages", scene.event("message.withdrawn", "theirs", 0.1))

    def withdrawn() -> bool:
        rows = scene.up.get("/api/v1/inbox?state=resolved", scene.token()).json()["rows"]
        return any(row.get("resolved_action") == "withdrawn" for row in rows)

    wait_for(withdrawn, 60, "its source withdraws one")
    page.keyboard.press("z")
    page.wait_for_selector(".toast:has-text('1 reopened, 1 stay closed')")
    page.keyboard.press("Escape")
    shows(page, "mine")


def test_links_lead_to_the_shown_address(scene: Scene) -> None:
    scene.messages("good", action_url="https://example.org/w?a=1")
    scene.messages("path", action_url="/cases/a%2Fb")
    page = scene.signed_in()
    shows(page, "good", "path")
    # The server refuses other links, so a modified response delivers them.
    odd = ["/\\evil.example", "/\t/evil.example", "https://good.example@evil.example/", "https:///evil.example",
           "/x\u202ey", "javascript:window.ran=1"]
    wanted: dict[str, str | None] = {"good": "https://example.org/w?a=1", "path": "/cases/a%2Fb"}
    ids = {item["title"]: item["id"] for item in scene.up.get("/org/me/inbox", scene.token()).json()["items"]}
    item = httpx.get(f"{scene.up.url}/org/me/inbox/{ids['path']}", timeout=60, trust_env=False,
                     headers={"authorization": f"Bearer {scene.token()}"}).json()
    for title in wanted:
        page.click(f".row:has-text('{title}') .main")
        page.wait_for_selector(f"#detail-title:text-is('{title}')")
        assert page.locator("#detail .actions a").get_attribute("href") == wanted[title]

    def modified_response(route: Any) -> None:
        place = int(route.request.url.rsplit("odd", 1)[1])
        route.fulfill(json=item | {"id": f"odd{place}", "title": f"odd {place}", "action_url": odd[place]})

    page.route("**/org/me/inbox/odd*", modified_response)
    for place, address in enumerate(odd):
        page.evaluate(f"() => {{ location.hash = '#item=odd{place}'; }}")
        page.wait_for_selector(f"#detail-title:text-is('odd {place}')")
        assert page.locator("#detail .actions a").count() == 0, address
        page.wait_for_selector("#detail .actions >> text=not a valid link")


def test_a_title_keeps_its_direction_and_turns_nothing_else(scene: Scene) -> None:
    scene.messages("\u202eevil", "שלום עולם", cluster="\u202eprod")
    page = scene.signed_in()
    shows(page, "\u202eevil", "שלום עולם")
    sides = "(at) => getComputedStyle(at).direction"
    assert page.locator(".row.unread .title").nth(1).evaluate(sides) == "rtl"
    for part in (".row .title", ".row .at", ".side .cluster .nav span:first-child"):
        isolation = page.locator(part).first.evaluate("(at) => getComputedStyle(at).unicodeBidi")
        assert isolation in ("isolate", "plaintext"), part
    page.click(".row:has-text('שלום') .main")
    page.wait_for_selector(".row.opened:not(.unread)")
    assert page.locator("#detail-title").evaluate(sides) == "rtl"
    page.click("#detail >> text=Resolve")
    text = page.locator(".toast p").inner_text()
    assert text == "Resolved “\u2068שלום עולם\u2069” for everyone."


def test_notification_errors_do_not_stop_the_page(scene: Scene) -> None:
    context = scene.context()
    context.add_init_script("""
      window.Notification = class { constructor() { throw new TypeError("Illegal constructor."); } };
      Notification.permission = "granted";
      Notification.requestPermission = async () => "granted";
    """)
    scene.messages("before")
    page = scene.signed_in(context=context)
    shows(page, "before")
    page.click(".menu summary")
    page.click("text=Notify me of urgent items")
    page.wait_for_selector(".menu [aria-pressed=true]:has-text('Notifying of urgent items')")
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    scene.messages("wake up", priority="urgent")
    page.wait_for_selector(".toast:has-text('Urgent: wake up')", state="attached")
    page.evaluate(hide, False)
    shows(page, "wake up", "before")
    page.wait_for_selector(".menu [aria-pressed=false]:has-text('Notify me')", state="attached")
    assert page.title() == "(2) attn"
