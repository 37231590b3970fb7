"""Times and kinds of faults, derived from the seed, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

__all__ = ["HEAVIEST", "KINDS", "Fault", "Kind", "schedule"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. `weight`: frequency relative to the others. `length`: range of seconds. `apart`: seconds to the
    next fault of its lane, so that brokers are in sync again before the next one is stopped."""

    name: str
    lane: str
    weight: float
    length: tuple[float, float] = (0.0, 0.0)
    brokers: tuple[int, ...] = (1, 3)  # sizes of the clusters that it applies to
    apart: float = 0.0


# A session of a worker ends after 6 s without heartbeats; a broker counts as dead after 5 s.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (
    Kind("worker killed", "worker", 16),
    Kind("worker paused", "worker", 12, (0.3, 3.0)),
    Kind("worker paused beyond its session", "worker", 1.2, (12.0, 16.0)),
    Kind("all workers killed", "worker", 2),
    Kind("workers restarted in turn", "worker", 1.2, apart=12.0),
    Kind("workers scaled", "worker", 1.5, apart=8.0),
    Kind("edge killed", "edge", 14),
    Kind("edge paused", "edge", 12, (0.3, 6.0)),
    Kind("both edges killed", "edge", 1.5),
    Kind("history killed", "history", 9),
    Kind("history paused", "history", 8, (0.5, 6.0)),
    Kind("deliver killed", "deliver", 6),
    Kind("deliver paused", "deliver", 4, (0.5, 6.0)),
    Kind("receiver killed", "receiver", 6),
    Kind("receiver paused", "receiver", 4, (0.5, 6.0)),
    Kind("broker killed", "broker", 3, (0.0, 4.0), apart=14.0),
    Kind("leader of a view killed", "broker", 3, (0.0, 4.0), (3,), apart=14.0),
    Kind("controller killed", "broker", 3, (0.0, 4.0), (3,), apart=14.0),
    Kind("broker paused", "broker", 5, (0.5, 12.0), apart=6.0),
    Kind("disk of a broker slow", "disk", 4, (3.0, 8.0), apart=9.0),
    Kind("all brokers killed", "broker", 0.3, (10.0, 60.0), (3,), apart=30.0),
    Kind("worker, edge, history and broker killed", "broker", 1, (0.0, 3.0), apart=14.0),
)}


# The heaviest first: a silence is attributed to the heaviest active fault.
HEAVIEST = (
    "all brokers killed", "worker, edge, history and broker killed", "broker paused", "broker killed",
    "leader of a view killed", "controller killed", "worker paused beyond its session", "workers scaled",
    "workers restarted in turn", "all workers killed", "worker killed", "worker paused", "disk of a broker slow",
    "both edges killed", "edge paused", "edge killed", "history killed", "history paused", "deliver killed",
    "deliver paused", "receiver killed", "receiver paused",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` and `length` in seconds, `at` from the start. `pick` selects the target among the running processes."""

    at: float
    kind: str
    pick: int
    length: float


def schedule(seed: int, seconds: float, every: float, brokers: int, only: Collection[str] = ()) -> list[Fault]:
    """Returns the faults of a run of `seconds`, on average `every` seconds apart (0.5 to 1.5 times).

    `only`: the kinds to use; empty: all kinds that fit the number of brokers.
    """
    rng = random.Random(seed)
    return list(_faults(rng, seconds, every, brokers, only))


def _faults(
    rng: random.Random, seconds: float, every: float, brokers: int, only: Collection[str]
) -> Iterator[Fault]:
    fitting = [kind for kind in KINDS.values() if brokers in kind.brokers and (not only or kind.name in only)]
    free: dict[str, float] = {}  # lane -> time of its next possible fault
    at = every
    while at < seconds:
        kinds = [kind for kind in fitting if free.get(kind.lane, 0.0) <= at]
        if not kinds:
            at = min(free[kind.lane] for kind in fitting)
            continue
        kind = rng.choices(kinds, [one.weight for one in kinds])[0]
        length = round(rng.uniform(*kind.length), 2)
        if kind.apart:
            free[kind.lane] = at + length + kind.apart
        yield Fault(round(at, 2), kind.name, rng.randrange(1 << 16), length)
        at += every * rng.uniform(0.5, 1.5)
