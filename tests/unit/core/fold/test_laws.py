"""Laws 1-3 (DESIGN), retention and repeats against the reference model: any events, orders, packs, batches, crashes."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support import events
from support.examples import law
from support.fold.pipeline_driver import (
    Crash,
    Shown,
    Worker,
    assert_equal,
    event_of,
    key_of,
    packs,
    same,
    visible,
)
from support.model import Model, Reader, us

from schemas.log import Pack, decode_pack, encode_pack
from schemas.scalars import DAY, HOUR
from schemas.views import ItemRow, SeenRow, decode_row
from streams.core.fold.fold import Fold

READERS = [Reader(user, role) for user in (*events.USERS, "zoe") for role in ("OWNER", "MANAGER", "MEMBER", "VIEWER")]
PINS = ((), ("prod-eu",), ("edge-1", "prod-us"))
START, END = us(events.START.isoformat()), us(events.END.isoformat())
RUNS = ("run.failed", "run.failed", "run.failed", "run.retried", "run.recovered", "run.cancelled")
PROOFS = ("proof.attached", "proof.attached", "proof.expired", "session.verifying")
DRAFTS = ("draft.edited", "draft.edited", "draft.edited", "draft.committed", "draft.discarded")

# Faults need few events to show, so many small examples find more of them than a few large ones.
pytestmark = pytest.mark.timeout(900)  # hypothesis takes minutes to shrink a failing example
slow = law(100, suppress_health_check=list(HealthCheck))
lines = st.one_of(
    events.sequences(),
    events.sequences(types=RUNS, subjects=6, workspaces=("ws_01",)),
    events.sequences(types=PROOFS, subjects=4, workspaces=("ws_01",)),
    events.sequences(types=DRAFTS, workspaces=("ws_01",)),
    events.sequences(types=("escalation.opened", "escalation.updated", "escalation.updated", "escalation.resolved"),
                     workspaces=("ws_01",)),
)
sizes = st.lists(st.integers(0, 8), max_size=12)
seeds = st.integers(0, 2**32)


def log_of(drawn: list[events.Line], cuts: list[int], seed: int, repeats: bool = True) -> list[bytes]:
    """Returns packs of the events: shuffled, some of them twice. The writer's clock is random, and ends at END."""
    rng = random.Random(seed)
    accepted = [event_of(line) for line in drawn]
    if repeats and accepted:
        accepted += rng.choices(accepted, k=rng.randint(0, len(accepted)))
    rng.shuffle(accepted)
    return packs(accepted, cuts, lambda _: rng.randint(START, END))


def check(rows: dict[bytes, bytes], model: Model, clock: int) -> None:
    for ws, view in model.at(clock).items():
        assert_equal(rows, view, ws, READERS, PINS)


@slow
@given(lines, sizes, seeds)
def test_any_order_and_repeats_equal_the_models_view(drawn: list[events.Line], cuts: list[int], seed: int) -> None:
    worker = Worker(log_of(drawn, cuts, seed)).run()
    worker.tick(END)
    check(worker.rows, Model(drawn), END)
    assert len([fact for fact in worker.known_facts() if b'"derived":true' not in fact]) == len(drawn)


@slow
@given(lines, sizes, seeds, sizes, seeds)
def test_two_orders_show_the_same(
    drawn: list[events.Line], cuts: list[int], seed: int, other_cuts: list[int], other: int
) -> None:
    """Compares every visible field, including those that the model does not have."""
    first, second = Worker(log_of(drawn, cuts, seed)).run(), Worker(log_of(drawn, other_cuts, other)).run()
    first.tick(END)
    second.tick(END)
    same(visible(first.rows), visible(second.rows))


def _small_parts(part: int, wake: int) -> object:
    return patch.multiple("streams.core.fold.fold", MAX_PART_BYTES=part, MAX_TIMER_BYTES=wake)


