"""Pure parts of attn_client: the fold against the vectors, frames in chunks, exact JSON, the clock, handles."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attn_client import EMPTY, Action, Frame, Inbox, Option, Question, apply
from attn_client.adapters.tool_calls import form_for
from attn_client.clock import ServerClock, parse_time
from attn_client.exact import canonical, dumps, loads
from attn_client.feed import FrameParser
from attn_client.http import pause, retry_after
from attn_client.questions import ask_event, handle_of

ROOT = Path(__file__).parents[3]
VECTORS = sorted((ROOT / "tests" / "data" / "feed-vectors").glob("*.json"))
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


def content(inbox: Inbox) -> dict[str, Any]:
    shown = {name: value for name, value in vars(inbox).items() if name != "cursor"}
    return dict(json.loads(dumps(shown)))  # the vectors have rounded numbers


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_fold_equals_the_server(path: Path, size: int) -> None:
    vector, inbox, parser = json.loads(path.read_text()), EMPTY, FrameParser()
    for step in vector["steps"]:
        raw = step["stream"].encode()
        for at in range(0, len(raw), size):
            for frame in parser.feed(raw[at : at + size]):
                before, copy = inbox, content(inbox)
                inbox = apply(inbox, frame)
                assert content(before) == copy, "`apply` does not change its argument"
                if frame.event != "snapshot":
                    assert apply(inbox, frame) is inbox, "a repeat changes nothing"
        wanted = {name: value for name, value in step["inbox"].items() if name != "cursor"}
        assert content(inbox) == wanted
        assert inbox.cursor is not None
        assert int(inbox.cursor) <= step["inbox"]["cursor"]
        assert len(inbox.items) <= vector["limit"]


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 5


def test_ranks_are_compared_by_code_unit() -> None:
    """U+FF5E is after U+1F600 by code unit (its first unit is D83D), and before it by code point."""
    items = [{"rank": "\uff5e", "id": "a"}, {"rank": "\U0001f600", "id": "b"}]
    snapshot = Frame("snapshot", {"items": items, "counts": {}, "activity": None, "drafts": [], "preferences": {}}, "1")
    assert [item["id"] for item in apply(EMPTY, snapshot).items] == ["b", "a"]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.decimals(allow_nan=False, allow_infinity=False)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_json_keeps_each_digit(value: Any) -> None:
    def parse_exactly(text: str | bytes) -> Any:
        return json.loads(text, parse_float=Decimal)

    text = dumps(value)
    assert parse_exactly(dumps(loads(text))) == parse_exactly(text) == parse_exactly(canonical(value))


def test_numbers_that_a_float_cannot_hold() -> None:
    value = loads('[0.1, 0.12345678901234567890, 1e400, 9007199254740993, 1.0]')
    assert value == [0.1, Decimal("0.12345678901234567890"), Decimal("1e400"), 9007199254740993, 1.0]
    assert [type(number) for number in value] == [float, Decimal, Decimal, int, float]
    for wrong in (float("nan"), Decimal("inf")):
        with pytest.raises((TypeError, ValueError)):
            dumps(wrong)
    with pytest.raises(TypeError, match="not JSON"):
        dumps({"x": object()})


def test_the_estimate_is_never_ahead_of_the_server() -> None:
    ticks = [100.0]
    clock = ServerClock(lambda: ticks[0])
    assert not clock.known
    clock.observe("Wed, 20 May 2026 12:00:00 GMT")  # the server's time is 12:00:00.9
    assert clock.estimate() == NOON
    ticks[0] += 0.2
    clock.observe("Wed, 20 May 2026 12:00:01 GMT")  # 12:00:01.1: a better bound
    assert clock.estimate() == NOON + timedelta(seconds=1)
    ticks[0] += 0.8
    clock.observe("Wed, 20 May 2026 12:00:01 GMT")  # 12:00:01.9: a worse bound
    assert abs(clock.estimate() - NOON - timedelta(seconds=1.8)) < timedelta(milliseconds=1)
    clock.observe("nonsense")
    clock.observe(None)
    first, second = clock.now(), clock.now()
    assert second > first
    assert clock.now(NOON + timedelta(days=1)) > NOON + timedelta(days=1)
    clock.observe("Wed, 20 May 2026 11:00:00 GMT")  # the server's clock was set back
    assert clock.estimate() == NOON - timedelta(hours=1)


@pytest.mark.parametrize(("text", "seconds"), [
    ("3", 3), (" 120 ", 120), ("Wed, 20 May 2026 12:00:30 GMT", 30), ("Wed, 20 May 2026 11:00:00 GMT", 0),
    ("-5", None), ("1.5", None), ("soon", None), ("", None), (None, None)])
def test_retry_after(text: str | None, seconds: float | None) -> None:
    clock = ServerClock(lambda: 0.0)
    clock.observe("Wed, 20 May 2026 12:00:00 GMT")
    assert retry_after(text, clock) == seconds


def test_pauses_grow_and_are_bounded() -> None:
    assert 0.2 <= pause(1) < 0.3
    assert 20 <= pause(50) <= 26
    assert 5 <= pause(1, 5) < 6.6
    assert pause(1, 1e9) <= 390


def test_equal_content_has_one_handle_and_other_content_another() -> None:
    question = Question("T", data={"a": 1, "b": 2}, action=Action("x", {"m": 1, "n": 2}))
    same = Question("T", data={"b": 2, "a": 1}, action=Action("x", {"n": 2, "m": 1}))
    assert handle_of(question, "/s", None) == handle_of(same, "/s", None)
    changes: list[dict[str, Any]] = [
        {"title": "U"}, {"body": "x"}, {"options": ["approve"]}, {"options": [Option("approve", "approve")]},
        {"form": {"type": "object"}}, {"action": None}, {"subject": "s"}, {"kind": "plan_approval"},
        {"priority": "high"}, {"to_user": "u"}, {"to_role": "ADMIN"}, {"deciders": {"users": ["u"]}}, {"quorum": 2},
        {"expires": timedelta(1)}, {"on_expiry": "x"}, {"batch": "b"}, {"confirm": False}, {"data": {}}]
    assert {name for change in changes for name in change} == {field.name for field in dataclasses.fields(Question)}
    handles = [handle_of(dataclasses.replace(question, **change), "/s", None) for change in changes]
    handles += [handle_of(question, "/t", None), handle_of(question, "/s", "run"), handle_of(question, "/s", None)]
    assert len(set(handles)) == len(handles)
    event = ask_event(dataclasses.replace(question, expires=timedelta(hours=1)), "/s", "sub", "q_1", NOON, "dec_1")
    assert event["id"] == event["data"]["ask"]["id"] != "q_1"
    assert parse_time(event["data"]["ask"]["expires_at"]) == NOON + timedelta(hours=1)
    assert event["time"] == "2026-05-20T12:00:00Z"


@pytest.mark.parametrize("text", [
    "2026-05-20T12:00:00Z", "2026-05-20T12:00:00.5Z", "2026-05-20T14:00:00.123456789+02:00", "2026-05-20t12:00:00z"])
def test_times_of_any_precision(text: str) -> None:
    assert abs(parse_time(text) - NOON) < timedelta(seconds=1)
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text[:-1] if text[-1] in "zZ" else text[:-6])


@pytest.mark.parametrize("schema", [
    {"type": "object", "properties": {"a": {"type": "object"}}}, {"type": "object"}, {"anyOf": []},
    {"type": ["string"]}, {"type": "string", "pattern": "x"}, {"type": "array", "items": {"type": "string"}},
    {"type": "string", "enum": [1]}])
def test_a_schema_that_a_form_cannot_show_is_answered_in_json(schema: Any) -> None:
    assert list(form_for(schema)["properties"]) == ["json"]


def test_the_copies_equal_the_modules_of_the_page() -> None:
    script = (ROOT / "clients" / "typescript" / "copy.mjs").read_text()
    names = re.findall(r'"([\w.]+)"', script.partition("MODULES = [")[2].partition("]")[0])
    folder = ROOT / "clients" / "typescript" / "src" / "page"
    copies = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = ROOT / "api" / "static" / "attn"
    assert copies == {name: (page / name).read_bytes() for name in names}, "run `node copy.mjs` in clients/typescript"
