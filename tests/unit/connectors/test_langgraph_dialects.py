"""Dialects of LangGraph interrupts: each answer that attn accepts becomes a value of the peer's own types, and other
answers are refused with a reason. `peer_types.json` has the types of the real packages."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.connectors.interrupts import (
    ARGS,
    JSON,
    PEER_TYPES,
    answers,
    ask_of,
    hitl_requests,
    human_interrupts,
    response_schemas,
    tool_approvals,
)
from support.examples import law

from streams.connectors.langgraph.dialects.asking import Answer, Misfit, Question, resume_value
from streams.connectors.langgraph.dialects.reading import read_interrupt
from streams.connectors.langgraph.json_values import digest_of, json_text, read_values, rounded_number


def check(value: Any, schema: dict[str, Any]) -> None:
    """Raises ValidationError if the peer's type, as JSON Schema, refuses the value."""
    jsonschema.Draft202012Validator(schema).validate(json.loads(json_text(value)))


MAIL = {"name": "send_mail", "args": {"to": "a@b.c", "delay_seconds": 3}}
DROP = {"name": "drop_table", "args": {"name": "users"}}
REQUEST = {"action_requests": [{**MAIL, "description": "Sends it"}, DROP], "review_configs": [
    {"action_name": "send_mail", "allowed_decisions": ["approve", "edit", "reject", "respond"]},
    {"action_name": "drop_table", "allowed_decisions": ["approve", "reject"]}]}
APPROVAL = {"type": "tool_approval", "tool_call_id": "call_0", "description": "", "name": "send_mail",
            "args": {"to": "a@b.c", "subject": "hi"}}
HUMAN = {"action_request": {"action": "send_mail", "args": {"to": "a@b.c", "count": 3}}, "description": None,
         "config": {"allow_accept": True, "allow_edit": True, "allow_respond": True, "allow_ignore": True}}


@law(60)
@given(st.data(), human_interrupts() | st.lists(human_interrupts(), min_size=1, max_size=3))
def test_each_answer_to_human_interrupts_is_a_list_of_one_human_response_a_request(data: Any, value: Any) -> None:
    reading = read_interrupt(value)
    assert reading.dialect == "HumanInterrupt"
    given_answers = answers(data.draw, reading.questions)
    resumed = resume_value(reading, given_answers)
    check(resumed, PEER_TYPES["HumanResponses"])
    requests = value if isinstance(value, list) else [value]
    assert len(resumed) == len(requests)
    for request, answer, response in zip(requests, given_answers, resumed, strict=True):
        assert response["type"] == answer.option
        assert request["config"][{"accept": "allow_accept", "edit": "allow_edit", "response": "allow_respond",
                                  "ignore": "allow_ignore"}[answer.option]]
        if answer.option in ("accept", "edit"):
            wanted = request["action_request"]["args"] if answer.option == "accept" else answer.args
            assert response["args"] == {"action": request["action_request"]["action"], "args": wanted}


@law(60)
@given(st.data(), hitl_requests())
def test_each_answer_to_a_hitl_request_has_as_many_allowed_decisions_in_order(data: Any, value: Any) -> None:
    reading = read_interrupt(value)
    assert reading.dialect == "HITLRequest"
    given_answers = answers(data.draw, reading.questions)
    resumed = resume_value(reading, given_answers)
    check(resumed, PEER_TYPES["HITLResponse"])
    rules = {config["action_name"]: config["allowed_decisions"] for config in value["review_configs"]}
    for request, answer, decision in zip(value["action_requests"], given_answers, resumed["decisions"], strict=True):
        assert decision["type"] == answer.option
        assert decision["type"] in rules[request["name"]]
        if decision["type"] == "edit":
            assert decision["edited_action"] == {"name": request["name"], "args": answer.args}


