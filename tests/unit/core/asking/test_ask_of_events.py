"""Validation of `data.ask`: accepted and stored forms, rejects with their reason, and the sealing of its token."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import law
from support.fold.fold_driver import cloud_event
from support.fold.pipeline_driver import SEALER

from schemas.asking.ask import MAX_ASK_BYTES, MAX_TOKEN
from schemas.log import NO_PAYLOAD, Event, Pack, decode_pack, encode_pack
from schemas.sources import MODELS
from schemas.topics import DECISION_REPORTS, SOURCE_TYPES, TOPIC_OF_TYPE
from streams.core import normalise as module
from streams.core.domain.questions import read_ask
from streams.core.normalise import Rejected, normalise
from streams.core.sealing import Sealer

TOKEN = "wh-tok/+=\u00fc\"\\ 'n' 0123456789"
OPTIONS = [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}]
# Required fields of each type besides the title.
MORE: dict[str, dict[str, Any]] = {
    "draft.edited": {"editor": {"type": "ai", "id": "c"}}, "case.state_changed": {"state": "BLOCKED"}}


def asking(ask: Any, kind: str = "waitpoint.created", **data: Any) -> dict[str, Any]:
    return cloud_event(kind, **{"title": "T", "ask": ask, **MORE.get(kind, {}), **data})


def accepted(event: dict[str, Any] | bytes, topic: str = "waitpoints", sealer: Sealer | None = SEALER) -> Event:
    return normalise(topic, event if isinstance(event, bytes) else orjson.dumps(event), sealer=sealer)


def stored(event: dict[str, Any] | bytes) -> Any:
    return orjson.loads(bytes(accepted(event).data.ask))


def reason(ask: Any, sealer: Sealer | None = SEALER, **data: Any) -> tuple[str, str]:
    with pytest.raises(Rejected) as rejected:
        accepted(asking(ask, **data), sealer=sealer)
    return str(rejected.value), rejected.value.cause


@pytest.mark.parametrize("kind", sorted(TOPIC_OF_TYPE))
def test_every_source_event_may_ask(kind: str) -> None:
    event = accepted(asking({"options": OPTIONS}, kind), TOPIC_OF_TYPE[kind])
    assert orjson.loads(bytes(event.data.ask)) == {"options": OPTIONS}
    assert decode_pack(encode_pack(Pack(1, [event]))) == Pack(1, [event])
    assert read_ask(event.data.ask, "waitpoint") is not None, "the fold reads the stored ask"


def test_without_an_ask_nothing_is_stored() -> None:
    for data in ({}, {"ask": None}):
        assert accepted(cloud_event("waitpoint.created", title="T", **data)).data.ask is NO_PAYLOAD


def test_empty_text_is_no_text_except_as_a_token() -> None:
    ask = {"id": "", "on_expiry": "", "expires_at": "", "reply": {"to": ""}, "action": {"name": "n", "risk": ""}}
    state = read_ask(accepted(asking(ask)).data.ask, "waitpoint")
    assert state is not None
    assert (state.ask.on_expiry, state.ask.expires_at) == (None, None)
    assert reason({"reply": {"token": ""}})[1] == "fields"


def test_an_update_sets_an_ask_leaves_it_or_clears_it() -> None:
    def update(**data: Any) -> Event:
        return accepted(cloud_event("escalation.updated", **data), "escalations")

    assert "ask" not in update(ask={}).cleared
    assert bytes(update(ask={}).data.ask) == b"{}"
    assert update(ask=None).cleared == ("ask",)
    assert update(title="T").cleared == ()


# --- stored asks ---

def test_the_text_of_the_source_is_kept_without_unknown_fields() -> None:
    text = (rb'{"later":{"reply":{"token":"x"}},"id" : "q","action":{"name":"pay","more":[1.50],"args": {"n": 1.0, '
            b'"big": 123456789012345678901234567890, "far": 1e400,\n"e": -0.10, "s": "\\u00e9"}},"unknown":1}')
    raw = orjson.dumps(asking("<ask>", payload={"p": 1})).replace(b'"<ask>"', text)
    stored_ask = bytes(accepted(raw).data.ask)
    assert stored_ask == (rb'{"id":"q","action":{"name":"pay","more":[1.50],"args": {"n": 1.0, "big": '
                     rb'123456789012345678901234567890, "far": 1e400, "e": -0.10, "s": "\u00e9"}}}')
    packed = base64.b64encode(b'\xef\xbb\xbf{"title":"T","ask":' + text + b"}").decode()
    outside = {name: value for name, value in asking({}).items() if name != "data"}
    assert bytes(accepted({**outside, "data_base64": packed}).data.ask) == stored_ask
    headers = [(f"ce_{name}", value.encode()) for name, value in outside.items()]
    assert bytes(normalise("waitpoints", b'{"title":"T","ask":' + text + b"}", headers).data.ask) == stored_ask


def test_an_ask_with_line_ends_is_stored_on_one_line() -> None:
    """Feed frames contain the ask, and a line end would end the frame."""
    raw = orjson.dumps(asking({"form": {"properties": {"a": {"type": "boolean"}}}}), option=orjson.OPT_INDENT_2)
    stored_ask = bytes(accepted(raw.replace(b"\n", b"\r\n")).data.ask)
    assert b"\n" not in stored_ask
    assert b"\r" not in stored_ask
    assert stored(raw) == {"form": {"properties": {"a": {"type": "boolean"}}}}


def test_the_token_is_sealed_for_its_question() -> None:
    event = asking({"id": "q1", "reply": {"to": "pipelines", "token": TOKEN, "confirm": False, "extra": TOKEN}})
    reply = stored(event)["reply"]
    assert {name: value for name, value in reply.items() if name != "token"} == {"to": "pipelines", "confirm": False}
    question = [event["workspaceid"], event["source"], event["subject"], "q1"]
    assert SEALER.open(reply["token"], question) == TOKEN
    assert stored(event)["reply"]["token"] == reply["token"], "a replay gives the same sealed text"
    without_id = asking({"reply": {"token": TOKEN}})
    question = [without_id["workspaceid"], without_id["source"], without_id["subject"], without_id["subject"]]
    assert SEALER.open(stored(without_id)["reply"]["token"], question) == TOKEN


@pytest.mark.parametrize("text", [
    '{"reply":{"token":"first","token":%s}}', '{"reply":{"token":"first"},"reply":{"token":%s}}',
    r'{"reply":{"\u0074oken":%s}}', r'{"\u0072eply":{"token":%s, "to" : "x"}}',
    '{"reply":{"token":%s,"Token":"first","token2":"first"}}',
])
def test_no_spelling_of_a_token_stays_readable(text: str) -> None:
    raw = orjson.dumps(asking("<ask>")).replace(b'"<ask>"', (text % json.dumps(TOKEN)).encode())
    event = accepted(raw)
    stored_ask = bytes(event.data.ask)
    assert b"first" not in stored_ask
    assert "wh-tok" not in encode_pack(Pack(1, [event])).decode()
    question = [event.ws, event.source, event.subject, event.subject]
    assert SEALER.open(orjson.loads(stored_ask)["reply"]["token"], question) == TOKEN


# --- rejected asks ---

def test_without_a_key_a_token_is_rejected_and_nothing_else_is() -> None:
    text, cause = reason({"reply": {"token": TOKEN}}, sealer=None)
    assert text.startswith("data.ask.reply.token: the worker has no key to seal it; set ATTN_SEAL_KEYS")
    assert cause == "key"
    assert accepted(asking({"reply": {"to": "x"}}), sealer=None)


CHOICE = {"type": "string", "enum": ["a", "b"]}


INVALID: list[tuple[Any, str]] = [
    ([], "data.ask: Input should be a valid dictionary"),
    ("", "data.ask: "),
    ({"options": []}, "data.ask.options: "),
    ({"options": OPTIONS * 11}, "data.ask.options: List should have at most 20 items"),
    ({"options": [*OPTIONS, OPTIONS[0]]}, "data.ask: Value error, options must not repeat an id"),
    ({"options": [{"id": "a"}]}, "data.ask.options.0.does: Field required"),
    ({"options": [{"id": "a b", "does": "approve"}]}, "data.ask.options.0.id: "),
    ({"options": [OPTIONS[0], {"id": "a", "does": "jump"}]}, "data.ask.options.1.does: Input should be 'approve', "),
    ({"options": [{"id": "a", "does": 7}]}, "data.ask.options.0.does: Input should be 'approve', "),
    ({"options": [{**OPTIONS[0], "style": "red"}]}, "data.ask.options.0.style: "),
    ({"options": [{**OPTIONS[0], "comment": True}]}, "data.ask.options.0.comment: "),
    ({"options": [{"id": "e", "does": "edit"}]}, "data.ask: Value error, an option that does edit needs an action"),
    ({"form": {"properties": {}}}, "data.ask.form.properties: "),
    ({"form": {"properties": {"a": {"type": "object"}}}}, "data.ask.form.properties.a: type must be string, number"),
    ({"form": {"properties": {"a": {"type": "string", "minLength": -1}}}}, "data.ask.form.properties.a.minLength: "),
    ({"form": {"properties": {"a": {"type": "string", "format": "ipv4"}}}}, "data.ask.form.properties.a.format: "),
    ({"form": {"properties": {"a": {**CHOICE, "default": "c"}}}}, "data.ask.form.properties.a: Value error, default "),
    ({"form": {"properties": {"a": {"type": "array", "items": {}}}}}, "data.ask.form.properties.a: Value error, "),
    ({"form": {"properties": {"a": CHOICE}, "required": ["b"]}}, "data.ask.form: Value error, required names 'b'"),
    ({"options": [{**OPTIONS[0], "form": {"properties": {"a": {"type": "number", "minimum": "1"}}}}]},
     "data.ask.options.0.form.properties.a.minimum: "),
    ({"action": {"args": {}}}, "data.ask.action.name: Field required"),
    ({"action": {"name": "n", "args": []}}, "data.ask.action.args: "),
    ({"action": {"name": "n", "editable": ["a", "a"]}}, "data.ask.action.editable: "),
    ({"action": {"name": "n", "editable": "all"}}, "data.ask.action.editable: "),
    ({"deciders": {"user": ["ann"]}}, "data.ask.deciders.user: Extra inputs are not permitted"),
    ({"deciders": {"roles": ["BOSS"]}}, "data.ask.deciders.roles.0: "),
    ({"deciders": {"not": ["ann"]}}, "data.ask.deciders.not.0: "),
    ({"quorum": {"approve": 0}}, "data.ask.quorum.approve: "),
    ({"quorum": {"approve": 11}}, "data.ask.quorum.approve: "),
    ({"quorum": {"approve": 2}, "deciders": {"users": ["ann"]}}, "data.ask: Value error, quorum needs 2 people"),
    ({"expires_at": "tomorrow"}, "data.ask.expires_at: "),
    ({"on_expiry": "yes", "options": OPTIONS}, "data.ask: Value error, on_expiry names 'yes', which is not marked"),
    ({"on_expiry": "maybe", "options": OPTIONS}, "data.ask: Value error, on_expiry must be the id of an option"),
    ({"batch": {}}, "data.ask.batch.key: Field required"),
    ({"reply": {"to": "https://x y"}}, "data.ask.reply.to: "),
    ({"reply": {"token": ""}}, "data.ask.reply.token: "),
    ({"reply": {"token": 7}}, "data.ask.reply.token: Input should be a valid string"),
    ({"reply": {"token": "t" * (MAX_TOKEN + 1)}}, "data.ask.reply.token: String should have at most 4096 characters"),
    ({"reply": {"confirm": "no"}}, "data.ask.reply.confirm: "),
    ({"on_expiry": "yes", "options": [{**OPTIONS[0], "safe": True}]}, "data.ask: Value error, on_expiry needs"),
    ({"form": {"properties": {"a": {"type": "string", "enum": None}}}}, "data.ask.form.properties.a: Value error, "),
    ({"form": {"properties": {"a": {**CHOICE, "enumNames": ["A"]}}}}, "data.ask.form.properties.a: Value error, "),
    ({"form": {"properties": {"a": {"type": "array", "items": {"enum": ["x"]}, "default": ["y"]}}}},
     "data.ask.form.properties.a: Value error, default must be among the values"),
    ({"form": {"properties": {"a": {"type": "string", "enum": ["x", "x"]}}}}, "data.ask.form.properties.a.enum: "),
]


@pytest.mark.parametrize(("ask", "says"), INVALID)
def test_an_invalid_ask_is_rejected_with_the_path_of_its_field(ask: Any, says: str) -> None:
    text, cause = reason(ask)
    assert says in text
    assert cause == "fields"


def test_the_documented_reasons_are_those_that_producers_get() -> None:
    text = (Path(__file__).parents[4] / "docs" / "asking.md").read_text()
    rows = re.findall(r"^\| `(data\.[^`]*)` \| `(\w+)` \|$", text, re.MULTILINE)
    assert len(rows) > 30
    given = {problem for ask, _ in INVALID for problem in reason(ask)[0].split("; ")}
    given |= {reason({"reply": {"token": TOKEN}}, sealer=None)[0], reason({"id": "x" * MAX_ASK_BYTES})[0]}
    with pytest.raises(Rejected) as rejected:
        accepted(cloud_event("decision.refused", decision="dec_1", reason="x" * 1025))
    given |= set(str(rejected.value).split("; "))
    large = {"action": {"name": "n", "args": {"a": "x" * (MAX_ASK_BYTES + 1 - 39)}}}
    assert len(orjson.dumps(large)) == MAX_ASK_BYTES + 1
    given.add(reason(large)[0])
    patterns = [re.escape(row).replace("…", ".*") for row, _ in rows]
    assert [pattern for pattern in patterns if not any(re.match(pattern, problem) for problem in given)] == []


def test_the_documented_examples_are_asks() -> None:
    text = (Path(__file__).parents[4] / "docs" / "asking.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        kept = stored(asking(json.loads(block)))
        kept.get("reply", {}).pop("token", None)
        wanted = json.loads(block)
        wanted.get("reply", {}).pop("token", None)
        assert kept == wanted


def test_names_of_choices_in_the_model_are_not_part_of_a_path() -> None:
    """pydantic adds the name of the union's member to the path; a producer has no such field."""
    text, _ = reason({"form": {"properties": {"number": {"type": "string", "enum": [7]}}}, "action": {
        "name": "n", "editable": 7}})
    places = [problem.partition(": ")[0] for problem in text.split("; ")]
    assert places == ["data.ask.form.properties.number.enum.0", "data.ask.action.editable", "data.ask.action.editable"]


