"""How far a role is behind the broker, whether it moves, and so whether it is ready. Pure: times are arguments.

`now` is the monotonic clock, `wall` seconds since the epoch, which is what the broker stamps on records
(LogAppendTime). Nothing is read to know how old the oldest waiting record is: it came after the last moment at which
nothing waited, and not before the last record that was worked on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import Gauge

from schemas.settings import Settings

__all__ = ["LAG", "LAG_SECONDS", "READY", "ConsumerStalled", "LagTracker", "LogTruncated"]

# Every role has these three; which role it is, the scrape says.
LAG = Gauge("attn_lag_records", "Records of a partition not yet worked on", ["topic", "partition"])
LAG_SECONDS = Gauge("attn_lag_seconds", "Age of the oldest of them, at most; 0 without any", ["topic", "partition"])
READY = Gauge("attn_ready", "1 while /readyz says 200")

PartitionId = tuple[str, int]  # topic, partition

# Standing still is counted by looks that the broker answered, each at most so much: a broker that was away, or a
# process that was paused, is no reason to call a role stuck at the first look after.
_STEP = 3.0


class ConsumerStalled(Exception):
    """A consumer makes no progress although the broker answers and has more records, or the broker does not answer.
    A restart of the process is the only cure."""


class LogTruncated(Exception):
    """A partition ends before an offset that was read from it: the broker lost records that it had acknowledged."""


@dataclass(slots=True)
class _PartitionLag:
    processed: int
    first_seen: float  # wall, of the first look
    end_offset: int = 0
    caught_up_at: float | None = None  # wall: when nothing waited
    processed_at: float | None = None  # wall: the timestamp of the last record worked on
    stalled_for: float = 0.0  # seconds for which nothing moved though there was more

    @property
    def lag(self) -> int:
        return max(0, self.end_offset - self.processed)

    def oldest_age(self, wall: float) -> float:
        """Of the oldest record that waits, at most. Before the first was worked on: of our knowing that one waits."""
        known = [time for time in (self.caught_up_at, self.processed_at) if time is not None]
        return max(0.0, wall - (max(known) if known else self.first_seen)) if self.lag else 0.0


class LagTracker:
    """Of one consumer. `now`: when it began."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._stall_limit = settings.stall_seconds
        self._age_limit = settings.ready_lag_seconds
        self._last_answer = now
        self._partitions: dict[PartitionId, _PartitionLag] = {}

    def observe(
        self, now: float, wall: float, done: Mapping[PartitionId, int], ends: Mapping[PartitionId, int],
        worked: Mapping[PartitionId, float] | None = None, held: Collection[PartitionId] = (),
    ) -> None:
        """The broker has said at `now` where partitions end. `processed`: the owned ones, and the offset after the last
        record worked on as of before the broker was asked; `processed_at`: that record's timestamp (wall), where known;
        `held`: where nothing shall move."""
        step, self._last_answer = min(now - self._last_answer, _STEP), now
        for gone in self._partitions.keys() - done.keys():
            del self._partitions[gone]
            for gauge in (LAG, LAG_SECONDS):
                with suppress(KeyError):
                    gauge.remove(*map(str, gone))
        for name, offset in done.items():
            place = self._partitions.setdefault(name, _PartitionLag(offset, wall))
            moved, place.processed = offset != place.processed, offset
            place.end_offset = ends.get(name, place.end_offset)
            place.processed_at = (worked or {}).get(name, place.processed_at)
            place.stalled_for = 0.0 if moved or not place.lag or name in held else place.stalled_for + step
            if not place.lag:
                place.caught_up_at = wall
            LAG.labels(*name).set(place.lag)
            LAG_SECONDS.labels(*name).set(place.oldest_age(wall))

    def suspend(self, now: float) -> None:
        """The broker is not asked now, on purpose: its silence means nothing."""
        self._last_answer = now

    @property
    def lag(self) -> int:
        """Records, of all partitions."""
        return sum(place.lag for place in self._partitions.values())

    def oldest_age(self, wall: float) -> float:
        """Seconds, of the oldest record that waits anywhere; 0.0: none."""
        return max((place.oldest_age(wall) for place in self._partitions.values()), default=0.0)

    def longest_stall(self) -> tuple[float, str]:
        """For how many seconds nothing has moved though there is more, and where; the longest. 0.0: nowhere."""
        name, place = max(
            self._partitions.items(), key=lambda item: item[1].stalled_for, default=(("", 0), _PartitionLag(0, 0.0)))
        return (
            place.stalled_for,
            f"{name[0]}/{name[1]} stands at offset {place.processed}, it ends at {place.end_offset}",
        )

    def check_stalled(self, limit: float) -> None:
        """Raises ConsumerStalled if a partition with a lag has not moved for more than `limit` seconds."""
        seconds, where = self.longest_stall()
        if seconds > limit:
            raise ConsumerStalled(f"{where}, for {seconds:.0f} s")

    def not_ready_reason(self, now: float, wall: float) -> str | None:
        """Why what is asked of this role would not be the truth of now; None: it is."""
        if (silent := now - self._last_answer) > self._stall_limit:
            return f"the broker has not answered for {silent:.0f} s"
        seconds, where = self.longest_stall()
        if seconds > self._stall_limit:
            return f"stalled: {where}, for {seconds:.0f} s"
        name, place = max(
            self._partitions.items(), key=lambda item: item[1].oldest_age(wall),
            default=(("", 0), _PartitionLag(0, wall)))
        if (age := place.oldest_age(wall)) > self._age_limit:
            return f"catching up: {name[0]}/{name[1]} is {place.lag} records behind, the oldest up to {age:.0f} s old"
        return None
