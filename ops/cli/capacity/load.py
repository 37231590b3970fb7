"""The load of one installation at its peak, and the shares of it that the busiest of several processes gets."""

from __future__ import annotations

from dataclasses import dataclass

from ops.cli.capacity.demand import Demand
from ops.cli.capacity.skew import Shares, zipf

__all__ = ["PARTITIONS_EACH", "Load", "load_of"]

# A process gets four partitions or more. So the busiest has at most a quarter more than its share, and four times as
# many processes can share the work later: the number of partitions cannot be changed in place.
PARTITIONS_EACH = 4
_OPEN_SECONDS = 600.0  # assumed: a reader opens a stream or a page once in ten minutes


@dataclass(frozen=True, slots=True)
class Load:
    """What one installation carries. Rates are per second at the peak.

    `frames`: deliveries to streams. `opens`: streams and pages that are opened. `sessions`: users who are signed in.
    """

    demand: Demand
    shares: Shares
    events: float
    writes: float
    frames: float
    opens: float
    streams: float
    rows: float
    digests: float
    sessions: float

    @property
    def average(self) -> float:
        """Returns the source events per second, averaged over a day."""
        return self.events / self.demand.peak

    def busiest(self, processes: int) -> float:
        """Returns the share of the load of the busiest of so many processes."""
        if processes == 1:
            return 1.0
        partitions = PARTITIONS_EACH * processes
        hottest = self.shares.hottest(partitions)
        return min(1.0, hottest + (PARTITIONS_EACH - 1) * (1 - hottest) / (partitions - 1))

    def busiest_frames(self, processes: int) -> float:
        """Returns the share of the frames of the busiest of so many processes: those of the largest workspace, and its
        part of the others."""
        largest = self.largest_frames / self.frames if self.frames else 0.0
        return min(1.0, largest + (1 - largest) * self.busiest(processes))

    @property
    def largest_frames(self) -> float:
        """Returns the frames per second of the largest workspace."""
        readers = self.streams * self.shares.largest
        return self.events * self.shares.largest * min(readers, self.demand.audience or readers)


def load_of(demand: Demand, installations: int = 1) -> Load:
    """Returns the load of the busiest of so many installations, among which the workspaces are spread."""
    part, shares = zipf(demand.workspaces, demand.skew).split(installations)
    events, streams = demand.events_per_s * demand.peak * part, demand.streams * part
    return Load(
        demand=demand, shares=shares, events=events, writes=demand.writes_per_s * demand.peak * part,
        frames=events * shares.fan_out(streams, demand.audience), opens=streams / _OPEN_SECONDS, streams=streams,
        rows=demand.rows * part, digests=demand.digests * part, sessions=demand.users * part)
