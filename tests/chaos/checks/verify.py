"""Checks after the faults that everything is as without them. Each check returns a line per difference."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from support.model import Model, Reader

from chaos.checks import expected_fold as refold
from chaos.checks import history
from chaos.checks.decisions import records_differ
from chaos.checks.edge import READERS, check
from chaos.checks.expected_fold import Refold
from chaos.checks.topics import Records, Watch, committed, ends, read
from chaos.environment.edge_client import EdgeClient, now, users_of
from chaos.workload.feed_readers import Follower
from chaos.workload.users import ACTS
from schemas.dead_letters import DeadLetter
from schemas.facts import Fact, Outcome
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, DECISIONS, FACTS, LOG, SOURCE_TYPES, VIEWS

__all__ = ["Topics", "caught_up", "check_edges", "check_readers", "check_topics"]

_TRIES = 4  # an item may become due between the model's clock and the answer
_READER_SECONDS = 60.0
_SHOWN = 5


async def caught_up(settings: Settings, watch: Watch, seconds: float) -> str | None:
    """Waits until all source records are ingested, the log is folded and its facts are in the history.

    Returns what is behind after the time, else None.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            behind = await _behind(settings, watch)
        except (KafkaError, OSError, TimeoutError) as error:
            behind = repr(error)
        if behind is None or time.monotonic() > until:
            return behind
        await asyncio.sleep(1.0)


async def _behind(settings: Settings, watch: Watch) -> str | None:
    there = await ends(settings, [*SOURCE_TYPES, LOG, VIEWS, FACTS])
    for group, topics in (("attn-ingest", [*SOURCE_TYPES]), ("attn-history", [FACTS])):
        done = await committed(settings, group)
        left = {f"{place.topic}/{place.partition}": end - done.get(place, 0) for place, end in there.items()
                if place.topic in topics and end > done.get(place, 0)}
        if left:
            return f"{group} has not processed {left}"
    for number in range(settings.log_partitions):
        end, position = there[TopicPartition(LOG, number)], watch.position(number)
        if end and (position is None or position.next < end):
            return f"{LOG}/{number} ends at {end}, folded is {position}"
        if watch.next(number) < there[TopicPartition(VIEWS, number)]:
            return f"{VIEWS}/{number}: watched up to {watch.next(number)} of {there[TopicPartition(VIEWS, number)]}"
    return None


@dataclass
class Topics:
    """The records of the topics, and the expected fold of the log."""

    log: Records
    views: Records
    facts: Records
    letters: Records
    decisions: Records
    sources: dict[str, Records]
    folds: dict[int, Refold] = field(default_factory=dict)
    repeats: int = 0  # of facts
    repeated_decisions: int = 0

    @classmethod
    async def read(cls, settings: Settings, watch: Watch) -> Topics:
        log, views, facts, letters, decisions = [
            await read(settings, topic) for topic in (LOG, VIEWS, FACTS, DEAD_LETTERS, DECISIONS)]
        found = cls(log, views, facts, letters, decisions,
                    {topic: await read(settings, topic) for topic in SOURCE_TYPES})
        for partition, records in log.items():
            fold = found.folds[partition] = Refold(partition, settings, watch.repairs[partition])
            await asyncio.to_thread(fold.replay, records)
            fold.end()
        return found

    @property
    def all_facts(self) -> list[Fact | Outcome]:
        return [fact for fold in self.folds.values() for fact in fold.facts]


def check_topics(
    topics: Topics, watch: Watch, model: Model, garbage: set[bytes], asking: Collection[str] = (),
) -> list[str]:
    """Compares log, rows, facts, decisions and dead letters. `asking`: workspaces that also have facts of decisions."""
    found = list(watch.stale)
    for partition, fold in topics.folds.items():
        found += refold.differences(partition, "watched " + VIEWS, watch.rows(partition), fold.rows)
        found += refold.differences(
            partition, "compacted " + VIEWS, refold.last_rows(partition, topics.views[partition]), fold.rows)
        facts, repeats, wrong = refold.unique_facts(topics.facts[partition])
        topics.repeats += repeats
        found += wrong[:_SHOWN]
        found += _first_difference(partition, facts, fold.facts)
        differ, again = records_differ(partition, topics.decisions[partition], fold.decisions)
        topics.repeated_decisions += again
        found += differ
    return [*found, *_check_events(topics, model, asking), *_check_letters(topics, garbage)]