@pytest.mark.parametrize("size", [MAX_ASK_BYTES, MAX_ASK_BYTES + 1])
def test_an_ask_is_limited_in_bytes_arguments_included(size: int) -> None:
    ask = {"action": {"name": "n", "args": {"a": ""}}, "reply": {"token": TOKEN}}
    ask["action"]["args"]["a"] = "x" * (size - len(orjson.dumps(ask)))  # type: ignore[index]
    if size > MAX_ASK_BYTES:
        assert reason(ask) == (f"data.ask: {size} bytes; at most {MAX_ASK_BYTES} are accepted", "size")
    else:
        assert stored(asking(ask))["action"] == ask["action"]


# --- reports ---

@pytest.mark.parametrize("topic", SOURCE_TYPES)
@pytest.mark.parametrize("kind", DECISION_REPORTS)
def test_a_source_reports_on_its_own_topic(topic: str, kind: str) -> None:
    known = "dec_" + "0f" * 16
    event = accepted(cloud_event(kind, decision=known, reason="gone", error="other", by_user_id="ann"), topic)
    assert (event.type, event.data.decision, event.data.reason, event.data.by_user_id) == (kind, known, "gone", "ann")
    assert event.data.error is None
    assert accepted(cloud_event(kind, error="gone", ask=[], title=7), topic).data.reason == "gone"
    bare = {name: value for name, value in cloud_event(kind).items() if name != "data"}
    assert accepted(bare, topic).data.decision is None
    assert accepted(cloud_event(kind, decision="", reason="", error=None), topic).data.reason is None
    assert decode_pack(encode_pack(Pack(1, [event]))) == Pack(1, [event])


