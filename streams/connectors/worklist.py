"""The decisions that a connector has to apply: reads the list of attn, applies each idempotently, reports the outcome.

The list has the decisions in state `sending`: nobody can take these back, and nobody has reported them. So it is the
only store of a connector: one that was killed starts over from the same list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from schemas.scalars import format_timestamp
from streams.connectors import metrics
from streams.connectors.attn_client import AttnRefused, EventRejected
from streams.connectors.peer import TRANSIENT, Applied, Decision, Event, NotYet, Outcome, Peer, Refused, text_of
from streams.runtime.backoff import Backoff
from streams.runtime.clock import now_us
from streams.runtime.source_keys import covers_source

__all__ = ["Client", "Wakeups", "Worklist", "report_of", "version_of"]

log = logging.getLogger("attn.connect")

# Seconds.
_FIRST_RETRY, _LAST_RETRY = 0.5, 60.0
_MAX_CONCURRENT = 8  # decisions that are applied at once
_MAX_REASON = 1000  # characters; attn accepts 1024


class Client(Protocol):
    """The part of AttnClient that the frame needs."""

    async def send(self, events: Sequence[Event], topic: str | None = None) -> Any: ...

    def watch_decisions(self, *, state: str, source: str | None = None) -> AsyncIterator[Sequence[Decision]]: ...


class Wakeups:
    """Ends waits early. `count`: number of wake-ups so far."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def notify(self) -> None:
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float, since: int) -> None:
        """Returns after `seconds`, or at the first wake-up after `count` was `since`."""
        if since == self.count:
            # Not `wait_for`: in Python 3.11 it loses a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._event.wait()


class _Work:
    """A decision that is read and not reported. `version`: what changes when the same decision is sent again."""

    def __init__(self, decision: Decision) -> None:
        self.id = str(decision["id"])
        self.decision = decision
        self.version = version_of(decision)
        self.read_at = time.monotonic()


