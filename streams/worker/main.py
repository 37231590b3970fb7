"""Role `worker`: ingests source events, folds the log, keeps the clock. `attn worker` runs it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from schemas.settings import Settings
from streams.consumer import consumer_thread
from streams.kafka import idle_fetch, topics
from streams.kafka.diagnostics import diagnose, order_by_reachability
from streams.runtime.health import serve
from streams.worker.app import Worker, build

__all__ = ["run"]

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_STOP_SECONDS = 4.0
_BLOCKED_SECONDS = 2.0  # after the time limit, for an event loop that is blocked
_EXIT_STUCK = 70


async def run(settings: Settings, stop: asyncio.Event, stop_seconds: float | None = _STOP_SECONDS) -> None:
    """Works until `stop` is set, then finishes what is being written and returns; after `stop_seconds` it ends
    the process (None: never).

    Raises BrokerUnavailable where Kafka is why it can't go on, else WorkerFailed or TopicError; nothing is lost
    then, and a restart resumes.
    """
    idle_fetch.install_throttle()
    consumer_thread.install()
    logging.getLogger("faust.app.base").setLevel(logging.ERROR)  # "Missing sensor state" at every first rebalance
    built: list[Worker] = []
    unready = lambda: built[0].not_ready_reason() if built else "looking for its topics"  # noqa: E731
    async with serve(settings.metrics_port, unready, settings.host):
        settings = settings.model_copy(update={"kafka": await order_by_reachability(settings)})
        if not await topics.ensure_topics_or_stop(settings, stop):
            return
        built.append(worker := build(settings))
        away = None
        try:
            await _until(stop, worker)
        except Exception as failed:
            if away := await diagnose(settings):
                raise topics.BrokerUnavailable(away) from failed
            raise
        finally:
            await _stop(worker, away, stop_seconds)


async def _until(stop: asyncio.Event, worker: Worker) -> None:
    """Returns when `stop` is set. Raises what the worker fails of."""
    starting = asyncio.create_task(_start(worker))
    stopping, failing = asyncio.create_task(stop.wait()), asyncio.create_task(worker.supervisor.wait())
    tasks = [starting, stopping, failing]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.exception() is None:
            await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _start(worker: Worker) -> None:
    async with asyncio.timeout(_START_SECONDS):
        await worker.start()
    log.info("worker started")


async def _stop(worker: Worker, away: str | None, seconds: float | None) -> None:
    """`away`: what is wrong with Kafka, if that is why it stops."""
    deadline = None
    if seconds is not None:  # a thread of its own: code that blocks the event loop can't hold it up
        deadline = threading.Timer(seconds + _BLOCKED_SECONDS, _leave, (worker, away, seconds))
        deadline.daemon = True
        deadline.start()
    # Not `asyncio.timeout`: Faust's services swallow a cancellation of their stop, and go on to what hangs next.
    stopping = asyncio.create_task(worker.stop())
    try:
        await asyncio.wait({stopping}, timeout=seconds)
        if stopping.done():
            stopping.result()
            return
    finally:
        stopping.cancel()
        if deadline is not None:
            deadline.cancel()
    _leave(worker, away, seconds)


def _leave(worker: Worker, away: str | None, seconds: float | None) -> None:
    """Ends the process without waiting for Faust: its consumer threads are not daemons, and the interpreter would
    wait for them for ever. All that counts is durable."""
    why = away or worker.supervisor.failure or "clean"
    log.warning("Faust did not stop within %.0f s; the process exits without it (%s)", seconds or 0.0, why)
    logging.shutdown()
    os._exit(0 if worker.stopped_cleanly else os.EX_TEMPFAIL if away else _EXIT_STUCK)
