"""The calculator of `attn capacity`: monotonic in each input, and within every limit."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law

from ops.cli.capacity.component import TooLarge, fewest, limiting
from ops.cli.capacity.demand import GB, Demand
from ops.cli.capacity.edges import size_edges
from ops.cli.capacity.load import PARTITIONS_EACH, Load, load_of
from ops.cli.capacity.plan import Plan, make_plan
from ops.cli.capacity.skew import zipf
from ops.cli.capacity.storage import broker_disk, size_brokers
from ops.cli.capacity.unit_costs import KINDS, load_costs, load_sources
from ops.cli.capacity.workers import MAX_PARTITIONS, fold_cores, size_workers, worker_cores, worker_memory
from ops.errors import UserError

COSTS = load_costs()
SMALL = Demand(events_per_s=1, workspaces=20, streams=100, items=1000)
EVEN = dataclasses.replace(SMALL, workspaces=100_000, skew=0.3, retention_days=1, dedupe_days=1)

demands = st.builds(
    Demand,
    events_per_s=st.floats(0, 20_000), workspaces=st.integers(1, 1_000_000), streams=st.integers(0, 2_000_000),
    items=st.integers(0, 50_000_000), users=st.integers(0, 10_000_000), writes_per_s=st.floats(0, 5000),
    opens=st.floats(0, 1), peak=st.floats(1, 5), skew=st.floats(0, 1.2), audience=st.integers(0, 500),
    event_bytes=st.floats(50, 20_000), row_bytes=st.floats(50, 20_000), retention_days=st.floats(0.1, 90),
    dedupe_days=st.floats(0.1, 90), worker_memory_gb=st.floats(2, 256), edge_memory_gb=st.floats(2, 256),
    utilisation=st.floats(0.2, 0.9), replication=st.integers(1, 3),
)
# Inputs of which more never needs fewer processes, by how much they grow.
GROWING = ("events_per_s", "streams", "items", "users", "writes_per_s", "peak", "event_bytes", "row_bytes",
           "retention_days", "dedupe_days", "opens")


def plan_of(demand: Demand) -> Plan | None:
    try:
        return make_plan(demand, COSTS)
    except UserError:
        return None


def fits(load: Load) -> bool:
    try:
        return size_workers(load, COSTS).count > 0 and size_edges(load, COSTS)[0] > 0
    except TooLarge:
        return False


def counts(plan: Plan) -> dict[str, float]:
    own = {component.name: component.count for component in plan.components}
    disks = {component.name: component.disk_gb * component.count for component in plan.components}
    return {**own, "partitions": plan.partitions, **{f"disk of {name}": size for name, size in disks.items()}}


@law(60)
@given(demands, st.sampled_from(GROWING), st.floats(1, 20))
def test_a_larger_load_never_needs_less(demand: Demand, name: str, factor: float) -> None:
    value = getattr(demand, name)
    grown = value * factor if isinstance(value, float) else int(value * factor)
    larger = dataclasses.replace(demand, **{name: min(grown, 1.0) if name == "opens" else grown})
    before, after = plan_of(demand), plan_of(larger)
    if before is None:
        assert after is None
    elif after is not None:
        assert after.installations >= before.installations
        if after.installations == before.installations:
            assert {part: (old, counts(after)[part]) for part, old in counts(before).items()
                    if counts(after)[part] < old * (1 - 1e-9)} == {}


@law(40)
@given(demands, st.sampled_from(("worker_memory_gb", "edge_memory_gb", "utilisation", "takeover_s", "broker_disk_gb")))
def test_a_larger_machine_never_needs_more(demand: Demand, name: str) -> None:
    larger = dataclasses.replace(demand, **{name: min(0.95, demand.utilisation * 1.5) if name == "utilisation"
                                            else getattr(demand, name) * 2})
    before, after = plan_of(demand), plan_of(larger)
    if before is not None:
        assert after is not None
        assert after.installations <= before.installations
        if after.installations == before.installations:
            assert after.component("workers").count <= before.component("workers").count
            assert after.component("edges").count <= before.component("edges").count


@law(60)
@given(demands)
def test_a_plan_keeps_every_limit_with_the_fewest_processes(demand: Demand) -> None:
    plan = plan_of(demand)
    if plan is None:
        return
    for component in plan.components:
        assert component.count == max(component.needs.values())
        assert component.needs[component.limited_by] == component.count
        assert all(need >= 1 for need in component.needs.values())
        for figure in ("cores", "memory_gb", "disk_gb", "network_mb_s"):
            assert math.isfinite(getattr(component, figure))
            assert getattr(component, figure) >= 0
    workers, edges, brokers = (plan.component(name) for name in ("workers", "edges", "brokers"))
    assert fold_cores(plan.load, plan.load.busiest(workers.count), COSTS) <= demand.utilisation * (1 + 1e-9)
    assert workers.memory_gb <= demand.worker_memory_gb * demand.utilisation * (1 + 1e-9)
    assert edges.cores <= 1
    assert edges.memory_gb <= demand.edge_memory_gb * demand.utilisation * (1 + 1e-9)
    assert brokers.disk_gb <= demand.broker_disk_gb * demand.utilisation * (1 + 1e-9)
    assert brokers.network_mb_s <= COSTS.broker_mb_per_s * (1 + 1e-9)
    assert PARTITIONS_EACH * workers.count <= plan.partitions <= MAX_PARTITIONS
    assert edges.count % plan.ranges == 0
    assert edges.count >= 2 * plan.ranges
    assert plan.source_partitions >= workers.count
    assert [limit.factor for limit in plan.limits] == sorted(limit.factor for limit in plan.limits)
    assert bool(plan.limit_of_fewer) == (plan.installations > 1)
    if plan.installations > 1:  # half as many do not suffice
        assert not fits(load_of(demand, plan.installations // 2))


@pytest.mark.parametrize(("change", "name", "resource"), [
    ({"events_per_s": 15_000, "retention_days": 0.01, "dedupe_days": 0.01}, "workers", "CPU"),
    ({"items": 30_000_000}, "workers", "memory"),
    ({"items": 20_000_000, "worker_memory_gb": 1000.0, "takeover_s": 20}, "workers", "takeover"),
    ({}, "workers", "failover"),
    ({"streams": 100_000, "events_per_s": 100, "workspaces": 100, "takeover_s": 3600}, "edges", "CPU"),
    ({"streams": 500_000, "events_per_s": 0.001, "edge_memory_gb": 1.0, "takeover_s": 3600}, "edges", "memory"),
    ({"streams": 500_000, "events_per_s": 0.001, "edge_memory_gb": 1000}, "edges", "reconnects"),
    ({"streams": 500_000, "events_per_s": 0.001}, "nginx cores", "connections"),
    ({"events_per_s": 3000, "broker_disk_gb": 100}, "brokers", "disk"),
    ({"events_per_s": 3000, "event_bytes": 100_000, "broker_disk_gb": 1e6},
     "brokers", "network"),
    ({}, "brokers", "replication"),
])
def test_a_plan_names_the_resource_that_decides(change: dict[str, float], name: str, resource: str) -> None:
    plan = make_plan(dataclasses.replace(EVEN, **change), COSTS)
    assert plan.component(name).limited_by == resource


def test_workers_are_as_many_as_their_cores_and_memory_require() -> None:
    demand = dataclasses.replace(EVEN, events_per_s=3000.0)
    load = load_of(demand)
    workers = size_workers(load, COSTS)
    assert fold_cores(load, load.busiest(workers.count), COSTS) <= 0.6
    assert worker_memory(load, load.busiest(workers.count), COSTS) <= 8 * GB * 0.6
    assert workers.count * 0.6 >= 9000 * COSTS.worker_event_us / 1e6
    assert workers.cores == worker_cores(load, workers.count, COSTS) <= 1


def test_a_disk_holds_what_is_retained() -> None:
    demand = dataclasses.replace(SMALL, events_per_s=10.0, source_hours=1, log_hours=2, facts_hours=3)
    disk = broker_disk(load_of(demand), COSTS)
    assert disk["source topics"] == pytest.approx(10 * 3600 * (450 + COSTS.source_overhead_bytes))
    assert disk["attn.log"] == pytest.approx(10 * 7200 * (450 + COSTS.log_overhead_bytes))
    brokers = size_brokers(load_of(demand), 2, 8, 4, 2, COSTS)
    assert brokers.disk_gb * brokers.count == pytest.approx(sum(disk.values()) * 3 / 1e9)


def test_one_workspace_that_no_worker_can_fold_is_reported() -> None:
    with pytest.raises(UserError, match=r"4,096 installations do not suffice: CPU of a worker; the largest"):
        make_plan(dataclasses.replace(SMALL, events_per_s=100_000.0, workspaces=1, retention_days=0.001,
                                      dedupe_days=0.001, worker_memory_gb=10_000.0), COSTS)


@pytest.mark.parametrize(("name", "value"), [
    ("events_per_s", -1.0), ("events_per_s", math.nan), ("events_per_s", math.inf), ("workspaces", 0),
    ("streams", 10 ** 9), ("items", -5), ("skew", 2.1), ("utilisation", 1.0), ("replication", 0),
    ("event_bytes", 2 ** 21), ("worker_memory_gb", 0.1), ("streams", 1.5),
])
def test_an_absurd_input_is_refused_with_its_limits(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is ") as caught:
        dataclasses.replace(SMALL, **{name: value})
    assert caught.value.code == 2


def test_the_largest_allowed_inputs_overflow_nothing() -> None:
    largest = Demand(
        events_per_s=1e7, workspaces=10 ** 8, streams=10 ** 8, items=10 ** 11, users=10 ** 10, writes_per_s=1e7,
        opens=1, peak=100, skew=2, event_bytes=1 << 20, row_bytes=8 << 20, retention_days=3650, dedupe_days=3650)
    with pytest.raises(UserError, match="installations do not suffice"):
        make_plan(largest, COSTS)
    assert plan_of(dataclasses.replace(largest, skew=0, retention_days=0.001, dedupe_days=0.001, items=0)) is None


@law(40)
@given(st.integers(1, 10_000_000), st.floats(0, 2), st.integers(1, 4096))
def test_shares_of_workspaces_add_up(workspaces: int, skew: float, installations: int) -> None:
    shares = zipf(workspaces, skew)
    assert sum(number for number, _ in shares.groups) == pytest.approx(workspaces)
    assert sum(number * share for number, share in shares.groups) == pytest.approx(1)
    assert shares.largest >= 1 / workspaces * (1 - 1e-9)
    assert shares.hottest(1) == pytest.approx(1)
    hottest = [shares.hottest(2 ** power) for power in range(11)]
    assert all(share >= 2 ** -power * (1 - 1e-9) for power, share in enumerate(hottest))
    part, inside = shares.split(installations)
    assert shares.largest <= part <= 1 + 1e-9
    assert sum(number * share for number, share in inside.groups) == pytest.approx(1)
    assert inside.largest * part == pytest.approx(shares.largest)


def test_an_event_reaches_the_streams_of_its_workspace() -> None:
    assert zipf(10, 0).fan_out(1000, 0) == pytest.approx(100)
    assert zipf(10, 0).fan_out(1000, 7) == pytest.approx(7)
    assert zipf(1, 1).fan_out(1000, 0) == pytest.approx(1000)
    assert zipf(2, 1).fan_out(900, 0) == pytest.approx(2 / 3 * 600 + 1 / 3 * 300)


def test_each_unit_cost_has_its_source() -> None:
    for name, source in load_sources().items():
        assert source.kind in KINDS, name
        assert len(source.date) == 10, name
        assert source.bench, name
        assert source.unit, name


def test_the_first_number_that_suffices_is_found() -> None:
    assert fewest((1, 2, 3, 5, 8), lambda number: number >= 4) == 5
    assert fewest((1, 2), lambda number: number >= 1) == 1
    assert fewest((1, 2), lambda number: number >= 3) is None
    assert limiting({"CPU": 2, "memory": 5, "disk": 5}) == (5, "memory")
