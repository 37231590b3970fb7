"""The timer queue against a model that scans all rows: same order, and few timers beyond the valid ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.examples import law
from support.fold.fold_driver import Folding, event

from schemas.scalars import MINUTE
from streams.core import timer_queue
from streams.core.config import FoldConfig
from streams.core.timer_queue import TimerQueue

KEYS = [f"k{number}".encode() for number in range(40)]
# In five buckets, at their edges too.
TIMES = st.tuples(st.integers(0, 4), st.integers(0, 9)).map(
    lambda pair: (pair[0] << timer_queue._BUCKET_BITS) + pair[1])
# (key, its new due time or None for no timer), or a time at which all due timers are taken.
CHANGE = st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), TIMES))
STEPS = st.lists(st.one_of(CHANGE, TIMES), max_size=200)


@law(200)
@given(STEPS, st.integers(0, 3))
def test_due_timers_are_returned_in_order(steps: list[tuple[bytes, int | None] | int], swept: int) -> None:
    due: dict[bytes, int] = {}
    queue = TimerQueue(due.get)
    few, timer_queue._MIN_STALE = timer_queue._MIN_STALE, 3
    try:
        for step in steps:
            if isinstance(step, int):
                wanted = sorted((time, key) for key, time in due.items() if time <= step)
                popped = []
                while (first := queue.peek()) is not None and first[0] <= step:
                    assert queue.pop() == first
                    del due[first[1]]
                    popped.append(first)
                assert popped == wanted
            else:
                key, time = step
                if due.get(key) != time:
                    if due.pop(key, None) is not None:
                        queue.invalidate()
                    if time is not None:
                        due[key] = time
                        queue.push(time, key)
            queue.compact(swept)
            assert queue.peek() == min(((time, key) for key, time in due.items()), default=None)
    finally:
        timer_queue._MIN_STALE = few


def test_stale_timers_do_not_accumulate() -> None:
    due = {f"stays{number}".encode(): 10**9 + number for number in range(1000)}
    queue = TimerQueue(due.get)
    queue.load([(time, key) for key, time in due.items()])
    longest = 0
    for number in range(50_000):
        key = b"%d" % number
        due[key] = 10**6
        queue.push(10**6, key)
        del due[key]
        queue.invalidate()
        queue.compact(4)
        longest = max(longest, len(queue))
    assert longest < 3 * 1000
    while (timer := queue.pop()) is not None:
        assert due.pop(timer[1]) == timer[0]
    assert not due


def test_a_timer_that_moves_within_its_bucket_does_not_accumulate() -> None:
    """Each change of a resolved item sets its retention anew: 30 days later, so mostly in the same bucket."""
    due = {b"other%d" % number: 10**9 + number for number in range(100)}
    queue = TimerQueue(due.get)
    queue.load([(time, key) for key, time in due.items()])
    most = 0
    for number in range(20_000):
        if number:
            queue.invalidate()
        due[b"key"] = 2 * 10**9 + number
        queue.push(due[b"key"], b"key")
        queue.compact(4)
        most = max(most, len(queue))
    assert most < 1000
    assert len({queue.pop() for _ in range(100)}) == 100
    assert queue.peek() == (2 * 10**9 + 19_999, b"key")


def test_timers_of_deleted_rows_are_removed() -> None:
    stage = Folding(FoldConfig(retention=MINUTE, dedupe=MINUTE, activity_window=MINUTE))
    for minute in range(600):
        stage.pack(*(event("message.posted", f"s{minute}-{number}", minute, title="T", due_at="2190-01-01T00:00:00Z")
                     for number in range(5)), clock=minute)
        stage.pack(*(event("message.withdrawn", f"s{minute}-{number}", minute + 0.5) for number in range(5)),
                   clock=minute + 0.5)
    assert len(stage.rows) < 50
    assert len(stage.fold.state._timers) < 300, "timers of the 3000 deleted rows that were due in 2190"
