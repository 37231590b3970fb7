"""Lag, age and the reasons for not being ready, over time."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from schemas.settings import Settings
from streams.runtime.lag import ConsumerStalled, LagTracker

A, B = ("attn.log", 0), ("attn.log", 1)
SETTINGS = Settings(_env_file=None, stall_seconds=10, ready_lag_seconds=30)
NOON = 1_800_000_000.0  # wall clock


def test_a_caught_up_worker_stays_ready_without_new_records() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    for second in range(3600):
        progress.observe(second, NOON + second, {A: 7}, {A: 7})
    assert progress.not_ready_reason(3600.0, NOON + 3600) is None
    progress.observe(3600.0, NOON + 3600, {A: 7}, {A: 8}, {A: NOON - 86400})
    assert progress.not_ready_reason(3600.0, NOON + 3600) is None, (
        "the waiting record is younger than the last observation")
    assert _age(A) == 1.0


def test_a_broker_without_an_answer_for_10_s_makes_the_worker_not_ready() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    progress.observe(5.0, NOON, {A: 7}, {A: 7})
    assert progress.not_ready_reason(15.0, NOON) is None
    assert progress.not_ready_reason(15.1, NOON) == "the broker has not answered for 10 s"
    progress.observe(16.0, NOON, {A: 7}, {A: 7})
    assert progress.not_ready_reason(16.0, NOON) is None


def test_a_suspended_tracker_reports_no_missing_answer() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    progress.suspend(60.0)
    assert progress.not_ready_reason(70.0, NOON) is None
    assert progress.not_ready_reason(71.0, NOON) == "the broker has not answered for 11 s"


def test_a_position_that_does_not_move_despite_waiting_records_is_a_stall() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    for second in range(12):
        progress.observe(second, NOON + second, {A: 7, B: second}, {A: 9, B: second + 3})
    assert progress.not_ready_reason(11.0, NOON + 11) == (
        "stalled: attn.log/0 stays at offset 7, end offset 9, for 11 s")
    progress.observe(12.0, NOON + 12, {A: 8, B: 12}, {A: 9, B: 15})
    assert progress.not_ready_reason(12.0, NOON + 12) is None


def test_time_without_observations_is_no_stall() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    progress.observe(1.0, NOON, {A: 7}, {A: 9})
    progress.observe(600.0, NOON, {A: 7}, {A: 9})
    assert progress.longest_stall()[0] == pytest.approx(4.0)


def test_readiness_while_catching_up_depends_on_the_age_of_waiting_records() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    progress.observe(0.0, NOON, {A: 0}, {A: 1000})
    assert progress.not_ready_reason(0.0, NOON) is None, "the age of the waiting record is unknown"
    for second in range(1, 10):
        progress.observe(second, NOON + second, {A: 100 * second}, {A: 1000}, {A: NOON - 300 + 30 * second})
    assert progress.not_ready_reason(9.0, NOON + 9) == (
        "catching up: attn.log/0 is 100 records behind, the oldest up to 39 s old")
    progress.observe(10.0, NOON + 10, {A: 1000}, {A: 1000}, {A: NOON})
    assert progress.not_ready_reason(10.0, NOON + 10) is None
    assert _age(A) == 0.0


def test_the_lag_of_a_revoked_partition_is_removed() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    progress.observe(0.0, NOON, {A: 0, B: 0}, {A: 5, B: 5})
    assert REGISTRY.get_sample_value("attn_lag_records", {"topic": "attn.log", "partition": "1"}) == 5
    progress.observe(1.0, NOON, {A: 0}, {A: 5})
    assert REGISTRY.get_sample_value("attn_lag_records", {"topic": "attn.log", "partition": "1"}) is None


def _age(place: tuple[str, int]) -> float | None:
    return REGISTRY.get_sample_value("attn_lag_seconds", {"topic": place[0], "partition": str(place[1])})


def test_a_stall_longer_than_the_limit_raises() -> None:
    progress = LagTracker(SETTINGS, 0.0)
    facts = ("attn.facts", 0)
    for second in range(12):
        progress.observe(second, NOON + second, {A: 7, facts: 3}, {A: 9, facts: 3})
    progress.check_stalled(11.0)
    progress.check_stalled(5.0, topic="attn.facts")
    with pytest.raises(ConsumerStalled, match=r"attn\.log/0 stays at offset 7, end offset 9, for 11 s"):
        progress.check_stalled(10.0)
    progress.observe(12.0, NOON + 12, {A: 7, facts: 3}, {A: 9, facts: 3}, paused=[A])
    progress.check_stalled(5.0)
