"""The backlog: order per subject, offsets to commit, undo, bounds; random histories against a plain list."""

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
    one = Backlog(max_entries, max_bytes)
    for partition in {0, *(each.partition for each in entries)}:
        one.assign(partition, 0)
        one.mark_caught_up(partition)
    for each in entries:
        one.partitions[each.partition].read_to = each.offset + 1
        one.add(each)
    return one


def test_a_later_decision_of_a_subject_waits_for_the_earlier() -> None:
    first, second, other = entry(0), entry(1, queue="b"), entry(2, subject="t")
    one = backlog(first, second, other)
    assert one.pop_due("a", 0.0) is first
    assert one.pop_due("a", 0.0) is other
    assert one.pop_due("b", 0.0) is None
    one.retry(first, 50.0)
    assert one.pop_due("a", 49.0) is None
    assert one.pop_due("b", 49.0) is None
    assert one.pop_due("a", 50.0) is first
    one.finish(first)
    assert one.pop_due("b", 50.0) is second


def test_offsets_before_the_first_unfinished_record_are_committed() -> None:
    entries = [entry(offset, subject=str(offset)) for offset in (3, 5, 8)]
    one = backlog(*entries)
    state = one.partitions[0]
    assert state.commit_offset == 3
    one.finish(entries[1])
    assert state.commit_offset == 3
    one.finish(entries[0])
    assert state.commit_offset == 8
    one.finish(entries[2])
    assert state.commit_offset == 9
    state.read_to = 12
    assert state.commit_offset == 12


def test_a_decision_that_was_taken_back_untried_is_never_posted() -> None:
    made = entry(0, decision="d", due=5.0)
    one = backlog(made)
    assert not one.take_back("ws", "s", "d")
    assert one.pop_due("a", 100.0) is None
    assert len(one) == 0
    assert one.partitions[0].commit_offset == 1


def test_a_tried_or_unknown_decision_that_is_taken_back_is_posted_as_such() -> None:
    made = entry(0, decision="d")
    one = backlog(made)
    assert one.pop_due("a", 0.0) is made
    assert one.take_back("ws", "s", "d")  # the attempt runs
    assert made.resolved
    one.retry(made, 1.0)
    made.attempts = 1
    assert one.take_back("ws", "s", "d")  # it failed, but may have arrived
    assert made.finished
    assert one.take_back("ws", "s", "d")  # it is delivered, and no longer here
    assert one.take_back("ws", "s", "another")


def test_a_known_outcome_ends_the_delivery_of_earlier_records_only() -> None:
    made, again = entry(0, decision="d"), entry(2, decision="d")
    one = backlog(made)
    one.resolve("ws", "s", "d")
    assert made.finished
    one.add(again)
    assert one.pop_due("a", 0.0) is again
    one.resolve("ws", "s", "d")
    assert again.resolved
    assert not again.finished


def test_nothing_is_posted_before_the_partition_was_read_to_its_end() -> None:
    one = Backlog(10, 1000)
    one.assign(0, 0)
    first = entry(0)
    one.add(first)
    assert one.pop_due("a", 1.0) is None
    one.mark_caught_up(0)
    assert one.pop_due("a", 1.0) is first


def test_a_paused_partition_posts_nothing_more() -> None:
    one = backlog(entry(0))
    one.pause()
    assert one.pop_due("a", 1.0) is None


def test_a_released_partition_leaves_nothing_behind() -> None:
    running, waiting, other = entry(0), entry(1), entry(0, partition=1, subject="t")
    one = backlog(running, waiting, other)
    assert one.pop_due("a", 0.0) is running
    one.release(0)
    assert list(one) == [other]
    one.retry(running, 0.0)  # its attempt ended later
    one.finish(running)
    assert one.pop_due("a", 0.0) is other
    assert one.pop_due("a", 0.0) is None
    one.finish(other)
    assert (one.body_bytes, one._lanes, len(one)) == (0, {}, 0)


