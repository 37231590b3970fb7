"""Several users and questions in real browsers: quorum, races, changed questions, lost responses, bulk, axe."""

from __future__ import annotations

from typing import Any

import httpx
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
from support.clients.browsers import CHROMIUM, Scene
from support.processes.up import wait_for

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
]


def decide(scene: Scene, title: str, option: str, user: str) -> httpx.Response:
    """Decides as another user, over HTTP."""
    item = scene.up.get(f"/org/me/inbox/{item_of(scene, title, user)['id']}", scene.token(user)).json()
    return httpx.post(
        f"{scene.up.url}/api/v1/inbox/{item['id']}/decision", json={"option": option, "digest": item["digest"]},
        headers={"authorization": f"Bearer {scene.token(user)}", "idempotency-key": f"{user}-{title}-{option}"},
        trust_env=False, timeout=30)


def test_a_quorum_by_two_browsers(scene: Scene) -> None:
    waitpoint(scene, "deploy", ask=ask(quorum={"approve": 2}))
    ann, bob = scene.signed_in("ann"), scene.signed_in("bob", "ADMIN")
    open_question(ann, "deploy")
    open_question(bob, "deploy")
    ann.keyboard.press("a")
    ann.wait_for_selector(".toast:has-text('1 more vote needed')")
    says(ann, "You approved")
    bob.wait_for_selector(".vote-list:has-text('1 of 2 votes'):has-text('Ann approved at')")
    bob.wait_for_selector(".row .badge:text-is('1 of 2 votes')")
    bob.click(".answers [data-option=approve]")
    says(bob, "Decided by you")
    says(ann, "Decided by you")
    assert [actor["user"] for actor in decision_of(scene, "deploy")["actors"]] == ["ann", "bob"]
    assert "approved by you and bob" in ann.locator(".outcome").inner_text().lower()


def test_a_lost_race_is_shown_in_the_open_form_and_the_text_is_kept(scene: Scene) -> None:
    waitpoint(scene, "deploy", ask=ask(form=FORM | {"required": []}))
    page = scene.signed_in()
    open_question(page, "deploy")
    page.keyboard.press("a")
    page.fill("#answer-form_2e_note", "my words")
    page.fill("#answer-form_2e_owner", "ann@example.org")
    assert decide(scene, "deploy", "reject", "bob").status_code == 201
    page.wait_for_selector(".outcome:has-text('by Bob at')")
    assert "Note: my words" in page.input_value(".kept textarea")
    assert "Owner: ann@example.org" in page.input_value(".kept textarea")
    page.wait_for_selector("#heard:has-text('Decided')", state="attached")
    item = item_of(scene, "deploy", "bob")
    httpx.delete(f"{scene.up.url}/api/v1/inbox/{item['id']}/decision",
                 headers={"authorization": f"Bearer {scene.token('bob')}"}, trust_env=False, timeout=30)
    page.wait_for_selector("#detail .answers.ready")  # the item and its form are open again
    assert page.input_value("#answer-form_2e_note") == "my words"


def test_a_late_answer_shows_the_winner(scene: Scene) -> None:
    waitpoint(scene, "deploy")
    page = scene.signed_in()
    open_question(page, "deploy")

    def lose_response(route: Any) -> None:
        assert decide(scene, "deploy", "reject", "bob").status_code == 201
        route.continue_()

    page.route("**/decision", lose_response, times=1)
    page.keyboard.press("a")
    page.wait_for_selector(".outcome:has-text('rejected by Bob at')")
    assert decision_of(scene, "deploy")["option"] == "reject"


def test_a_changed_question_needs_a_new_answer_and_the_text_is_kept(scene: Scene) -> None:
    waitpoint(scene, "refund", -3, ask=ask(action=ACTION))
    page = scene.signed_in()
    open_question(page, "refund")
    page.keyboard.press("c")
    page.wait_for_selector("#answer-comment:focus")
    page.keyboard.type("looks right")
    page.keyboard.press("Escape")
    before = item_of(scene, "refund")["digest"]
    raised = ACTION | {"args": ACTION["args"] | {"amount": "DIGITS:900.00"}}
    waitpoint(scene, "refund", -1, ask=ask(action=raised))
    page.wait_for_selector(".changed:has-text('The question has changed')")
    page.keyboard.press("a")  # the key was meant for the earlier question
    assert "900.00" in page.locator(".changed .diff ins").inner_text()
    assert "1.10" in page.locator(".changed .diff del").inner_text()
    page.wait_for_selector("#detail .answers.ready")
    assert page.input_value("#answer-comment") == "looks right"
    item = item_of(scene, "refund")
    assert item["digest"] != before
    assert item["state"] in ("unread", "read"), "the key did not answer the new question"

    def change(route: Any) -> None:
        waitpoint(scene, "refund", -0.5, ask=ask(action=raised | {"name": "payments.transfer"}))
        wait_for(lambda: item_of(scene, "refund")["digest"] != item["digest"], 30, "changed")
        route.continue_()

    page.route("**/decision", change, times=1)
    page.keyboard.press("a")
    page.wait_for_selector(".command:text-is('payments.transfer')")
    page.wait_for_selector("#detail .answers.ready")
    assert page.input_value("#answer-comment") == "looks right"
    assert item_of(scene, "refund")["state"] in ("unread", "read"), "status 412: no decision was made"
    page.keyboard.press("a")
    says(page, "Decided by you")
    assert decision_of(scene, "refund")["comment"] == "looks right"


