"""Simulates partitions, workers and edges under skewed load: utilisation, delays, and the load at which they break.

Each worker and each edge is one core. In a cycle it takes everything that waits, for a fixed cost and a cost per event
or frame. So cycles grow with the load, as those of attn do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ops.cli.capacity.plan import Plan
from ops.cli.capacity.simulation.arrivals import Workspaces, arrivals
from ops.cli.capacity.skew import Shares
from ops.cli.capacity.unit_costs import UnitCosts
from ops.errors import UserError

__all__ = ["MAX_EVENTS", "Result", "Setup", "breaking_point", "plan_setup", "simulate"]

MAX_EVENTS = 300_000
_SEARCH_EVENTS = 20_000
_FULL = 0.98  # of a core: the queue grows
_LARGEST_FACTOR = 4096.0


@dataclass(frozen=True, slots=True)
class Setup:
    """`rate`: events per second, bursts included. `edges`: of all ranges together. `burst`: rate in a tenth of the
    time, as a multiple of `rate`. `audience`: the most streams of a workspace that one event concerns; 0: all."""

    shares: Shares
    rate: float
    streams: float
    partitions: int
    workers: int
    edges: int
    ranges: int = 1
    audience: float = 0
    burst: float = 3.0
    seconds: float = 20.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises UserError if a simulation would take too long, or there are more processes than partitions."""
        if self.rate * self.seconds > MAX_EVENTS:
            raise UserError(f"{self.rate * self.seconds:,.0f} events to simulate, at most {MAX_EVENTS:,}: use fewer "
                            "--seconds", code=2)
        if not 1 <= self.workers <= self.partitions or not 1 <= self.ranges <= self.partitions:
            raise UserError(f"{self.workers} workers and {self.ranges} ranges for {self.partitions} partitions: at "
                            "most one for each partition", code=2)
        if not 1 <= self.burst <= 10:
            raise UserError(f"--burst is {self.burst}, allowed are 1 to 10", code=2)
        if self.edges % self.ranges or self.edges < 1:
            raise UserError(f"{self.edges} edges for {self.ranges} ranges: each range needs the same number", code=2)


def plan_setup(
    plan: Plan, partitions: int, workers: int, edges: int, burst: float, seconds: float, seed: int,
) -> Setup:
    """Returns the setup of a plan at its peak. `partitions`, `workers`, `edges`: instead of the plan's, unless 0.

    A simulation of too many events is shortened.
    """
    load, each = plan.load, {name: plan.component(name).count for name in ("workers", "edges")}
    return Setup(
        load.shares, load.events, load.streams, partitions or plan.partitions, workers or each["workers"],
        edges or each["edges"], plan.ranges, plan.demand.audience, burst,
        min(seconds, MAX_EVENTS / load.events) if load.events else seconds, seed)


@dataclass(frozen=True, slots=True)
class Result:
    """`events`: by partition. `partitions`: cores for the events of each, without cycles. `workers`, `edges`: cores in
    use, by number. `delays`: seconds from the source event to its frames, sorted."""

    events: Sequence[int]
    partitions: Sequence[float]
    workers: Sequence[float]
    edges: Sequence[float]
    delays: Sequence[float]

    def delay(self, share: float) -> float:
        """Returns a quantile of the delays in seconds; 0 if there was no event."""
        return self.delays[min(len(self.delays) - 1, int(len(self.delays) * share))] if self.delays else 0.0

    def as_dict(self, breaks: float) -> dict[str, Any]:
        """Returns the result as JSON values. `breaks`: growth of the events until a process is fully used."""
        return {
            "events": sum(self.events), "hottest_partition": self.hottest, "breaks_at": breaks,
            "partitions": list(self.partitions), "workers": list(self.workers), "edges": list(self.edges),
            "p50_ms": self.delay(0.5) * 1e3, "p99_ms": self.delay(0.99) * 1e3}

    @property
    def hottest(self) -> int:
        """Returns the number of the partition with the most events."""
        return max(range(len(self.events)), key=lambda partition: self.events[partition])

    @property
    def busiest(self) -> float:
        """Returns the cores in use of the busiest worker or edge."""
        return max(max(self.workers), max(self.edges))


@dataclass(slots=True)
class _Event:
    at: float
    partition: int
    rank: int
    done: float = 0.0