@slow
@given(lines, sizes, seeds, st.booleans())
def test_grouping_packs_into_batches_changes_nothing(
    drawn: list[events.Line], cuts: list[int], seed: int, small: bool
) -> None:
    """Law 1: the same log gives the same bytes of rows and facts, for any number of packs per write."""
    log = log_of(drawn, cuts, seed)
    log += [encode_pack(Pack(at=END + hours * HOUR)) for hours in range(0, 2000, 100)]
    with _small_parts(5_000, 3_000) if small else _small_parts(1 << 20, 1 << 18):
        single, grouped, rng = Worker(log).run(), Worker(log), random.Random(seed)
        while grouped.step():
            if rng.random() < 0.3:
                grouped.write()
        grouped.write()
    assert grouped.rows == single.rows
    assert grouped.facts == single.facts


@slow
@given(lines, sizes, seeds, st.booleans())
def test_a_crash_between_any_two_writes_loses_and_doubles_nothing(
    drawn: list[events.Line], cuts: list[int], seed: int, small: bool
) -> None:
    """Law 3: the worker crashes after the facts, after the rows, or before both; then a new process starts."""
    log = log_of(drawn, cuts, seed)
    log += [encode_pack(Pack(at=END + hours * HOUR)) for hours in (0, 12, 40, 400, 800)]
    with _small_parts(5_000, 3_000) if small else _small_parts(1 << 20, 1 << 18):
        calm, rng = Worker(log).run(), random.Random(seed)
        worker, crashes = Worker(log), 0
        while True:
            if not worker.step():
                worker.write()
                break
            chance = rng.random()
            try:
                if chance < 0.3 and crashes < 30:
                    crashes += 1
                    worker.write(crash_after=rng.choice((-1, 0, 1, 2, 1000)))
                elif chance < 0.6:
                    worker.write()
            except Crash:
                worker.start()
    assert worker.rows == calm.rows
    assert worker.known_facts() == calm.known_facts() == calm.facts


@slow
@given(lines, sizes, seeds)
def test_a_worker_has_no_state_outside_its_rows(drawn: list[events.Line], cuts: list[int], seed: int) -> None:
    """A worker that restarts before every pack has the rows and timers of one that does not: no state outside the
    rows."""
    steady, forgetful = Worker(log_of(drawn, cuts, seed)), Worker()
    forgetful.log = steady.log
    while steady.step():
        steady.write()
        forgetful.start()
        assert forgetful.step()
        forgetful.write()
        assert forgetful.fold.next_timer() == steady.fold.next_timer()
    for hour in range(0, 800, 7):
        wake = steady.fold.next_timer()
        if wake is None:
            break
        at = max(wake, END + hour * HOUR)
        steady.log.append(encode_pack(Pack(at=at)))
        steady.run()
        forgetful.start()
        forgetful.run()
        assert forgetful.fold.next_timer() == steady.fold.next_timer()
    assert forgetful.rows == steady.rows


@slow
@given(lines, seeds)
def test_at_every_tick_the_view_equals_the_model(drawn: list[events.Line], seed: int) -> None:
    """Events arrive at their times and ticks at the fold's timers: items become overdue and proofs expire by
    themselves."""
    accepted = sorted(drawn, key=lambda line: us(line["value"]["time"]))
    worker, rng = Worker(), random.Random(seed)
    clock = START
    for index, line in enumerate(accepted):
        at = us(line["value"]["time"])
        while (wake := worker.fold.next_timer()) is not None and wake <= at:
            clock = max(clock, wake)
            worker.tick(clock)
        clock = max(clock, at)
        worker.log.append(encode_pack(Pack(at=clock, entries=[event_of(line)])))
        worker.run()
        if rng.random() < 0.15:
            worker.tick(clock)
            check(worker.rows, Model(accepted[:index + 1]), clock)
    worker.tick(END)
    check(worker.rows, Model(accepted), END)


