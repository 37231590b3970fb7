"""`attn capacity`: brokers, partitions, workers, edges, memory and disks for a load, from measured unit costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ops.cli.capacity.demand import Demand
from ops.cli.capacity.plan import make_plan
from ops.cli.capacity.report import show_plan, show_simulation
from ops.cli.capacity.simulation.queues import breaking_point, plan_setup
from ops.cli.capacity.simulation.queues import simulate as simulate_setup
from ops.cli.capacity.unit_costs import load_costs

__all__ = ["capacity"]

_LOAD, _KEPT, _MACHINES = "Load", "Retention", "Machines"

Events = Annotated[float, typer.Option(
    "--events-per-s", help="Source events per second, averaged over a day.", rich_help_panel=_LOAD)]
Workspaces = Annotated[int, typer.Option("--workspaces", help="Number of workspaces.", rich_help_panel=_LOAD)]
Streams = Annotated[int, typer.Option("--streams", help="Open streams at the peak.", rich_help_panel=_LOAD)]
Items = Annotated[int, typer.Option("--items", help="Open items of all workspaces.", rich_help_panel=_LOAD)]
Users = Annotated[int, typer.Option("--users", help="Users who are signed in. Default: one per stream.",
                                    show_default=False, rich_help_panel=_LOAD)]
Writes = Annotated[float, typer.Option(
    "--writes-per-s", help="Writes of users per second. Default: one for each item that opens.", show_default=False,
    rich_help_panel=_LOAD)]
Opens = Annotated[float, typer.Option("--opens", help="Share of events that open an item.", rich_help_panel=_LOAD)]
Peak = Annotated[float, typer.Option(
    "--peak", help="Rates of the busiest minute, in averages of the day.", rich_help_panel=_LOAD)]
Skew = Annotated[float, typer.Option(
    "--skew", help="Exponent of Zipf's law for the sizes of workspaces; 0: all are equal.", rich_help_panel=_LOAD)]
Audience = Annotated[int, typer.Option(
    "--audience", help="The most streams of a workspace that one event concerns; 0: all.", rich_help_panel=_LOAD)]
EventBytes = Annotated[float, typer.Option("--event-bytes", help="Size of an event.", rich_help_panel=_LOAD)]
RowBytes = Annotated[float, typer.Option("--row-bytes", help="Size of a row of attn.views.", rich_help_panel=_LOAD)]
RetentionDays = Annotated[float, typer.Option(
    "--retention-days", help="ATTN_RETENTION_DAYS: resolved items stay in memory.", rich_help_panel=_KEPT)]
DedupeDays = Annotated[float, typer.Option(
    "--dedupe-days", help="ATTN_DEDUPE_DAYS: ids of events stay in memory.", rich_help_panel=_KEPT)]
LogHours = Annotated[float, typer.Option("--log-hours", help="ATTN_LOG_RETENTION_HOURS.", rich_help_panel=_KEPT)]
SourceHours = Annotated[float, typer.Option(
    "--source-hours", help="ATTN_SOURCE_RETENTION_HOURS.", rich_help_panel=_KEPT)]
FactsHours = Annotated[float, typer.Option(
    "--facts-hours", help="ATTN_FACTS_RETENTION_HOURS.", rich_help_panel=_KEPT)]
HistoryDays = Annotated[float, typer.Option(
    "--history-days", help="ATTN_HISTORY_DAYS, facts in ClickHouse.", rich_help_panel=_KEPT)]
Replication = Annotated[int, typer.Option("--replication", help="ATTN_REPLICATION.", rich_help_panel=_MACHINES)]
SourcePartitions = Annotated[int, typer.Option(
    "--source-partitions", help="ATTN_SOURCE_PARTITIONS; more if there are more workers.", rich_help_panel=_MACHINES)]
WorkerMemory = Annotated[float, typer.Option(
    "--worker-memory-gb", help="Memory of a worker.", rich_help_panel=_MACHINES)]
EdgeMemory = Annotated[float, typer.Option("--edge-memory-gb", help="Memory of an edge.", rich_help_panel=_MACHINES)]
BrokerDisk = Annotated[float, typer.Option("--broker-disk-gb", help="Disk of a broker.", rich_help_panel=_MACHINES)]
BrokerCores = Annotated[float, typer.Option("--broker-cores", help="Cores of a broker.", rich_help_panel=_MACHINES)]
Utilisation = Annotated[float, typer.Option(
    "--utilisation", help="Share of a core, of memory and of disks in use at the peak.", rich_help_panel=_MACHINES)]
Takeover = Annotated[float, typer.Option(
    "--takeover-s", help="Longest time to load the partitions of a worker that died, or to open the streams of an edge "
                         "that died.", rich_help_panel=_MACHINES)]
_SIMULATION = "Simulation"
Simulate = Annotated[bool, typer.Option(
    "--simulate", help="Also simulate the plan: cores in use, delays, the hottest partition, and when it breaks.",
    rich_help_panel=_SIMULATION)]
Seed = Annotated[int, typer.Option("--seed", help="Seed: the same gives the same result.", rich_help_panel=_SIMULATION)]
Seconds = Annotated[float, typer.Option(
    "--seconds", min=1, max=600, help="Simulated time; less if it has more than 300,000 events.",
    rich_help_panel=_SIMULATION)]
Burst = Annotated[float, typer.Option(
    "--burst", help="Rate in one second of ten, as a multiple of the rate at the peak.", rich_help_panel=_SIMULATION)]
Partitions = Annotated[int, typer.Option(
    "--partitions", help="Partitions instead of the plan's; 0: the plan's.", rich_help_panel=_SIMULATION)]
Workers = Annotated[int, typer.Option("--workers", help="The same for workers.", rich_help_panel=_SIMULATION)]
Edges = Annotated[int, typer.Option("--edges", help="The same for edges.", rich_help_panel=_SIMULATION)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object with all figures.")]


def capacity(
    events_per_s: Events, workspaces: Workspaces, streams: Streams, items: Items, users: Users = -1,
    writes_per_s: Writes = -1.0, opens: Opens = 0.33, peak: Peak = 3.0, skew: Skew = 0.8, audience: Audience = 0,
    event_bytes: EventBytes = 450, row_bytes: RowBytes = 770, retention_days: RetentionDays = 30,
    dedupe_days: DedupeDays = 30, log_hours: LogHours = 168, source_hours: SourceHours = 168,
    facts_hours: FactsHours = 168, history_days: HistoryDays = 365, replication: Replication = 3,
    source_partitions: SourcePartitions = 4, worker_memory_gb: WorkerMemory = 8, edge_memory_gb: EdgeMemory = 8,
    broker_disk_gb: BrokerDisk = 2000, broker_cores: BrokerCores = 4, utilisation: Utilisation = 0.6,
    takeover_s: Takeover = 30, simulate: Simulate = False, seed: Seed = 1, seconds: Seconds = 20, burst: Burst = 3.0,
    partitions: Partitions = 0, workers: Workers = 0, edges: Edges = 0, as_json: AsJson = False,
) -> None:
    """Calculate what an installation needs for a load, and which resource decides it.

    The unit costs were measured on one machine (docs/scale.md): multiply cores if yours is slower. Nothing is started
    or changed. Each figure is that of the peak, with `--utilisation` of every resource in use.
    """
    demand = Demand(
        events_per_s, workspaces, streams, items, streams if users == -1 else users,
        events_per_s * opens if writes_per_s == -1 else writes_per_s, opens, peak, skew, audience, event_bytes,
        row_bytes, retention_days, dedupe_days, log_hours, source_hours, facts_hours, history_days, replication,
        source_partitions, worker_memory_gb, edge_memory_gb, broker_disk_gb, broker_cores, utilisation, takeover_s)
    costs = load_costs()
    plan = make_plan(demand, costs)
    setup = plan_setup(plan, partitions, workers, edges, burst, seconds, seed) if simulate else None
    result = simulate_setup(setup, costs) if setup is not None else None
    breaks = breaking_point(setup, costs) if setup is not None else 0.0
    if as_json:
        simulation = None if setup is None or result is None else result.as_dict(breaks)
        typer.echo(json.dumps({**plan.as_dict(), "simulation": simulation}))
        return
    show_plan(plan)
    if setup is not None and result is not None:
        show_simulation(setup, result, breaks)