def test_bodies_beyond_the_limit_are_not_kept() -> None:
    entries = [entry(offset, subject=str(offset), size=40) for offset in range(5)]
    one = backlog(*entries, max_bytes=100)
    assert [each.body is not None for each in entries] == [True, True, False, False, False]
    assert one.body_bytes == 80
    one.finish(entries[0])
    later = entry(9, subject="9", size=40)
    one.add(later)
    assert later.body is not None
    assert one.body_bytes == 80


def test_entries_are_counted_against_the_limit() -> None:
    one = backlog(*(entry(offset, subject=str(offset)) for offset in range(3)), max_entries=3)
    assert one.is_full
    one.finish(next(iter(one)))
    assert not one.is_full


def test_hasten_keeps_times_that_the_receiver_set() -> None:
    soon, asked = entry(0, subject="a"), entry(1, subject="b")
    one = backlog(soon, asked)
    for each in (soon, asked):
        assert one.pop_due("a", 0.0) is each
    one.retry(soon, 3600.0)
    one.retry(asked, 3600.0, pinned=True)
    one.hasten("a", 10.0)
    assert one.pop_due("a", 10.0) is soon
    assert one.pop_due("a", 10.0) is None
    assert one.next_due("a") == 3600.0


def test_outdated_items_do_not_pile_up() -> None:
    one = backlog()
    for number in range(20_000):
        one.add(entry(number, subject="s", decision=f"d{number}", due=1e9))
        one.resolve("ws", "s", f"d{number}")
    assert sum(map(len, one._heaps.values())) < 3000


@given(st.integers(0, 2**32), st.integers(5, 120))
def test_random_histories(seed: int, steps: int) -> None:
    """Every record is posted in the order of its subject, or is not posted for a reason; offsets never pass one that is
    unfinished."""
    rng = random.Random(seed)
    one, now = backlog(max_bytes=200), 0.0
    running: list[Entry] = []
    ended: set[int] = set()
    added: list[Entry] = []
    for offset in range(steps):
        now += rng.random()
        state = one.partitions[0]
        state.read_to = offset + 1
        action = rng.choice(["add", "add", "add", "back", "resolve"])
        lane = rng.choice("xyz")
        decision = f"d{rng.randrange(6)}"
        if action == "add":
            new = entry(offset, subject=lane, decision=decision, queue=rng.choice("ab"), due=now + rng.random() * 3)
            one.add(new)
            added.append(new)
        elif action == "back":
            one.take_back("ws", lane, decision)
        else:
            one.resolve("ws", lane, decision)
        for queue in "ab":
            while (due := one.pop_due(queue, now)) is not None:
                earlier = [each for each in added if each.lane == due.lane and each.offset < due.offset]
                assert all(each.finished for each in earlier)
                assert not due.finished
                assert due.due <= now
                running.append(due)
        while running and rng.random() < 0.7:
            each = running.pop(rng.randrange(len(running)))
            each.attempts += 1
            if rng.random() < 0.6 or each.resolved:
                one.finish(each)
                ended.add(each.offset)
            else:
                one.retry(each, now + rng.random() * 5)
        unfinished = [each.offset for each in added if not each.finished]
        assert state.commit_offset == min(unfinished, default=offset + 1)
        assert [each.offset for each in one] == unfinished
        assert one.body_bytes == sum(each.size for each in one if each.body is not None) <= 200
    for each in running:
        one.finish(each)
    while len(one):
        now += 10.0
        popped = _drain(one, now)
        assert popped, "entries wait that can never be posted"
    assert one.partitions[0].commit_offset == steps


def _drain(one: Backlog, now: float) -> list[Entry]:
    popped = [due for queue in "ab" if (due := one.pop_due(queue, now)) is not None]
    for due in popped:
        one.finish(due)
    return popped


@pytest.mark.parametrize("count", [100])
def test_a_dead_endpoint_does_not_delay_another(count: int) -> None:
    dead = [entry(offset, subject=f"dead{offset}", queue="dead", due=1e9) for offset in range(count)]
    alive = entry(count, subject="alive", queue="alive")
    one = backlog(*dead, alive)
    assert one.pop_due("alive", 0.0) is alive
    assert one.pop_due("dead", 0.0) is None