@slow
@given(lines, sizes, seeds)
def test_after_the_retention_only_open_items_are_left(
    drawn: list[events.Line], cuts: list[int], seed: int
) -> None:
    worker = Worker(log_of(drawn, cuts, seed)).run()
    worker.tick(END)
    before = {ws: Shown(worker.rows, ws) for ws in events.WORKSPACES}
    opened = {row.id for shown in before.values() for row in shown.items if row.is_open}
    readable = {row.id for shown in before.values() for row in shown.items if row.state == "resolved"}
    late = max(END, worker.fold.position.clock)
    worker.tick(late + 29 * DAY + 23 * HOUR - (END - START))
    kept = {row.id for ws in events.WORKSPACES for row in Shown(worker.rows, ws).items}
    assert readable | opened <= kept, "resolved items are readable for 30 days"
    clock = late + 31 * DAY
    worker.tick(clock)
    for ws, view in Model(drawn).at(clock).items():
        left = Shown(worker.rows, ws)
        expected = {key for key, item in view.items.items() if item.open}
        assert {key_of(row) for row in left.items if row.is_open} == expected
        assert {row.id for row in left.items if row.is_open} >= opened & {left.ids[key] for key in expected}
        for reader in READERS:
            listed = [key_of(row) for row in left.ranked(reader)]
            assert listed == [item.key for item in view.ranked(reader, ids=left.ids)]
    worker.tick(clock + 62 * DAY)
    for key, value in worker.rows.items():
        row = decode_row(key, value)
        assert not isinstance(row, SeenRow)
        assert not isinstance(row, ItemRow) or row.is_open, "no closed item is kept for ever"


def test_the_same_id_with_other_content_is_a_repeat() -> None:
    line = events.generate(1, 1, types=("waitpoint.created",))[0]
    other = {**line, "value": {**line["value"], "subject": "wp_other"}}
    worker = Worker(packs([event_of(line), event_of(other)], [1], lambda _: END)).run()
    assert len(Shown(worker.rows, line["value"]["workspaceid"]).items) == 1
    assert len(worker.facts) == 1


def test_an_id_is_of_its_source_and_workspace() -> None:
    line = events.generate(1, 1, types=("waitpoint.created",))[0]
    elsewhere = {**line, "value": {**line["value"], "workspaceid": "ws_09"}}
    source = {**line, "value": {**line["value"], "source": "/other", "subject": "wp_other"}}
    worker = Worker(packs([event_of(each) for each in (line, elsewhere, source)], [1], lambda _: END)).run()
    assert len(Shown(worker.rows, line["value"]["workspaceid"]).items) == 2
    assert len(Shown(worker.rows, "ws_09").items) == 1


def test_a_gap_in_the_log_is_an_error() -> None:
    fold = Fold({}, 0, Worker().rules)
    fold.load()
    with pytest.raises(ValueError, match="expected offset 0"):
        fold.apply(decode_pack(encode_pack(Pack(at=1))), 1)


@pytest.mark.parametrize("members", [3, 40, 150])
def test_all_members_of_a_large_incident_leave_the_list(members: int) -> None:
    """For any number of members, also if a tick has the time of an earlier pack."""
    drawn = events.generate(7, members * 3, types=("run.failed",), subjects=members, workspaces=("ws_01",))
    for line in drawn:
        cluster = line["value"]["data"].get("cluster", "c")
        line["value"]["data"] = {"title": "T", "incident_key": "inc", "cluster": cluster}
    worker = Worker(packs([event_of(line) for line in drawn], [5] * members, lambda _: END)).run()
    worker.tick(END)
    check(worker.rows, Model(drawn), END)
    closes = [{**line, "value": {**line["value"], "type": "run.recovered", "id": f"{line['value']['id']}-x", "data": {},
                                 "time": events.END.isoformat()}} for line in drawn]
    worker.log += packs([event_of(line) for line in closes], [3] * members, lambda _: END)
    worker.run().tick(END)
    incident, = (row for row in Shown(worker.rows, "ws_01").items if row.kind == "incident")
    expected = Model([*drawn, *closes]).at(END)["ws_01"].items["incident", "inc", "", ""]
    assert (incident.state, incident.created_at, incident.resolved_at) == ("resolved", expected.created_at, END)
    assert not Shown(worker.rows, "ws_01").ranked(READERS[0])
