"""Unit costs, read from `unit_costs.toml`: a value for each name, and where it comes from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "Source", "UnitCosts", "load_costs", "load_sources"]

_FILE = Path(__file__).with_name("unit_costs.toml")
KINDS = ("measured", "assumed", "cited")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a unit cost comes from. `kind` is one of KINDS; `bench` is the command, the reason or the document."""

    unit: str
    date: str
    kind: str
    bench: str


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Costs by name. `_us`: microseconds of CPU; `_mb`: 10^6 bytes; `_bytes`: of memory; for `source`, `log`, `fact`
    and `clickhouse` of disk. `row_bytes` and `overhead_bytes` come on top of the bytes of the row or event."""

    worker_idle_cores: float
    worker_event_us: float  # validate, log, fold, write
    worker_cycle_us: float  # a cycle of ingest and fold, however many events it takes
    worker_cycle_ms: float  # shortest time from one cycle to the next
    worker_write_us: float
    worker_base_mb: float
    worker_row_bytes: float
    worker_digest_bytes: float  # for each event of the last ATTN_DEDUPE_DAYS
    worker_load_us: float  # for each row of a partition that is taken over
    pipeline_ms: float  # source event to frame without load: round trips to the broker
    edge_idle_cores: float
    edge_cycle_us: float  # a cycle of the follower, however many rows it takes
    edge_change_us: float  # for each changed row, with and without readers
    edge_frame_us: float  # for each stream that gets it
    edge_open_us: float  # for a stream or a page
    edge_write_us: float
    edge_base_mb: float
    edge_stream_bytes: float
    edge_row_bytes: float
    edge_session_bytes: float
    edge_load_us: float
    broker_cycle_us: float  # fetches and writes of a cycle of a worker; all brokers together, replication 1
    broker_event_us: float  # the same, for an event
    source_overhead_bytes: float
    log_overhead_bytes: float
    fact_bytes: float
    facts_per_event: float
    history_fact_us: float
    clickhouse_row_us: float
    clickhouse_row_bytes: float
    broker_mb_per_s: float
    broker_replicas: float
    cluster_replicas: float
    proxy_streams_per_core: float


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


@cache
def load_costs() -> UnitCosts:
    """Returns the unit costs. Raises TypeError if the file lacks a cost or has an unknown one, ValueError if one is not
    positive."""
    values = {name: float(entry["value"]) for name, entry in _document()["costs"].items()}
    bad = [name for name, value in values.items() if not 0 < value < float("inf")]
    if bad:
        raise ValueError(f"unit costs that are not positive: {', '.join(bad)}")
    return UnitCosts(**values)


@cache
def load_sources() -> dict[str, Source]:
    """Returns the source of each unit cost, in the order of the fields of UnitCosts."""
    entries = _document()["costs"]
    return {field.name: Source(*(entries[field.name][key] for key in ("unit", "date", "kind", "bench")))
            for field in fields(UnitCosts)}
