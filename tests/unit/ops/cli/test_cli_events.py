"""Lines of events: validation by line number, times shifted together, unchanged bytes."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from support.processes.cli import attn_here

from ops.cli.data import event_files
from ops.errors import UserError
from schemas.scalars import parse_timestamp
from streams.core.normalise import EventLimits

ROOT = Path(__file__).parents[4]
GOOD = {
    "specversion": "1.0", "id": "e1", "source": "/s", "type": "waitpoint.created", "subject": "wp1",
    "time": "2026-05-20T08:14:22Z", "workspaceid": "ws_01", "data": {"title": "Go?"},
}


def line(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def test_retime_shifts_every_time_by_the_same() -> None:
    event = {**GOOD, "time": "2020-01-01T00:00:00.25+02:00",
             "data": {"title": "x", "due_at": "2020-01-01T00:00:00Z", "expires_at": "2020-01-02T00:00:00Z"}}
    shifted = json.loads(event_files.retime(json.dumps(event).encode(), 3_600_000_000))
    assert shifted["time"] == "2019-12-31T23:00:00.250000Z"
    assert shifted["data"]["due_at"] == "2020-01-01T01:00:00Z"
    assert shifted["data"]["expires_at"] == "2020-01-02T01:00:00Z"
    assert {name: shifted[name] for name in GOOD if name not in ("time", "data")} == {
        name: GOOD[name] for name in GOOD if name not in ("time", "data")}


def test_retime_keeps_all_other_bytes() -> None:
    payload = '{"n": 123456789012345678901234567890, "f": 1.10, "due_at": "2020-01-01T00:00:00Z"}'
    event = f'{{"time":"2020-01-01T00:00:00Z","data":{{"payload":{payload},"due_at":null,"expires_at":5}}}}'
    shifted = event_files.retime(event.encode(), 1_000_000)
    assert payload.encode() in shifted
    assert b'"due_at":null' in shifted
    assert b'"expires_at":5' in shifted
    assert b'"time":"2020-01-01T00:00:01Z"' in shifted


@pytest.mark.parametrize("event", [
    b"5", b'"text"', b"[1]", b"null", b'{"time":"soon"}', b'{"time":5,"data":[]}', b"{}",
])
def test_retime_keeps_unreadable_events_unchanged(event: bytes) -> None:
    assert json.loads(event_files.retime(event, 1)) == json.loads(event)
    assert event_files.time_of(event) is None


def test_time_of() -> None:
    assert event_files.time_of(json.dumps(GOOD).encode()) == parse_timestamp("2026-05-20T08:14:22Z")


def test_lines_keep_their_numbers_over_blank_ones() -> None:
    assert list(event_files.iter_lines([b"\n", b" a \n", b"\r\n", b"b"])) == [(2, b"a"), (4, b"b")]


def test_check_event_gives_the_reason_of_a_reject() -> None:
    assert event_files.check_event("waitpoints", line().encode(), EventLimits()) is None
    reason = event_files.check_event("waitpoints", line(data={}).encode(), EventLimits())
    assert reason is not None
    assert "title" in reason
    assert "belongs on topic waitpoints" in (event_files.check_event("plans", line().encode(), EventLimits()) or "")
    assert "not JSON" in (event_files.check_event("plans", b"{", EventLimits()) or "")


def test_asks_and_reports_are_checked_as_the_worker_does() -> None:
    ask = {"reply": {"token": "t"}, "expires_at": "2026-05-20T08:50:00Z"}
    for topic in ("waitpoints", "plans"):
        report = line(type="decision.refused", data={"error": "gone"}).encode()
        assert event_files.check_event(topic, report, EventLimits()) is None
    raw = line(data={"title": "T", "ask": ask}).encode()
    assert event_files.check_event("waitpoints", raw, EventLimits()) is None, "the check does not need the worker's key"
    bad = line(data={"title": "T", "ask": {"options": [{"id": "a"}]}}).encode()
    assert event_files.check_event("waitpoints", bad, EventLimits()) == "data.ask.options.0.does: Field required"
    shifted = json.loads(event_files.retime(raw, 60_000_000))["data"]["ask"]
    assert shifted == {**ask, "expires_at": "2026-05-20T08:51:00Z"}
    for other in ([], None, "x", {"expires_at": 7}):
        kept = json.loads(event_files.retime(line(data={"title": "T", "ask": other}).encode(), 60_000_000))
        assert kept["data"]["ask"] == other


def test_the_key_is_the_workspace() -> None:
    assert event_files.workspace_of(line().encode()) == b"ws_01"
    assert event_files.workspace_of(b"[]") is None
    assert event_files.workspace_of(b"{") is None
    assert event_files.workspace_of(b'{"workspaceid": 5}') is None


def test_replay_lines() -> None:
    parsed = event_files.parse_line(b'{"topic":"plans","value":{"a":1e400}}')
    assert (parsed.topic, parsed.key, bytes(parsed.value)) == ("plans", None, b'{"a":1e400}')
    for wrong in (b"{", b'{"topic":"plans"}', b'{"value":{}}', b'{"topic":"attn.log","value":{}}', b"[]",
                  b'{"topic":"plans","value":{},"key":5}'):
        with pytest.raises(ValueError):
            event_files.parse_line(wrong)


def test_files_are_read_twice_packed_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n2\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"1\n2\n"))
    for name in ("a.jsonl", "a.jsonl.gz"):
        with event_files.open_input(str(tmp_path / name)) as file:
            assert file.read() == b"1\n2\n"
            file.seek(0)
            assert list(file) == [b"1\n", b"2\n"]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.gz").write_bytes(b"not gzip")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"x" * 1000)[:-10])
    for name in ("none.jsonl", "none.gz", "bad.gz", "cut.gz", "."):
        with pytest.raises(UserError, match=str(tmp_path)), event_files.open_input(str(tmp_path / name)) as file:
            file.read()


def test_emit_reports_invalid_lines_by_number_and_sends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text("\n".join([line(), "", line(time="yesterday"), "{oops", line(type="plan.proposed")]))
    assert attn_here("emit", "waitpoints", str(file)) == 1  # the test blocks the network: a send would raise
    err = capsys.readouterr().err
    assert "line 3: time:" in err
    assert "line 4: not JSON" in err
    assert "line 5: type: plan.proposed belongs on topic plans" in err
    assert not err.startswith("line 1")
    assert "3 bad lines; nothing was sent" in err


@pytest.mark.parametrize("name", ["waitpoint.created", "plan.proposed"])
def test_a_single_event_may_span_many_lines(name: str) -> None:
    """Files in examples/ have this format, so new users send them first."""
    text = (ROOT / "schemas" / "examples" / f"{name}.json").read_bytes()
    [(number, event)] = event_files.iter_events(io.BytesIO(b"\n" + text))
    assert number == 2
    assert b"\n" not in event
    assert json.loads(event) == json.loads(text)


def test_an_event_over_many_lines_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "e.json"
    file.write_text(json.dumps({**GOOD, "time": "yesterday"}, indent=2))
    assert attn_here("emit", "waitpoints", str(file)) == 1
    assert capsys.readouterr().err.startswith("line 1: time:")


def test_two_events_over_many_lines_are_lines() -> None:
    two = json.dumps(GOOD, indent=2).encode() * 2
    assert list(event_files.iter_events(io.BytesIO(two))) == list(event_files.iter_lines(io.BytesIO(two)))
    assert list(event_files.iter_events(io.BytesIO(b""))) == []


def test_emit_and_replay_report_wrong_topics_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attn_here("emit", "attn.log", "x") == 2
    assert "'attn.log' is not a source topic; source topics are waitpoints" in capsys.readouterr().err
    assert attn_here("emit", "plans", str(tmp_path / "none")) == 1
    assert "none: No such file" in capsys.readouterr().err
    (tmp_path / "r").write_text('{"topic":"plans","value":{}}\nwhat\n{"topic":"x","value":{}}')
    assert attn_here("replay", str(tmp_path / "r")) == 1
    err = capsys.readouterr().err
    assert "line 2: " in err
    assert "line 3: topic 'x' is not a source topic" in err
    assert "Traceback" not in err


HALF = line(source="<half>", data={"title": "<half>", "payload": {"n": 0}}).replace('"<half>"', r'"a\ud83d"')


@pytest.mark.parametrize("event", [
    HALF.replace('"n": 0', '"n": 1e400'), "\ufeff" + HALF, line(extension="<n>").replace('"<n>"', "7" * 5000),
])
def test_an_accepted_event_has_a_key_and_can_be_retimed(event: str) -> None:
    raw = event.encode()
    assert event_files.check_event("waitpoints", raw, EventLimits()) is None
    assert event_files.workspace_of(raw) == b"ws_01"
    assert event_files.time_of(raw) == parse_timestamp("2026-05-20T08:14:22Z")
    shifted = event_files.retime(raw, 1_000_000)
    assert b"2026-05-20T08:14:23Z" in shifted
    assert (b"1e400" in shifted, b"7" * 5000 in shifted) == (b"1e400" in raw, b"7" * 5000 in raw)


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    event = {**GOOD, "data": {"title": "T", "payload": {}}}
    for text in (json.dumps(event) + "\n" + line(id="e2"), json.dumps(event, indent=2), HALF):
        events = list(event_files.iter_events(io.BytesIO(("\ufeff" + text).encode())))
        assert [event_files.check_event("waitpoints", raw, EventLimits()) for _, raw in events] == [None] * len(events)
        assert len(events) == (2 if "e2" in text else 1)
    pretty = json.dumps({**GOOD, "data": {"title": "<half>", "payload": {"n": "<n>"}}}, indent=2)
    text = pretty.replace('"<half>"', r'"\udc00"').replace('"<n>"', "1e400")
    [(_, raw)] = event_files.iter_events(io.BytesIO(text.encode()))
    assert event_files.check_event("waitpoints", raw, EventLimits()) is None
    assert b"1e400" in raw


def test_a_line_of_a_recording_may_hold_half_a_surrogate_pair() -> None:
    recorded = '{{"topic": "waitpoints", "key": "<half>", "value": {}}}'.format(HALF.replace('"n": 0', '"n": 1e400'))
    parsed = event_files.parse_line(("\ufeff" + recorded.replace('"<half>"', r'"\ud83d"')).encode())
    assert parsed.bytes_of_key == "\ufffd".encode()
    assert event_files.check_event("waitpoints", parsed.bytes_of_value, EventLimits()) is None
    assert b"1e400" in parsed.bytes_of_value
