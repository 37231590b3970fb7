"""Parts of the history: columns, facts from records, bisection of refused rows."""

from __future__ import annotations

import fcntl
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.facts import FACT_VERSION, Fact, Outcome, decode_fact, decode_facts, encode_fact
from schemas.settings import Settings
from schemas.versions import UnsupportedVersion
from streams.history.clickhouse.client import ClickHouseUnavailable, RowsRefused, connect, directory
from streams.history.clickhouse.columns import COLUMNS, columns, digest
from streams.history.writer import PendingBatch, Writer, facts_of


class Record(msgspec.Struct):
    offset: int
    value: bytes | None
    partition: int = 0
    timestamp: int = 0
    topic: str = "attn.facts"
    key: bytes | None = b"w"
    headers: tuple[tuple[str, bytes], ...] = ()


def fact(number: int, **fields: Any) -> Fact:
    return Fact(ws="w", pos=number, index=0, event_id=f"/s e{number}", time=number, type="run.failed", subject="r",
                **fields)


def facts(count: int) -> list[Record]:
    return [Record(number, encode_fact(fact(number))) for number in range(count)]


# --- columns ---


def test_every_field_of_a_fact_has_its_column() -> None:
    full = Fact(
        ws="w", pos=7, index=3, event_id="/s e", time=11, at=12, type="plan.approved", subject="p", item="ibx_1",
        kind="plan_approval", priority="high", title="T", cluster="c", stack="s", case_id="case", state="OPEN",
        session_id="se", task_id="ta", proof_id="pr", actor="ann", resolved_action="approved", seconds_open=1.5,
        target_user_id="bob", target_role="OWNER", stale=True, opened=True, decision="dec_1", option="yes",
        does="approve", reason="no quota", role="ADMIN", viewed=2.5, seconds_to_decide=9.0, seconds_to_apply=3.0,
    )
    row = dict(zip(COLUMNS, next(zip(*columns([full], [5]), strict=True)), strict=True))
    assert row == {
        "workspace_id": "w", "occurred_at": 11, "accepted_at": 12, "event_id": "/s e", "type": "plan.approved",
        "subject": "p", "item_id": "ibx_1", "kind": "plan_approval", "priority": "high", "title": "T", "cluster": "c",
        "stack": "s", "case_id": "case", "case_state": "OPEN", "session_id": "se", "task_id": "ta", "proof_id": "pr",
        "actor": "ann", "resolved_action": "approved", "seconds_open": 1.5, "target_user_id": "bob",
        "target_role": "OWNER", "is_stale": True, "opened": True, "log_partition": 5, "position": 7, "fact_index": 3,
        "decision_id": "dec_1", "option": "yes", "does": "approve", "reason": "no quota", "role": "ADMIN",
        "viewed": 2.5, "seconds_to_decide": 9.0, "seconds_to_apply": 3.0,
    }
    unused = {"derived", "v"}  # derived facts are not inserted
    assert len(row) == len(msgspec.structs.fields(Fact)) - len(unused) + 1


def test_absent_fields_of_a_fact_are_empty_strings_and_absent_numbers_are_null() -> None:
    row = dict(zip(COLUMNS, next(zip(*columns([fact(1)], [0]), strict=True)), strict=True))
    assert all(row[name] is None for name in ("seconds_open", "viewed", "seconds_to_decide", "seconds_to_apply"))
    assert all(row[name] == "" for name in (
        "item_id", "kind", "title", "actor", "target_role", "case_state", "decision_id", "option", "does", "reason",
        "role"))


def test_the_digest_takes_any_text() -> None:
    assert digest("wä", "x") == zlib.crc32("wä\nx".encode())
    assert digest("w", "\ud800") != digest("w", "\ud801")


# --- reading records ---


def test_decoding_many_facts_equals_decoding_each() -> None:
    raws = [encode_fact(fact(number, title=f"T{number}")) for number in range(20)]
    raws.insert(7, msgspec.json.encode(Outcome(
        ws="w", pos=1, index=0, command="c", edge="e", user="u", status=200, body=msgspec.Raw(b"{}"))))
    assert decode_facts(raws) == [decode_fact(raw) for raw in raws]
    assert decode_facts([]) == []
    with pytest.raises(msgspec.DecodeError):
        decode_facts([*raws, b"{"])
    with pytest.raises(UnsupportedVersion):
        decode_facts([*raws, encode_fact(fact(1, v=FACT_VERSION + 1))])
    with pytest.raises(UnsupportedVersion):  # a version that this attn does not support
        decode_facts([*raws, b'{"t": "fact", "v": 99}'])


def test_facts_keep_their_records_and_only_unreadable_records_are_dead_letters() -> None:
    records = facts(9)
    records[2].value = encode_fact(fact(2, derived=True))
    records[4].value = b"no fact"
    records[5].value = None
    for bad in (True, False):
        letters: list[Any] = []
        some = records if bad else [record for record in records if record.offset not in {4, 5}]
        pairs = list(facts_of(some, letters))
        assert [(fact_read.pos, record.offset) for fact_read, record in pairs] == [(n, n) for n in (0, 1, 3, 6, 7, 8)]
        assert [letter.offset for letter in letters] == ([4, 5] if bad else [])


