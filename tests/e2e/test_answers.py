"""Answers in the page on the whole stack, in real browsers: by keyboard and thumb, forms, edits, undo."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.clients.answering import (
    ACTION,
    FORM,
    ask,
    decision_of,
    event_text,
    item_of,
    open_question,
    says,
    waitpoint,
)
from support.clients.browsers import CHROMIUM, Scene, shows
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}


def test_approve_by_keyboard(scene: Scene) -> None:
    waitpoint(scene, "deploy", -3)
    waitpoint(scene, "rollback", -2)
    page, other = scene.signed_in(), scene.signed_in("bob", "MEMBER")
    shows(other, "deploy", "rollback")
    shows(page, "deploy", "rollback")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method) if "/decision" in request.url else None)
    page.keyboard.press("a")  # no question is open
    page.keyboard.press("j")
    page.wait_for_function("() => document.activeElement.closest('.row')")
    page.keyboard.press("Enter")
    page.keyboard.press("a")  # the question has just appeared, so the key was meant for the screen before
    page.wait_for_selector("#detail .answers.ready")
    assert page.locator(".answers .answer >> nth=0").inner_text().split() == ["Approve", "a"]
    assert sent == []
    page.keyboard.press("a")
    says(page, "Decided by you")
    page.wait_for_selector("#heard:has-text('Approved: deploy.')", state="attached")
    shows(other, "rollback")
    page.wait_for_selector(".toast:has-text('Take back')")
    says(page, "waiting for test to take it")  # after the end of the undo time
    buttons = ".toast button:has-text('Take back'), .outcome button:has-text('Take back')"
    page.wait_for_selector(buttons, state="detached")
    scene.emit("waitpoints", scene.event("decision.applied", "deploy"))
    says(page, "Applied: test has taken it")
    with page.expect_download() as receipt:
        page.click(".outcome >> text=Receipt")
    assert receipt.value.suggested_filename == f"{decision_of(scene, 'deploy')['id']}.receipt.json"
    page.keyboard.press("n")
    page.wait_for_selector("#detail-title:text-is('rollback')")
    page.keyboard.press("4")
    entry = page.locator(".decision")
    entry.wait_for()
    assert re.search(r"deploy\s+approved by you.*applied", entry.inner_text(), re.DOTALL)
    page.select_option(".decision-list select", "refused")
    page.wait_for_selector("text=No decision is in this state")


def test_approve_by_thumb(scene: Scene) -> None:
    waitpoint(scene, "refund", -3, body_md="# Why\n\n" + "It was charged twice. " * 40,
              ask=ask(action=ACTION | {"args": {"order": "o" * 200}}))
    waitpoint(scene, "drop database", -2, ask=ask(action={"name": "db.drop", "risk": "critical", "reversible": False}))
    page = scene.signed_in(**PHONE)
    open_question(page, "refund", touch=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert page.evaluate("() => document.querySelector('#detail').scrollWidth") <= 360
    assert page.locator(".command").bounding_box()["y"] < 400, "the command is on the first screen"
    for button in page.locator(".answers .answer").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
        assert 320 <= box["y"] <= 640 - box["height"], "the button is within reach of a thumb, without scrolling"
    page.tap(".answers [data-option=approve]")
    says(page, "Decided by you")
    page.tap("#detail .close")
    open_question(page, "drop database", touch=True)
    approve = page.locator(".answers [data-option=approve]")
    approve.tap()
    page.wait_for_selector(".answers .armed:has-text('Press again')")
    assert item_of(scene, "drop database")["state"] in ("unread", "read"), "one tap does not approve a critical action"
    page.wait_for_timeout(500)
    approve.tap()
    says(page, "Decided by you")
    assert item_of(scene, "drop database")["state"] == "decided"


def test_a_form_with_errors_by_field(scene: Scene) -> None:
    scene.emit("sessions", scene.event("session.waiting", "s", -1, title="where", ask={"form": FORM, "options": [
        {"id": "answer", "does": "respond", "title": "Answer"}, {"id": "skip", "does": "ignore", "title": "Skip"}]}))
    page = scene.signed_in()
    open_question(page, "where")
    page.keyboard.press("w")
    page.wait_for_selector("#answer-form_2e_region :focus, #answer-form_2e_region:focus")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".entry.wrong")
    wrong = [text.split("required")[0].strip() for text in page.locator(".entry.wrong").all_inner_texts()]
    assert wrong == ["Region", "Owner", "Sure", "Team", "Checks"]
    page.wait_for_selector("#heard:has-text('5 entries do not fit')", state="attached")
    for field, text, problem in (
            ("replicas", "10", "at most 9"), ("replicas", "1.5", "whole number"), ("ratio", "1,5", "number such as"),
            ("owner", "ann", "email address"), ("link", "example", "address such as"),
            ("note", "n" * 21, "at most 20")):
        page.fill(f"#answer-form_2e_{field}", text)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(f"#answer-form_2e_{field}-error:has-text('{problem}')")
        assert page.get_attribute(f"#answer-form_2e_{field}", "aria-invalid") == "true"
    for field, text in (("replicas", "5"), ("ratio", "0.10"), ("owner", "ann@example.org"), ("day", "2026-12-24"),
                        ("link", "https://example.org/a"), ("note", "soon"), ("when", "2026-12-24T10:00")):
        page.fill(f"#answer-form_2e_{field}", text)
    page.check("label:has-text('Europe') input")
    page.check("fieldset:has-text('Sure') label:has-text('No') >> nth=0")
    page.select_option("#answer-form_2e_team", "t7")
    for check in ("Unit tests", "Scan"):
        page.check(f"label:has-text('{check}') input")
    page.reload()  # the typed text is kept
    page.wait_for_selector("#answer-form_2e_owner")
    assert page.input_value("#answer-form_2e_owner") == "ann@example.org"
    # The edge validates as well, because an outdated page might not know the rule.
    page.route("**/decision", lambda route: route.continue_(
        post_data=route.request.post_data.replace("ann@example.org", "ann")), times=1)
    page.wait_for_selector("#detail .answers.ready")
    page.click(".answers >> text=Send: Answer")
    page.wait_for_selector("#answer-form_2e_owner-error:has-text('valid email')")
    page.wait_for_timeout(600)
    page.click(".answers >> text=Send: Answer")
    says(page, "Decided by you")
    form = decision_of(scene, "where")["form"]
    assert form.pop("when").startswith("2026-12-2")
    assert form == {
        "region": "eu", "replicas": 5, "ratio": 0.1, "owner": "ann@example.org", "link": "https://example.org/a",
        "day": "2026-12-24", "sure": False, "team": "t7", "checks": ["unit", "scan"], "note": "soon"}
    raw = scene.up.get("/org/me/decisions", scene.token()).text
    assert re.search(r'"ratio":\s*0\.10\b', raw), "numbers keep the digits that were typed"


def test_edit_with_a_diff_of_what_changes(scene: Scene) -> None:
    edit = {"id": "edit", "does": "edit", "title": "Edit", "comment": "required"}
    scene.emit("actions", event_text(scene.event("action.requested", "a", -1, title="refund", ask={
        "action": ACTION, "options": [*ask()["options"], edit]})))
    page = scene.signed_in()
    open_question(page, "refund")
    shown = page.locator(".action .json").inner_text()
    assert '"amount": 1.10' in shown
    assert '"trace": 9007199254740993' in shown
    assert "sk_live" not in page.content()
    page.keyboard.press("e")
    page.wait_for_selector("#answer-args_2e_amount")
    assert page.locator(".editor .entry").count() == 4, "only editable arguments have a field"
    assert page.locator(".answers .answer").inner_text().startswith("Send with no change")
    assert "hunter2" not in page.evaluate(
        "() => [...document.querySelectorAll('textarea, input:not([type=password])')].map((at) => at.value).join()")
    page.fill("#answer-args_2e_amount", "2.50x")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer-args_2e_amount-error:has-text('number')")
    page.wait_for_selector("#answer-comment-error:has-text('needs a comment')")
    page.fill("#answer-args_2e_amount", "2.50")
    page.check(".editor label:has-text('false') input")
    assert [" ".join(text.split()) for text in page.locator(".diff li").all_inner_texts()] == [
        "amount was 1.10 → becomes 2.50", "notify was true → becomes false"]
    page.fill("#answer-comment", "half of it")
    page.wait_for_selector(".answers .answer:has-text('Send with 2 changes')")
    page.keyboard.press("Control+Enter")
    says(page, "Decided by you")
    raw = scene.up.get("/org/me/decisions", scene.token()).text
    assert re.search(r'"amount":\s*2\.50\b', raw)
    assert re.search(r'"trace":\s*9007199254740993\b', raw)
    entry = decision_of(scene, "refund")
    assert sorted(entry["edited"]) == ["/amount", "/notify"]
    assert entry["args"]["api_token"] == "sk_live_1234567890abcdef"


def test_undo_within_five_seconds_keeps_the_text(scene: Scene) -> None:
    waitpoint(scene, "deploy")
    page, other = scene.signed_in(), scene.signed_in("bob", "MEMBER")
    open_question(page, "deploy")
    page.keyboard.press("c")
    page.wait_for_selector("#answer-comment:focus")
    page.keyboard.type("after lunch")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.activeElement.id !== 'answer-comment'")
    page.keyboard.press("a")
    page.wait_for_selector(".toast:has-text('Take back')")
    other.wait_for_selector("text=Nothing needs you")
    page.keyboard.press("z")
    page.wait_for_selector(".toast:has-text('The question is open again')")
    shows(other, "deploy")
    page.wait_for_selector("#detail .answers.ready")
    assert page.input_value("#answer-comment") == "after lunch"
    assert item_of(scene, "deploy")["state"] in ("unread", "read")


def test_a_decision_that_the_source_refuses_comes_back(scene: Scene) -> None:
    waitpoint(scene, "deploy")
    scene.messages("other", priority="high")
    page = scene.signed_in()
    shows(page, "other", "deploy")
    open_question(page, "deploy")
    page.keyboard.press("a")
    says(page, "waiting for test to take it")
    scene.emit("waitpoints", scene.event("decision.refused", "deploy", reason="the window is closed"))
    page.wait_for_selector(".returned:has-text('Refused by test: the window is closed')")
    page.wait_for_selector(".row:has-text('deploy') .badge:text-is('refused')")
    page.wait_for_selector("#detail .answers.ready")
    page.keyboard.press("r")  # the user can give another answer
    page.wait_for_selector(".answers .armed")
    page.wait_for_timeout(500)
    page.keyboard.press("r")
    says(page, "Decided by you")
    assert decision_of(scene, "deploy")["option"] == "reject"


def test_a_viewer_and_the_requester_see_why_they_cannot_decide(scene: Scene) -> None:
    waitpoint(scene, "deploy", by_user_id="ann", ask=ask(deciders={"roles": ["OWNER"], "not": ["requester"]}))
    for user, role, why in (("vic", "VIEWER", "decided by every owner"), ("ann", "OWNER", "another person must decide"),
                            ("mel", "MEMBER", "not decide it")):
        page: Any = scene.signed_in(user, role)
        page.click(".row .main")
        says(page, why)
        assert page.locator(".answers").count() == 0
        page.keyboard.press("a")
        page.keyboard.press("e")
        assert page.locator(".toast").count() == 0
    wait_for(lambda: item_of(scene, "deploy")["state"] == "read", 30, "read")


def test_a_hostile_question_stays_text_and_fits_a_phone(scene: Scene) -> None:
    bad = "<img src=x onerror='window.ran=1'>\u202e" + "w" * 60
    args: dict[str, Any] = {"password": "hunter2", "long": "l" * 3000}
    args |= {f"{bad}{number}": {"deep": [bad, {bad: number}]} for number in range(60)}
    form = {"type": "object", "properties": {f"f{number}": {
        "type": "string", "title": bad, "description": bad, "oneOf": [{"const": bad, "title": bad}, {"const": "b"}],
    } for number in range(20)}}
    options = [{"id": f"o{number}", "does": "choose", "title": f"{number} {bad}"} for number in range(19)]
    scene.emit("actions", scene.event("action.requested", "a", -1, title="hostile", sender={
        "type": "agent", "id": "x", "name": bad}, body_md=bad, ask={
            "action": {"name": bad, "args": args, "editable": True},
            "options": [*options, {"id": "edit", "does": "edit", "title": bad, "form": form}]}))
    page = scene.signed_in(**PHONE)
    open_question(page, "hostile", touch=True)
    assert page.evaluate("() => document.querySelectorAll('*').length") < 4000
    assert "hunter2" not in page.content()
    for _ in range(2):
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
        assert page.evaluate("() => document.querySelector('#detail').scrollWidth") <= 360
        assert page.locator("#detail img, #detail script").count() == 0
        if page.locator(".editor").count() == 0:
            page.tap(".answers [data-option=edit]")
            page.wait_for_selector(".editor")
    page.tap(".editor >> text=Edit as JSON")  # the text of this button says that masked values become visible
    page.wait_for_selector("#answer-args")
    assert page.input_value("#answer-args").count("onerror") >= 120
    assert page.evaluate("() => window.ran") is None
