"""The backlog of deliveries: order per subject, offsets to commit, undo, bounds. Random histories against a list as
model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.backlog import Backlog, Entry


def entry(offset: int, *, subject: str = "s", decision: str | None = None, verb: str = "made", queue: str = "a",
          partition: int = 0, due: float = 0.0, size: int = 10) -> Entry:
    return Entry(partition, offset, "ws", subject, decision or f"d{offset}", verb, queue, queue, 0.0, size, b"x" * size,
                 due=due)


def backlog(*entries: Entry, max_entries: int = 1000, max_bytes: int = 10_000) -> Backlog:
    deliveries = Backlog(max_entries, max_bytes)
    for partition in {0, *(each.partition for each in entries)}:
        deliveries.assign(partition, 0)
        deliveries.mark_caught_up(partition)
    for each in entries:
        deliveries.partitions[each.partition].read_to = each.offset + 1
        deliveries.add(each)
    return deliveries


def test_a_later_decision_of_a_subject_waits_for_the_earlier() -> None:
    first, second, other = entry(0), entry(1, queue="b"), entry(2, subject="t")
    deliveries = backlog(first, second, other)
    assert deliveries.pop_due("a", 0.0) is first
    assert deliveries.pop_due("a", 0.0) is other
    assert deliveries.pop_due("b", 0.0) is None
    deliveries.retry(first, 50.0)
    assert deliveries.pop_due("a", 49.0) is None
    assert deliveries.pop_due("b", 49.0) is None
    assert deliveries.pop_due("a", 50.0) is first
    deliveries.finish(first)
    assert deliveries.pop_due("b", 50.0) is second


def test_offsets_before_the_first_unfinished_record_are_committed() -> None:
    entries = [entry(offset, subject=str(offset)) for offset in (3, 5, 8)]
    deliveries = backlog(*entries)
    state = deliveries.partitions[0]
    assert state.commit_offset == 3
    deliveries.finish(entries[1])
    assert state.commit_offset == 3
    deliveries.finish(entries[0])
    assert state.commit_offset == 8
    deliveries.finish(entries[2])
    assert state.commit_offset == 9
    state.read_to = 12
    assert state.commit_offset == 12


def test_a_decision_undone_before_its_first_attempt_is_never_posted() -> None:
    made = entry(0, decision="d", due=5.0)
    deliveries = backlog(made)
    assert not deliveries.take_back("ws", "s", "d")
    assert deliveries.pop_due("a", 100.0) is None
    assert len(deliveries) == 0
    assert deliveries.partitions[0].commit_offset == 1


def test_the_undo_of_a_tried_or_unknown_decision_is_posted() -> None:
    made = entry(0, decision="d")
    deliveries = backlog(made)
    assert deliveries.pop_due("a", 0.0) is made
    assert deliveries.take_back("ws", "s", "d")  # the attempt is in progress
    assert made.resolved
    deliveries.retry(made, 1.0)
    made.attempts = 1
    assert deliveries.take_back("ws", "s", "d")  # the attempt failed, but the request may have arrived
    assert made.finished
    assert deliveries.take_back("ws", "s", "d")  # the decision was delivered and left the backlog
    assert deliveries.take_back("ws", "s", "another")


def test_a_known_outcome_ends_the_delivery_of_earlier_records_only() -> None:
    made, again = entry(0, decision="d"), entry(2, decision="d")
    deliveries = backlog(made)
    deliveries.resolve("ws", "s", "d")
    assert made.finished
    deliveries.add(again)
    assert deliveries.pop_due("a", 0.0) is again
    deliveries.resolve("ws", "s", "d")
    assert again.resolved
    assert not again.finished


def test_nothing_is_posted_before_the_partition_was_read_to_its_end() -> None:
    deliveries = Backlog(10, 1000)
    deliveries.assign(0, 0)
    first = entry(0)
    deliveries.add(first)
    assert deliveries.pop_due("a", 1.0) is None
    deliveries.mark_caught_up(0)
    assert deliveries.pop_due("a", 1.0) is first


def test_a_paused_partition_posts_nothing_more() -> None:
    deliveries = backlog(entry(0))
    deliveries.pause()
    assert deliveries.pop_due("a", 1.0) is None


def test_a_released_partition_leaves_nothing_behind() -> None:
    running, waiting, other = entry(0), entry(1), entry(0, partition=1, subject="t")
    deliveries = backlog(running, waiting, other)
    assert deliveries.pop_due("a", 0.0) is running
    deliveries.release(0)
    assert list(deliveries) == [other]
    deliveries.retry(running, 0.0)  # the attempt ended after the partition was released
    deliveries.finish(running)
    assert deliveries.pop_due("a", 0.0) is other
    assert deliveries.pop_due("a", 0.0) is None
    deliveries.finish(other)
    assert (deliveries.body_bytes, deliveries._lanes, len(deliveries)) == (0, {}, 0)


def test_bodies_beyond_the_limit_are_not_kept() -> None:
    entries = [entry(offset, subject=str(offset), size=40) for offset in range(5)]
    deliveries = backlog(*entries, max_bytes=100)
    assert [each.body is not None for each in entries] == [True, True, False, False, False]
    assert deliveries.body_bytes == 80
    deliveries.finish(entries[0])
    later = entry(9, subject="9", size=40)
    deliveries.add(later)
    assert later.body is not None
    assert deliveries.body_bytes == 80


def test_entries_are_counted_against_the_limit() -> None:
    deliveries = backlog(*(entry(offset, subject=str(offset)) for offset in range(3)), max_entries=3)
    assert deliveries.is_full
    deliveries.finish(next(iter(deliveries)))
    assert not deliveries.is_full


def test_hasten_keeps_times_that_the_receiver_set() -> None:
    soon, pinned = entry(0, subject="a"), entry(1, subject="b")
    deliveries = backlog(soon, pinned)
    for each in (soon, pinned):
        assert deliveries.pop_due("a", 0.0) is each
    deliveries.retry(soon, 3600.0)
    deliveries.retry(pinned, 3600.0, pinned=True)
    deliveries.hasten("a", 10.0)
    assert deliveries.pop_due("a", 10.0) is soon
    assert deliveries.pop_due("a", 10.0) is None
    assert deliveries.next_due("a") == 3600.0


def test_outdated_items_do_not_pile_up() -> None:
    deliveries = backlog()
    for number in range(20_000):
        deliveries.add(entry(number, subject="s", decision=f"d{number}", due=1e9))
        deliveries.resolve("ws", "s", f"d{number}")
    assert sum(map(len, deliveries._heaps.values())) < 3000


@given(st.integers(0, 2**32), st.integers(5, 120))
def test_random_histories(seed: int, steps: int) -> None:
    """Records are posted in the order of their subject, or left out for a reason. The commit offset never passes an
    unfinished record."""
    rng = random.Random(seed)
    deliveries, now = backlog(max_bytes=200), 0.0
    running: list[Entry] = []
    ended: set[int] = set()
    added: list[Entry] = []
    for offset in range(steps):
        now += rng.random()
        state = deliveries.partitions[0]
        state.read_to = offset + 1
        action = rng.choice(["add", "add", "add", "back", "resolve"])
        lane = rng.choice("xyz")
        decision = f"d{rng.randrange(6)}"
        if action == "add":
            new = entry(offset, subject=lane, decision=decision, queue=rng.choice("ab"), due=now + rng.random() * 3)
            deliveries.add(new)
            added.append(new)
        elif action == "back":
            deliveries.take_back("ws", lane, decision)
        else:
            deliveries.resolve("ws", lane, decision)
        for queue in "ab":
            while (due := deliveries.pop_due(queue, now)) is not None:
                earlier = [each for each in added if each.lane == due.lane and each.offset < due.offset]
                assert all(each.finished for each in earlier)
                assert not due.finished
                assert due.due <= now
                running.append(due)
        while running and rng.random() < 0.7:
            each = running.pop(rng.randrange(len(running)))
            each.attempts += 1
            if rng.random() < 0.6 or each.resolved:
                deliveries.finish(each)
                ended.add(each.offset)
            else:
                deliveries.retry(each, now + rng.random() * 5)
        unfinished = [each.offset for each in added if not each.finished]
        assert state.commit_offset == min(unfinished, default=offset + 1)
        assert [each.offset for each in deliveries] == unfinished
        assert deliveries.body_bytes == sum(each.size for each in deliveries if each.body is not None) <= 200
    for each in running:
        deliveries.finish(each)
    while len(deliveries):
        now += 10.0
        popped = _drain(deliveries, now)
        assert popped, "the backlog holds entries that never become due"
    assert deliveries.partitions[0].commit_offset == steps


def _drain(deliveries: Backlog, now: float) -> list[Entry]:
    popped = [due for queue in "ab" if (due := deliveries.pop_due(queue, now)) is not None]
    for due in popped:
        deliveries.finish(due)
    return popped


@pytest.mark.parametrize("count", [100])
def test_a_dead_endpoint_does_not_delay_another(count: int) -> None:
    dead = [entry(offset, subject=f"dead{offset}", queue="dead", due=1e9) for offset in range(count)]
    alive = entry(count, subject="alive", queue="alive")
    deliveries = backlog(*dead, alive)
    assert deliveries.pop_due("alive", 0.0) is alive
    assert deliveries.pop_due("dead", 0.0) is None
