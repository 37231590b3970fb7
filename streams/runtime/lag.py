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

__all__ = ["LAG", "LAG_SECONDS", "READY", "LagTracker"]

# Every role has these three; which role it is, the scrape says.
LAG = Gauge("attn_lag_records", "Records of a partition not yet worked on", ["topic", "partition"])
LAG_SECONDS = Gauge("attn_lag_seconds", "Age of the oldest of them, at most; 0 without any", ["topic", "partition"])
READY = Gauge("attn_ready", "1 while /readyz says 200")

PartitionId = tuple[str, int]  # topic, partition

# Standing still is counted by looks that the broker answered, each at most so much: a broker that was away, or a
# process that was paused, is no reason to call a role stuck at the first look after.
_STEP = 3.0


@dataclass(slots=True)
class _PartitionLag:
    done: int
    seen: float  # wall, of the first look
    end: int = 0
    level: float | None = None  # wall: when nothing waited
    worked: float | None = None  # wall: the timestamp of the last record worked on
    standing: float = 0.0  # seconds for which nothing moved though there was more

    @property
    def lag(self) -> int:
        return max(0, self.end - self.done)

    def age(self, wall: float) -> float:
        """Of the oldest record that waits, at most. Before the first was worked on: of our knowing that one waits."""
        known = [time for time in (self.level, self.worked) if time is not None]
        return max(0.0, wall - (max(known) if known else self.seen)) if self.lag else 0.0


class LagTracker:
    """Of one consumer. `now`: when it began."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._stall = settings.stall_seconds
        self._age = settings.ready_lag_seconds
        self._answered = now
        self._places: dict[PartitionId, _PartitionLag] = {}

    def look(
        self, now: float, wall: float, done: Mapping[PartitionId, int], ends: Mapping[PartitionId, int],
        worked: Mapping[PartitionId, float] | None = None, held: Collection[PartitionId] = (),
    ) -> None:
        """The broker has said at `now` where partitions end. `done`: the owned ones, and the offset after the last
        record worked on as of before the broker was asked; `worked`: that record's timestamp (wall), where known;
        `held`: where nothing shall move."""
        step, self._answered = min(now - self._answered, _STEP), now
        for gone in self._places.keys() - done.keys():
            del self._places[gone]
            for gauge in (LAG, LAG_SECONDS):
                with suppress(KeyError):
                    gauge.remove(*map(str, gone))
        for name, offset in done.items():
            place = self._places.setdefault(name, _PartitionLag(offset, wall))
            moved, place.done, place.end = offset != place.done, offset, ends.get(name, place.end)
            place.worked = (worked or {}).get(name, place.worked)
            place.standing = 0.0 if moved or not place.lag or name in held else place.standing + step
            if not place.lag:
                place.level = wall
            LAG.labels(*name).set(place.lag)
            LAG_SECONDS.labels(*name).set(place.age(wall))

    def resting(self, now: float) -> None:
        """The broker is not asked now, on purpose: its silence means nothing."""
        self._answered = now

    @property
    def lag(self) -> int:
        """Records, of all partitions."""
        return sum(place.lag for place in self._places.values())

    def age(self, wall: float) -> float:
        """Seconds, of the oldest record that waits anywhere; 0.0: none."""
        return max((place.age(wall) for place in self._places.values()), default=0.0)

    def standing(self) -> tuple[float, str]:
        """For how many seconds nothing has moved though there is more, and where; the longest. 0.0: nowhere."""
        name, place = max(
            self._places.items(), key=lambda item: item[1].standing, default=(("", 0), _PartitionLag(0, 0.0)))
        return place.standing, f"{name[0]}/{name[1]} stands at offset {place.done}, it ends at {place.end}"

    def unready(self, now: float, wall: float) -> str | None:
        """Why what is asked of this role would not be the truth of now; None: it is."""
        if (silent := now - self._answered) > self._stall:
            return f"the broker has not answered for {silent:.0f} s"
        seconds, where = self.standing()
        if seconds > self._stall:
            return f"stalled: {where}, for {seconds:.0f} s"
        name, place = max(
            self._places.items(), key=lambda item: item[1].age(wall), default=(("", 0), _PartitionLag(0, wall)))
        if (age := place.age(wall)) > self._age:
            return f"catching up: {name[0]}/{name[1]} is {place.lag} records behind, the oldest up to {age:.0f} s old"
        return None