@law(60)
@given(st.data(), tool_approvals())
def test_each_answer_to_a_tool_approval_fits_its_response_schema_or_is_refused(data: Any, drawn: Any) -> None:
    value, schema = drawn
    reading = read_interrupt(value, schema)
    assert reading.dialect == "ToolApprovalRequest"
    [answer] = answers(data.draw, reading.questions)
    try:
        resumed = resume_value(reading, [answer])
    except Misfit:
        assert answer.option == "edit"
        with pytest.raises(jsonschema.ValidationError):
            check({"type": "edit", "edited_action": {"name": "send_mail", "args": answer.args}}, schema)
        return
    check(resumed, schema)
    assert resumed["type"] == answer.option


@law(80)
@given(st.data(), response_schemas(), JSON)
def test_each_form_of_a_schema_makes_values_of_that_schema(data: Any, schema: Any, value: Any) -> None:
    reading = read_interrupt(value, schema)
    [question] = reading.questions
    if reading.dialect == "form":
        [answer] = answers(data.draw, [question])
        try:
            resumed = resume_value(reading, [answer])
        except Misfit:
            return
        without_patterns = json.loads(json.dumps(schema).replace('"pattern"', '"x-pattern"'))
        check(resumed, without_patterns)
    else:
        assert [option["id"] for option in question.options] == ["json"]


@law(120)
@given(JSON, st.none() | JSON | st.builds(lambda schema, bad: {**schema, "oneOf": bad}, response_schemas(), JSON))
def test_every_json_value_with_every_schema_is_asked_in_a_way_that_attn_accepts(value: Any, schema: Any) -> None:
    reading = read_interrupt(value, schema)
    for question in reading.questions:
        ask_of(question)
        assert question.title.strip()
        assert len(question.title) <= 512


@law(80)
@given(st.one_of(human_interrupts(), hitl_requests(), tool_approvals(), JSON),
       st.lists(st.builds(Answer, st.sampled_from(["approve", "edit", "accept", "answer", "json", "ignore", "nope"]),
                          st.dictionaries(st.sampled_from(["answer", "json", "x"]), JSON, max_size=2),
                          st.none() | ARGS), max_size=4))
def test_any_answers_give_a_value_of_the_peers_type_or_a_reason(value: Any, some: list[Answer]) -> None:
    value, schema = value if isinstance(value, tuple) else (value, None)
    reading = read_interrupt(value, schema)
    try:
        resumed = resume_value(reading, some)
    except Misfit:
        return
    types = {"HITLRequest": PEER_TYPES["HITLResponse"], "HumanInterrupt": PEER_TYPES["HumanResponses"],
             "ToolApprovalRequest": schema}
    check(resumed, types.get(reading.dialect) or {})


@pytest.mark.parametrize(("value", "given_answers", "problem"), [
    (REQUEST, [Answer("approve")], "1 answers for 2 questions of a HITLRequest"),
    (REQUEST, [Answer("approve")] * 3, "3 answers for 2 questions of a HITLRequest"),
    (REQUEST, [Answer("approve"), Answer("edit", args={})], "drop_table does not allow 'edit'"),
    (REQUEST, [Answer("accept"), Answer("approve")], "send_mail does not allow 'accept'"),
    (REQUEST, [Answer("edit"), Answer("approve")], "an edit of send_mail needs all its arguments"),
    (REQUEST, [Answer("respond"), Answer("approve")], "no text in the field answer"),
    (HUMAN, [Answer("approve")], "does not allow 'approve'"),
    ([HUMAN, HUMAN], [Answer("accept")], "1 answers for 2 questions of a HumanInterrupt"),
    ("why?", [Answer("json", {"json": "{"})], "the answer is not JSON"),
    ("why?", [Answer("json", {"json": "NaN"})], "the answer is not JSON"),
    ("why?", [], "0 answers for 1 questions"),
], ids=range(11))
def test_an_answer_that_does_not_fit_is_refused_with_a_reason(value: Any, given_answers: Any, problem: str) -> None:
    with pytest.raises(Misfit, match=problem):
        resume_value(read_interrupt(value), given_answers)


