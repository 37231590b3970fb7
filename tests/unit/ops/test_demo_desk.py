"""The demo's answer desk: each open item is answered once, and the story sends no second answer."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.demo.desk import ANSWERS, AnswerDesk
from ops.demo.player import StoryPosition, events, linked
from ops.demo.site import create_site
from schemas.scalars import parse_timestamp
from schemas.topics import TOPIC_OF_TYPE
from streams.core.normalise import normalise

NOW = parse_timestamp("2026-05-20T12:00:00Z")
INBOX = "http://127.0.0.1:8000"


def story(count: int, seed: int = 7) -> list[dict[str, Any]]:
    return [event for _, _, event in islice(events(StoryPosition(seed, NOW), NOW), count)]


@pytest.fixture
def desk(tmp_path: Path) -> AnswerDesk:
    return AnswerDesk(tmp_path / "desk.json")


def opening(desk: AnswerDesk, kind: str) -> dict[str, Any]:
    """The story's first event of this type that opens an item. The desk has accepted it."""
    event = next(event for event in story(3000) if event["type"] == kind and desk.path(event))
    assert desk.accept(event)
    return event


def client(desk: AnswerDesk, sent: list[dict[str, Any]]) -> httpx.AsyncClient:
    async def send(events: list[dict[str, Any]]) -> None:
        sent.extend(events)

    return httpx.AsyncClient(transport=httpx.ASGITransport(create_site(desk, send, INBOX)), base_url="http://desk")


@pytest.mark.parametrize("kind", ANSWERS)
async def test_each_answer_is_an_event_of_its_source(kind: str, tmp_path: Path) -> None:
    for number, choice in enumerate(ANSWERS[kind]):
        sent: list[dict[str, Any]] = []
        desk = AnswerDesk(tmp_path / f"{number}.json")
        event = opening(desk, kind)
        async with client(desk, sent) as browser:
            page = await browser.get(str(desk.path(event)))
            assert page.status_code == 200
            assert choice.label in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            done = await browser.post(re.findall('action="([^"]+)"', page.text)[number])
            assert done.status_code == 200
            assert (await browser.get(str(desk.path(event)))).status_code == 410, "answered"
            assert (await browser.post(f"{desk.path(event)}/0")).status_code == 410, "and not twice"
        assert [(one["type"], one["subject"], one["source"]) for one in sent] == [
            (choice.type, event["subject"], event["source"])]
        assert sent[0]["data"]["by_user_id"] == "maria"
        assert TOPIC_OF_TYPE[choice.type] == TOPIC_OF_TYPE[kind]


async def test_an_item_without_answers_has_a_page_without_buttons(desk: AnswerDesk) -> None:
    async with client(desk, []) as browser:
        page = await browser.get(str(desk.path(opening(desk, "session.verifying"))))
    assert page.status_code == 200
    assert "the item closes by itself" in page.text
    assert "<form" not in page.text


async def test_a_forged_link_is_rejected(desk: AnswerDesk) -> None:
    event, sent = opening(desk, "plan.proposed"), []
    path = str(desk.path(event))
    signature = path.split("/")[1]
    async with client(desk, sent) as browser:
        forged = path.replace(signature, "0" * 32)
        for wrong in (forged, path.replace(signature, "é"), f"/{signature}/plans/another", path + "/9/1"):
            assert (await browser.get(wrong)).status_code in (404, 410)
        for wrong in (forged + "/0", path + "/2", path + "/-1", path):
            assert (await browser.post(wrong)).status_code in (404, 405, 410)
    assert sent == []