class Worklist:
    """Applies decisions, at most eight at once, those of one lane (`Peer.lane`) one after another."""

    def __init__(self, peer: Peer, attn: Client, wakeups: Wakeups) -> None:
        self._peer, self._attn, self._wakeups = peer, attn, wakeups
        self._lanes: dict[str, deque[_Work]] = {}
        self._work: dict[str, _Work] = {}  # by decision id, until it is reported or has left the list
        self._reported: dict[str, tuple[object, ...]] = {}  # id -> version, until it has left the list
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self._stopping = False
        self._problem: str | None = "the list of decisions was not read yet"

    async def run(self) -> None:
        """Follows the list until cancelled."""
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        while True:
            try:
                async for decisions in self._attn.watch_decisions(state="sending", source=self._peer.source):
                    self._take(decisions)
                    backoff.reset()
            except (*TRANSIENT, AttnRefused) as error:
                self._problem = f"cannot read decisions: {text_of(error)}"
                log.warning("%s: cannot read decisions, retrying: %s", self._peer.name, text_of(error))
            except Exception:
                log.exception("%s: reading decisions of attn failed, retrying", self._peer.name)
            await asyncio.sleep(backoff.next())

    def not_ready_reason(self) -> str | None:
        """Returns why the list is not known; None if it is."""
        return None if self._problem is None else f"attn: {self._problem}"

    def _take(self, decisions: Sequence[Decision]) -> None:
        """Starts to apply the decisions of the list that are new in it; forgets those that have left it."""
        self._problem = None
        mine = {
            str(decision["id"]): decision for decision in reversed(decisions)  # the list has the newest first
            if self._peer.source is None or covers_source(self._peer.source, str(decision["source"]))
        }
        for gone in self._work.keys() - mine.keys():
            del self._work[gone]
        for gone in self._reported.keys() - mine.keys():
            del self._reported[gone]
        for name, decision in mine.items():
            if name not in self._work and self._reported.get(name) != version_of(decision):
                self._start(name, decision)

    def _start(self, name: str, decision: Decision) -> None:
        work = self._work[name] = _Work(decision)
        key = self._peer.lane(decision)
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(work)
            return
        self._lanes[key] = deque([work])
        task = asyncio.create_task(self._run_lane(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_lane(self, key: str) -> None:
        """Applies the decisions of a lane one after another until none is left."""
        lane = self._lanes[key]
        try:
            while lane:
                await self._process(lane[0])
                lane.popleft()
        finally:
            del self._lanes[key]

    async def _process(self, work: _Work) -> None:
        """Applies a decision until its outcome is durable in attn, or until it has left the list."""
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        while self._work.get(work.id) is work and not self._stopping:
            seen = self._wakeups.count
            async with self._slots:
                outcome = await self._apply(work)
            if not isinstance(outcome, NotYet):
                await self._report(work, outcome)
                return
            log.info("%s: decision %s is not applied yet: %s", self._peer.name, work.id, outcome.reason)
            wait = backoff.next()
            await self._wakeups.wait(wait if outcome.after is None else outcome.after, seen)

    async def _apply(self, work: _Work) -> Outcome:
        outcome: Outcome
        try:
            outcome = await self._peer.apply(work.decision)
            result = {Applied: "applied", Refused: "refused", NotYet: "not_yet"}[type(outcome)]
        except TRANSIENT as error:
            outcome, result = NotYet(f"the system does not answer: {text_of(error)}"), "peer"
        except Exception as error:  # a bug: the other decisions are applied, and this one is tried again
            log.exception("%s: decision %s could not be applied", self._peer.name, work.id)
            outcome, result = NotYet(f"the connector failed: {type(error).__name__}"), "error"
        metrics.DECISIONS.labels(self._peer.name, result).inc()
        return outcome

    async def _report(self, work: _Work, outcome: Applied | Refused) -> None:
        """Sends the outcome until it is durable. If attn rejects events of the peer, the report is sent anyway."""
        report = report_of(work.decision, outcome)
        steps = [(outcome.events, None), ([report] if report is not None else [], self._peer.topic)]
        if isinstance(outcome, Refused):
            steps.reverse()
        for events, topic in steps:
            if events:
                try:
                    await self._attn.send(events, topic=topic)
                except (AttnRefused, EventRejected) as error:
                    log.error("%s: attn rejects what became of decision %s: %s",
                              self._peer.name, work.id, text_of(error))
        log.info("%s: decision %s: %s", self._peer.name, work.id,
                 "applied" if isinstance(outcome, Applied) else f"refused: {outcome.reason}")
        if self._work.get(work.id) is work:
            del self._work[work.id]
            self._reported[work.id] = work.version

    async def stop(self, seconds: float) -> None:
        """Waits up to `seconds` for the decisions that are being applied, then cancels them: a later start repeats
        them."""
        self._stopping = True
        self._wakeups.notify()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def measure(self) -> None:
        """Updates the metrics of waiting decisions."""
        now = time.monotonic()
        metrics.WAITING.labels(self._peer.name).set(len(self._work))
        metrics.OLDEST_SECONDS.labels(self._peer.name).set(
            max((now - work.read_at for work in self._work.values()), default=0.0))


def version_of(decision: Decision) -> tuple[object, ...]:
    """Returns what changes when a decision that nobody confirmed is sent again: its id stays."""
    return decision.get("changed_at"), decision.get("returned")


def report_of(decision: Decision, outcome: Applied | Refused) -> Event | None:
    """Returns `decision.applied` or `decision.refused`; None if the events of the outcome close the item."""
    if isinstance(outcome, Applied) and not outcome.reported:
        return None
    state = "applied" if isinstance(outcome, Applied) else "refused"
    data: dict[str, Any] = {"decision": decision["id"]}
    if isinstance(outcome, Refused):
        data["reason"] = outcome.reason[:_MAX_REASON]
    return {
        "specversion": "1.0", "id": f"{decision['id']}.{state}", "source": decision["source"],
        "type": f"decision.{state}", "subject": decision["source_id"], "time": format_timestamp(now_us()), "data": data,
    }
