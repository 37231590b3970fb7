"""Number of edges: ranges of partitions, whose rows must fit one edge, and edges for the streams of a range."""

from __future__ import annotations

import math

from ops.cli.capacity.component import Component, TooLarge, limiting
from ops.cli.capacity.demand import GB, MB
from ops.cli.capacity.load import Load
from ops.cli.capacity.unit_costs import UnitCosts

__all__ = ["edge_changes_cores", "size_edges", "size_proxies"]

_RANGES = tuple(2 ** power for power in range(9))
_RESUME_BYTES = 64 << 20  # ATTN_RESUME_BYTES


def edge_changes_cores(load: Load, share: float, costs: UnitCosts) -> float:
    """Returns the cores that an edge needs for the changes of this share of the load, without readers and cycles."""
    return costs.edge_idle_cores + load.events * share * costs.edge_change_us / 1e6


def _rows_memory(load: Load, ranges: int, costs: UnitCosts) -> float:
    share, row = load.busiest(ranges), load.demand.row_bytes + costs.edge_row_bytes
    return (costs.edge_base_mb * MB + _RESUME_BYTES
            + share * (load.rows * row + load.sessions * costs.edge_session_bytes))


def _readers_cores(load: Load, ranges: int, costs: UnitCosts) -> float:
    """Returns the cores that the readers of the busiest range need on all of its edges."""
    return (load.frames * load.busiest_frames(ranges) * costs.edge_frame_us
            + load.busiest(ranges) * (load.opens * costs.edge_open_us + load.writes * costs.edge_write_us)) / 1e6


def _needs(load: Load, ranges: int, costs: UnitCosts) -> dict[str, int] | None:
    """Returns the edges that each resource requires for the busiest range; None if its rows or changes fit no edge."""
    demand = load.demand
    cores = demand.utilisation - edge_changes_cores(load, load.busiest(ranges), costs)
    memory = demand.edge_memory_gb * GB * demand.utilisation - _rows_memory(load, ranges, costs)
    if cores <= 0 or memory <= 0:
        return None
    streams = load.streams * load.busiest(ranges)
    # The streams of an edge that died open on the others within the time: streams / count <= opened * (count - 1).
    opened = demand.takeover_s * 1e6 / costs.edge_open_us
    return {
        "failover": 2,
        "CPU": max(1, math.ceil(_readers_cores(load, ranges, costs) / cores)),
        "memory": max(1, math.ceil(streams * costs.edge_stream_bytes / memory)),
        "reconnects": math.ceil(0.5 + math.sqrt(0.25 + streams / opened)),
    }


def size_edges(load: Load, costs: UnitCosts) -> tuple[int, Component]:
    """Returns the ranges, and the edges of all ranges together: of several ways, the one with the fewest edges.

    Raises TooLarge if the rows or changes fit no edge even with the largest number of ranges."""
    ways = {ranges: needs for ranges in _RANGES if (needs := _needs(load, ranges, costs)) is not None}
    if not ways:
        raise TooLarge("memory or CPU of an edge")
    ranges = min(ways, key=lambda number: (number * limiting(ways[number])[0], number))
    count, limited_by = limiting(ways[ranges])
    share = load.busiest(ranges)
    streams = load.streams * share / count
    return ranges, Component(
        "edges", ranges * count, limited_by, {name: ranges * need for name, need in ways[ranges].items()},
        cores=_cores_in_use(load, share, _readers_cores(load, ranges, costs) / count, costs),
        memory_gb=(_rows_memory(load, ranges, costs) + streams * costs.edge_stream_bytes) / GB)


def _cores_in_use(load: Load, share: float, readers: float, costs: UnitCosts) -> float:
    """Returns the cores in use of an edge at the peak, cycles included: at most one. Cycles grow with the load."""
    cycles = min((load.events + load.writes) * share, 1000 / costs.worker_cycle_ms)
    return min(1.0, edge_changes_cores(load, share, costs) + readers + cycles * costs.edge_cycle_us / 1e6)


def size_proxies(load: Load, costs: UnitCosts) -> Component:
    """Returns the cores of nginx. One worker process of nginx per core has a limit of connections."""
    needs = {"failover": 2, "connections": max(1, math.ceil(load.streams / costs.proxy_streams_per_core))}
    count, limited_by = limiting(needs)
    return Component("nginx cores", count, limited_by, needs, cores=1.0)
