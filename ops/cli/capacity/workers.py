"""Number of workers: CPU, memory, and the time to load the partitions of a worker that died."""

from __future__ import annotations

from ops.cli.capacity.component import Component, TooLarge, fewest, limiting
from ops.cli.capacity.demand import GB, MB
from ops.cli.capacity.load import Load
from ops.cli.capacity.unit_costs import UnitCosts

__all__ = ["MAX_PARTITIONS", "fold_cores", "rows_memory", "size_workers", "worker_cores", "worker_memory"]

MAX_PARTITIONS = 1024  # of the setting ATTN_LOG_PARTITIONS
_STANDBY_BYTES = 512 * MB  # ATTN_STANDBY_MEGABYTES
# Powers of two and their halves between: partitions divide evenly, also after the number was doubled.
_COUNTS = sorted({2 ** power for power in range(1, 9)} | {3 * 2 ** power for power in range(7)})


def fold_cores(load: Load, share: float, costs: UnitCosts) -> float:
    """Returns the cores that the events and writes of this share of the load need at the peak, without the cycles.

    A worker that has more to do makes fewer and larger cycles. So it keeps up while this is below one core; a cycle
    then takes `worker_cycle_us` / (1 - cores).
    """
    return share * (load.events * costs.worker_event_us + load.writes * costs.worker_write_us) / 1e6


def worker_cores(load: Load, workers: int, costs: UnitCosts) -> float:
    """Returns the cores in use of the busiest worker at the peak, cycles included: at most one."""
    share = load.busiest(workers)
    cores = costs.worker_idle_cores + fold_cores(load, share, costs)
    cycles = min((load.events + load.writes) * share, 1000 / costs.worker_cycle_ms)
    return min(1.0, cores + cycles * costs.worker_cycle_us / 1e6)


def worker_memory(load: Load, share: float, costs: UnitCosts) -> float:
    """Returns the bytes of memory of a worker with this share of the rows, and with rows of others as a standby."""
    rows = rows_memory(load, costs)
    return costs.worker_base_mb * MB + share * rows + min(_STANDBY_BYTES, (1 - share) * rows)


def rows_memory(load: Load, costs: UnitCosts) -> float:
    """Returns the bytes of memory of all rows and event ids in workers."""
    row = load.demand.row_bytes + costs.worker_row_bytes
    return load.rows * row + load.digests * costs.worker_digest_bytes


def size_workers(load: Load, costs: UnitCosts) -> Component:
    """Returns the workers of an installation. Raises TooLarge if more than the largest number of partitions would be
    needed."""
    demand = load.demand
    memory = demand.worker_memory_gb * GB * demand.utilisation
    needs = {
        "failover": _COUNTS[0],
        "CPU": fewest(_COUNTS, lambda count: fold_cores(load, load.busiest(count), costs) <= demand.utilisation),
        "memory": fewest(_COUNTS, lambda count: worker_memory(load, load.busiest(count), costs) <= memory),
        "takeover": fewest(_COUNTS, lambda count: (
            load.busiest(count) * load.rows * costs.worker_load_us / 1e6 <= demand.takeover_s)),
    }
    possible = {resource: need for resource, need in needs.items() if need is not None}
    if len(possible) < len(needs):
        raise TooLarge(f"{next(resource for resource in needs if resource not in possible)} of a worker")
    count, limited_by = limiting(possible)
    return Component(
        "workers", count, limited_by, possible, cores=worker_cores(load, count, costs),
        memory_gb=worker_memory(load, load.busiest(count), costs) / GB)
