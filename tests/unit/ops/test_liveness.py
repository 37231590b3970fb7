"""When a part that does not answer is called wedged."""

from __future__ import annotations

from ops.process.liveness import Patience, Pulse

PATIENCE = Patience(every=1.0, silent=15.0, starting=120.0, misses=3)


def first_wedged(pulse: Pulse, since: float) -> float:
    """Asked every second, and not answered: when it is wedged."""
    return next(now for now in (since + second for second in range(1, 1000)) if pulse.missed(now))


def test_one_that_was_ready_has_the_short_time() -> None:
    pulse = Pulse(PATIENCE, 0.0)
    pulse.answered(5.0, ready=True)
    assert first_wedged(pulse, 5.0) == 20.0


def test_one_that_is_starting_has_the_long_time() -> None:
    pulse = Pulse(PATIENCE, 0.0)
    assert first_wedged(pulse, 0.0) == 120.0
    loading = Pulse(PATIENCE, 0.0)
    loading.answered(10.0, ready=False)
    assert first_wedged(loading, 10.0) == 130.0


def test_each_answer_begins_anew() -> None:
    pulse = Pulse(PATIENCE, 0.0)
    pulse.answered(1.0, ready=True)
    for now in range(2, 500, 14):
        assert not any(pulse.missed(now + step) for step in range(1, 13))
        pulse.answered(now + 13.0, ready=False)


def test_a_supervisor_that_slept_itself_looks_again_first() -> None:
    pulse = Pulse(PATIENCE, 0.0)
    pulse.answered(1.0, ready=True)
    assert [pulse.missed(3600.0 + second) for second in range(3)] == [False, False, True]
