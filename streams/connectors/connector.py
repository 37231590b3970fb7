"""Frame of all connectors: sweeps a system, applies decisions to it, and reports to attn what became of them.

A connector stores nothing: sweeps read the truth from the system, and the worklist is a list of attn. Event ids follow
from what happened, never from the attempt, so that attn counts a repeat once.
"""

from __future__ import annotations

import asyncio
import logging
import time

from streams.connectors import metrics
from streams.connectors.attn_client import AttnRefused, EventRejected
from streams.connectors.peer import TRANSIENT, Peer, text_of
from streams.connectors.worklist import Client, Wakeups, Worklist
from streams.runtime.backoff import Backoff

__all__ = ["Connector"]

log = logging.getLogger("attn.connect")

# Seconds.
_MIN_SWEEP_GAP = 1.0  # between two sweeps that hooks started
_FIRST_RETRY, _LAST_RETRY = 0.5, 60.0
_STOP_WAIT = 5.0  # a clean stop waits for the decisions that are being applied
_SILENCE = 60.0  # without a successful sweep, beyond the pause of sweeps, until the process is not ready
_SLOW_SWEEP = 30.0  # after which a sweep is reported: AttnClient repeats requests without an end
_OBSERVE_EVERY = 1.0


class Connector:
    """Runs one peer against one attn.

    `sweep_seconds`: pause between two sweeps. `wake` starts a sweep at once and ends the waits of `NotYet`.
    """

    def __init__(self, peer: Peer, attn: Client, sweep_seconds: float = 30.0) -> None:
        self._peer, self._attn = peer, attn
        self._sweep_seconds = sweep_seconds
        self._wakeups = Wakeups()
        self._worklist = Worklist(peer, attn, self._wakeups)
        self._swept_at: float | None = None
        self._sweep_began: float | None = None
        self._problem = "was not read yet"

    def wake(self) -> None:
        self._wakeups.notify()

    def not_ready_reason(self) -> str | None:
        """Returns why the process is not ready: the system or attn was not read yet, or no sweep has succeeded for the
        pause of sweeps and 60 s."""
        if self._swept_at is None or time.monotonic() - self._swept_at > self._sweep_seconds + _SILENCE:
            return f"{self._peer.name}: {self._problem}"
        return self._worklist.not_ready_reason()

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then waits up to 5 s for the decisions that are being applied."""
        metrics.start_counters(self._peer.name)
        tasks = [asyncio.create_task(work)
                 for work in (self._sweep_forever(), self._worklist.run(), self._observe(), stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            await self._worklist.stop(_STOP_WAIT)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, self._worklist.stop(0), return_exceptions=True)

    async def _sweep_forever(self) -> None:
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        while True:
            seen, began = self._wakeups.count, time.monotonic()
            self._sweep_began = began
            result = await self._sweep()
            self._sweep_began = None
            metrics.SWEEPS.labels(self._peer.name, result).inc()
            metrics.PEER_UP.labels(self._peer.name).set(result == "ok")
            pause = self._sweep_seconds
            if result == "ok":
                self._swept_at = time.monotonic()
                metrics.SWEEP_SECONDS.labels(self._peer.name).observe(self._swept_at - began)
                backoff.reset()
            else:
                pause = min(pause, backoff.next())
            gap = min(pause, _MIN_SWEEP_GAP)
            await asyncio.sleep(gap)
            await self._wakeups.wait(pause - gap, seen)

    async def _sweep(self) -> str:
        """Sweeps once. Returns the result as the metric has it."""
        try:
            events = await self._peer.sweep()
        except TRANSIENT as error:
            self._fail("does not answer", error)
            return "peer"
        except AttnRefused as error:
            self._fail("cannot read its items", error)
            return "attn"
        except Exception as error:
            self._fail("the sweep failed", error)
            log.exception("%s: the sweep failed, retrying", self._peer.name)
            return "error"
        if events:
            self._problem = "attn has not accepted the events of a sweep yet"
            try:
                await self._attn.send(events)
            except (AttnRefused, EventRejected) as error:  # the events that attn accepted are durable
                self._fail("cannot send the events of the sweep", error)
                return "attn"
            metrics.EVENTS.labels(self._peer.name).inc(len(events))
        self._problem = "was not read"
        return "ok"

    def _fail(self, what: str, error: Exception) -> None:
        problem = f"{what}: {text_of(error)}"
        if problem != self._problem:  # the same problem of each retry is logged once
            log.warning("%s: %s; retrying", self._peer.name, problem)
        self._problem = problem

    async def _observe(self) -> None:
        reported = None
        while True:
            self._worklist.measure()
            began = self._sweep_began
            if began is not None and began != reported and time.monotonic() - began > _SLOW_SWEEP:
                reported = began
                metrics.PEER_UP.labels(self._peer.name).set(0)
                log.warning("%s: a sweep has run for %.0f s: attn or the system does not answer", self._peer.name,
                            time.monotonic() - began)
            await asyncio.sleep(_OBSERVE_EVERY)
