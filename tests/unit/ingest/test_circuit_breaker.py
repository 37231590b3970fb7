"""Circuit breaker of a source topic: when it opens, probes and closes."""

from __future__ import annotations

import random

from streams.ingest.circuit_breaker import BreakerPolicy, CircuitBreaker, CircuitState

POLICY = BreakerPolicy(reject_ratio=0.5, min_records=100, window=60.0, initial_delay=30.0, max_delay=100.0)


def record_results(breaker: CircuitBreaker, now: float, good: int, bad: int) -> bool:
    return any([breaker.record(now, False) for _ in range(good)] + [breaker.record(now, True) for _ in range(bad)])


def test_few_rejects_do_not_open_the_breaker() -> None:
    breaker = CircuitBreaker(POLICY)
    assert not record_results(breaker, 0.0, good=0, bad=99)
    assert not record_results(CircuitBreaker(POLICY), 0.0, good=1000, bad=900)


def test_a_bad_deployment_stops_at_the_hundredth_record() -> None:
    breaker = CircuitBreaker(POLICY)
    assert [breaker.record(1.0, True) for _ in range(100)] == [False] * 99 + [True]
    assert breaker.state is CircuitState.OPEN


def test_records_older_than_the_window_do_not_count() -> None:
    breaker = CircuitBreaker(POLICY)
    assert not record_results(breaker, 0.0, good=0, bad=99)
    assert not record_results(breaker, 61.0, good=0, bad=99)
    assert record_results(breaker, 62.0, good=0, bad=1)


def test_a_good_past_does_not_hide_a_bad_minute() -> None:
    breaker = CircuitBreaker(POLICY)
    assert not record_results(breaker, 0.0, good=100_000, bad=0)
    assert record_results(breaker, 61.0, good=0, bad=100)


def test_a_reject_ratio_of_zero_disables_the_breaker() -> None:
    assert not record_results(CircuitBreaker(BreakerPolicy(reject_ratio=0.0)), 0.0, good=0, bad=10_000)


def open_breaker() -> CircuitBreaker:
    breaker = CircuitBreaker(POLICY)
    assert record_results(breaker, 0.0, good=0, bad=100)
    return breaker


def test_the_wait_before_a_probe_doubles_after_each_failed_probe() -> None:
    breaker, now, waits = open_breaker(), 0.0, []
    for _ in range(4):
        waits.append(breaker.seconds_until_probe(now))
        assert not breaker.is_probe_due(now + breaker.seconds_until_probe(now) - 0.1)
        now += breaker.seconds_until_probe(now)
        assert breaker.is_probe_due(now)
        assert breaker.start_probe() == 100
        assert [breaker.record(now, True) for _ in range(100)] == [False] * 99 + [True]
    assert waits == [30.0, 60.0, 100.0, 100.0]


def test_a_good_probe_closes_the_breaker_and_resets_its_window() -> None:
    breaker = open_breaker()
    breaker.start_probe()
    assert not record_results(breaker, 30.0, good=60, bad=40)
    assert breaker.state is CircuitState.CLOSED
    assert not record_results(breaker, 31.0, good=0, bad=99)
    assert record_results(breaker, 31.0, good=0, bad=1)
    assert breaker.seconds_until_probe(31.0) == 30.0


def test_a_probe_with_few_records_is_decided_by_these() -> None:
    for good, bad, goes_on in ((1, 0, True), (2, 1, True), (1, 2, False), (0, 1, False)):
        breaker = open_breaker()
        breaker.start_probe()
        assert not record_results(breaker, 30.0, good, bad)
        assert breaker.evaluate_probe(30.0) is goes_on


def test_a_probe_without_records_is_due_again_at_once() -> None:
    breaker = open_breaker()
    breaker.start_probe()
    assert not breaker.evaluate_probe(30.0)
    assert breaker.is_probe_due(30.0)


def test_a_forced_closed_breaker_ignores_rejects_until_a_good_window() -> None:
    breaker = open_breaker()
    breaker.force_close()
    assert not record_results(breaker, 1.0, good=0, bad=10_000)
    assert breaker.state is CircuitState.FORCED_CLOSED
    assert not record_results(breaker, 62.0, good=100, bad=0)
    assert breaker.state is CircuitState.CLOSED
    assert record_results(breaker, 63.0, good=0, bad=101)


def test_the_window_counts_exactly_the_records_within_it() -> None:
    """Compared with a list of all records."""
    rng, taken, now = random.Random(5), [], 0.0
    breaker = CircuitBreaker(BreakerPolicy(reject_ratio=0.0, window=10.0))
    for _ in range(3000):
        now += rng.choice((0.0, 0.01, 0.3, 4.0))
        bad = rng.random() < 0.3
        taken.append((int(now), bad))
        breaker.record(now, bad)
        inside = [bad for second, bad in taken if second > now - 10.0]
        assert (breaker.count, breaker.rejected) == (len(inside), sum(inside))
