"""Records of version 1 (tests/data/v1) are read by this version: encoding gives the same bytes, and the same log gives
the same rows.

If an intended change breaks one of these tests: raise the version of that record, keep these records readable, add
records of the new version, and describe the upgrade in docs/operations.md.
"""

from __future__ import annotations

import pytest
from support.fold.pipeline_driver import Worker
from support.processes.version1_data import Version1State, comparable_fact, comparable_rows, version1_state

from schemas.asking.question import BatchRow, DecisionRow
from schemas.dead_letters import DeadLetter
from schemas.facts import Fact, Outcome, decode_fact, encode_fact
from schemas.log import Event, Pack, decode_pack, encode_pack
from schemas.topics import DEAD_LETTERS, FACTS, LOG, VIEWS
from schemas.views import (
    ROW_TYPES,
    FenceRow,
    KeysRow,
    LinkRow,
    OutcomeRow,
    RevocationCountRow,
    RevocationRow,
    SessionRow,
    SourceKeyCountRow,
    SourceKeyRow,
    UserSessionsRow,
    decode_row,
    encode_row,
)
from streams.core.fold.fold import Fold

PARTITIONS = range(3)


def place(fact: Fact | Outcome) -> tuple[int, int]:
    return fact.pos, fact.index


@pytest.fixture
def data() -> Version1State:
    return version1_state()


def test_every_row_of_version_1_is_encoded_unchanged(data: Version1State) -> None:
    kinds = set()
    for partition in PARTITIONS:
        for key, value, _ in data.topics[VIEWS][partition]:
            assert key is not None
            if value is not None:
                row = decode_row(key, value)
                kinds.add(type(row))
                assert encode_row(row) == value
    version1_kinds = set(ROW_TYPES.values()) - {
        FenceRow, OutcomeRow, KeysRow, DecisionRow, BatchRow, SourceKeyRow, SourceKeyCountRow,
        SessionRow, UserSessionsRow, LinkRow, RevocationRow, RevocationCountRow}
    assert kinds == version1_kinds, "the data has a row of each kind of version 1"


def test_every_pack_of_version_1_is_encoded_unchanged(data: Version1State) -> None:
    kinds = set()
    for partition in PARTITIONS:
        for _, value, _ in data.topics[LOG][partition]:
            pack = decode_pack(value or b"")
            kinds |= {type(entry).__name__ for entry in pack.entries}
            assert encode_pack(pack) == value
            assert pack.v == 1
    assert kinds == {"Event", "SetState", "Dismiss", "Restore", "SetPreferences"}


def test_every_fact_of_version_1_is_encoded_unchanged(data: Version1State) -> None:
    kinds = set()
    for partition in PARTITIONS:
        for _, value, _ in data.topics[FACTS][partition]:
            fact = decode_fact(value or b"")
            kinds.add(type(fact))
            assert encode_fact(fact) == value
            assert fact.v == 1
    assert kinds == {Fact, Outcome}


def test_dead_letters_of_version_1_are_read(data: Version1State) -> None:
    letters = [DeadLetter.from_record(*record) for record in data.topics[DEAD_LETTERS][0]]
    assert sorted((letter.topic, letter.value) for letter in letters) == [
        ("messages", b"not an event"), ("plans", "ä".encode())]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_fold_of_the_version_1_log_equals_the_version_1_view(data: Version1State, partition: int) -> None:
    """Law 1 across versions: rows and facts are equal byte by byte."""
    rows, log = data.rows(partition), [value or b"" for _, value, _ in data.topics[LOG][partition]]
    fold = Fold(rows, partition, data.rules)
    fold.load()
    assert len(log) > fold.position.next, "the recorded view ends before its log"
    worker = Worker(log[:fold.position.next], data.rules, partition).run()
    assert comparable_rows(worker.rows) == comparable_rows(rows)
    stored_facts = sorted((decode_fact(value or b"") for _, value, _ in data.topics[FACTS][partition]), key=place)
    today = sorted(map(decode_fact, worker.facts), key=place)
    assert [place(fact) for fact in today] == sorted({place(fact) for fact in stored_facts})
    by_place = {place(fact): fact for fact in stored_facts}
    changed = [(by_place[place(fact)], fact) for fact in today if comparable_fact(by_place[place(fact)], fact) != fact]
    assert not changed


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_fold_continued_from_version_1_rows_equals_a_fold_from_the_start(data: Version1State, partition: int) -> None:
    log = [value or b"" for _, value, _ in data.topics[LOG][partition]]
    again = [entry for value in log for entry in decode_pack(value).entries if isinstance(entry, Event)][:3]
    log.append(encode_pack(Pack(1_800_000_000_000_000, list(again))))
    went_on = Worker(log, data.rules, partition, data.rows(partition)).run()
    assert comparable_rows(went_on.rows) == comparable_rows(Worker(log, data.rules, partition).run().rows)