async def test_an_item_stays_open_if_its_answer_cannot_be_sent(desk: AnswerDesk) -> None:
    event = opening(desk, "waitpoint.created")

    async def fail(_: list[dict[str, Any]]) -> None:
        raise ConnectionError("no broker")

    transport = httpx.ASGITransport(create_site(desk, fail, INBOX), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as browser:
        assert (await browser.post(f"{desk.path(event)}/0")).status_code == 500
        assert (await browser.get(str(desk.path(event)))).status_code == 200


async def test_a_page_of_an_earlier_question_does_not_answer_the_next(desk: AnswerDesk) -> None:
    first, sent = opening(desk, "session.waiting"), []
    second = {**first, "id": "later", "data": {**first["data"], "title": "Another question"}}
    desk.accept({**first, "id": "between", "type": "session.resumed"})
    desk.accept(second)
    async with client(desk, sent) as browser:
        assert (await browser.post(f"{desk.path(first)}/0")).status_code == 410
        assert sent == []
        assert "Another question" in (await browser.get(str(desk.path(second)))).text
        assert (await browser.post(f"{desk.path(second)}/0")).status_code == 200


async def test_the_story_continues_while_an_answer_is_sent(desk: AnswerDesk) -> None:
    """An item that the story opens in the meantime under the same name is unanswered, and the story closes it."""
    first = opening(desk, "session.waiting")
    resumed, second = {**first, "id": "between", "type": "session.resumed"}, {**first, "id": "later"}

    async def send(_: list[dict[str, Any]]) -> None:
        desk.accept(resumed)
        desk.accept(second)

    transport = httpx.ASGITransport(create_site(desk, send, INBOX))
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as browser:
        assert (await browser.post(f"{desk.path(first)}/0")).status_code == 200
        assert (await browser.get(str(desk.path(second)))).status_code == 200
    assert desk.accept(resumed)


async def test_html_in_a_text_of_the_story_is_escaped(desk: AnswerDesk) -> None:
    event = opening(desk, "plan.proposed")
    event["data"] |= {"title": "<script>x</script>", "body_md": "<img onerror=x> **`<b>`**", "cluster": "<b>"}
    async with client(desk, []) as browser:
        page = (await browser.get(str(desk.path(event)))).text
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page


async def test_the_page_renders_markdown_of_the_body(desk: AnswerDesk) -> None:
    event = opening(desk, "plan.proposed")
    event["data"]["body_md"] = "**a** and *b*: `c*d`\n\n```\n1 * 2 > 1\n```"
    async with client(desk, []) as browser:
        page = (await browser.get(str(desk.path(event)))).text
    assert ("<strong>a</strong> and <em>b</em>: <code>c*d</code>\n\n<samp>1 * 2 &gt; 1</samp>") in page


def test_the_story_leaves_out_the_closing_of_an_answered_item(tmp_path: Path) -> None:
    """Every fifth thing is answered as it opens: exactly its own closing is left out, also by a desk made again at
    any time, and everything else is said."""
    events_of_story, file = story(3000), tmp_path / "desk.json"
    desk, left, answered = AnswerDesk(file), [], []
    for number, event in enumerate(events_of_story, 1):
        if number % 500 == 0:
            desk = AnswerDesk(file)
            for old in events_of_story[:number - 1]:
                desk.accept(old)
        if not desk.accept(event):
            left.append((event["type"], event["subject"]))
        elif desk.path(event) and ANSWERS[event["type"]] and number % 5 == 0:
            desk.mark_answered(event)
            answered.append((TOPIC_OF_TYPE[event["type"]], event["subject"]))
    assert len(answered) > 100
    closed = [(TOPIC_OF_TYPE[kind], subject) for kind, subject in left]
    assert all(closed.count(one) <= answered.count(one) for one in closed)
    assert len(closed) > len(answered) * 0.8, "but for what is open to the end"
    kept = [event["type"] for event in events_of_story]
    assert {"session.completed", "escalation.updated"} <= set(kept) - {kind for kind, _ in left}


def test_events_that_open_an_item_have_links_that_attn_accepts(desk: AnswerDesk) -> None:
    for event in story(2000):
        sent = linked(event, desk, "http://127.0.0.1:65535")
        assert ("action_url" in sent["data"]) == (desk.path(event) is not None)
        normalise(TOPIC_OF_TYPE[sent["type"]], json.dumps(sent).encode())
    assert "action_url" not in opening(desk, "plan.proposed")["data"], "the story itself stays as it was"


def test_the_number_of_open_items_is_bounded(desk: AnswerDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.demo.desk._MAX_OPEN", 10)
    for number in range(1, 100):
        desk.accept({"type": "plan.proposed", "subject": f"p{number}", "data": {}})
    assert len(desk._opened) == 10
