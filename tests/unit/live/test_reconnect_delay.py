"""The reconnect delay that an edge sends to its streams: short while the edge has few of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from api.live import connections
from api.live.connections import ConnectionRegistry
from schemas.settings import Settings


def delays(streams: int, opening: int = 0) -> list[float]:
    registry = ConnectionRegistry(Settings(reconnect_seconds=5.0), lambda: 0)
    registry._entries = dict.fromkeys(range(streams))  # type: ignore[arg-type]
    registry._opening = opening
    return [int(registry.retry_field().raw.removeprefix(b"retry: ")) / 1000 for _ in range(2000)]


@pytest.mark.parametrize(("streams", "bound"), [(1, 0.5), (400, 0.5), (2000, 2.0), (5000, 5.0), (100_000, 5.0)])
def test_the_delay_grows_with_the_number_of_streams(streams: int, bound: float) -> None:
    found = delays(streams)
    assert bound * 0.9 < max(found) <= bound
    assert min(found) >= bound * 0.1 - 0.001, "the readers of a failed edge are spread"


def deferrals(number: int, streams: int = 1) -> list[float]:
    registry = ConnectionRegistry(Settings(reconnect_seconds=5.0), lambda: 0)
    registry._entries = dict.fromkeys(range(streams))  # type: ignore[arg-type]
    return [int(registry.deferral().raw.removeprefix(b"retry: ")) / 1000 for _ in range(number)]


def test_thousands_of_deferred_clients_come_back_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: 100.0))
    found = deferrals(20_000)
    for second in range(1, 19):
        assert 950 <= sum(second <= delay < second + 1 for delay in found) <= 1050
    assert 19.9 < max(found) <= 20.1
    assert max(deferrals(200_000)) == 60


def test_few_deferred_clients_come_back_soon() -> None:
    assert max(deferrals(100)) <= 0.5
    assert 4 < max(deferrals(2000, streams=100_000)) <= 5


def test_an_overloaded_edge_sends_the_longest_delays() -> None:
    assert max(delays(1, opening=1_000_000)) > 4.0
