"""Events of waiting threads: attn accepts each of them, and their ids follow from the thread's question."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.connectors.interrupts import JSON, hitl_requests, human_interrupts, response_schemas, tool_approvals
from support.examples import law

from schemas.scalars import parse_timestamp
from schemas.topics import TOPIC_OF_TYPE
from streams.connectors.langgraph.deployments import Deployment, InvalidDeployment, read_deployments
from streams.connectors.langgraph.events import Location, QuestionId, closing_event, opening_events
from streams.connectors.langgraph.server import Interrupt, Thread
from streams.core.domain.event_types import EVENT_RULES
from streams.core.normalise import normalise

PROD = Deployment("prod", "https://agents.example.com/api/")
VALUES: st.SearchStrategy[Any] = st.one_of(
    tool_approvals(), st.tuples(JSON, st.none() | JSON | response_schemas()), st.tuples(hitl_requests(), st.none()),
    st.tuples(st.lists(human_interrupts(), min_size=1, max_size=3), st.none()))
METADATA = st.dictionaries(
    st.sampled_from(["attn_user", "attn_role", "attn_priority", "graph_id", "assistant_id", "x"]),
    JSON | st.sampled_from(["OWNER", "urgent", "agent"]))


def accepted(event: dict[str, Any]) -> Any:
    """Returns the event as attn's worker reads it. Raises Rejected if the worker refuses it."""
    return normalise(TOPIC_OF_TYPE[event["type"]], orjson.dumps({**event, "workspaceid": "ws"}))


def thread(*interrupts: Interrupt, metadata: Any = None, at: str = "2026-11-30T12:00:00.25+00:00") -> Thread:
    return Thread("01a2-thread", "interrupted", interrupts, metadata or {}, at)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@law(120)
@given(st.lists(VALUES, min_size=1, max_size=3), METADATA)
def test_attn_accepts_every_event_of_every_thread(values: Any, metadata: Any) -> None:
    interrupts = [Interrupt(f"{number:032x}", *orjson.loads(orjson.dumps(value, default=float)))
                  for number, value in enumerate(values)]
    events = opening_events(PROD, thread(*interrupts, metadata=metadata))
    assert len({event["id"] for event in events}) == len(events) >= len(values)
    for event in events:
        read = accepted(event)
        location, question = Location.of(read.subject), QuestionId.of(event["data"]["ask"]["id"])
        assert location is not None
        assert question is not None
        assert location.subject == event["subject"]
        assert (location.deployment, location.thread, location.interrupt) == ("prod", "01a2-thread", question.interrupt)
        assert ("batch" in event["data"]["ask"]) == (question.count > 1)


def test_texts_and_values_of_any_size_are_cut_and_accepted() -> None:
    long = "ä" * 70_000
    allowed = {"allow_ignore": True, "allow_accept": True}
    call = {"action_request": {"action": long, "args": {long: 1}}, "config": allowed, "description": long}
    deep = {"action_request": {"action": "a", "args": {"x": nested(200)}}, "config": allowed, "description": None}
    for interrupt in (
            Interrupt("1", long), Interrupt("2", {"question": long, "x": [long]}), Interrupt("3", call),
            Interrupt("4", "?", {"type": "object", "properties": {long: {"type": "string"}}}),
            Interrupt("5", "?", {"enum": [f"{number}{'ä' * 250}" for number in range(200)], "type": "string"}),
            Interrupt("6", deep), Interrupt("7", nested(500))):
        [event] = opening_events(PROD, thread(interrupt))
        assert accepted(event)


def test_an_id_depends_on_question_and_state_only() -> None:
    def one(value: Any, **more: Any) -> dict[str, Any]:
        return opening_events(PROD, thread(Interrupt("i", value), **more))[0]

    first = one("why?")
    assert first == one("why?")
    assert first["id"] != one("how?")["id"]
    assert first["id"] != one("why?", at="2026-11-30T12:00:01+00:00")["id"]
    assert first["subject"] == one("how?")["subject"] == "prod/01a2-thread/i"
    assert first["data"]["action_url"] == "https://agents.example.com/api/threads/01a2-thread"


@pytest.mark.parametrize("kind", ["pending_action", "session_waiting"])
@pytest.mark.parametrize("outcome", ["approve", "reject", "gone", "deleted"])
@pytest.mark.parametrize("now", [datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)])
def test_a_closing_event_is_later_than_the_opening_with_any_clocks(
    kind: str, outcome: str, now: datetime,
) -> None:
    opened_at = "2026-11-30T12:00:00.25Z"
    event = closing_event(PROD, Location("prod", "t", "i"), "d", kind, opened_at=opened_at, now=now, outcome=outcome,
                          by_user="ann")
    assert accepted(event).data.by_user_id == "ann"
    assert (EVENT_RULES[event["type"]].kind, EVENT_RULES[event["type"]].effect) == (kind, "close")
    assert parse_timestamp(event["time"]) > parse_timestamp(opened_at)


@pytest.mark.parametrize("subject", ["", "prod", "prod/t", "prod/t/i/x", "prod/t/i/1/2", "/t/i"])
def test_a_foreign_subject_is_not_read(subject: str) -> None:
    assert Location.of(subject) is None


def test_deployments_of_the_command_line_and_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "deployments.toml"
    file.write_text('[[deployment]]\nname = "support"\nurl = "https://a.example.com"\nheaders = { X-Api-Key = "k1" }\n'
                    'link = "https://b.example.com/{thread_id}"\n')
    prod, support = read_deployments(["prod=http://127.0.0.1:2024"], file)
    assert prod == replace(PROD, url="http://127.0.0.1:2024")
    assert (support.headers, support.link_of("t")) == ({"X-Api-Key": "k1"}, "https://b.example.com/t")
    assert "k1" not in repr(support)
    assert support.source == "/langgraph/support"


@pytest.mark.parametrize(("pairs", "text", "problem"), [
    ([], None, "no deployment is named"), (["prod"], None, "is not NAME=URL"), (["a b=http://x"], None, "a name has"),
    (["a=ftp://x"], None, "not an http or https URL"), (["a=http://u:secret@x"], None, "must not contain a password"),
    (["a=http://x", "a=http://y"], None, "a is named twice"), ([], "x", "deployments.toml"),
    ([], "[[deployment]]\nname = 'a'\nurl = 'http://x'\nkey = 'k'", "unknown key key"), ([], "[deployment]", "tables"),
    ([], "[[deployment]]\nname = 1", "are texts"), ([], "[[deployment]]\nheaders = ['x']", "are texts"),
    ([], "deployments = []", "unknown key deployments"), ([], "[[deployment]]\nname = 'a'\nurl = 'x'", "http or https"),
])
def test_a_wrong_deployment_is_named(pairs: list[str], text: str | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "deployments.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidDeployment, match=problem) as raised:
        read_deployments(pairs, None if text is None else file)
    assert "secret" not in str(raised.value)
