"""Consumer lag: number and age of unprocessed records, stall detection, readiness. Pure: times are arguments.

`now` is the monotonic clock in seconds. `wall` is in seconds since the epoch, the clock of the timestamps that the
broker sets on records (LogAppendTime). The age of the oldest unprocessed record is estimated without reading it: the
record arrived after the last moment without a lag, and not before the last processed record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Gauge

from schemas.settings import Settings

__all__ = ["LAG", "LAG_SECONDS", "READY", "ConsumerStalled", "LagTracker", "LogTruncated"]

# The worker, the edge and the history each export these three; the scrape job tells the processes apart.
LAG = Gauge("attn_lag_records", "Unprocessed records of a partition", ["topic", "partition"])
LAG_SECONDS = Gauge(
    "attn_lag_seconds", "Upper bound of the age of the oldest unprocessed record; 0 if there is none",
    ["topic", "partition"])
READY = Gauge("attn_ready", "1 while /readyz answers 200")

PartitionId = tuple[str, int]  # topic, partition

# Seconds by which one observation can extend a stall at most. The first observation after an outage of the broker or a
# pause of the process must not count the whole outage as a stall.
_MAX_STEP = 3.0


class ConsumerStalled(Exception):
    """A consumer makes no progress although the broker answers and has more records, or the broker does not answer.
    A restart of the process is the only cure."""


class LogTruncated(Exception):
    """A partition ends before an offset that was read from it: the broker lost records that it had acknowledged."""


@dataclass(slots=True)
class _PartitionLag:
    """`first_seen`, `caught_up_at`, `processed_at`: wall times of the first observation, of the last one without a lag,
    and of the last processed record. `stalled_for`: seconds without progress while there was a lag."""

    processed: int  # the offset after the last processed record
    first_seen: float
    end_offset: int = 0
    caught_up_at: float | None = None
    processed_at: float | None = None
    stalled_for: float = 0.0

    @property
    def lag(self) -> int:
        return max(0, self.end_offset - self.processed)

    def oldest_age(self, wall: float) -> float:
        """Returns an upper bound of the age of the oldest unprocessed record. Until a record is processed, that is the
        time since the first observation."""
        bounds = [time for time in (self.caught_up_at, self.processed_at) if time is not None]
        return max(0.0, wall - (max(bounds) if bounds else self.first_seen)) if self.lag else 0.0


class LagTracker:
    """Lag of one consumer. `now`: the time at which the consumer started."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._stall_limit = settings.stall_seconds
        self._age_limit = settings.ready_lag_seconds
        self._last_answer = now
        self._partitions: dict[PartitionId, _PartitionLag] = {}

    def observe(
        self, now: float, wall: float, processed: Mapping[PartitionId, int], ends: Mapping[PartitionId, int],
        processed_at: Mapping[PartitionId, float] | None = None, paused: Collection[PartitionId] = (),
    ) -> None:
        """Takes the end offsets that the broker answered at `now`.

        `processed`: for each assigned partition the offset after the last processed record, read before the broker was
        asked. Partitions that it lacks are dropped. `processed_at`: wall time of that record, where known. `paused`:
        partitions that are not processed on purpose; they do not count as stalled.
        """
        step, self._last_answer = min(now - self._last_answer, _MAX_STEP), now
        for dropped in self._partitions.keys() - processed.keys():
            del self._partitions[dropped]
            for gauge in (LAG, LAG_SECONDS):
                with suppress(KeyError):
                    gauge.remove(*map(str, dropped))
        for tp, offset in processed.items():
            partition = self._partitions.setdefault(tp, _PartitionLag(offset, wall))
            moved, partition.processed = offset != partition.processed, offset
            partition.end_offset = ends.get(tp, partition.end_offset)
            partition.processed_at = (processed_at or {}).get(tp, partition.processed_at)
            stalls = partition.lag and not moved and tp not in paused
            partition.stalled_for = partition.stalled_for + step if stalls else 0.0
            if not partition.lag:
                partition.caught_up_at = wall
            LAG.labels(*tp).set(partition.lag)
            LAG_SECONDS.labels(*tp).set(partition.oldest_age(wall))

    def suspend(self, now: float) -> None:
        """Notes that the broker is not asked for now on purpose; without it the silence would count as an outage."""
        self._last_answer = now

    @property
    def lag(self) -> int:
        """Unprocessed records of all partitions."""
        return sum(partition.lag for partition in self._partitions.values())

    def oldest_age(self, wall: float) -> float:
        """Returns an upper bound of the age of the oldest unprocessed record, in seconds; 0.0 if there is none."""
        return max((partition.oldest_age(wall) for partition in self._partitions.values()), default=0.0)

    def longest_stall(self, topic: str | None = None) -> tuple[float, str]:
        """Returns the longest time without progress while there was a lag, in seconds, and a text that names the
        partition and its offsets. 0.0 if no partition is stalled. `topic`: considers only its partitions."""
        (name, number), partition = max(
            (item for item in self._partitions.items() if topic in (None, item[0][0])),
            key=lambda item: item[1].stalled_for, default=(("", 0), _PartitionLag(0, 0.0)))
        offsets = f"stays at offset {partition.processed}, end offset {partition.end_offset}"
        return partition.stalled_for, f"{name}/{number} {offsets}"

    def check_stalled(self, limit: float, topic: str | None = None) -> None:
        """Raises ConsumerStalled if a partition with a lag (of `topic`, if given) has not moved for more than `limit`
        seconds."""
        seconds, where = self.longest_stall(topic)
        if seconds > limit:
            raise ConsumerStalled(f"{where}, for {seconds:.0f} s")

    def not_ready_reason(self, now: float, wall: float) -> str | None:
        """Returns why the consumer's results are out of date (no answer of the broker, stalled, catching up), or None.
        The limits are ATTN_STALL_SECONDS and ATTN_READY_LAG_SECONDS."""
        if (silence := now - self._last_answer) > self._stall_limit:
            return f"the broker has not answered for {silence:.0f} s"
        seconds, where = self.longest_stall()
        if seconds > self._stall_limit:
            return f"stalled: {where}, for {seconds:.0f} s"
        (topic, number), partition = max(
            self._partitions.items(), key=lambda item: item[1].oldest_age(wall),
            default=(("", 0), _PartitionLag(0, wall)))
        if (age := partition.oldest_age(wall)) > self._age_limit:
            return f"catching up: {topic}/{number} is {partition.lag} records behind, the oldest up to {age:.0f} s old"
        return None
