"""The reconnect delay that an edge sends to its streams: short while the edge has few of them."""

from __future__ import annotations

import pytest

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


def test_an_overloaded_edge_sends_the_longest_delays() -> None:
    assert max(delays(1, opening=1_000_000)) > 4.0