def _first_difference(partition: int, found: Sequence[Any], wanted: Sequence[Any]) -> list[str]:
    if found == wanted:
        return []
    place = next((n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
                 min(len(found), len(wanted)))
    return [f"{FACTS}/{partition}: {len(found)} facts, one fold of the log has {len(wanted)}; the first difference "
            f"is number {place}: {found[place:place + 1]}, the fold's {wanted[place:place + 1]}"]


def _check_events(topics: Topics, model: Model, asking: Collection[str]) -> list[str]:
    """Checks that every valid event is in the log and has exactly one fact. Receivers also send events of the asking
    workspaces."""
    wanted = {(ws, one.source, one.id) for ws, found in model.events.items() for one in found}
    logged: Counter[tuple[str, str, str]] = Counter()
    for fold in topics.folds.values():
        logged += fold.events
    logged = Counter({key: count for key, count in logged.items() if key in wanted or key[0] not in asking})
    facts = Counter((fact.ws, fact.event_id) for fact in topics.all_facts
                    if isinstance(fact, Fact) and not fact.derived and fact.type not in ACTS and fact.ws not in asking)
    expected = {(ws, f"{source} {name}") for ws, source, name in wanted if ws not in asking}
    return [
        *_summary("events sent and not in the log", wanted - logged.keys()),
        *_summary("events in the log that were not sent", logged.keys() - wanted),
        *_summary("events without a fact", expected - facts.keys()),
        *_summary("facts of no event", facts.keys() - expected),
        *_summary("events with several facts", {key for key, count in facts.items() if count > 1}),
    ]


def _summary(what: str, which: set[Any]) -> list[str]:
    return [f"{len(which)} {what}: {sorted(which)[:_SHOWN]}"] if which else []


def _check_letters(topics: Topics, garbage: set[bytes]) -> list[str]:
    """Checks that the dead letters are exactly the invalid records, each with a reason."""
    wanted = {
        (topic, partition, record.offset) for topic, records in topics.sources.items()
        for partition, own in records.items() for record in own if (record.value or b"") in garbage
    }
    found, unfit = set(), []
    for record in topics.letters.get(0, []):
        letter = DeadLetter.from_record(record.key, record.value, record.headers)
        found.add((letter.topic, letter.partition, letter.offset))
        if (letter.value or b"") not in garbage or not letter.reason:
            unfit.append(f"dead letter of {letter.topic}/{letter.partition}/{letter.offset}, {letter.reason!r}: "
                         f"{(letter.value or b'')[:300]!r}")
    return [*_summary("invalid records without a dead letter", wanted - found),
            *_summary("dead letters of valid records", found - wanted), *unfit[:_SHOWN]]


async def check_readers(followers: Sequence[Follower], edges: Sequence[EdgeClient]) -> list[str]:
    """Compares each reader's copy, made of frames, with GET on each edge."""
    found = await asyncio.gather(*(one.difference(edges, _READER_SECONDS) for one in followers))
    return [line for line in found if line is not None]


async def check_edges(
    model: Model, edges: Sequence[EdgeClient], workspaces: Sequence[str], users: int,
    log_progress: Callable[[str], None],
) -> list[str]:
    """Compares every route of every reader and workspace on each edge with the model, and the edges with each other."""
    found: list[str] = []
    for ws in workspaces:
        readers = [*READERS, *(Reader(user, role) for user in users_of(model, ws, users)
                               for role in ("MEMBER", "MANAGER"))]
        for reader in readers:
            for number, edge in enumerate(edges, start=1):
                if line := await asyncio.to_thread(_check_reader, model, edge, ws, reader):
                    found.append(f"edge {number}: {line}")
            if line := await asyncio.to_thread(_same, edges, ws, reader):
                found.append(line)
        log_progress(f"compared: {ws}")
    return found


def _check_reader(model: Model, edge: EdgeClient, ws: str, reader: Reader) -> str | None:
    difference = ""
    for attempt in range(_TRIES):
        try:
            check(edge, ws, model.at(now(), ws)[ws], reader)
            return None
        except (AssertionError, httpx.HTTPError) as error:
            difference = (str(error) if isinstance(error, AssertionError)
                          else f"{ws} as {reader.user}/{reader.role}: {error!r}")
            time.sleep(0.5 + attempt)
    return difference


def _same(edges: Sequence[EdgeClient], ws: str, reader: Reader) -> str | None:
    """Checks that every edge has the same response at the same cursor."""
    difference = None
    for attempt in range(_TRIES):
        pages = [edge.pages(ws, reader) for edge in edges]
        if len({json.dumps(page, sort_keys=True) for page in pages}) == 1:
            return None
        cursors = [page[1]["cursor"] for page in pages]
        difference = f"{ws} as {reader.user}/{reader.role}: edges differ at cursors {cursors}"
        time.sleep(0.5 + attempt)
    return difference


async def check_history(topics: Topics, settings: Settings) -> list[str]:
    """Checks that each event has one row and that the sums are right. `attn history` must have ended."""
    return history.differences(await history.ask(settings.data_dir), topics.all_facts)
