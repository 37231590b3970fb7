"""Posts the entries of the backlog when they are due, and reports what became of them.

Each endpoint has a limit of concurrent attempts and a circuit breaker of its own, so a receiver that hangs or is down
delays no other one. A failed attempt is repeated after 1 s, 2 s, 4 s, ... up to an hour, each with jitter, until the
question expires or the time limit is reached (ATTN_DELIVERY_LIMIT).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from aiokafka.errors import KafkaError

from schemas.log import Report, ReportedState
from schemas.settings import Settings
from schemas.topics import DECISIONS
from streams.delivery import metrics
from streams.delivery.attempt_span import AttemptSpan
from streams.delivery.backlog import Backlog, Entry
from streams.delivery.circuit import Circuit
from streams.delivery.endpoints import Endpoint, EndpointsFile
from streams.delivery.hold_gate import HoldGate
from streams.delivery.http.client import HttpClient
from streams.delivery.http.responses import Result
from streams.delivery.reporter import Reporter
from streams.delivery.signing import webhook_id
from streams.runtime.backoff import Backoff
from streams.runtime.clock import now_us

__all__ = ["Dispatcher"]

log = logging.getLogger("attn.deliver")

_INITIAL_DELAY, _MAX_DELAY = 1.0, 3600.0  # seconds between two attempts
_MAX_REPORTING = 100  # attempts that wait for their report without counting as concurrent requests
_MAX_SLEEP = 1.0  # the file of endpoints may have changed by then

Load = Callable[[Entry], Awaitable[bytes | None]]  # reads the record of an entry again; None if it is gone


class _Reply(msgspec.Struct):
    token: str | None = None


class _Data(msgspec.Struct):
    reply: _Reply | None = None


class _Message(msgspec.Struct):
    data: _Data


_decode_message = msgspec.json.Decoder(_Message).decode


class Dispatcher:
    """Runs the attempts. `load` returns the bytes of an entry that were not kept in memory."""

    def __init__(
        self, settings: Settings, backlog: Backlog, endpoints: EndpointsFile, client: HttpClient, reporter: Reporter,
        load: Load,
    ) -> None:
        self._limit = settings.delivery_limit.total_seconds()
        self._concurrency = settings.delivery_concurrency
        self._backlog = backlog
        self._endpoints = endpoints
        self._client = client
        self._reporter = reporter
        self._load = load
        self._circuits: dict[str, Circuit] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # all attempts
        self._running: dict[str, set[asyncio.Task[Any]]] = defaultdict(set)  # requests of an endpoint
        self._reporting = 0
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gate = HoldGate(settings, backlog, self._wake.set, reporter.append_tick)

    def wake(self) -> None:
        """Looks for due entries again: some were added."""
        self._wake.set()

    async def run(self) -> None:
        """Starts attempts until cancelled. Raises the exception of an attempt that failed by a fault of attn."""
        while True:
            self._wake.clear()
            now = time.time()
            next_start = min((self._start_due(queue, now) for queue in self._backlog.queues), default=now + _MAX_SLEEP)
            waking = asyncio.ensure_future(self._wake.wait())
            ends: set[asyncio.Future[Any]] = {waking, self._failed}
            try:
                await asyncio.wait(ends, timeout=min(max(next_start - now, 0.0), _MAX_SLEEP),
                                   return_when=asyncio.FIRST_COMPLETED)
            finally:
                waking.cancel()
            if self._failed.done():
                self._failed.result()

    async def finish_attempts(self, seconds: float) -> None:
        """Waits up to `seconds` for the attempts that run, then cancels them. They are made again after a restart."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _start_due(self, queue: str, now: float) -> float:
        """Starts the due attempts of an endpoint as far as its limits allow. Returns when to look again."""
        circuit = self._circuits.setdefault(queue, Circuit())
        running = self._running[queue]
        while len(running) < self._concurrency and circuit.allows(now):
            if (entry := self._backlog.pop_due(queue, now)) is None:
                due = self._backlog.next_due(queue)
                return now + _MAX_SLEEP if due is None else due
            if entry.held and not self.gate.is_open(entry):
                self.gate.park(entry)
                continue
            circuit.begin()
            task = asyncio.create_task(self._attempt(entry, circuit))
            running.add(task)
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, queue))
        # An attempt that ends wakes the loop; a circuit that waits for its next probe does not.
        return circuit.next_attempt_at if circuit.next_attempt_at > now else now + _MAX_SLEEP

    def _ended(self, queue: str, task: asyncio.Task[None]) -> None:
        self._running[queue].discard(task)
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _attempt(self, entry: Entry, circuit: Circuit) -> None:
        """Makes one attempt, or gives the entry up without one."""
        if (prepared := await self._prepare(entry)) is None:
            return circuit.abandon()
        endpoint, body = prepared
        attempt = AttemptSpan(endpoint.name, entry)
        started = time.perf_counter()
        result = await self._client.post(
            endpoint, webhook_id(entry.decision, entry.verb), body, _secrets(endpoint, body),
            attempt.headers)
        exemplar = attempt.end(result.kind == "failed", result.cause)
        metrics.POST_SECONDS.labels(endpoint.name).observe(time.perf_counter() - started, exemplar)
        metrics.ATTEMPTS.labels(endpoint.name, result.cause).inc()
        entry.attempts += 1
        if result.kind == "failed":
            return await self._after_failure(entry, circuit, result)
        if circuit.succeed():
            log.info("circuit closed for endpoint %s", endpoint.name)
            metrics.CIRCUIT_OPEN.labels(endpoint.name).set(0)
            self._backlog.hasten(entry.queue, time.time())
        if result.kind == "refused":
            metrics.REFUSED.labels(endpoint.name, result.cause).inc()
            await self._report(entry, "refused", result.reason)
        else:
            await self._report(entry, "delivered", None)
        return self._backlog.finish(entry)

    async def _prepare(self, entry: Entry) -> tuple[Endpoint, bytes] | None:
        """Returns where to post which bytes. Returns None if there is no attempt now: the entry is given up, or its
        record cannot be read.

        An endpoint that was unknown when the record was read stays unknown: the entry was not held for an undo.
        """
        endpoint = self._endpoints.current().find(entry.endpoint, entry.workspace) if entry.queue else None
        if endpoint is None:
            await self._give_up(
                entry, "unknown_endpoint", f'no endpoint "{entry.endpoint[:128]}" is configured for this workspace')
            return None
        if cause := self._overdue(entry, time.time()):
            await self._give_up(entry, cause, _overdue_text(entry, cause))
            return None
        try:
            body = entry.body if entry.body is not None else await self._load(entry)
        except (KafkaError, TimeoutError) as error:
            log.warning("cannot read offset %d of %s/%d, retrying: %r", entry.offset, DECISIONS, entry.partition, error)
            self._backlog.retry(entry, time.time() + _INITIAL_DELAY)
            return None
        if body is None:
            await self._give_up(
                entry, "record_missing", "the record of the decision is no longer in the topic decisions")
            return None
        return endpoint, body

    async def _after_failure(self, entry: Entry, circuit: Circuit, result: Result) -> None:
        now = time.time()
        entry.last_reason = result.reason
        if circuit.fail(now):
            log.warning("circuit open for endpoint %s after failures in a row, the last: %s",
                        entry.endpoint, result.reason)
            metrics.CIRCUIT_OPEN.labels(entry.endpoint).set(1)
        if result.throttles and result.retry_after:
            circuit.pause(now + result.retry_after)
        if entry.resolved:
            return self._backlog.finish(entry)
        if cause := self._overdue(entry, now):
            return await self._give_up(entry, cause, _overdue_text(entry, cause))
        if entry.backoff is None:
            entry.backoff = Backoff(_INITIAL_DELAY, _MAX_DELAY)
        wait = max(entry.backoff.next(), result.retry_after or 0.0)
        due = min(now + wait, entry.recorded_at + self._limit, entry.expires_at or float("inf"))
        return self._backlog.retry(entry, max(due, now), pinned=bool(result.retry_after))

    def _overdue(self, entry: Entry, now: float) -> str | None:
        """Returns why there is no further attempt, None if there is one.

        A decision is tried at least once after its question has expired: it was made in time.
        """
        if now >= entry.recorded_at + self._limit:
            return "time_limit"
        if entry.attempts and entry.expires_at is not None and now >= entry.expires_at:
            return "expired"
        return None

    async def _give_up(self, entry: Entry, cause: str, reason: str) -> None:
        known = entry.endpoint in self._endpoints.current()
        if entry.verb == "made":
            metrics.UNDELIVERABLE.labels(entry.endpoint if known else metrics.UNKNOWN_ENDPOINT, cause).inc()
            log.warning("decision %s is undeliverable: %s", entry.decision, reason)
        await self._report(entry, "undeliverable", reason)
        self._backlog.finish(entry)

    async def _report(self, entry: Entry, state: ReportedState, reason: str | None) -> None:
        """Appends the report of a `decision.made`. Nobody waits for that of another message.

        Its id names the record, so a repeat has the same id, and a decision that was sent again has another one.
        """
        if entry.verb != "made":
            return
        if self._reporting < _MAX_REPORTING and (task := asyncio.current_task()) is not None:
            self._running[entry.queue].discard(task)  # the next request need not wait for the log
            self._wake.set()
        self._reporting += 1
        try:
            await self._reporter.append(Report(
                entry.workspace, f"{entry.decision}.{state}.{entry.offset}", now_us(), entry.decision, state, reason),
                entry.trace)
        finally:
            self._reporting -= 1


def _overdue_text(entry: Entry, cause: str) -> str:
    until = "the question expired" if cause == "expired" else "the time limit of deliveries was reached"
    last = f"; the last answer: {entry.last_reason}" if entry.last_reason else ""
    return f"not delivered before {until}; attempts: {entry.attempts}{last}"


def _secrets(endpoint: Endpoint, body: bytes) -> tuple[str, ...]:
    """Returns what a receiver may repeat and nobody may read: the reply token, and values of the request's headers."""
    texts = [part for _, value in endpoint.headers for part in (value, value.partition(" ")[2]) if len(part) > 5]
    with contextlib.suppress(ValueError, RecursionError):
        reply = _decode_message(body).data.reply
        texts += [reply.token] if reply is not None and reply.token else []
    return tuple(texts)
