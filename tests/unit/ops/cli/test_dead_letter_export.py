"""Lines of `attn dead-letters --export` restore the bytes of the rejected record."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.cli.data import event_files
from ops.cli.data.dead_letters import DeadLetterRecord, Filter, can_retry, export_line
from schemas.dead_letters import CAUSES, DeadLetter, ResolvedMarker, ResumeTopicMarker, parse_record

raw = st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode), st.sampled_from([
    b"{}", b'{"a":1e400}', b'{"a":\n1}', b"[1,", b"null", b'"\xff"', b" 1 ", b"NaN", b"[" * 2000,
]))


@given(key=st.none() | raw, value=raw, headers=st.lists(st.tuples(st.text(max_size=8), raw), max_size=3))
def test_an_exported_line_is_the_record(key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    letter = DeadLetter("plans", 1, 2, "why\nnot", 5, key, value, headers)
    line = msgspec.json.encode(export_line(DeadLetterRecord((0, 17), None, letter)))
    assert b"\n" not in line
    parsed = event_files.parse_line(line)
    assert (parsed.topic, parsed.bytes_of_key, parsed.bytes_of_value) == ("plans", key, value)
    assert (parsed.all_headers, parsed.resolves) == (headers, (0, 17))


@pytest.mark.parametrize("wrong", [
    b'{"topic":"plans"}', b'{"topic":"plans","value":{},"text":"x"}', b'{"topic":"plans","base64":"?"}',
    b'{"topic":"plans","value":1,"dead_letter":"x"}', b'{"topic":"plans","value":1,"headers":[["a"]]}',
])
def test_lines_that_are_no_records(wrong: bytes) -> None:
    with pytest.raises(ValueError):
        event_files.parse_line(wrong)


@given(headers=st.lists(st.tuples(st.sampled_from(["attn-settled", "attn-go-on", "attn-reason", "x"]), raw)))
def test_headers_of_a_producer_do_not_change_the_fields_of_attn(headers: list[tuple[str, bytes]]) -> None:
    letter = DeadLetter("plans", 1, 2, "why", 5, b"k", b"v", headers, cause="json")
    parsed = parse_record(b"k", b"v", letter.record_headers())
    assert isinstance(parsed, DeadLetter)
    assert (parsed.topic, parsed.reason, parsed.cause) == ("plans", "why", "json")


def test_operator_markers_are_read_as_written() -> None:
    for word in (ResolvedMarker((1, 5, 7)), ResumeTopicMarker("plans")):
        assert parse_record(None, None, word.record_headers()) == word
    assert parse_record(b"k", b"v", [("attn-settled", b"x")]) is None
    assert parse_record(b"k", b"v", []) is None


def test_dead_letters_without_a_cause_have_the_cause_other() -> None:
    old = DeadLetter("plans", 1, 2, "why", 5, b"k", b"v")
    headers = [(name, value) for name, value in old.record_headers() if name != "attn-cause"]
    assert DeadLetter.from_record(b"k", b"v", headers).cause == "other"
    assert "other" in CAUSES


def test_a_filter_selects_dead_letters_by_topic_reason_and_time() -> None:
    letter = DeadLetter("plans", 1, 2, "data.title: Field required", 5_000_000, cause="fields")
    assert all(chosen.takes(letter) for chosen in (
        Filter(), Filter("plans"), Filter(reason="fields"), Filter(reason="TITLE"), Filter(since=5_000_000)))
    assert not any(chosen.takes(letter) for chosen in (
        Filter("drafts"), Filter(reason="json"), Filter(since=5_000_001), Filter("drafts", "fields")))
    assert Filter().takes(None)
    assert not Filter("plans").takes(None)


def test_only_complete_dead_letters_of_read_topics_can_be_retried() -> None:
    assert can_retry(DeadLetter("plans", 0, 0, "", 0, value=b"x", size=1))
    assert can_retry(DeadLetter("attn.log", 0, 0, "", 0, value=b"x", size=1))
    assert not can_retry(DeadLetter("plans", 0, 0, "", 0, value=b"x", size=2))
    assert not can_retry(DeadLetter("attn.facts", 0, 0, "", 0, value=b"x", size=1))
    assert not can_retry(None)


