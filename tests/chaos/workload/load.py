"""The records of each producer, in order. Pure: everything follows from the seed.

Each producer's clock is wrong by some minutes, so times of one subject go back and forth. Some events are sent twice,
by the same producer or another; neighbours change their order; some records are invalid.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from support.events import generator as generate

from ops.cli.data.event_files import retime
from schemas.scalars import format_timestamp, parse_timestamp
from schemas.topics import SOURCE_TYPES, partition_of

__all__ = ["BEAT", "Load", "Send", "beat", "beating", "generated", "load", "retimed"]

_MINUTE = 60_000_000  # microseconds
_REPEATS, _GARBAGE = 0.05, 0.004  # shares of the records
_REACH = 40  # positions by which a record may be early or late
BEAT = "escalations"
_BEAT_SUBJECTS = 10


@dataclass(frozen=True, slots=True)
class Send:
    """A record for a source topic."""

    topic: str
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """`sends`: records of each producer, in order. `lines`: the events as the model reads them. `garbage`: values that
    must be rejected. `skews`: error of each producer's clock, microseconds."""

    sends: list[list[Send]]
    lines: list[dict[str, Any]]
    garbage: set[bytes]
    skews: list[int]


def generated(seed: int, size: int, now: datetime) -> list[dict[str, Any]]:
    """Returns about `size` events of every kind in eight workspaces. Their times are in the last 80 hours, so some
    items become due and some proofs expire during the run."""
    start = now.replace(second=0, microsecond=0) - generate.SLOTS * generate.SLOT - timedelta(minutes=45)
    runs = ("run.failed",) * 4 + SOURCE_TYPES["run-failures"]
    others = [name for topic, names in SOURCE_TYPES.items() for name in names if topic != "run-failures"]
    names = tuple(f"ws_{number:02}" for number in range(1, 9))
    found = generate.generate(seed, size * 8 // 7, types=others, subjects=25, workspaces=names, start=start)
    more = generate.generate(seed + 1, size // 7, types=runs, subjects=60, workspaces=names, start=start)
    for line in more:
        line["value"]["id"] = "run-" + line["value"]["id"]
    random.Random(seed).shuffle(both := found + more)
    return both[:size]


def load(seed: int, lines: Iterable[dict[str, Any]], producers: int) -> Load:
    """Distributes these events over the producers."""
    rng = random.Random(seed)
    # Whole minutes, so that items are due between whole minutes; and some microseconds, so that times are unique.
    skews = [rng.choice((-1, 1)) * (1 + 3 * number) * _MINUTE + number for number in range(producers)]
    sends: list[list[Send]] = [[] for _ in range(producers)]
    known: list[dict[str, Any]] = []
    for line in lines:
        number = rng.randrange(producers)
        value = {**line["value"], "time": format_timestamp(parse_timestamp(line["value"]["time"]) + skews[number])}
        known.append({**line, "value": value})
        send = _send(line, json.dumps(value).encode())
        sends[number].append(send)
        if rng.random() < _REPEATS:
            sends[rng.randrange(producers)].append(send)
    rubbish = [Send(topic, None, value) for topic, value in generate.garbage() if len(value) < 100_000]
    for _ in range(max(len(rubbish), int(len(known) * _GARBAGE))):
        among = sends[rng.randrange(producers)]
        among.insert(rng.randrange(len(among) + 1), rng.choice(rubbish))
    return Load([_jumbled(rng, own) for own in sends], known, {one.value for one in rubbish}, skews)


def _send(line: dict[str, Any], value: bytes) -> Send:
    key = line.get("key")
    return Send(line["topic"], None if key is None else str(key).encode(), value)


def _jumbled(rng: random.Random, sends: Sequence[Send]) -> list[Send]:
    places = sorted((place + rng.uniform(0, _REACH), place) for place in range(len(sends)))
    return [sends[place] for _, place in places]


def beating(partitions: int) -> list[str]:
    """Returns a workspace for each partition of the log, by partition."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        name = f"beat-{number}"
        found.setdefault(partition_of(name, partitions), name)
        number += 1
    return [found[partition] for partition in range(partitions)]


def beat(ws: str, number: int, now: int) -> tuple[Send, dict[str, Any]]:
    """Returns the workspace's event `number` at `now` microseconds: an escalation for all, opened and then updated."""
    subject = f"beat_{number % _BEAT_SUBJECTS}"
    kind = "escalation.opened" if number < _BEAT_SUBJECTS else "escalation.updated"
    value = {
        "specversion": "1.0", "id": f"{ws}-{number}", "source": "/beat", "type": kind, "subject": subject,
        "time": format_timestamp(now), "workspaceid": ws, "data": {"title": f"Beat {number}"},
    }
    line = {"topic": BEAT, "key": ws, "value": value}
    return _send(line, json.dumps(value).encode()), line


def retimed(lines: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Shifts all times by whole minutes, so that the last event is now."""
    newest = max(datetime.fromisoformat(line["value"]["time"]) for line in lines)
    shift = int((now.astimezone(UTC) - newest) / timedelta(minutes=1)) * _MINUTE
    return [{**line, "value": json.loads(retime(json.dumps(line["value"]).encode(), shift))} for line in lines]
