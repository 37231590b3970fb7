"""One run: starts all processes, sends events, injects faults, waits until everything is processed, compares."""

from __future__ import annotations

import asyncio
import json
import math
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.model import Model, Reader

from chaos.artifacts import dump, last_errors
from chaos.checks import council as decisions
from chaos.checks.feed_gaps import by_kind
from chaos.checks.topics import Watch
from chaos.checks.verify import Topics, caught_up, check_edges, check_history, check_readers, check_topics
from chaos.environment.disk_throttle import Throttle
from chaos.environment.edge_client import EdgeClient, now
from chaos.environment.stack import Stack
from chaos.faults.injector import Faults
from chaos.faults.schedule import HEAVIEST, Fault, schedule
from chaos.report import Report
from chaos.workload.council import Council
from chaos.workload.feed_readers import Follower
from chaos.workload.hook import Hook
from chaos.workload.load import Load, beating, generated, load, retimed
from chaos.workload.producers import Beats, Producer
from chaos.workload.users import Desks
from ops.cli.data.event_files import iter_lines, open_input
from schemas.topics import VIEWS

__all__ = ["Plan", "Stuck", "run"]

_PARTITIONS = 6  # of the log; one, two or three workers share them
_BEATS = 5.0  # events per second and partition
_PRODUCERS = 4
_PEOPLE = 6
_COUNCILS = 3  # workspaces in which people decide
_WARM = 5.0  # seconds before the first fault
_CALM = 8.0  # seconds of silence at a reader during which no further fault begins: attn must recover first
_STUCK = 420.0  # seconds of such silence after which the run fails
_SETTLE = 600.0
_PROGRESS = 10.0
_LONG = 5.0  # minutes


class Stuck(Exception):
    """Readers received nothing new for `_STUCK` seconds."""


@dataclass(frozen=True)
class Plan:
    """Parameters of a run. `every`: mean seconds between faults; `rate`: events per second beside the beats; `file`:
    JSON lines of real events instead of generated ones."""

    seed: int
    minutes: float
    brokers: int = 3
    workers: int = 2
    edges: int = 2
    every: float = 2.0
    rate: float = 25.0
    file: Path | None = None
    at_most: float | None = None  # minutes after which no fault begins, even if some are left
    only: tuple[str, ...] = ()  # the kinds of faults; empty: all


def log_progress(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)


