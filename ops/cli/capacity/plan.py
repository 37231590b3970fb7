"""The plan for a load: components, partitions, ranges, installations, and limits that more processes do not move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ops.cli.capacity.component import Component, TooLarge
from ops.cli.capacity.demand import GB, MB, Demand
from ops.cli.capacity.edges import edge_changes_cores, size_edges, size_proxies
from ops.cli.capacity.load import PARTITIONS_EACH, Load, load_of
from ops.cli.capacity.skew import zipf
from ops.cli.capacity.storage import replicas, size_brokers, size_clickhouse, size_history
from ops.cli.capacity.unit_costs import UnitCosts
from ops.cli.capacity.workers import MAX_PARTITIONS, fold_cores, rows_memory, size_workers
from ops.errors import UserError

__all__ = ["Limit", "Plan", "make_plan"]

_INSTALLATIONS = tuple(2 ** power for power in range(13))
_CLICKHOUSE_CORES = 32.0  # assumed: a large server
_SEARCHED = 1e6


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that more processes do not move. `factor`: how much the whole load may grow until it is reached."""

    name: str
    factor: float
    remedy: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`installations`: separate installations among which workspaces are spread; `limit_of_fewer`: the resource that
    half as many exceed, empty for one. All other figures are those of the busiest of them; `limits` begins with the one
    that is reached first."""

    demand: Demand
    load: Load
    installations: int
    partitions: int
    source_partitions: int
    ranges: int
    components: tuple[Component, ...]
    limits: tuple[Limit, ...]
    limit_of_fewer: str = ""

    def component(self, name: str) -> Component:
        return next(component for component in self.components if component.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return {
            "installations": self.installations, "limit_of_fewer": self.limit_of_fewer, "partitions": self.partitions,
            "source_partitions": self.source_partitions, "ranges": self.ranges,
            "load": {
                name: getattr(self.load, name)
                for name in ("events", "writes", "frames", "opens", "streams", "rows", "digests", "sessions")},
            "components": [{
                "name": each.name, "count": each.count, "limited_by": each.limited_by, "needs": dict(each.needs),
                "cores": each.cores, "memory_gb": each.memory_gb, "disk_gb": each.disk_gb,
                "network_mb_s": each.network_mb_s} for each in self.components],
            "limits": [{"name": each.name, "factor": each.factor, "remedy": each.remedy} for each in self.limits],
        }


def make_plan(demand: Demand, costs: UnitCosts) -> Plan:
    """Returns the plan with the fewest installations. Raises UserError if no number of installations suffices: then one
    workspace is larger than one worker or one edge."""
    reason = ""
    for installations in _INSTALLATIONS:
        load = load_of(demand, installations)
        try:
            workers, (ranges, edges) = size_workers(load, costs), size_edges(load, costs)
        except TooLarge as error:
            reason = str(error)
            continue
        plan = _plan(demand, load, installations, workers, ranges, edges, costs)
        return replace(plan, limit_of_fewer=reason)
    largest, whole = zipf(demand.workspaces, demand.skew).largest, load_of(demand)
    raise UserError(
        f"{_INSTALLATIONS[-1]:,} installations do not suffice: {reason}; the largest workspace has "
        f"{largest:.2%} of the whole load, which takes {fold_cores(whole, largest, costs):.2g} cores and "
        f"{largest * rows_memory(whole, costs) / GB:.2g} GB of rows and event ids in one worker; use a smaller --skew, "
        f"a shorter --retention-days ({demand.retention_days:g}) and --dedupe-days ({demand.dedupe_days:g}), or larger "
        f"machines (--worker-memory-gb {demand.worker_memory_gb:g}, --edge-memory-gb {demand.edge_memory_gb:g})")


def _plan(
    demand: Demand, load: Load, installations: int, workers: Component, ranges: int, edges: Component, costs: UnitCosts,
) -> Plan:
    partitions = min(MAX_PARTITIONS, PARTITIONS_EACH * max(workers.count, ranges))
    source_partitions = max(demand.source_partitions, workers.count)
    brokers = size_brokers(load, workers.count, partitions, source_partitions, edges.count // ranges, costs)
    components = (
        brokers, workers, edges, size_proxies(load, costs), size_history(load, costs), size_clickhouse(load, costs))
    limits = _limits(load, partitions, source_partitions, costs)
    return Plan(demand, load, installations, partitions, source_partitions, ranges, components, limits)


def _limits(load: Load, partitions: int, source_partitions: int, costs: UnitCosts) -> tuple[Limit, ...]:
    demand, largest, hottest = load.demand, load.shares.largest, load.shares.hottest(partitions)
    memory = demand.worker_memory_gb * GB - costs.worker_base_mb * MB
    clickhouse = load.events * costs.facts_per_event * costs.clickhouse_row_us / 1e6
    limits = [
        Limit("one core for the hottest partition", _factor(1.0, fold_cores(load, hottest, costs)),
              "more partitions (a new log)"),
        Limit("one core for the largest workspace", _factor(1.0, fold_cores(load, largest, costs)),
              "divide the workspace"),
        Limit("memory of one worker for the hottest partition",
              _factor(memory, hottest * rows_memory(load, costs)),
              "larger machines, shorter retention"),
        Limit("one edge for all readers of the largest workspace", _grown(lambda grown: (
            edge_changes_cores(load, largest, costs) * grown
            + _largest_frames(load, grown) * costs.edge_frame_us / 1e6)), "hash workspace and user in nginx"),
        Limit("one ClickHouse server of 32 cores", _factor(_CLICKHOUSE_CORES * demand.utilisation, clickhouse),
              "one more installation"),
        Limit("replicas of a Kafka cluster",
              _factor(costs.cluster_replicas, replicas(load, partitions, source_partitions)), "one more installation"),
    ]
    return tuple(sorted(limits, key=lambda limit: limit.factor))


def _factor(available: float, used: float) -> float:
    return min(_SEARCHED, available / used) if used > 0 else _SEARCHED


def _largest_frames(load: Load, grown: float) -> float:
    """Returns the frames per second of the largest workspace if events and streams grow: one factor for each."""
    readers = load.streams * load.shares.largest * grown
    return load.events * load.shares.largest * grown * min(readers, load.demand.audience or readers)


def _grown(cores: Callable[[float], float]) -> float:
    """Returns the growth at which an increasing function reaches one core."""
    low, high = 0.0, _SEARCHED
    if cores(high) <= 1.0:
        return high
    for _ in range(60):
        middle = math.sqrt(low * high) if low else high / 2
        low, high = (middle, high) if cores(middle) <= 1.0 else (low, middle)
    return low