def test_a_lost_response_is_sent_again_with_the_same_key(scene: Scene) -> None:
    waitpoint(scene, "deploy")
    page = scene.signed_in()
    open_question(page, "deploy")
    keys: list[str] = []
    bodies: list[str] = []

    def lose_response(route: Any) -> None:
        keys.append(route.request.headers["idempotency-key"])
        bodies.append(route.request.post_data)
        if len(keys) == 4:
            route.fetch()  # the request takes effect, but its response is lost
        if len(keys) <= 4:
            route.abort()
        else:
            route.continue_()

    page.route("**/decision", lose_response)
    page.keyboard.press("a")
    page.wait_for_selector(".notice.bad:has-text('has not confirmed your answer')")
    assert len(keys) == 3
    page.keyboard.press("a")
    says(page, "Decided by you")  # the feed may report the decision before the response of the last attempt
    wait_for(lambda: page.wait_for_timeout(50) or len(keys) == 5, 30, "the last attempt")
    assert len(set(keys)) == 1, "all attempts have one idempotency key"
    assert len(set(bodies)) == 1
    entries = scene.up.get("/org/me/decisions", scene.token()).json()["decisions"]
    assert len(entries) == 1


def test_equal_questions_are_answered_together_after_each_was_listed(scene: Scene) -> None:
    for number in range(4):
        waitpoint(scene, f"roll out {number}", -9 + number, cluster=f"shard-{number}", ask=ask(action={
            "name": "rollout", "args": {"shard": number}}))
    waitpoint(scene, "other", -1, ask={"options": [{"id": "ok", "does": "acknowledge", "title": "Fine"}]})
    page = scene.signed_in()
    page.wait_for_function("() => document.querySelectorAll('.row').length === 5")
    page.keyboard.press("A")
    page.wait_for_selector(".bulk:has-text('5 items selected')")
    page.click(".bulk >> text=Answer")
    page.wait_for_selector("#answers[open]")
    listed = page.locator("#answers .each li").all_inner_texts()
    assert len(listed) == 4
    for number, text in enumerate(listed):
        for part in (f"roll out {number}", f"shard-{number}", "rollout", f'"shard": {number}'):
            assert part in text
    assert "1 selected item left out" in page.locator("#answers summary").inner_text()
    assert decide(scene, "roll out 2", "reject", "bob").status_code == 201  # while the dialog is open
    page.wait_for_selector("#answers .each li:has-text('roll out 2'):has-text('decided since')")
    page.click("#answers .answer >> text=Approve all 4")
    page.wait_for_selector("#answers h2:text-is('What happened')")
    results = [" ".join(text.split()) for text in page.locator("#answers .results li").all_inner_texts()]
    assert results[0] == "roll out 0 approved"
    assert "not answered" in results[2]
    assert sum("approved" in text for text in results) == 3
    page.click("#answers >> text=Close")
    page.keyboard.press("z")
    page.wait_for_selector(".toast:has-text('3 answers taken back')")


def findings(page: Any) -> list[str]:
    """Returns what axe reports as serious or critical."""
    page.wait_for_function("() => !document.querySelector('.row.busy') && !document.getAnimations().length")
    violations = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{violation['id']}: {node['target']} {node.get('failureSummary')}" for violation in violations
            if violation["impact"] in ("serious", "critical") for node in violation["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_reports_no_violations_in_answers(scene: Scene, scheme: str) -> None:
    edit = {"id": "edit", "does": "edit", "title": "Edit"}
    respond = {"id": "answer", "does": "respond", "title": "Answer", "form": FORM}
    scene.emit("actions", event_text(scene.event(
        "action.requested", "a", -1, title="refund", body_md="Why: **twice**", ask=ask(
            action=ACTION, quorum={"approve": 2}, options=[*ask()["options"], edit, respond]))))
    waitpoint(scene, "שאלה", -2, ask=ask(action=ACTION | {"risk": "critical", "reversible": False}))
    assert wait_for(lambda: scene.up.get("/org/me/inbox", scene.token()).json()["counts"]["total"] == 2, 60, "items")
    assert decide(scene, "refund", "approve", "bob").status_code == 202
    page = scene.signed_in(color_scheme=scheme, reduced_motion="reduce")
    open_question(page, "refund")
    page.wait_for_selector(".row.opened:not(.unread)")
    assert findings(page) == []
    page.keyboard.press("w")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".entry.wrong")
    assert findings(page) == []
    page.click(".answers >> text=Back")
    page.wait_for_selector("#detail .answers.ready")
    page.locator("#detail").focus()
    page.keyboard.press("e")
    page.fill("#answer-args_2e_amount", "2.00")
    page.wait_for_selector(".diff li")
    assert findings(page) == []
    open_question(page, "שאלה")
    page.wait_for_selector(".row.opened:not(.unread)")  # the write of the read mark has ended before axe runs
    page.keyboard.press("r")
    page.wait_for_selector(".armed")
    assert findings(page) == []
    page.wait_for_timeout(500)
    page.keyboard.press("r")
    says(page, "Decided by you")
    assert findings(page) == []
    page.keyboard.press("4")
    page.wait_for_selector(".decision")
    assert findings(page) == []
    page.keyboard.press("1")
    page.locator(".pick input").first.check()
    page.click(".bulk >> text=Answer")
    page.wait_for_selector("#answers[open]")
    assert findings(page) == []
    page.click("#answers [aria-label=Close]")
    page.click("#detail .close")
    page.set_viewport_size({"width": 360, "height": 640})
    open_question(page, "refund")
    assert findings(page) == []