@pytest.mark.parametrize(("schema", "value", "problem"), [
    ({"type": "integer"}, '"3"', "must be an integer"),
    ({"type": ["object", "null"], "properties": {"n": {"type": "integer", "maximum": 3}}}, '{"n": 4}', "n: violates"),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "[]", "fits none of 2 forms"),
    ({"type": "array", "items": {"type": "string"}}, '["a", 1]', r"\[1\]: must be a string"),
    ({"type": "object", "properties": {}, "additionalProperties": False}, '{"x": 1}', "x: is not expected"),
])
def test_raw_json_that_misses_the_schema_is_refused(schema: Any, value: str, problem: str) -> None:
    reading = read_interrupt("?", schema)
    if reading.dialect == "form":
        with pytest.raises(Misfit, match=problem):
            resume_value(reading, [Answer("answer", {"answer": json.loads(value)})])
    else:
        with pytest.raises(Misfit, match=problem):
            resume_value(reading, [Answer("json", {"json": value})])


def almost(value: Any, **changes: Any) -> Any:
    return {**value, **changes}


@pytest.mark.parametrize("value", [
    almost(REQUEST, review_configs=[]), almost(REQUEST, action_requests=[]), almost(REQUEST, review_configs=None),
    almost(REQUEST, review_configs=[{"action_name": "send_mail", "allowed_decisions": ["veto"]}]),
    {"action_requests": [{"name": "x", "arguments": {}}], "review_configs": REQUEST["review_configs"]},
    almost(HUMAN, config={}), almost(HUMAN, config={"allow_accept": "yes"}), almost(HUMAN, action_request=MAIL),
    [HUMAN, MAIL], [], APPROVAL,
], ids=lambda value: "value")
def test_a_value_that_resembles_a_dialect_is_answered_with_text_or_json(value: Any) -> None:
    reading = read_interrupt(value)
    assert reading.dialect == "value"
    [question] = reading.questions
    assert [option["id"] for option in question.options] == ["answer", "json"]
    assert question.kind == "session_waiting"


def test_a_tool_approval_without_a_schema_or_with_a_foreign_one_is_not_guessed() -> None:
    assert read_interrupt(APPROVAL, {"oneOf": [{"$ref": "https://x/y"}]}).dialect == "value"
    assert read_interrupt(APPROVAL, {"type": "object", "properties": {"type": {"const": "veto"}}}).dialect != \
        "ToolApprovalRequest"


def test_calls_are_actions_with_their_arguments_and_readable_titles() -> None:
    mail, drop = read_interrupt(REQUEST).questions
    assert mail.kind == "pending_action"
    assert mail.title == 'send_mail(to="a@b.c", delay_seconds=3)'
    assert mail.body == "Sends it"
    assert mail.action == {"name": "send_mail", "args": MAIL["args"], "editable": True}
    assert [option["id"] for option in mail.options] == ["approve", "edit", "reject", "respond"]
    assert drop.action is not None
    assert drop.action["editable"] is False


def test_the_description_that_repeats_the_call_is_cut() -> None:
    text = "Tool execution requires approval\n\nTool: send_mail\nArgs: {'to': 'a@b.c'}"
    [question] = read_interrupt({**REQUEST, "action_requests": [{**MAIL, "description": text}]}).questions
    assert question.body == "Tool execution requires approval"


def test_a_tool_that_only_asks_is_a_waiting_session() -> None:
    [question] = read_interrupt({"action_requests": [{"name": "ask_user", "args": {"question": "Which?"}}],
                                 "review_configs": [{"action_name": "ask_user", "allowed_decisions": ["respond"]}]}
                                ).questions
    assert question.kind == "session_waiting"


def test_an_edit_of_one_call_is_checked_against_the_tools_own_schema() -> None:
    reading = read_interrupt(APPROVAL, PEER_TYPES["send_mail"])
    [question] = reading.questions
    assert question.action is not None
    assert question.action["args_schema"]["required"] == ["to", "subject"]
    assert resume_value(reading, [Answer("edit", args={"to": "x", "subject": "y", "delay_seconds": 4})])
    for args, problem in (({"to": "x"}, "args.subject: is required"),
                          ({"to": "x", "subject": "y", "delay_seconds": "4"}, "delay_seconds: must be an integer")):
        with pytest.raises(Misfit, match=problem):
            resume_value(reading, [Answer("edit", args=args)])


