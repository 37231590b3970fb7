"""The circuit breaker of an endpoint."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.circuit import Circuit


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(5):
        assert circuit.allows(now)
        circuit.begin()
        circuit.fail(now)
    return circuit


def test_five_failures_in_a_row_open_it_and_one_success_closes_it() -> None:
    circuit = Circuit()
    for _ in range(4):
        circuit.fail(0.0)
    assert not circuit.succeed()
    for _ in range(4):
        assert not circuit.fail(0.0)
    assert circuit.fail(0.0)
    assert circuit.is_open
    assert circuit.succeed()
    assert not circuit.is_open
    assert circuit.allows(0.0)


def test_while_open_one_probe_runs_at_a_time() -> None:
    circuit = opened()
    now = circuit.next_attempt_at
    assert 0.5 <= now <= 1.0
    assert not circuit.allows(now - 0.01)
    assert circuit.allows(now)
    circuit.begin()
    assert not circuit.allows(now + 100)
    circuit.abandon()
    assert circuit.allows(now + 100)
    circuit.begin()
    circuit.fail(now)
    assert not circuit.allows(now)
    assert circuit.next_attempt_at > now


def test_pauses_grow_up_to_a_minute() -> None:
    circuit, now, pauses = opened(), 0.0, []
    for _ in range(12):
        pauses.append(circuit.next_attempt_at - now)
        now = circuit.next_attempt_at
        circuit.begin()
        circuit.fail(now)
    assert pauses[0] <= 1.0
    assert 30.0 <= pauses[-1] <= 60.0
    assert len(set(pauses)) > 6  # jitter


def test_attempts_that_began_before_it_opened_do_not_count_as_probes() -> None:
    circuit = opened()
    before = circuit.next_attempt_at
    circuit.fail(0.5)
    assert circuit.next_attempt_at == before


def test_a_pause_that_the_receiver_asked_for_is_kept() -> None:
    circuit = Circuit()
    circuit.pause(100.0)
    assert not circuit.allows(99.0)
    assert circuit.allows(100.0)
    circuit.pause(50.0)
    assert not circuit.allows(99.0)
    circuit.succeed()  # this attempt began before the circuit opened
    assert not circuit.allows(99.0)
    assert circuit.allows(100.0)


@given(st.lists(st.sampled_from(["succeed", "fail", "abandon"]), max_size=60))
def test_the_circuit_always_allows_an_attempt_again(results: list[str]) -> None:
    circuit, now = Circuit(), 0.0
    for result in results:
        now = max(now, circuit.next_attempt_at)
        assert circuit.allows(now)
        circuit.begin()
        if result == "fail":
            circuit.fail(now)
        else:
            getattr(circuit, result)()
        assert circuit.next_attempt_at <= now + 60.0
