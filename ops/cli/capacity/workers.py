"""Number of workers: CPU, memory, and the time to load the partitions of a worker that died."""

from __future__ import annotations

from ops.cli.capacity.component import Component, TooLarge, fewest, limiting
from ops.cli.capacity.demand import GB, MB
from ops.cli.capacity.load import PARTITIONS_EACH, Load
from ops.cli.capacity.unit_costs import UnitCosts

__all__ = ["MAX_PARTITIONS", "batch_rate", "partition_cores", "size_workers", "worker_cores", "worker_memory"]

MAX_PARTITIONS = 1024  # of the setting ATTN_LOG_PARTITIONS
# Powers of two and their halves between: partitions divide evenly, also after the number was doubled.
_COUNTS = sorted({2 ** power for power in range(1, 9)} | {3 * 2 ** power for power in range(7)})


def batch_rate(events: float, costs: UnitCosts) -> float:
    """Returns the batches per second of one partition: one per event, until batches follow one another directly."""
    return min(events, 1000 / costs.worker_batch_ms)


def partition_cores(load: Load, share: float, costs: UnitCosts) -> float:
    """Returns the cores that a partition with this share of the load needs at the peak."""
    events, writes = load.events * share, load.writes * share
    return (events * costs.worker_event_us + writes * costs.worker_write_us
            + batch_rate(events, costs) * costs.worker_batch_us) / 1e6


def worker_cores(load: Load, workers: int, costs: UnitCosts) -> float:
    """Returns the cores that the busiest worker needs at the peak. It can use one."""
    share = load.busiest(workers)
    each = partition_cores(load, share / PARTITIONS_EACH, costs)  # of partitions with an equal part of it
    return costs.worker_idle_cores + PARTITIONS_EACH * each


def worker_memory(load: Load, share: float, costs: UnitCosts) -> float:
    """Returns the bytes of memory of a worker with this share of the rows."""
    row = load.demand.row_bytes + costs.worker_row_bytes
    return costs.worker_base_mb * MB + share * (load.rows * row + load.digests * costs.worker_digest_bytes)


def size_workers(load: Load, costs: UnitCosts) -> Component:
    """Returns the workers of an installation. Raises TooLarge if more than the largest number of partitions would be
    needed."""
    demand = load.demand
    memory = demand.worker_memory_gb * GB * demand.utilisation
    needs = {
        "failover": _COUNTS[0],
        "CPU": fewest(_COUNTS, lambda count: worker_cores(load, count, costs) <= demand.utilisation),
        "memory": fewest(_COUNTS, lambda count: worker_memory(load, load.busiest(count), costs) <= memory),
        "takeover": fewest(_COUNTS, lambda count: (
            load.busiest(count) * load.rows * costs.worker_load_us / 1e6 <= demand.takeover_s)),
    }
    found = {resource: need for resource, need in needs.items() if need is not None}
    if len(found) < len(needs):
        raise TooLarge(f"workers: {next(resource for resource in needs if resource not in found)}")
    count, limited_by = limiting(found)
    return Component(
        "workers", count, limited_by, found, cores=worker_cores(load, count, costs),
        memory_gb=worker_memory(load, load.busiest(count), costs) / GB)
