"""Prints plans as tables."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from ops.cli.capacity.plan import Plan
from ops.cli.capacity.simulation.queues import Result, Setup

__all__ = ["show_plan", "show_simulation"]

_WIDTH = 100  # of a file or a pipe, which have no width


def console() -> Console:
    """Returns a console as wide as the terminal; plain and of fixed width if there is none."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_WIDTH)


def show_plan(plan: Plan) -> None:
    """Prints the load, one row per component, and the limits that more processes do not move."""
    out, load = console(), plan.load
    out.print(
        f"At the peak: {_rate(load.events)} events/s, {_rate(load.writes)} writes/s, {_rate(load.frames)} frames/s to "
        f"{load.streams:,.0f} streams; {load.rows:,.0f} rows, {load.digests:,.0f} event ids.", highlight=False)
    if plan.installations > 1:
        out.print(
            f"{plan.installations:,} installations share the workspaces ({plan.installations // 2:,} do not suffice: "
            f"{plan.limit_of_fewer}); this one has the largest workspace.", highlight=False)
    ranges = "each edge has all rows" if plan.ranges == 1 else f"edges by {plan.ranges} ranges of partitions"
    out.print(f"{plan.partitions} partitions, {plan.source_partitions} per source topic; {ranges}.", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("", "number", "limited by", "cores", "memory", "disk", "network"):
        table.add_column(title, justify="left" if title in ("", "limited by") else "right")
    for each in plan.components:
        table.add_row(
            each.name, f"{each.count:,}", each.limited_by, f"{each.cores:.2f}", _amount(each.memory_gb, "GB"),
            _amount(each.disk_gb, "GB"), _amount(each.network_mb_s, "MB/s"))
    out.print(table)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("more processes do not move", "reached at", "then"):
        table.add_column(title, justify="right" if title == "reached at" else "left")
    for limit in plan.limits:
        table.add_row(limit.name, f"{_rate(limit.factor)} × the load", limit.remedy)
    out.print(table)


def show_simulation(setup: Setup, result: Result, breaks: float) -> None:
    """Prints cores in use, delays, and the hottest partition of a simulation.

    `breaks`: growth of the events until a process is fully used.
    """
    out, events = console(), sum(result.events)
    share = result.events[result.hottest] / events if events else 0.0
    out.print(
        f"Simulated {setup.seconds:.3g} s with {events:,} events, in one second of ten {setup.burst:g} times the rate: "
        f"event to frame p50 {result.delay(0.5) * 1e3:,.0f} ms, p99 {result.delay(0.99) * 1e3:,.0f} ms.",
        highlight=False)
    out.print(
        f"Partition {result.hottest} is the hottest: {share:.1%} of the events, {1 / setup.partitions:.1%} on average. "
        f"A process is fully used at {_rate(breaks)} × the events, with the same streams.", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("cores in use", "number", "average", "busiest", "which"):
        table.add_column(title, justify="left" if title == "cores in use" else "right")
    for name, cores in (
        ("partitions, without cycles", result.partitions), ("workers", result.workers), ("edges", result.edges),
    ):
        busiest = max(range(len(cores)), key=cores.__getitem__)
        table.add_row(name, f"{len(cores):,}", f"{sum(cores) / len(cores):.3f}", f"{cores[busiest]:.3f}", str(busiest))
    out.print(table)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or not value else f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def _amount(value: float, unit: str) -> str:
    return f"{_rate(value)} {unit}" if value else ""
