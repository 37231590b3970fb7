"""The fast path of validation and the pydantic models give the same event or the same reject."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field
from support.examples import law

import schemas
from schemas.log import Event
from schemas.sources import MODELS
from schemas.topics import TOPIC_OF_TYPE
from streams.core import normalise as module
from streams.core import normalise_fast as quick_module
from streams.core.normalise import Rejected, normalise
from streams.core.normalise_fast import validate_fast

EXAMPLES = {
    path.stem: orjson.loads(path.read_bytes())
    for path in (Path(schemas.__file__).parent / "examples").glob("*.json") if path.stem in TOPIC_OF_TYPE
}
BASE = {
    "specversion": "1.0", "id": "i", "source": "/s", "subject": "x", "time": "2026-05-20T08:14:22Z", "workspaceid": "w",
}
# Texts at the limits of several rules: blank texts of all kinds, the maximum length and one more, in bytes and
# characters.
TEXTS = (
    "", " ", "\t\n", "\x1c", "\x85", "\xa0", "\u2003", "\u3000", "\u200b", "\ufeff", "a", " a ", "é", "😀", "nul\x00",
    *(each * size for each in ("a", "😀") for size in (128, 129, 256, 257, 512, 513, 1024, 1025, 2048, 2049)),
)
KNOWN = (
    "low", "urgent", "Low", "OWNER", "owner", "user", "ai", "critical", "BLOCKED", "auto", "/p", "//p", "/", "http://h",
    "https://h", "HTTP://h", "javascript:x", "/\\h", "/\th", "/a\n", "http://u@h", "http:///h", "http://?", "http://h:0",
    "http://h:80", "http://h:80 ", "http://h\n", "http://h:99999/", "http://[::1]/", "/ä", "/a\u202e", "/a%5Cb", "http://h?a@b",
   
    "0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "1970-01-01T00:00:00+00:01",
    "2026-05-20T08:14:22Z", "2026-05-20T08:14:22.123456789+02:00",
    "2026-02-30T00:00:00Z", "2016-12-31T23:59:60Z", "2026-05-20", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z",
    "tomorrow", "1.0",
)
plain = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(KNOWN), st.none(), st.booleans(), st.integers(-1, 2), st.just(2**63),
    st.just(1.5), st.text(max_size=3),
)
parts = st.dictionaries(st.sampled_from(["type", "id", "name", "title", "mode", "else"]), plain, max_size=4)
many = st.just([{"title": "t", "mode": "auto"}] * 501)
values = st.one_of(plain, plain, parts, st.lists(st.one_of(parts, plain), max_size=2), many)


def fields(event_type: str) -> list[str]:
    data: Any = MODELS[event_type].model_fields["data"].annotation
    return [*data.model_fields, "unknown", "state", "steps", "editor"]


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """Draws an event with a few changed fields, most of them invalid or nearly so."""
    event_type = draw(st.sampled_from(sorted(TOPIC_OF_TYPE)))
    event = {**BASE, "type": event_type, "data": dict(EXAMPLES[event_type].get("data") or {})}
    for name in draw(st.lists(st.sampled_from(fields(event_type)), max_size=3)):
        event["data"][name] = draw(values)
    for name in draw(st.lists(st.sampled_from([*BASE, "data", "unknown"]), max_size=1)):
        if draw(st.booleans()):
            event[name] = draw(values)
        else:
            event.pop(name, None)
    return event


def outcome(value: bytes, event_type: str) -> Event | str:
    try:
        event = normalise(TOPIC_OF_TYPE[event_type], value)
    except Rejected as reason:
        return str(reason)
    event.data.payload = bytes(event.data.payload)  # type: ignore[assignment]
    return event


def paths_agree(event: dict[str, Any]) -> bool:
    value = orjson.dumps(event)
    fast = outcome(value, event["type"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "validate_fast", lambda *_: None)
        return outcome(value, event["type"]) == fast


@pytest.mark.parametrize(
    "event_type", {MODELS[each].model_fields["data"].annotation: each for each in TOPIC_OF_TYPE}.values())
def test_each_field_with_each_value(event_type: str) -> None:
    event = {**BASE, "type": event_type, "data": dict(EXAMPLES[event_type].get("data") or {})}
    for value in (*TEXTS, *KNOWN, None, True, 0, 1.5, [], {}, {"payload": {}}):
        for name in fields(event_type):
            assert paths_agree({**event, "data": {**event["data"], name: value}}), (name, value)
        for name in BASE:
            assert paths_agree({**event, name: value}), (name, value)


@law(300)
@given(events())
@example({**BASE, "type": "escalation.updated", "data": {"title": None, "payload": None, "unknown": None}})
@example({**BASE, "type": "message.withdrawn", "data": None})
@example({**BASE, "type": "message.posted", "data": None})
def test_several_fields_at_once(event: dict[str, Any]) -> None:
    assert paths_agree(event)


@pytest.mark.parametrize("value", [
    b'{"data": {"payload": {"n": 1}, "payload": null, "title": "a", "title": "b"}, %b}',
    b'{"data": {"payload": null, "payload": {"n": 12345678901234567890123}, "title": "a"}, %b}',
    b'{"data": {"payload": 1, "title": "a"}, "data": {"title": "c"}, %b}',
    b'{"data": {"title": "a", "sender": {"type": "x", "type": 1}}, %b}',
])
def test_of_repeated_keys_the_last_counts(value: bytes) -> None:
    whole = value % orjson.dumps({**BASE, "type": "message.posted"})[1:-1]
    result = outcome(whole, "message.posted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "validate_fast", lambda *_: None)
        assert outcome(whole, "message.posted") == result


def test_the_examples_are_validated_by_the_fast_path() -> None:
    assert EXAMPLES.keys() == TOPIC_OF_TYPE.keys()
    for event_type, event in EXAMPLES.items():
        assert validate_fast(event_type, orjson.dumps(event)) is not None, event_type


@pytest.mark.parametrize("annotation", [
    int, Annotated[str, AfterValidator(str.strip)], Annotated[str, Field(pattern="a")], dict[str, int],
])
def test_an_unknown_validation_rule_is_an_error(annotation: Any) -> None:
    with pytest.raises(TypeError, match="no msgspec"):
        quick_module._to_msgspec_type(annotation, {})


@pytest.mark.parametrize("event_type", sorted(quick_module._TYPES))
def test_the_types_of_each_event_can_be_derived(event_type: str) -> None:
    """They are derived when the first event of a type arrives."""
    assert quick_module._type(event_type) is quick_module._type(event_type)
