"""Source records with any JSON of RFC 8259 (CONTRACT §10): lone surrogates, long numbers, a byte order mark."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import orjson
import pytest
from support.fold.fold_driver import Folding, cloud_event

from api.contract import serializers
from schemas.log import Event
from schemas.topics import TOPIC_OF_TYPE
from streams.core import normalise as module
from streams.core.normalise import Rejected, normalise

BOM = b"\xef\xbb\xbf"
NUMBERS = ("9007199254740993", "1e400", "-1E+99999", "0.10", "1.000000000000000000001", "-0", "7" * 400, "7" * 5000,
           "0." + "3" * 400, "1e-400", "18446744073709551616")


def accepted(value: bytes, topic: str = "waitpoints", headers: Any = ()) -> Event:
    """Returns the event. The fast path and the models must agree."""
    event = normalise(topic, value, headers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "validate_fast", lambda *_: None)
        assert normalise(topic, value, headers) == event
    return event


def reason(value: bytes, headers: Any = ()) -> str:
    with pytest.raises(Rejected) as rejected:
        normalise("waitpoints", value, headers)
    return str(rejected.value)


def spliced(event: dict[str, Any], **raw: str) -> bytes:
    """Returns the event as JSON, in which raw JSON replaces each string `<name>`."""
    value = json.dumps(event)
    for name, text in raw.items():
        value = value.replace(f'"<{name}>"', text)
    return value.encode()


def in_binary_mode(event: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    return [(f"ce_{name}", str(value).encode()) for name, value in event.items() if name != "data"]


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE00", r"\uDE00\uD83D", r"\ud83d\ud83d", r"x\ud83dx", r"\ud83d\\ude00",
                                  r"\ud83d\n", r"\ud83d\u0041"])
def test_half_a_surrogate_pair_becomes_the_replacement_character(half: str) -> None:
    text = json.loads(f'"{half}"').encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    event = cloud_event("waitpoint.created", title="<t>", case_id="<t>", payload={"<t>": ["<t>"]}, unknown="<t>")
    event |= {"subject": "<t>", "id": "<t>", "extension": "<t>"}
    result = accepted(spliced(event, t=f'"{half}"'))
    assert (result.data.title, result.data.case_id, result.subject, result.id) == (text,) * 4
    assert msgspec.json.decode(result.data.payload) == {text: [text]}
    data = spliced(event["data"], t=f'"{half}"')
    binary = accepted(data, headers=in_binary_mode(event | {"id": "1", "subject": "s", "extension": "e"}))
    assert (binary.data.title, msgspec.json.decode(binary.data.payload)) == (text, {text: [text]})
    packed = {**event, "id": "1", "subject": "s", "extension": "e", "data_base64": base64.b64encode(data).decode()}
    del packed["data"]
    assert accepted(json.dumps(packed).encode()).data == binary.data


def test_whole_pairs_and_escaped_backslashes_are_kept() -> None:
    event = cloud_event("waitpoint.created", title="<t>", payload={"a": "<t>", "b": "<half>"})
    result = accepted(spliced(event, t=r'"\ud83d\ude00 \\ud83d \\\ud83d\ude00 \u0041"', half=r'"\ud83d"'))
    assert result.data.title == "😀 \\ud83d \\😀 A"
    assert bytes(result.data.payload) == rb'{"a": "\ud83d\ude00 \\ud83d \\\ud83d\ude00 \u0041", "b": "\ufffd"}'


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_of_any_length_is_carried_unchanged(number: str) -> None:
    payload = f'{{"n": {number}, "deep": [{{"n": [{number}, 1]}}]}}'
    event = cloud_event("waitpoint.created", title="T", payload="<payload>", unknown="<n>")
    result = accepted(spliced(event | {"extension": "<n>"}, payload=payload, n=number))
    assert bytes(result.data.payload) == payload.encode()
    binary = accepted(spliced(event["data"], payload=payload, n=number), headers=in_binary_mode(event))
    assert bytes(binary.data.payload) == payload.encode()
    folding = Folding()
    folding.pack(result)
    shown = serializers.ankra_item(folding.item("waitpoint"))
    assert payload.encode() in shown
    assert payload.encode() in serializers.crewship_item(folding.item("waitpoint"))


@pytest.mark.parametrize("place", ["title", "blocking", "sender", "due_at", "steps"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_where_a_field_has_another_type_is_a_reason(number: str, place: str) -> None:
    event = cloud_event("waitpoint.created", **{"title": "T", place: "<n>"})
    if place == "steps":  # `steps` is a field of plans, and unknown here
        assert accepted(spliced(event, n=number))
    else:
        assert f"data.{place}: " in reason(spliced(event, n=number))


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    event = cloud_event("waitpoint.created", title="T", payload={"n": 1})
    raw = orjson.dumps(event)
    assert accepted(BOM + raw) == accepted(raw)
    data = orjson.dumps(event["data"])
    assert accepted(BOM + data, headers=in_binary_mode(event)) == accepted(raw)
    packed = {**event, "data_base64": base64.b64encode(BOM + data).decode()}
    del packed["data"]
    assert accepted(orjson.dumps(packed)) == accepted(raw)
    assert "not JSON" in reason(BOM)
    assert "not JSON" in reason(BOM + BOM + raw)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings_are_named_in_the_reason(encoding: str) -> None:
    event = cloud_event("waitpoint.created", title="T")
    assert reason(json.dumps(event).encode(encoding)) == (
        f"not JSON: the text is in {encoding[:6].upper()}; JSON must be in UTF-8")
    message = reason(json.dumps(event["data"]).encode(encoding), in_binary_mode(event))
    assert encoding[:6].upper() in message


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\xbd", b"\xc0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80"])
def test_bytes_that_are_not_utf8_are_named_in_the_reason(raw: bytes) -> None:
    event = cloud_event("waitpoint.created", title="<t>")
    value = spliced(event, t='"before <raw> after"')
    place = value.index(b"<raw>")
    message = reason(value.replace(b"<raw>", raw))
    assert message == f"not JSON: byte 0x{raw[0]:02x} at offset {place} is not UTF-8"
    assert "is not UTF-8" in reason(orjson.dumps(event["data"]).replace(b"<t>", raw), in_binary_mode(event))


def test_nul_and_other_escapes_are_text() -> None:
    read = accepted(spliced(cloud_event("waitpoint.created", title="<t>", case_id="<t>"), t=r'"a\u0000\u001f\u202eb"'))
    assert read.data.title == read.data.case_id == "a\0\x1f\u202eb"


def test_a_syntax_error_after_a_huge_number_is_reported_at_its_position() -> None:
    assert reason(b'{"a": 1e400, "b": tru}') == "not JSON: Expecting value: line 1 column 19 (char 18)"
    assert reason(b'{"a": 1e400, "b": NaN}') == "not JSON: NaN is not JSON"


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    event = cloud_event("waitpoint.created", title="T")
    rest = orjson.dumps({name: value for name, value in event.items() if name != "data"})[1:-1]
    for data in (b'5, "data": {"title": "U", "payload": {"n": 1e400}}', b'{"title": 1, "title": "U", "payload": 2, '
                 b'"payload": {"n": 1e400}}', b'[], "d\\u0061ta": {"title": "U", "p\\u0061yload": {"n": 1e400}}'):
        result = accepted(b"{%b, \"data\": %b}" % (rest, data))
        assert (result.data.title, bytes(result.data.payload)) == ("U", b'{"n": 1e400}')


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [101, 2000, 200_000])
@pytest.mark.parametrize("inner", [b"1", b"1e400", rb'"\ud83d"'])
def test_nesting_is_bounded(opening: bytes, depth: int, inner: bytes) -> None:
    closing = b"".join({b"[": b"]", b"{": b"}"}[sign] for sign in
                       (opening[i:i + 1] for i in range(len(opening))) if sign in b"[{")[::-1]
    event = cloud_event("waitpoint.created", title="T", payload={"a": "<deep>"})
    value = orjson.dumps(event).replace(b'"<deep>"', opening * depth + inner + closing * depth)
    assert reason(value) in (
        "not JSON: nested deeper than 100 levels", f"the event is {len(value)} bytes; at most {1 << 20} are accepted")


def test_each_topic_accepts_unusual_json() -> None:
    for event_type, topic in TOPIC_OF_TYPE.items():
        more = {"editor": {"type": "ai", "id": "c"}, "state": "BLOCKED"}
        event = cloud_event(event_type, title="<half>", payload="<payload>", **more)
        result = accepted(BOM + spliced(event, half=r'"\ud83d"', payload='{"n": 1e400}'), topic)
        assert (result.data.title, bytes(result.data.payload)) == ("�", b'{"n": 1e400}')