@pytest.mark.parametrize(("data", "says"), [
    ({"decision": "dec_1"}, "data.decision: "), ({"decision": "dec_" + "0" * 32 + "\n"}, "data.decision: "),
    ({"decision": 1}, "data.decision: "), ({"reason": "x" * 1025}, "data.reason: "), ({"error": []}, "data.error: "),
    ({"by_user_id": " "}, "data.by_user_id: "), ([], "data: "),
])
def test_an_invalid_report_is_rejected(data: Any, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        accepted({**cloud_event("decision.refused"), "data": data})
    with pytest.raises(Rejected, match="not one attn knows"):
        accepted(cloud_event("decision.made"))


# --- anything ---

NAMES = sorted({name for path in ("options id does form action args deciders not users roles quorum approve expires_at",
                                  "on_expiry batch key reply to token confirm properties required type enum oneOf",
                                  "items anyOf const title default minLength editable name safe comment")
                for name in path.split()} | {"", "x", "\0", "\u212a"})
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4), st.sampled_from([
        "approve", "edit", "requester", "OWNER", "string", "array", "number", "boolean", "object",
        "2026-05-20T08:14:22Z", "0001-01-01T00:00:00Z", TOKEN]))
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(NAMES), inner, max_size=4), max_leaves=12)
near = st.fixed_dictionaries({}, optional={
    "id": values, "options": st.lists(st.fixed_dictionaries(
        {"id": st.sampled_from(["a", "b"]), "does": st.sampled_from(["approve", "edit", "choose", "x"])},
        optional={"form": values, "safe": st.booleans(), "title": values, "comment": values}), max_size=3),
    "form": st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from(["a", "b"]), st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "number", "array", "boolean", "y"])},
        optional={"enum": values, "oneOf": values, "items": values, "default": values}), max_size=2)}),
    "action": st.fixed_dictionaries({"name": st.just("n")}, optional={"args": values, "editable": values}),
    "deciders": values, "quorum": values, "expires_at": values, "on_expiry": st.sampled_from(["a", "b", 1]),
    "batch": values, "reply": st.fixed_dictionaries({"token": st.just(TOKEN)}, optional={"to": values, "x": values}),
})