class Run:
    """State of a run. `home`: directory of its logs, topics and data."""

    def __init__(self, plan: Plan, home: Path, report: Report) -> None:
        self.plan, self.home, self.report = plan, home, report
        self.stack = Stack(home, plan.brokers, plan.workers, plan.edges, _PARTITIONS, plan.minutes > _LONG)
        self.throttle = Throttle(home)
        self.faults = Faults(self.stack, self.throttle)
        self.watch = Watch(self.stack.settings)
        self.load = self._load()
        self.producers = [Producer(self.stack.settings, str(number)) for number in range(_PRODUCERS)]
        self.beats = Beats(self.stack.settings, beating(_PARTITIONS), _BEATS)
        self.edges: list[EdgeClient] = []
        self.followers: list[Follower] = []  # the first ones read beats
        self.topics: Topics | None = None
        self.hook = Hook(self.stack.settings, plan.seed)

    def _load(self) -> Load:
        plan, current = self.plan, datetime.now(UTC)
        if plan.file is None:
            lines = generated(plan.seed, int(plan.rate * plan.minutes * 60), current)
        else:
            with open_input(str(plan.file)) as file:
                lines = retimed([json.loads(line) for _, line in iter_lines(file)], current)
        return load(plan.seed, lines, _PRODUCERS)

    async def run(self) -> None:
        """Fills the report. Raises the error that stopped the run."""
        async with self.hook.serve(self.stack.hook_port), self.stack:
            log_progress(f"ready: Kafka at {self.stack.kafka.bootstrap}, edges at {', '.join(self.stack.urls)}")
            self.edges = [EdgeClient(url, self.stack.data_dir) for url in self.stack.urls]
            self.followers = self._readers()
            self.desks = Desks(_PEOPLE, self.plan.seed, self.stack.urls, self.edges[0])
            self.council = Council(
                _COUNCILS, self.plan.seed, self.stack.settings, self.stack.urls, self.edges[0], http=True)
            await self.producers[0].send(self.desks.fill(now()))
            stop = asyncio.Event()
            reading = [asyncio.create_task(one.run(), name=f"reader {one.name}") for one in self.followers]
            reading.append(asyncio.create_task(self.watch.run(), name="watch"))
            sending = [asyncio.create_task(self.beats.run(stop), name="beats")]
            sending += [asyncio.create_task(one.run(stop), name=one.reader.user) for one in self.desks.people]
            sending += [asyncio.create_task(one.run(stop), name=one.reader.user) for one in self.council.people]
            sending += [asyncio.create_task(one.run(stop), name=one.ws) for one in self.council.questions]
            sending += [
                asyncio.create_task(one.replay(sends, self.plan.minutes * 60), name="producer")
                for one, sends in zip(self.producers, self.load.sends, strict=True)
            ]
            try:
                await self._break(reading + sending)
                stop.set()
                log_progress("no further faults; waiting until all events are sent")
                await asyncio.gather(*sending)
                await self._compare()
            finally:
                for task in reading + sending:
                    task.cancel()
                await asyncio.gather(*reading, *sending, return_exceptions=True)
                self._number()
                for edge in self.edges:
                    edge.client.close()
                for producer in self.producers:
                    await producer.close()
                self.throttle.close()

    def _readers(self) -> list[Follower]:
        """Returns one reader for each workspace with beats, spread over the edges, and some of each role for others."""
        beats = [(ws, Reader("pulse", "VIEWER"), 500) for ws in beating(_PARTITIONS)]
        busy = Counter(line["value"]["workspaceid"] for line in self.load.lines)
        names = [name for name, _ in busy.most_common(4)]
        sorts = [(Reader("ann", "OWNER"), 500), (Reader("bob", "MEMBER"), 7), (Reader("cy", "MANAGER"), 1),
                 (Reader("zoe", "VIEWER"), 1000)]
        others = [(names[number % len(names)], *sort) for number, sort in enumerate(sorts * 2)]
        return [
            Follower(self.edges[0], self.stack.urls, ws, reader, limit, first=number)
            for number, (ws, reader, limit) in enumerate([*beats, *beats[::-1], *others])
        ]

    @property
    def pulses(self) -> list[Follower]:
        return self.followers[:2 * _PARTITIONS]

    async def _break(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Injects all faults of the schedule. Delays a fault while a reader waits for recovery."""
        await asyncio.sleep(_WARM)
        plan = self.plan
        due = schedule(plan.seed, plan.minutes * 60, plan.every, plan.brokers, plan.only)
        begun, held, shown = time.monotonic(), 0.0, 0.0
        end = begun + plan.at_most * 60 if plan.at_most is not None else math.inf
        for number, fault in enumerate(due, start=1):
            if time.monotonic() > end:
                break
            while (left := begun + held + fault.at - time.monotonic()) > 0 or self._silence() > _CALM:
                self._check(tasks)
                if left <= 0:
                    waited = await self._until_calm()
                    held += waited
                await asyncio.sleep(max(0.05, min(left, 0.5)))
            self.faults.inject(fault)
            if time.monotonic() - shown > _PROGRESS:
                shown = time.monotonic()
                self._progress(number, due, shown - begun, held)
        await self.faults.over()
        self.report.minutes = (time.monotonic() - begun) / 60
        self.report.numbers["seconds of delay of faults, for recovery"] = round(held)

    def _progress(self, number: int, due: list[Fault], passed: float, held: float) -> None:
        sent = sum(one.acknowledged for one in self.producers) + len(self.beats.lines)
        log_progress(f"{passed / 60:.1f} min: {number} of {len(due)} faults ({self.faults.busy} on), {sent:,} sent, "
             f"longest silence now {self._silence():.1f} s, held for {held:.0f} s, {self.watch.claims} claims, "
             f"{sum(one.connects for one in self.followers)} connects")

    def _check(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Raises the error of a task of the harness, or the difference that a reader noticed."""
        self.faults.check()
        self.stack.check()
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _silence(self) -> float:
        """Returns the seconds since the last new frame, of the reader for which it is longest."""
        now = time.monotonic()
        return max(now - one.seen[-1] if one.seen else 0.0 for one in self.pulses if one.wrong is None)

    async def _until_calm(self) -> float:
        """Waits until every reader has received something new. Returns the seconds of waiting."""
        begun = time.monotonic()
        while self._silence() > _CALM / 2:
            if time.monotonic() - begun > _STUCK:
                silent = [one.name for one in self.pulses if time.monotonic() - one.seen[-1] > _CALM]
                raise Stuck(f"no news for {_STUCK:.0f} s, faults on: {self.faults.busy}; silent: {silent}")
            await asyncio.sleep(0.25)
        return time.monotonic() - begun

    async def _compare(self) -> None:
        """Runs all checks and adds the differences to the report."""
        found = self.report.differences
        settings = self.stack.settings
        await self.stack.ready(_SETTLE)
        begun = time.monotonic()
        if waiting := await decisions.settled(self.stack, self.watch, self.hook, _SETTLE):
            found.append(f"decisions did not end: {waiting}")
        if behind := await caught_up(settings, self.watch, _SETTLE):
            found.append(f"not caught up: {behind}")
        self.report.numbers["seconds from the last fault until everything was processed"] = time.monotonic() - begun
        log_progress("caught up; comparing")
        asked = [line for one in self.council.questions for line in one.lines]
        model = Model([*self.load.lines, *self.beats.lines, *self.desks.lines, *asked])
        self.report.numbers["events"] = len(model)
        found += await check_readers(self.followers, self.edges)
        log_progress("compared: readers")
        self._silences()
        # The model covers the events of sources. Writes of people are compared with the responses that they received.
        found += await check_edges(
            model, self.edges, sorted(model.events.keys() - self.desks.names - self.council.names), 3, log_progress)
        self.topics = await Topics.read(settings, self.watch)
        found += await asyncio.to_thread(
            check_topics, self.topics, self.watch, model, self.load.garbage, self.council.names)
        differ, numbers = await asyncio.to_thread(
            decisions.check, self.stack, self.topics, self.council, self.hook, self.edges)
        found += differ
        self.report.numbers |= numbers
        found += await asyncio.to_thread(self.desks.differences, self.edges, self.topics.all_facts)
        log_progress("compared: topics, writes of people")
        if not await self.stack.remove("history-1"):
            found.append("history did not end within its time")
        found += await check_history(self.topics, settings)
        log_progress("compared: the history")

    def _silences(self) -> None:
        weight = {name: order for order, name in enumerate(reversed(HEAVIEST))}
        self.report.silent = by_kind(
            [(one.kind, one.begun, one.ended) for one in self.faults.done], [one.seen for one in self.pulses], weight,
            usual=4 / _BEATS)

    def _number(self) -> None:
        """Adds further figures to the report."""
        self.report.faults = len(self.faults.done)
        self.report.skipped = self.faults.skipped
        self.report.ends = last_errors(self.home / "logs")
        self.report.numbers |= {
            "records sent, garbage and repeats included":
                sum(map(len, self.load.sends)) + len(self.beats.lines) + len(self.desks.lines),
            **self.desks.numbers, **self.council.numbers,
            "sends with an unknown result, sent again": sum(one.again for one in self.producers) + self.beats.again,
            "clock skew of the producers, minutes": ", ".join(f"{skew / 6e7:+.0f}" for skew in self.load.skews),
            "batches of rows": self.watch.batches,
            "claims of a partition": self.watch.claims,
            "batches cut off by the kill of their writer": self.watch.torn,
            "batches out of turn": len(self.watch.stale),
            "readers": len(self.followers),
            "connections of readers": sum(one.connects for one in self.followers),
            "frames of readers": sum(one.frames for one in self.followers),
            "snapshots of readers": sum(one.snapshots for one in self.followers),
        }
        if self.topics is not None:
            written = sum(map(self.watch.next, self.topics.views))
            left = sum(map(len, self.topics.views.values()))
            self.report.numbers |= {
                "facts written again": self.topics.repeats,
                f"records of {VIEWS}": f"{written:,}, {written - left:,} of them compacted away when compared",
            }

    def keep_topics(self) -> None:
        """Writes all records of the topics and the last frames of readers to `home`."""
        for follower in self.followers:
            if follower.wrong:
                name = re.sub(r"\W+", "-", follower.name)
                (self.home / f"reader-{name}.json").write_text(json.dumps(follower.last_frames(), indent=1))
        if self.topics is not None:
            for name in ("log", "views", "facts", "letters", "decisions"):
                dump(self.home / f"{name}.jsonl.gz", getattr(self.topics, name))


async def run(plan: Plan, home: Path, report: Report) -> Run:
    """Runs the plan. The report is filled even if the run fails."""
    one = Run(plan, home, report)
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    try:
        await one.run()
    except Exception as error:
        report.differences.append(f"the run failed: {error!r}")
    return one
