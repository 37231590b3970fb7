"""The chaos harness itself: a seed decides the run, and each check detects its fault."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.model import Model

from chaos.checks import expected_fold as refold
from chaos.checks import history
from chaos.checks.expected_fold import Refold
from chaos.checks.feed_gaps import Figures, by_kind
from chaos.checks.topics import Watch
from chaos.faults.schedule import HEAVIEST, KINDS, schedule
from chaos.report import Report
from chaos.workload.load import beat, beating, generated, load
from chaos.workload.users import Desks, acts_differ
from schemas.facts import Fact, encode_fact
from schemas.log import Pack, encode_pack
from schemas.settings import Settings
from schemas.topics import partition_of
from schemas.views import FenceRow, PositionRow, encode_row, fence_key, position_key
from streams.core.normalise import Rejected, normalise

NOW = datetime(2026, 5, 20, 12, 0, tzinfo=UTC)


# --- schedule and load of a seed ---

def test_the_same_seed_is_the_same_schedule() -> None:
    assert schedule(7, 600, 2.0, 3) == schedule(7, 600, 2.0, 3)
    assert schedule(7, 600, 2.0, 3) != schedule(8, 600, 2.0, 3)


def test_a_schedule_of_chosen_kinds_has_no_other_and_leaves_brokers_time() -> None:
    kinds = ("worker killed", "leader of a view killed")
    found = schedule(31, 600, 5.0, 3, kinds)
    assert {one.kind for one in found} == set(kinds)
    only = schedule(31, 600, 5.0, 3, kinds[1:])
    assert len(only) > 10
    assert all(later.at - one.at >= KINDS[kinds[1]].apart for one, later in pairwise(only))


def test_a_schedule_has_every_kind_in_order_and_at_its_pace() -> None:
    faults = schedule(3, 3600, 2.0, 3)
    assert 1650 <= len(faults) <= 1950
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(KINDS[fault.kind].length[0] <= fault.length <= KINDS[fault.kind].length[1] for fault in faults)


def test_brokers_are_left_time_to_be_in_sync_again() -> None:
    faults = [fault for fault in schedule(3, 3600, 1.0, 3) if KINDS[fault.kind].lane == "broker"]
    for fault, after in pairwise(faults):
        assert after.at - fault.at >= fault.length + KINDS[fault.kind].apart - 0.02


def test_one_broker_has_no_leader_to_choose() -> None:
    kinds = {fault.kind for fault in schedule(3, 3600, 1.0, 1)}
    assert kinds == {name for name, kind in KINDS.items() if 1 in kind.brokers}


def test_the_same_seed_is_the_same_load() -> None:
    lines = generated(5, 400, NOW)
    assert lines == generated(5, 400, NOW)
    assert load(5, lines, 3) == load(5, lines, 3)


def test_the_load_repeats_shifts_and_corrupts_events_but_omits_none() -> None:
    lines = generated(5, 2000, NOW)
    records = load(5, lines, 3)
    sends = [send for own in records.sends for send in own]
    values = Counter(send.value for send in sends)
    valid = Counter({value: count for value, count in values.items() if value not in records.garbage})
    assert len(valid) == len(lines) == len(Model(records.lines))
    assert max(valid.values()) == 2
    assert 20 < sum(count - 1 for count in valid.values()) < 200
    assert sum(values[value] for value in records.garbage) >= 8
    assert len(set(records.skews)) == 3
    assert all(abs(skew) >= 60_000_000 for skew in records.skews)
    for send in sends:
        if send.value in records.garbage:
            with pytest.raises(Rejected):
                normalise(send.topic, send.value)
        else:
            normalise(send.topic, send.value)


def test_heartbeat_events_reach_every_partition() -> None:
    names = beating(6)
    assert [partition_of(name, 6) for name in names] == list(range(6))
    events = [normalise(send.topic, send.value) for send, _ in (beat(names[0], n, 10**15 + n) for n in range(25))]
    assert [event.type for event in events[:11]] == ["escalation.opened"] * 10 + ["escalation.updated"]


# --- silences ---

def _steady(*gaps: tuple[float, float]) -> list[float]:
    """Returns a time every 0.2 s for a minute, without those within the gaps."""
    return [n / 5 for n in range(300) if not any(a < n / 5 < b for a, b in gaps)]


def test_a_silence_is_attributed_to_the_last_fault_before_it() -> None:
    readers = [_steady((10.0, 14.0)), _steady((10.0, 12.0))]
    figures = by_kind([("a", 10.0, 10.0), ("b", 30.0, 31.0)], readers, {}, usual=0.8)
    assert figures["a"] == Figures(1, 1, pytest.approx(4.0), pytest.approx(4.0))
    assert figures["b"] == Figures(1, 1, pytest.approx(0.2), pytest.approx(0.2))


def test_a_silence_after_several_faults_is_attributed_to_the_heaviest() -> None:
    faults = [("light", 9.9, 9.9), ("heavy", 9.0, 12.0), ("light", 40.0, 40.0)]
    figures = by_kind(faults, [_steady((10.0, 15.0))], {"heavy": 2, "light": 1}, usual=0.8)
    assert figures["heavy"].most == pytest.approx(5.0)
    assert figures["light"] == Figures(2, 1, pytest.approx(0.2), pytest.approx(0.2)), (
        "two light faults, of which the heavy fault hides one")


def test_every_kind_has_its_weight() -> None:
    assert sorted(HEAVIEST) == sorted(KINDS)


# --- checks that must be able to fail ---

def _record(offset: int, key: bytes | None, value: bytes | None) -> Any:
    return SimpleNamespace(offset=offset, key=key, value=value, timestamp=0, headers=[])


def _position(following: int, shift: int = 0) -> bytes:
    return encode_row(PositionRow(next=following, shift=shift))


@pytest.fixture
def folded() -> Refold:
    """Returns the fold of partition 0 of 2 after two packs."""
    fold = Refold(0, Settings(_env_file=None))
    ws = next(name for name in beating(2) if partition_of(name, 2) == 0)
    for offset in range(2):
        events = [normalise(send.topic, send.value) for send, _ in (
            beat(ws, n, 10**15 + n) for n in range(offset * 3, offset * 3 + 3))]
        fold.replay([_record(offset, None, encode_pack(Pack(10**15, events)))])
    return fold


def test_rows_that_are_absent_or_old_are_differences(folded: Refold) -> None:
    assert refold.differences(0, "views", dict(folded.rows), folded.rows) == []
    changed = dict(folded.rows)
    key = next(key for key in changed if key.startswith(b"i:"))
    changed[key] = changed[key].replace(b"Beat", b"Bent")
    assert len(refold.differences(0, "views", changed, folded.rows)) == 1
    del changed[key]
    assert "absent" in refold.differences(0, "views", changed, folded.rows)[0]


def test_a_repeated_fact_is_accepted_and_a_differing_one_is_reported(folded: Refold) -> None:
    records = [_record(n, None, encode_fact(fact)) for n, fact in enumerate(folded.facts)]
    assert refold.unique_facts([*records, records[-1]]) == (folded.facts, 1, [])
    other = _record(9, None, records[-1].value.replace(b"Beat", b"Bent"))
    assert len(refold.unique_facts([*records, other])[2]) == 1


def test_a_lost_repeated_or_unexplained_write_is_a_difference() -> None:
    class ListingEdge:
        def __init__(self, *rows: dict[str, Any]) -> None:
            self.rows = rows

        def get(self, path: str, *_: object, **params: object) -> Any:
            away = [row for row in self.rows if row["away"]]
            return {"rows": list(self.rows)} if path.startswith("/api") else {"items": away}

    desks = Desks(1, 1, [], cast("Any", None))
    (person,) = desks.people
    shown = [{"source_id": name, "state": "unread", "away": False} for name in person.items]
    assert desks.differences([cast("Any", ListingEdge(*shown))], []) == []
    name = next(iter(person.items))
    person.acts[name, "item.read"] = 1
    assert len(acts_differ([person], [])) == 1
    fact = Fact(ws=person.ws, pos=1, index=0, event_id="command x", time=1, type="item.read", subject=name)
    assert acts_differ([person], [fact]) == []
    assert len(acts_differ([person], [fact, fact])) == 1
    assert len(acts_differ([], [fact])) == 1
    person.items[name].state = "read"
    assert len(desks.differences([cast("Any", ListingEdge(*shown))], [fact])) == 1
    person.items[name].state, person.items[name].away = "unread", True
    assert len(desks.differences([cast("Any", ListingEdge(*shown))], [fact])) == 1
    assert len(desks.differences([cast("Any", ListingEdge())], [fact])) == len(person.items) + 1


def test_history_that_misses_or_repeats_is_different(folded: Refold) -> None:
    facts = folded.facts
    rows = [[fact.ws, fact.event_id, fact.type] for fact in facts]
    hours = [[facts[0].ws, facts[0].time // 3_600_000_000 * 3600, facts[0].type, facts[0].kind, len(facts), 0]]
    assert history.differences({"events": rows, "hours": hours}, facts) == []
    assert len(history.differences({"events": rows[1:], "hours": hours}, facts)) == 1
    assert len(history.differences({"events": [*rows, rows[0]], "hours": hours}, facts)) == 1
    hours[0][4] += 1
    assert len(history.differences({"events": rows, "hours": hours}, facts)) == 1


def test_the_watch_takes_batches_as_readers_do() -> None:
    watch = Watch(Settings(_env_file=None, log_partitions=1))
    end, fence = position_key(0), fence_key(0)
    records = [
        (fence, encode_row(FenceRow(by="1", epoch=0, at=1))), (b"i:a", b"1"), (end, _position(1)), (b"i:b", b"1"),
        (fence, encode_row(FenceRow(by="2", epoch=1, at=2))), (b"i:b", b"2"), (end, _position(2)),
        (b"i:a", b"old"), (end, _position(1)), (b"i:b", None), (end, _position(2, shift=1)),
    ]
    for offset, (key, value) in enumerate(records):
        watch._apply(0, _record(offset, key, value))
        watch._apply(0, _record(offset, key, value))  # the watch reads the record again after a reconnect
    assert watch.rows(0) == {b"i:a": b"1", end: _position(2, shift=1)}
    assert (watch.claims, watch.torn, len(watch.stale), watch.repairs[0]) == (2, 1, 1, [(2, 0)])


def test_a_report_lists_faults_silences_numbers_and_differences() -> None:
    report = Report(4, "python -m chaos --seed 4", "abc", 2.0, 3, 2, 2, faults=9,
                    silent={"edge killed": Figures(9, 8, 1.0, 3.0)}, numbers={"events": 12_345}, differences=["row a"])
    text = report.markdown()
    assert "Seed 4: 9 faults, 1 differences" in text
    assert "| edge killed | 9 | 8 | 1.0 s | 3.0 s |" in text
    assert "12,345" in text
    assert "row a" in text