@law(300)
@given(near | values, st.sampled_from(sorted(MODELS)))
@example({"reply": {"token": TOKEN, "confirm": 1}}, "waitpoint.created")
@example({"reply": {"token": [TOKEN]}}, "waitpoint.created")
def test_any_json_is_an_ask_or_a_reason_and_shows_no_token(ask: Any, kind: str) -> None:
    try:
        raw = orjson.dumps(asking(ask, kind))
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        raw = json.dumps(asking(ask, kind)).encode()
    topic = TOPIC_OF_TYPE.get(kind, "waitpoints")
    result = _outcome(topic, raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "validate_fast", lambda *_: None)
        assert _outcome(topic, raw) == result
    if isinstance(result, str):
        assert result
        assert TOKEN not in result
        return
    pack = encode_pack(Pack(1, [result]))
    assert decode_pack(pack) == Pack(1, [result])
    if result.data.ask is NO_PAYLOAD:
        return
    kept = orjson.loads(bytes(result.data.ask))
    assert read_ask(result.data.ask, "waitpoint") is not None
    assert (kept.get("reply") or {}).get("token") != TOKEN
    if "reply" in ask and isinstance(ask["reply"], dict) and ask["reply"].get("token") == TOKEN:
        rest = {name: value for name, value in ask.items() if name != "reply" and value is not None}
        assert {name: value for name, value in kept.items() if name != "reply"} == json.loads(json.dumps({
            name: value for name, value in rest.items() if name in kept}))
        assert kept["reply"]["token"].startswith("s1.")


def _outcome(topic: str, raw: bytes) -> Event | str:
    try:
        event = accepted(raw, topic)
    except Rejected as rejected:
        return str(rejected)
    event.data.payload = NO_PAYLOAD if event.data.payload is NO_PAYLOAD else msgspec.Raw(bytes(event.data.payload))
    return event