def simulate(setup: Setup, costs: UnitCosts) -> Result:
    """Returns what happens in `setup.seconds`. The same setup and costs give the same result."""
    random = Random(setup.seed)  # noqa: S311 - a simulation, no secret
    workspaces = Workspaces(setup.shares, setup.partitions, random)
    events = [_Event(at, partition, rank) for at in arrivals(setup.rate, setup.seconds, setup.burst, random)
              for rank, partition in [workspaces.draw()]]
    counts = [0] * setup.partitions
    for event in events:
        counts[event.partition] += 1
    partitions = [0.0] * setup.partitions
    workers = [costs.worker_idle_cores] * setup.workers
    by_worker: list[list[_Event]] = [[] for _ in range(setup.workers)]
    for event in events:
        by_worker[event.partition % setup.workers].append(event)
    for number, mine in enumerate(by_worker):
        workers[number] += _fold(mine, partitions, costs) / setup.seconds
    delays: list[float] = []
    edges = [costs.edge_idle_cores] * setup.edges
    by_range: list[list[_Event]] = [[] for _ in range(setup.ranges)]
    for event in sorted(events, key=lambda event: event.done):
        by_range[event.partition * setup.ranges // setup.partitions].append(event)
    each_range = setup.edges // setup.ranges
    for number in range(setup.edges):
        changes = by_range[number // each_range]
        edges[number] += _deliver(changes, number % each_range, setup, workspaces.shares, costs, delays) / setup.seconds
    delays.sort()
    return Result(counts, [busy / setup.seconds for busy in partitions], workers, edges, delays)


def _fold(events: Sequence[_Event], partitions: list[float], costs: UnitCosts) -> float:
    """Sets when each event of a worker is in attn.views. Adds the CPU of each partition. Returns that of the worker.

    All in seconds. `events` are in order.
    """
    cycle, each = costs.worker_cycle_us / 1e6, costs.worker_event_us / 1e6
    linger = max(0.0, costs.worker_cycle_ms / 1e3 - cycle)
    free = busy = 0.0
    first = 0
    while first < len(events):
        start = max(free, events[first].at) + linger  # records that arrive within the linger are one batch
        last = first
        while last < len(events) and events[last].at <= start:
            partitions[events[last].partition] += each
            last += 1
        used = cycle + (last - first) * each
        free = start + used
        busy += used
        for event in events[first:last]:
            event.done = free
        first = last
    return busy


def _deliver(
    changes: Sequence[_Event], index: int, setup: Setup, shares: Sequence[float], costs: UnitCosts,
    delays: list[float],
) -> float:
    """Adds the delay of each event that an edge sends to streams. Returns the CPU of the edge in seconds.

    `changes` of its range, in order; `index` among the edges of the range. The edge has the streams of its workspaces:
    nginx hashes the workspace.
    """
    each_range = setup.edges // setup.ranges
    cycle, change, frame = costs.edge_cycle_us / 1e6, costs.edge_change_us / 1e6, costs.edge_frame_us / 1e6
    small = shares[-1] * setup.streams
    base, limit = costs.pipeline_ms / 1e3, setup.audience or float("inf")
    free = busy = 0.0
    first = 0
    while first < len(changes):
        start = max(free, changes[first].done)
        last, used = first, cycle
        readers: list[_Event] = []
        while last < len(changes) and changes[last].done <= start:
            event = changes[last]
            used += change
            if event.rank % each_range == index:
                streams = shares[event.rank] * setup.streams if event.rank >= 0 else small
                used += min(streams, limit) * frame
                readers.append(event)
            last += 1
        free = start + used
        busy += used
        delays += [free - event.at + base for event in readers]
        first = last
    return busy


def breaking_point(setup: Setup, costs: UnitCosts) -> float:
    """Returns the factor by which the events may grow until a worker or an edge is fully used; streams stay."""
    low, high = 0.0, 1.0
    while high < _LARGEST_FACTOR and not _breaks(setup, high, costs):
        low, high = high, high * 2
    if high >= _LARGEST_FACTOR:
        return _LARGEST_FACTOR
    for _ in range(4):
        middle = (low + high) / 2
        low, high = (low, middle) if _breaks(setup, middle, costs) else (middle, high)
    return low


def _breaks(setup: Setup, factor: float, costs: UnitCosts) -> bool:
    rate = setup.rate * factor
    seconds = min(setup.seconds, _SEARCH_EVENTS / rate) if rate else setup.seconds
    grown = Setup(setup.shares, rate, setup.streams, setup.partitions, setup.workers, setup.edges, setup.ranges,
                  setup.audience, 1.0, seconds, setup.seed)
    return simulate(grown, costs).busiest >= _FULL