# --- the writer ---


class Refusing:
    """A ClickHouse table without rows that refuses the named rows."""

    def __init__(self, bad: set[str], error: Exception) -> None:
        self.bad, self.error = bad, error
        self.rows: list[str] = []
        self.inserts = 0

    def insert(self, data: Sequence[Sequence[Any]], token: str) -> None:
        self.inserts += 1
        events = data[COLUMNS.index("event_id")]
        if self.bad & set(events):
            raise self.error
        self.rows += events

    def max_position(self, partition: int) -> None:
        return None

    def jumps(self, partition: int, days: float) -> list[int]:
        return []

    def digests(self, partition: int, high: int) -> array[int]:
        return array("I")

    def stored_at(self, *_: Any) -> set[Any]:
        return set()

    stored_events = stored_at


def batch_of(records: Sequence[Record]) -> PendingBatch:
    batch = PendingBatch()
    batch.add(0, records)
    return batch


def write(store: Refusing, records: list[Record], tries: int = 1) -> list[tuple[int, str]]:
    """Returns offset and reason of the dead letters."""
    writer = Writer(store, 30)
    writer.open([0])
    plan = writer.plan(batch_of(records))
    for _ in range(tries - 1):
        with pytest.raises(ClickHouseUnavailable):
            writer.write(plan)
    writer.write(plan)
    return [(letter.offset, letter.reason) for letter in plan.letters]


def test_an_insert_has_rows_of_one_month() -> None:
    """The table is partitioned by the month in which attn accepted the event. Times beyond the calendar are
    accepted."""
    ends = [1_769_903_999_999_999, 1_769_904_000_000_000]  # the last microsecond of January 2026, the first of February
    times = [ends[number % 2] for number in range(10)] + [2**60, -5]
    store = Refusing(set(), RowsRefused("none"))
    records = [Record(number, encode_fact(fact(number, at=at))) for number, at in enumerate(times)]
    assert write(store, records) == []
    assert store.inserts == 4
    assert store.rows[:10] == [f"/s e{number}" for number in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    assert len(store.rows) == 12


def test_only_facts_are_inserted_and_unreadable_records_are_dead_letters() -> None:
    outcome = Outcome(ws="w", pos=9, index=0, command="c", edge="e", user="u", status=200, body=msgspec.Raw(b"{}"))
    records = [
        *facts(2), Record(2, b"{"), Record(3, None), Record(4, encode_fact(outcome)),
        Record(5, encode_fact(fact(9, derived=True))), Record(6, encode_fact(fact(10))), Record(7, b'{"t":"\xff"}'),
    ]
    store = Refusing(set(), RowsRefused("no"))
    letters = write(store, records)
    assert store.rows == ["/s e0", "/s e1", "/s e10"]
    assert [offset for offset, _ in letters] == [2, 3, 7]
    assert all(reason.startswith("not a fact: ") for _, reason in letters)


@pytest.mark.parametrize("bad", [{3}, {0}, {99}, {0, 1, 50, 99}, set(range(100))])
def test_a_refused_row_goes_to_dead_letters_and_the_rest_goes_in(bad: set[int]) -> None:
    store = Refusing({f"/s e{number}" for number in bad}, RowsRefused("too long"))
    assert sorted(write(store, facts(100))) == [(number, "too long") for number in sorted(bad)]
    assert sorted(store.rows) == sorted(f"/s e{number}" for number in range(100) if number not in bad)


def test_bisection_isolates_a_refused_row() -> None:
    store = Refusing({"/s e7"}, ClickHouseUnavailable("code 999", answered=True))
    letters = write(store, facts(100), tries=4)
    assert letters == [(7, "code 999")]
    assert len(store.rows) == 99


def test_an_outage_writes_no_dead_letter() -> None:
    store = Refusing({f"/s e{number}" for number in range(100)}, ClickHouseUnavailable("read-only", answered=True))
    writer = Writer(store, 30)
    writer.open([0])
    plan = writer.plan(batch_of(facts(100)))
    for _ in range(50):
        with pytest.raises(ClickHouseUnavailable):
            writer.write(plan)
    assert store.inserts < 100
    store.bad = set()
    writer.write(plan)
    assert len(store.rows) == 100
    assert not plan.letters


def test_a_batch_has_its_offsets_and_their_times() -> None:
    batch = PendingBatch()
    batch.add(0, [Record(5, b"", timestamp=9000), Record(6, b"", timestamp=9500)])
    batch.add(1, [Record(2, b"", partition=1, timestamp=8000)])
    assert (batch.count, batch.next, batch.times) == (3, {0: 7, 1: 3}, {0: 9.5, 1: 8.0})


def test_a_directory_locked_by_another_chdb_raises_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None)
    (status := directory(settings) / "status").parent.mkdir()
    status.write_text("PID: 1\nStarted at: 2026-11-26 06:26:40\nRevision: 54515\n")
    with status.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ClickHouseUnavailable, match="is in use by another process"):
            connect(settings)
    assert capfd.readouterr().err == ""  # chdb writes a log line to stderr at each try, unless attn prevents it
