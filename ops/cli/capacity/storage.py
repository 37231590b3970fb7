"""Number of brokers, and what history and ClickHouse need: disks, network, CPU."""

from __future__ import annotations

import math

from ops.cli.capacity.component import Component, limiting
from ops.cli.capacity.demand import DAY, GB, MB
from ops.cli.capacity.load import Load
from ops.cli.capacity.unit_costs import UnitCosts
from schemas.topics import SOURCE_TYPES

__all__ = ["broker_disk", "replicas", "size_brokers", "size_clickhouse", "size_history"]

_HOUR = 3600.0
_COMPACTED = 2.0  # attn.views: up to half of a compacted topic are older records of the same rows
_PER_PARTITION_TOPICS = 4  # attn.log, attn.views, attn.facts, decisions
_HISTORY_GB = 0.4


def _record_bytes(load: Load, costs: UnitCosts) -> tuple[float, float, float, float]:
    """Returns the bytes of an event on its source topic, on attn.log, on attn.views and on attn.facts."""
    event = load.demand.event_bytes
    return (event + costs.source_overhead_bytes, event + costs.log_overhead_bytes, load.demand.row_bytes,
            costs.facts_per_event * costs.fact_bytes)


def broker_disk(load: Load, costs: UnitCosts) -> dict[str, float]:
    """Returns the bytes of each kind of topic, one replica."""
    demand = load.demand
    source, log, row, facts = _record_bytes(load, costs)
    return {
        "source topics": load.average * source * demand.source_hours * _HOUR,
        "attn.log": load.average * log * demand.log_hours * _HOUR,
        "attn.views": _COMPACTED * (load.rows * row + load.digests * 22),  # 16 bytes in base64
        "attn.facts": load.average * facts * demand.facts_hours * _HOUR,
    }


def replicas(load: Load, partitions: int, source_partitions: int) -> int:
    """Returns the replicas of partitions of all topics of attn."""
    topics = len(SOURCE_TYPES) * source_partitions + _PER_PARTITION_TOPICS * partitions + 1
    return topics * load.demand.replication


def size_brokers(
    load: Load, workers: int, partitions: int, source_partitions: int, edges_per_range: int, costs: UnitCosts,
) -> Component:
    """Returns the brokers. Each edge reads the views and facts of its range."""
    demand, copies = load.demand, load.demand.replication
    source, log, row, facts = _record_bytes(load, costs)
    written = load.events * (source + log + row + facts) * copies / MB
    read = load.events * (
        (source + log + row + facts) * (copies - 1) + source + log + edges_per_range * (row + facts) + facts) / MB
    disk = sum(broker_disk(load, costs).values()) * copies
    cycles = min(load.events, workers * 1000 / costs.worker_cycle_ms)
    cores = copies * (load.events * costs.broker_event_us + cycles * costs.broker_cycle_us) / 1e6
    needs = {
        "replication": copies,
        "CPU": max(1, math.ceil(cores / (demand.broker_cores * demand.utilisation))),
        "network": max(1, math.ceil(max(written, read) / costs.broker_mb_per_s)),
        "disk": max(1, math.ceil(disk / (demand.broker_disk_gb * GB * demand.utilisation))),
        "partitions": math.ceil(replicas(load, partitions, source_partitions) / costs.broker_replicas),
    }
    count, limited_by = limiting(needs)
    return Component(
        "brokers", count, limited_by, needs, cores=cores / count, disk_gb=disk / count / GB,
        network_mb_s=max(written, read) / count)


def size_history(load: Load, costs: UnitCosts) -> Component:
    """Returns the processes of `attn history`."""
    cores = load.events * costs.facts_per_event * costs.history_fact_us / 1e6
    needs = {"one": 1, "CPU": max(1, math.ceil(cores / load.demand.utilisation))}
    count, limited_by = limiting(needs)
    return Component("history", count, limited_by, needs, cores=cores / count, memory_gb=_HISTORY_GB)


def size_clickhouse(load: Load, costs: UnitCosts) -> Component:
    """Returns the ClickHouse server: attn distributes no rows over shards."""
    facts = load.events * costs.facts_per_event
    kept = load.average * costs.facts_per_event * load.demand.history_days * DAY
    return Component(
        "ClickHouse", 1, "one", {"one": 1}, cores=facts * costs.clickhouse_row_us / 1e6,
        disk_gb=kept * costs.clickhouse_row_bytes / GB)
