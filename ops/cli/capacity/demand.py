"""The load that an installation has to carry, and the limits of each input."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ops.errors import UserError

__all__ = ["DAY", "GB", "MB", "Demand"]

DAY = 86_400
MB = 1e6
GB = 1e9

# Input -> lowest and highest value. Above the highest no installation is known, so the input is probably a mistake.
_LIMITS: dict[str, tuple[float, float]] = {
    "events_per_s": (0, 10_000_000), "workspaces": (1, 100_000_000), "streams": (0, 100_000_000),
    "items": (0, 100_000_000_000), "users": (0, 10_000_000_000), "writes_per_s": (0, 10_000_000),
    "opens": (0, 1), "peak": (1, 100), "skew": (0, 2), "audience": (0, 100_000_000),
    "event_bytes": (1, 1 << 20), "row_bytes": (1, 8 << 20),
    "retention_days": (0.001, 3650), "dedupe_days": (0.001, 3650), "log_hours": (1, 87_600),
    "source_hours": (1, 87_600), "facts_hours": (1, 87_600), "history_days": (0.001, 36_500), "replication": (1, 5),
    "worker_memory_gb": (0.5, 10_000), "edge_memory_gb": (0.5, 10_000), "broker_disk_gb": (1, 1_000_000),
    "broker_cores": (1, 1000), "source_partitions": (1, 1024), "utilisation": (0.05, 0.95), "takeover_s": (1, 3600),
}
_WHOLE = {"workspaces", "streams", "items", "users", "audience", "replication", "source_partitions"}


@dataclass(frozen=True, slots=True)
class Demand:
    """The load, the retention, and the machines. Rates are averages of a day; `peak` is the busiest minute in averages.

    `opens`: share of events that open an item. `skew`: exponent of Zipf's law for the sizes of workspaces, in events,
    items and streams alike; 0: all are equal. `audience`: the most streams of a workspace that one event concerns; 0:
    all of them. `utilisation`: share of a core or of memory that may be used at the peak. `takeover_s`: longest time to
    load the partitions of a worker that died.
    """

    events_per_s: float
    workspaces: int
    streams: int
    items: int
    users: int = 0
    writes_per_s: float = 0
    opens: float = 1 / 3
    peak: float = 3
    skew: float = 0.8
    audience: int = 0
    event_bytes: float = 450
    row_bytes: float = 770
    retention_days: float = 30
    dedupe_days: float = 30
    log_hours: float = 168
    source_hours: float = 168
    facts_hours: float = 168
    history_days: float = 365
    replication: int = 3
    source_partitions: int = 4
    worker_memory_gb: float = 8
    edge_memory_gb: float = 8
    broker_disk_gb: float = 2000
    broker_cores: float = 4
    utilisation: float = 0.6
    takeover_s: float = 30

    def __post_init__(self) -> None:
        """Raises UserError if an input is not a number within its limits."""
        for name, (lowest, highest) in _LIMITS.items():
            value = getattr(self, name)
            flag = f"--{name.replace('_', '-')}"
            if not math.isfinite(value) or not lowest <= value <= highest:
                raise UserError(f"{flag} is {value:,}, allowed are {lowest:,} to {highest:,}", code=2)
            if name in _WHOLE and value != int(value):
                raise UserError(f"{flag} is {value:,}, a whole number is required", code=2)

    @property
    def rows(self) -> float:
        """Returns the rows of the view: open items, and those that were resolved within `retention_days`."""
        return self.items + self.events_per_s * self.opens * self.retention_days * DAY

    @property
    def digests(self) -> float:
        """Returns the number of events by which repeats are recognised: those of `dedupe_days`."""
        return self.events_per_s * self.dedupe_days * DAY
