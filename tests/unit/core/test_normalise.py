"""Accepted records, and the reasons of rejected ones (CONTRACT §2)."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fold.fold_driver import cloud_event

from schemas.log import Pack, decode_pack, encode_pack
from schemas.scalars import LATEST, format_timestamp, parse_timestamp
from schemas.topics import LOG, SOURCE_TYPES, TOPIC_OF_TYPE, TOPICS, partition_of
from streams.core.normalise import EventLimits, Rejected, normalise


def created(**data: Any) -> dict[str, Any]:
    return cloud_event("waitpoint.created", **{"title": "T", **data})


def reason(value: bytes | dict[str, Any] | None, topic: str = "waitpoints", **limits: int) -> str:
    raw = orjson.dumps(value) if isinstance(value, dict) else value
    with pytest.raises(Rejected) as rejected:
        normalise(topic, raw, (), EventLimits(**limits))
    return str(rejected.value)


@pytest.mark.parametrize(("change", "says"), [
    ({"time": "2026-05-20T08:14:22"}, "time:"),
    ({"time": "2026-02-30T08:14:22Z"}, "not a date that exists"),
    ({"time": 5}, "time:"),
    ({"time": "1200-01-01T00:00:00Z"}, "between 1970 and 2200"),
    ({"specversion": "0.3"}, "specversion"),
    ({"id": ""}, "id:"),
    ({"id": "   "}, "id:"),
    ({"subject": None}, "subject:"),
    ({"workspaceid": 7}, "workspaceid:"),
    ({"type": "waitpoint.exploded"}, "not one attn knows"),
    ({"type": "run.failed"}, "belongs on topic run-failures"),
    ({"type": 3}, "type:"),
    ({"data": [1]}, "data:"),
    ({"data": {}}, "data.title: Field required"),
    ({"data": {"title": "  "}}, "data.title:"),
    ({"data": {"title": "T", "blocking": "yes"}}, "data.blocking:"),
    ({"data": {"title": "T", "priority": "huge"}}, "data.priority:"),
    ({"data": {"title": "T", "target_role": "BOSS"}}, "data.target_role:"),
    ({"data": {"title": "T", "payload": []}}, "data.payload:"),
    ({"data": {"title": "T", "action_url": 7}}, "data.action_url:"),
    ({"data": {"title": "T", "due_at": "tomorrow"}}, "data.due_at:"),
    ({"data": {"title": 5, "sender": "me"}}, "data.sender:"),
])
def test_an_invalid_event_is_rejected_with_the_path_of_its_field(change: dict[str, Any], says: str) -> None:
    assert says in reason({**created(), **change})


@pytest.mark.parametrize("value", [None, b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b'"text"', b"{}", b"[" * 5000])
def test_a_value_that_is_no_event_is_rejected(value: bytes | None) -> None:
    assert reason(value)


def test_limits() -> None:
    assert "513 characters" in reason(created(title="x" * 513))
    assert normalise("waitpoints", orjson.dumps(created(title="é" * 512))).data.title
    assert "65537 bytes" in reason(created(body_md="é" * 32768 + "x"))
    assert "data.payload:" in reason(created(payload={"a": "x" * 70_000}))
    assert "at most 2000" in reason(created(body_md="x" * 3000), event=2000)


def test_an_opening_needs_a_title_only_where_it_opens() -> None:
    ai = {"type": "ai", "id": "c"}
    assert "data.title" in reason(cloud_event("draft.edited", editor=ai), "drafts")
    assert "data.title" in reason(cloud_event("case.state_changed", state="BLOCKED"), "cases")
    person = {"type": "user", "id": "ann"}
    for event in (cloud_event("draft.edited", editor=person), cloud_event("case.state_changed", state="OPEN")):
        assert normalise(TOPIC_OF_TYPE[event["type"]], orjson.dumps(event))


def test_a_close_needs_no_data_and_unknown_fields_are_kept_out() -> None:
    event = cloud_event("waitpoint.approved")
    for data in ({}, {"data": None}, {"data": {"nobody": ["knows"]}}):
        given = {name: value for name, value in event.items() if name != "data"} | data | {"traceparent": "00-x"}
        assert normalise("waitpoints", orjson.dumps(given)).type == "waitpoint.approved"


def test_binary_mode() -> None:
    event = created(payload={"n": 1})
    headers = [(f"ce_{name}", str(value).encode()) for name, value in event.items() if name != "data"]
    raw = orjson.dumps(event["data"])
    assert normalise("waitpoints", raw, headers) == normalise("waitpoints", orjson.dumps(event))
    with pytest.raises(Rejected, match="not UTF-8"):
        normalise("waitpoints", raw, [*headers, ("ce_id", b"\xff")])


def test_binary_mode_without_a_value_is_an_event_without_data() -> None:
    def headers(event: dict[str, Any]) -> list[tuple[str, bytes | None]]:
        return [(f"ce_{name}", value.encode()) for name, value in event.items() if name != "data"]

    close = cloud_event("waitpoint.approved")
    for value in (None, b"", b"null"):
        assert normalise("waitpoints", value, headers(close)) == normalise("waitpoints", orjson.dumps(close))
        with pytest.raises(Rejected, match="data: Field required"):
            normalise("waitpoints", value, headers(created()))


def test_data_in_base64_is_data() -> None:
    event = created(payload={"n": 1})
    raw = orjson.dumps(event.pop("data")).replace(b'{"n":1}', b'{ "n": 123456789012345678901234567890 }')
    result = normalise("waitpoints", orjson.dumps({**event, "data_base64": base64.b64encode(raw).decode()}))
    assert (result.data.title, bytes(result.data.payload)) == ("T", b'{ "n": 123456789012345678901234567890 }')
    assert reason({**event, "data_base64": "not base64"}).startswith("data_base64: ")
    assert reason({**event, "data_base64": 7}).startswith("data_base64: ")
    for data in (b"{", b"[" * 200 + b"]" * 200):
        assert reason({**event, "data_base64": base64.b64encode(data).decode()}).startswith("data_base64: ")
    assert "data.title" in reason({**event, "data_base64": base64.b64encode(b"{}").decode()})


def test_empty_text_counts_as_absent_except_in_targets() -> None:
    names = ("cluster", "case_id", "session_id", "action_url", "due_at", "expires_at", "by_user_id", "priority")
    given = normalise("waitpoints", orjson.dumps(created(**dict.fromkeys(names, ""))))
    assert [getattr(given.data, name) for name in names] == [None] * len(names)
    resolved = normalise("escalations", orjson.dumps(cloud_event("escalation.resolved", action="")))
    assert resolved.data.action is None
    update = cloud_event("escalation.updated", cluster="", due_at="", stack="s")
    updated = normalise("escalations", orjson.dumps(update))
    assert updated.cleared == ("cluster", "due_at")
    for name in ("target_user_id", "target_role"):
        assert f"data.{name}" in reason(created(**{name: ""}))


@pytest.mark.parametrize(("text", "kept"), [
    ("9999-12-31T23:59:59Z", "2199-12-31T23:59:59.999999Z"),
    ("9999-12-31T23:59:60-14:00", "2199-12-31T23:59:59.999999Z"),
    ("0001-01-01T00:00:00Z", None), ("0001-01-01T00:00:00+14:00", None), ("0001-01-01T00:00:00-23:59", None),
    ("0001-01-01t00:00:00.000000000z", None), ("0000-02-29T00:00:00Z", None), ("0000-01-01T00:00:00+23:59", None),
    ("1969-12-31T23:59:59." + "9" * 400 + "Z", None), ("1970-01-01T00:00:00+00:01", None),
    ("1969-12-31T23:59:60Z", "1970-01-01T00:00:00Z"), ("1970-01-01T00:00:00-00:00", "1970-01-01T00:00:00Z"),
    ("2016-12-31t23:59:60.5z", "2017-01-01T00:00:00.500000Z"), ("2026-05-20 08:14:22Z", "2026-05-20T08:14:22Z"),
])
def test_a_due_time_before_1970_is_dropped_and_one_from_2200_is_capped(text: str, kept: str | None) -> None:
    """A due time before 1970 counts as absent (CONTRACT §10); one from 2200 on becomes the last valid moment."""
    expected = None if kept is None else parse_timestamp(kept)
    event = created(due_at=text, expires_at=text)
    headers = [(f"ce_{name}", str(value).encode()) for name, value in event.items() if name != "data"]
    proof = cloud_event("proof.attached", due_at=text, expires_at=text)
    for result in (
        normalise("waitpoints", orjson.dumps(event)), normalise("waitpoints", orjson.dumps(event["data"]), headers),
        normalise("cases", orjson.dumps(proof)),
    ):
        assert (result.data.due_at, result.data.expires_at) == (expected, expected)
    if expected is None or expected == LATEST - 1:
        assert "time: Value error, must lie between 1970 and 2200" in reason({**created(), "time": text})


@pytest.mark.parametrize("text", [
    "0000-02-30T00:00:00Z", "0001-02-29T00:00:00Z", "0001-01-01T00:00:00", "0001-01-01", "-0001-01-01T00:00:00Z",
    "1969-12-31T24:00:00Z", "1969-12-31T23:59:61Z", "1969-12-31T23:59:59.Z", "1969-12-31T23:59:59,5Z", "0",
    "1969-12-31T23:59:59+24:00", "\u0661969-12-31T23:59:59Z",
])
def test_invalid_times_are_a_reason_before_1970_too(text: str) -> None:
    assert "data.due_at:" in reason(created(due_at=text))
    assert "time:" in reason({**created(), "time": text})


def test_an_update_without_a_time_keeps_the_one_that_is_shown() -> None:
    update = cloud_event("escalation.updated", due_at="0001-01-01T00:00:00Z", expires_at=None)
    assert normalise("escalations", orjson.dumps(update)).cleared == ("expires_at",)


LINKS = ("/", "/a//b?c#d", "/ä", "http://h", "HTTPS://h.example:8443/x", "http://[::1]:65535/", "https://ä.example/")
NO_LINKS = (
    "javascript:alert(1)", "//host/x", "/\\host", "/\thost", "/a\nb", "/a b", " /a", "/a\x00", "/a\x7f", "/a\x85",
    "/a\u202eb",
    "/a\u2066", "/a\u200b", "/a\ufeff", "/a\u3000", "https://user@host/", "https://u:p@host/", "https://@host", "http://",
    "http:///host", "http://?a", "http://#a", "http://:80/", "http:host", "http:/host", "http:\\\\host",
    "ftp://h", "data:,a",
    "http://h:0/", "http://h:65536/", "http://h:x/", "http://[::1/", "http://h\uff0fx/", "mailto:a@b",
    "a/b", "?a", "#a",
    "/" + "a" * 2048,
)


@pytest.mark.parametrize("url", [*LINKS, *NO_LINKS])
def test_a_link_that_can_not_be_followed_is_left_out_and_its_event_is_kept(url: str) -> None:
    dropped: list[str] = []
    value = orjson.dumps(created(action_url=url))
    event = normalise("waitpoints", value, (), EventLimits(), lambda: dropped.append(url))
    assert event.data.action_url == (url if url in LINKS else None)
    assert dropped == ([] if url in LINKS else [url])
    assert event.data.title == "T"


def test_the_payload_is_carried_unchanged() -> None:
    payload = b'{ "n": 123456789012345678901234567890 }'
    event = normalise("waitpoints", orjson.dumps(created(payload={"n": 1})).replace(b'{"n":1}', payload))
    assert bytes(event.data.payload) == payload
    assert decode_pack(encode_pack(Pack(1, [event]))) == Pack(1, [event])


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_reason(value: bytes) -> None:
    for topic in SOURCE_TYPES:
        with pytest.raises(Rejected):
            normalise(topic, value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8),
    st.sampled_from(sorted(created())) | st.sampled_from(["data.title", "data.sender", "data.payload", "data.due_at"]))
def test_any_json_in_any_place_is_an_event_or_a_reason(value: Any, place: str) -> None:
    event = created()
    name, _, inner = place.partition(".")
    event[name] = {**event["data"], inner: value} if inner else value
    try:
        raw = orjson.dumps(event)
    except (TypeError, orjson.JSONEncodeError):
        return
    try:
        pack = Pack(1, [normalise("waitpoints", raw)])
    except Rejected:
        return
    assert decode_pack(encode_pack(pack)) == pack


@given(st.integers(0, 7_258_118_399_999_999))
def test_times_survive(microseconds: int) -> None:
    assert parse_timestamp(format_timestamp(microseconds)) == microseconds


@pytest.mark.parametrize(("text", "same"), [
    ("2026-05-20T10:14:22+02:00", "2026-05-20T08:14:22Z"), ("2026-05-20t08:14:22.5z", "2026-05-20T08:14:22.500000Z"),
    ("2026-05-20T08:14:22.1234567890123Z", "2026-05-20T08:14:22.123456Z"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
])
def test_rfc3339(text: str, same: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == same


def test_topic_table() -> None:
    assert len({topic.name for topic in TOPICS}) == len(TOPICS) == 14
    assert len(TOPIC_OF_TYPE) == sum(map(len, SOURCE_TYPES.values())) == 36
    assert next(topic for topic in TOPICS if topic.name == LOG).cleanup == "delete"
    assert {partition_of(f"ws{n}", 8) for n in range(200)} == set(range(8))
