"""Folds the log from its beginning without an interruption: the expected rows and facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import ConsumerRecord

from schemas.asking.decision_event import DecisionEvent
from schemas.facts import Fact, Outcome, decode_fact
from schemas.log import Event, decode_pack
from schemas.settings import Settings
from schemas.views import apply_changes, decode_row, fence_key, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold

__all__ = ["Refold", "differences", "last_rows", "unique_facts"]

_SHOWN = 5  # differences of one kind that are reported


class Refold:
    """`rows`, `facts` and `decisions` (records of that topic) of one partition.

    `repairs`: positions at which a new owner wrote rows again; each uses a position.
    """

    def __init__(self, partition: int, settings: Settings, repairs: Iterable[tuple[int, int]] = ()) -> None:
        self.partition = partition
        self.rows: dict[bytes, bytes] = {}
        self.facts: list[Fact | Outcome] = []
        self.decisions: list[DecisionEvent] = []
        self.events: Counter[tuple[str, str, str]] = Counter()  # in the log, repeats counted
        self._fold = Fold(self.rows, partition, FoldConfig.from_settings(settings))
        self._repairs = Counter(repairs)

    def replay(self, records: Sequence[ConsumerRecord]) -> None:
        """Folds the partition's records of the log, from the first."""
        for record in records:
            for missing in range(self._fold.position.next, record.offset):
                self._fold.skip(missing)
            self._one(record)

    def _one(self, record: ConsumerRecord) -> None:
        try:
            pack = decode_pack(record.value or b"")
        except ValueError:
            self._fold.skip(record.offset)
            self._keep()
            return
        self.events.update((one.ws, one.source, one.id) for one in pack.entries if isinstance(one, Event))
        whole = False
        while not whole:
            position = self._fold.position
            position.shift += self._repairs[position.next, position.part]
            whole = self._fold.apply(pack, record.offset)
            self._keep()

    def _keep(self) -> None:
        batch = self._fold.pending_batch()
        self.facts += batch.facts
        self.decisions += batch.decisions
        apply_changes(self.rows, batch.rows)
        self._fold.mark_durable()

    def end(self) -> None:
        """Applies the repairs after the last pack."""
        position = self._fold.position
        if count := self._repairs[position.next, position.part]:
            position.shift += count
            self._keep()


def last_rows(partition: int, records: Iterable[ConsumerRecord]) -> dict[bytes, bytes]:
    """Returns the last value of each key, which compaction keeps."""
    rows: dict[bytes, bytes] = {}
    for record in records:
        if record.value is None:
            rows.pop(record.key, None)
        elif record.key != fence_key(partition):
            rows[record.key] = record.value
    return rows


def unique_facts(records: Iterable[ConsumerRecord]) -> tuple[list[Fact | Outcome], int, list[str]]:
    """Returns facts as a consumer reads them, the number of repeats, and repeats that differ from the first record.

    A fact whose position is not after the last one is a repeat.
    """
    facts: list[Fact | Outcome] = []
    known: dict[tuple[int, int], bytes] = {}
    repeats, wrong, last = 0, [], (-1, -1)
    for record in records:
        fact = decode_fact(record.value)
        place = (fact.pos, fact.index)
        if place > last:
            last = place
            facts.append(fact)
        else:
            repeats += 1
            if known.get(place) != record.value:
                wrong.append(
                    f"fact {place} at offset {record.offset} is {record.value!r}, first {known.get(place)!r}")
        known.setdefault(place, record.value)
    return facts, repeats, wrong


def differences(partition: int, what: str, found: Mapping[bytes, bytes], wanted: Mapping[bytes, bytes]) -> list[str]:
    """Returns a line for each row that differs from the fold, at most `_SHOWN`."""
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    lines = [
        f"{what}/{partition} row {key.decode()}: {_row(key, found.get(key))}, one fold of the log has "
        f"{_row(key, wanted.get(key))}" for key in keys[:_SHOWN]
    ]
    return [*lines, *([f"{what}/{partition}: {len(keys)} rows differ in total"] if len(keys) > _SHOWN else [])]


def _row(key: bytes, raw: bytes | None) -> str:
    return "absent" if raw is None else repr(decode_row(key, raw)) if key != position_key(0) else raw.decode()
