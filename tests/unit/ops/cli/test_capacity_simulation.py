"""The simulation of `attn capacity --simulate`: deterministic, conserves events, agrees with the calculator."""

from __future__ import annotations

import dataclasses
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law
from typer.testing import CliRunner

from ops.cli.capacity.simulation.arrivals import Workspaces, arrivals
from ops.cli.capacity.simulation.queues import Setup, breaking_point, simulate
from ops.cli.capacity.skew import zipf
from ops.cli.capacity.unit_costs import load_costs
from ops.cli.main import build
from ops.errors import UserError
from schemas.topics import partition_of

COSTS = load_costs()
SETUP = Setup(zipf(200, 0.8), rate=300, streams=100, partitions=16, workers=4, edges=2, seconds=5)


@law(30)
@given(st.integers(1, 500), st.floats(0, 1.5), st.integers(1, 64), st.data())
def test_every_event_is_folded_once_and_reaches_one_edge(
    workspaces: int, skew: float, partitions: int, data: st.DataObject,
) -> None:
    workers = data.draw(st.integers(1, partitions))
    ranges = data.draw(st.integers(1, partitions))
    setup = Setup(zipf(workspaces, skew), 200, 50, partitions, workers, ranges * data.draw(st.integers(1, 3)), ranges,
                  seconds=2, seed=data.draw(st.integers(0, 5)))
    result = simulate(setup, COSTS)
    events = sum(result.events)
    assert len(result.delays) == events  # a reader's edge, once
    assert sum(result.partitions) == pytest.approx(events * COSTS.worker_event_us / 1e6 / 2)
    assert len(result.workers) == workers
    assert all(0 <= cores <= 1.2 for cores in result.workers)  # work of the last moment ends after it
    assert sum(result.workers) >= sum(result.partitions)
    assert list(result.delays) == sorted(result.delays)
    assert not events or result.delays[0] >= COSTS.pipeline_ms / 1e3
    assert result.events[result.hottest] == max(result.events)


def test_a_seed_gives_the_same_result() -> None:
    assert simulate(SETUP, COSTS) == simulate(SETUP, COSTS)
    assert simulate(SETUP, COSTS) != simulate(dataclasses.replace(SETUP, seed=2), COSTS)


def test_workspaces_are_in_the_partitions_of_their_names() -> None:
    workspaces = Workspaces(zipf(50, 1), 16, Random(1))
    drawn = {workspaces.draw() for _ in range(5000)}
    assert len(drawn) == 50
    assert all(partition == partition_of(f"ws_{rank}", 16) for rank, partition in drawn)


def test_small_workspaces_without_a_name_are_spread() -> None:
    workspaces = Workspaces(zipf(1_000_000, 0.2), 8, Random(1))
    counts = [0] * 8
    for _ in range(8000):
        rank, partition = workspaces.draw()
        counts[partition] += rank == -1
    assert min(counts) > 700


def test_the_rate_is_kept_with_bursts() -> None:
    times = list(arrivals(1000, 20, 5, Random(1)))
    assert len(times) == pytest.approx(20_000, rel=0.05)
    assert times == sorted(times)
    assert sum(5 <= time < 6 for time in times) == pytest.approx(5000, rel=0.1)
    assert sum(2 <= time < 3 for time in times) == pytest.approx(5000 / 9, rel=0.2)
    assert list(arrivals(0, 5, 3, Random(1))) == []


def test_a_hot_workspace_makes_its_partition_and_its_edge_the_busiest() -> None:
    result = simulate(dataclasses.replace(SETUP, shares=zipf(200, 1.5), rate=100, streams=2000), COSTS)
    assert result.hottest == partition_of("ws_0", 16)
    assert result.workers[result.hottest % 4] == max(result.workers)
    assert result.edges[0] > 1.5 * result.edges[1]  # rank 0 of two edges


def test_more_load_uses_more_until_it_breaks() -> None:
    results = [simulate(dataclasses.replace(SETUP, rate=rate, burst=1.0), COSTS) for rate in (10, 100, 1000)]
    assert [max(result.workers) for result in results] == sorted(max(result.workers) for result in results)
    assert [max(result.edges) for result in results] == sorted(max(result.edges) for result in results)
    factor = breaking_point(SETUP, COSTS)
    broken = simulate(dataclasses.replace(SETUP, rate=300 * factor * 1.3, burst=1.0, seconds=2), COSTS)
    safe = simulate(dataclasses.replace(SETUP, rate=300 * factor * 0.6, burst=1.0, seconds=2), COSTS)
    assert safe.busiest < 1 <= broken.busiest * 1.03
    assert safe.delay(0.99) < broken.delay(0.99)


def test_an_empty_load_has_no_delay_and_never_breaks() -> None:
    result = simulate(dataclasses.replace(SETUP, rate=0), COSTS)
    assert (sum(result.events), result.delay(0.99)) == (0, 0)
    assert breaking_point(dataclasses.replace(SETUP, rate=0), COSTS) == 4096


@pytest.mark.parametrize(("change", "text"), [
    ({"rate": 1e6}, "5,000,000 events to simulate, at most 300,000"),
    ({"workers": 17}, "17 workers and 1 ranges for 16 partitions"),
    ({"burst": 11.0}, "--burst is 11.0"),
    ({"edges": 3, "ranges": 2}, "3 edges for 2 ranges"),
])
def test_an_impossible_setup_is_refused(change: dict[str, float], text: str) -> None:
    with pytest.raises(UserError, match=text):
        dataclasses.replace(SETUP, **change)


def test_the_command_simulates_the_plan_or_given_numbers() -> None:
    load = ["capacity", "--events-per-s", "0.5", "--workspaces", "100", "--streams", "200", "--items", "1000",
            "--simulate"]

    def run(*more: str) -> str:
        result = CliRunner().invoke(build("capacity"), [*load, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    simulation = json.loads(run("--json"))["simulation"]
    assert len(simulation["partitions"]) == 8
    assert simulation["p50_ms"] <= simulation["p99_ms"]
    more = json.loads(run("--json", "--partitions", "32", "--workers", "5", "--edges", "3"))["simulation"]
    assert [len(more[name]) for name in ("partitions", "workers", "edges")] == [32, 5, 3]
    assert f"Partition {simulation['hottest_partition']} is the hottest" in run()