def test_a_question_of_text_is_answered_by_text_or_json_with_its_type() -> None:
    reading = read_interrupt("# Deploy?\nNow.")
    [question] = reading.questions
    assert (question.title, question.body) == ("Deploy?", "# Deploy?\nNow.")
    assert resume_value(reading, [Answer("answer", {"answer": "42"})]) == "42"
    assert resume_value(reading, [Answer("json", {"json": '{"n": 42, "x": 1.10, "y": null}'})]) == {
        "n": 42, "x": Decimal("1.10"), "y": None}


def test_a_form_of_a_model_keeps_constants_nulls_and_whole_numbers() -> None:
    schema = {"type": "object", "required": ["kind", "nodes", "note"], "properties": {
        "kind": {"const": "cluster"}, "nodes": {"type": "integer", "minimum": 1},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "size": {"$ref": "#/$defs/Size"}},
        "$defs": {"Size": {"enum": ["S", "L"], "type": "string"}}}
    reading = read_interrupt({"question": "Which?", "x": [1]}, schema)
    [question] = reading.questions
    assert question.title == "Which?"
    assert '"x": [' in question.body
    assert question.options[0]["form"] == {"type": "object", "required": ["nodes"], "properties": {
        "nodes": {"type": "integer", "minimum": 1}, "note": {"type": "string"},
        "size": {"type": "string", "enum": ["S", "L"]}}}
    assert resume_value(reading, [Answer("answer", {"nodes": Decimal("3.0")})]) == {
        "kind": "cluster", "nodes": 3, "note": None}
    with pytest.raises(Misfit, match="violates minimum 1"):
        resume_value(reading, [Answer("answer", {"nodes": 0})])


@law(80)
@given(JSON)
def test_json_text_keeps_types_and_digits(value: Any) -> None:
    text = json_text(value)
    assert read_values(text.encode()) == value
    assert json.loads(json_text(value, indent=2)) == json.loads(text) == json.loads(json_text(value, sort=True))
    assert digest_of(value) == digest_of(read_values(text.encode()))


@pytest.mark.parametrize(("text", "expected"), [
    ("18446744073709551615", None), ("18446744073709551616", "18446744073709551616"),
    ("-9223372036854775809", "-9223372036854775809"), ("0.1", None), ("1.10", None), ("1e22", None),
    ('{"a": [1, {"b": 0.30000000000000000001}]}', "0.30000000000000000001"), ("1e400", "1E+400"), ("true", None),
    ('"12345678901234567890123"', None),
])
def test_numbers_that_the_peer_would_round_are_named(text: str, expected: str | None) -> None:
    assert rounded_number(read_values(text.encode())) == expected


def test_a_block_of_code_keeps_backticks_and_marks_its_cut() -> None:
    body = read_interrupt({"code": "```\nx\n```", "long": "y" * 20_000}).questions[0].body
    assert body.startswith("````json\n")
    assert "characters are shown" in body


def test_schemas_that_refer_to_themselves_end() -> None:
    loop = {"$ref": "#/$defs/A"}
    for definition in ({"anyOf": [loop, loop]}, {"anyOf": [loop, {"type": "null"}]}, loop, {"allOf": [loop] * 3},
                       {"type": "object", "properties": {"a": loop}, "anyOf": [loop, loop]}):
        schema = {**loop, "$defs": {"A": definition}}
        reading = read_interrupt("?", schema)
        assert reading.dialect == "value"
        assert resume_value(reading, [Answer("json", {"json": '{"a": {"a": {}}}'})]) == {"a": {"a": {}}}


def test_kind_needs_an_action() -> None:
    assert Question("t", "", [{"id": "a", "does": "approve"}]).kind == "session_waiting"
