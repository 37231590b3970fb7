"""The pure parts of `attn mcp`: arguments, handles, events, answers, cancellations."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.mcp.questions import events
from ops.mcp.questions.answers import ended_of, standing_of
from ops.mcp.questions.arguments import (
    AskHuman,
    GetAnswer,
    InvalidArguments,
    ListWaiting,
    NotifyHuman,
    Withdraw,
    expiry_of,
    input_schema,
    read_arguments,
)
from ops.mcp.questions.cancellation import is_timeout
from ops.mcp.questions.handles import first_handle, next_handle, notice_subject, question_subject, subject_of
from schemas.scalars import DAY, HOUR, SECOND, format_timestamp, parse_timestamp
from streams.core.normalise import normalise

NOW = parse_timestamp("2026-05-20T08:14:22Z")
SOURCE = "/mcp"


def ask(**arguments: Any) -> AskHuman:
    return read_arguments(AskHuman, {"question": "Deploy?", **arguments})


def handle_of(question: AskHuman, source: str = SOURCE) -> str:
    return first_handle(question_subject(source, events.identity(question)))


@pytest.mark.parametrize(("more", "is_same"), [
    ({"priority": "urgent"}, True), ({"expires": "2h"}, True), ({"wait_seconds": 1}, True),
    ({"question": "Deploy ?"}, False), ({"context": "PR 1"}, False), ({"options": ["a"]}, False),
    ({"who": {"user": "bob"}}, False), ({"reference": "task 2"}, False),
    ({"form": {"properties": {"a": {"type": "string"}}}}, False),
])
def test_equal_questions_have_equal_handles(more: dict[str, Any], is_same: bool) -> None:
    assert (handle_of(ask(**more)) == handle_of(ask())) is is_same
    assert handle_of(ask(**more)) != handle_of(ask(**more), "/mcp/alice")


def test_the_order_of_the_fields_of_a_form_does_not_change_the_handle() -> None:
    first = {"type": "object", "properties": {"a": {"type": "string", "title": "A"}}}
    other = json.loads('{"properties": {"a": {"title": "A", "type": "string"}}, "type": "object"}')
    assert handle_of(ask(form=first)) == handle_of(ask(form=other))


def test_handles_name_their_subject_and_the_question_before() -> None:
    subject = question_subject(SOURCE, {"question": "q"})
    handles = [first_handle(subject), next_handle(subject, "h1|dec_1"), next_handle(subject, "h1|dec_2")]
    assert len(set(handles)) == 3
    assert {subject_of(handle) for handle in handles} == {subject}
    for text in ("", subject, handles[0] + "0", handles[0].upper(), f" {handles[0]}", "ask_../x_0123456789"):
        assert subject_of(text) is None


def test_the_same_notice_counts_once_in_an_hour() -> None:
    names = {notice_subject(SOURCE, {"message": "m"}, seconds) for seconds in (7200, 7201, 10799)}
    assert len(names) == 1
    assert notice_subject(SOURCE, {"message": "m"}, 10800) not in names
    assert notice_subject(SOURCE, {"message": "n"}, 7200) not in names


OPTIONS = st.lists(st.one_of(
    st.text(min_size=1, max_size=60), st.builds(dict, id=st.from_regex(r"[a-z0-9_.:-]{1,20}", fullmatch=True))),
    min_size=1, max_size=6)


@given(question=st.text(min_size=1, max_size=100), context=st.none() | st.text(min_size=1, max_size=300),
       options=st.none() | OPTIONS)
def test_every_accepted_question_is_an_event_that_the_worker_accepts(
    question: str, context: str | None, options: list[Any] | None
) -> None:
    arguments = {"question": question, "context": context, "options": options}
    try:
        accepted = read_arguments(AskHuman, arguments)
        event = events.questioned(accepted, SOURCE, handle_of(accepted), "test", NOW)
    except InvalidArguments:
        return
    read = normalise("waitpoints", json.dumps({**event, "workspaceid": "ws"}).encode())
    assert (read.subject, read.data.title) == (subject_of(handle_of(accepted)), question)


def test_a_repeated_question_is_newer_than_the_end_of_the_last_one() -> None:
    question = ask()
    event = events.questioned(question, SOURCE, handle_of(question), "c", NOW, after=NOW + HOUR)
    assert parse_timestamp(event["time"]) == NOW + HOUR + 1
    assert parse_timestamp(event["data"]["ask"]["expires_at"]) == NOW + HOUR + 1 + DAY


def test_event_ids_are_deterministic() -> None:
    question, handle = ask(), handle_of(ask())
    first, again = [events.questioned(question, SOURCE, handle, "c", now) for now in (NOW, NOW + HOUR)]
    assert first["id"] == again["id"] == f"{handle}.asked"
    assert events.applied(SOURCE, handle, "dec_1", NOW)["id"] == "dec_1.applied"
    assert events.refused(SOURCE, handle, "dec_1", "r", NOW)["id"] == "dec_1.refused"
    assert events.withdrawn(SOURCE, handle, NOW)["subject"] == subject_of(handle)


@pytest.mark.parametrize(("text", "after"), [
    (None, DAY), ("10s", 10 * SECOND), ("30m", HOUR // 2), (" 2h ", 2 * HOUR), ("30d", 30 * DAY),
    (format_timestamp(NOW + DAY), DAY),
])
def test_an_expiry_is_a_duration_or_a_time(text: str | None, after: int) -> None:
    assert expiry_of(text, NOW) == NOW + after


@pytest.mark.parametrize("text", ["", "9s", "31d", "0h", "-1h", "1.5h", "99999999d", "tomorrow", "2026-05-20", "1h1m",
                                  format_timestamp(NOW - 1), format_timestamp(NOW + 31 * DAY)])
def test_other_expiries_are_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match=r"^expires: "):
        expiry_of(text, NOW)


@pytest.mark.parametrize("model", [AskHuman, GetAnswer, NotifyHuman, Withdraw, ListWaiting])
def test_the_schemas_of_arguments_are_plain_and_match_the_models(model: Any) -> None:
    schema = input_schema(model)
    jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    assert "$ref" not in text
    assert '"null"' not in text
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    example = {"question": "q", "options": ["a", {"id": "b"}], "who": {"role": "ADMIN"}, "wait_seconds": 5}
    if model is AskHuman:
        jsonschema.validate(example, schema)
        read_arguments(model, example)


def decision(handle: str, state: str, **more: Any) -> dict[str, Any]:
    return {"id": "dec_1", "question": {"id": handle}, "state": state, "actors": [
        {"user": "ann", "role": "OWNER", "at": "2026-05-20T08:20:00Z", "vote": "yes"}], "option": "yes",
        "does": "approve", "at": "2026-05-20T08:20:00Z", "opened_at": "2026-05-20T08:14:22Z", **more}


def item(handle: str, state: str = "unread", **more: Any) -> dict[str, Any]:
    return {"source_id": subject_of(handle), "ask": {"id": handle}, "state": state,
            "updated_at": "2026-05-20T08:20:00Z", **more}


H, OTHER = handle_of(ask()), next_handle(question_subject(SOURCE, events.identity(ask())), "earlier")


@pytest.mark.parametrize(("listed", "decisions", "status", "pending"), [
    (None, [], "unknown", None),
    (item(H), [], "waiting", None),
    (item(H), [decision(H, "made")], "waiting", "dec_1"),
    (item(H), [decision(H, "sending")], "answered", "dec_1"),
    (item(H), [decision(H, "undeliverable")], "answered", "dec_1"),
    (item(H), [decision(H, "applied")], "answered", None),
    (None, [decision(H, "applied")], "answered", None),
    (item(H), [decision(H, "expired", option=None)], "expired", None),
    (item(H), [decision(H, "taken_back")], "waiting", None),
    (item(H, "resolved"), [decision(H, "refused")], "withdrawn", None),
    (item(H, "resolved", resolved_at="2026-05-20T08:20:00Z"), [], "withdrawn", None),
    # this edge has not caught up
    (item(H, "resolved", decision={"id": "dec_1", "state": "applied"}), [], "waiting", None),
    (item(H, "resolved", decision={"id": "dec_1", "state": "taken_back"}), [], "withdrawn", None),
    (item(OTHER), [decision(OTHER, "sending")], "unknown", None),
    (item(OTHER), [decision(OTHER, "made"), decision(H, "applied")], "answered", None),
])
def test_the_standing_of_a_question(
    listed: dict[str, Any] | None, decisions: list[dict[str, Any]], status: str, pending: str | None
) -> None:
    standing = standing_of(H, listed, decisions)
    assert (standing.status, standing.decision, standing.handle) == (status, pending, H)
    assert ("option" in standing.result) is (status == "answered")


@pytest.mark.parametrize(("listed", "is_over"), [
    (None, False), (item(H), False), (item(H, decision={"id": "d", "state": "made"}), False),
    (item(H, decision={"id": "d", "state": "sending"}), False),
    (item(H, decision={"id": "d", "state": "refused"}), False),
    (item(H, decision={"id": "d", "state": "applied"}), True),
    (item(H, decision={"id": "d", "state": "expired"}), True),
    (item(H, "resolved", decision={"id": "d", "state": "refused"}), True),
    (item(H, "resolved", resolved_at="2026-05-20T08:20:00Z"), True),
])
def test_a_new_question_is_asked_after_the_last_one_ended(listed: dict[str, Any] | None, is_over: bool) -> None:
    ended = ended_of(listed)
    assert (ended is not None) is is_over
    if ended is not None:
        assert ended.at == parse_timestamp("2026-05-20T08:20:00Z")


@pytest.mark.parametrize(("reason", "expected"), [
    ("timed out after 60s", True), ("McpError: MCP error -32001: Request timed out", True),
    ("TimeoutError: The operation was aborted due to timeout", True), ("context deadline exceeded", True),
    ("Request timeout", True), ("caller cancelled", False), ("the user pressed Escape", False), (None, False),
    ("", False), (5, False), ("AbortError: This operation was aborted", False),
])
def test_a_timeout_of_the_client_is_no_cancellation(reason: object, expected: bool) -> None:
    assert is_timeout(reason) is expected
