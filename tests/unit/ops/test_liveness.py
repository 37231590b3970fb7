"""A process that does not answer is reported as unresponsive after the configured misses."""

from __future__ import annotations

from ops.process.liveness import LivenessPolicy, LivenessTracker

PATIENCE = LivenessPolicy(interval=1.0, timeout=15.0, startup_timeout=120.0, min_misses=3)


def first_unresponsive(pulse: LivenessTracker, since: float) -> float:
    """Returns the second in which a process without answers, probed each second, is reported as unresponsive."""
    return next(now for now in (since + second for second in range(1, 1000)) if pulse.record_miss(now))


def test_a_ready_process_is_unresponsive_after_the_timeout() -> None:
    pulse = LivenessTracker(PATIENCE, 0.0)
    pulse.record_answer(5.0, ready=True)
    assert first_unresponsive(pulse, 5.0) == 20.0


def test_a_starting_process_is_unresponsive_after_the_startup_timeout() -> None:
    pulse = LivenessTracker(PATIENCE, 0.0)
    assert first_unresponsive(pulse, 0.0) == 120.0
    loading = LivenessTracker(PATIENCE, 0.0)
    loading.record_answer(10.0, ready=False)
    assert first_unresponsive(loading, 10.0) == 130.0


def test_an_answer_restarts_the_timeout() -> None:
    pulse = LivenessTracker(PATIENCE, 0.0)
    pulse.record_answer(1.0, ready=True)
    for now in range(2, 500, 14):
        assert not any(pulse.record_miss(now + step) for step in range(1, 13))
        pulse.record_answer(now + 13.0, ready=False)


def test_after_a_pause_of_the_supervisor_three_misses_are_needed() -> None:
    pulse = LivenessTracker(PATIENCE, 0.0)
    pulse.record_answer(1.0, ready=True)
    assert [pulse.record_miss(3600.0 + second) for second in range(3)] == [False, False, True]
