"""Process `attn worker`: ingests source events, folds the log, appends ticks. Runs until it is stopped or fails."""

from __future__ import annotations

import asyncio
import logging
import os
import threading

from schemas.settings import Settings
from streams.kafka import doorbell, idle_fetch, topics
from streams.kafka.diagnostics import diagnose, order_by_reachability
from streams.runtime.health import serve
from streams.tracing import hooks
from streams.worker.app import Worker, build

__all__ = ["run"]

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_STOP_SECONDS = 4.0
_BLOCKED_SECONDS = 2.0  # grace period after the time limit, in case the event loop is blocked
_EXIT_NOT_STOPPED = 70  # exit code (EX_SOFTWARE)


async def run(settings: Settings, stop: asyncio.Event, stop_seconds: float | None = _STOP_SECONDS) -> None:
    """Runs the worker until `stop` is set, then finishes the writes under way and returns.

    If that takes longer than `stop_seconds`, the process exits (None: no limit). Raises BrokerUnavailable if Kafka is
    the cause of a failure, otherwise WorkerFailed or TopicError. No data is lost then: a restart resumes at the last
    durable position.
    """
    hooks.start(settings, "worker")
    idle_fetch.install_throttle(doorbell.directory(settings))
    logging.getLogger("faust.app.base").setLevel(logging.ERROR)  # "Missing sensor state" at every first rebalance
    worker: Worker | None = None

    def not_ready_reason() -> str | None:
        return worker.not_ready_reason() if worker is not None else "starting: waiting for the topics"

    async with serve(settings.metrics_port, not_ready_reason, settings.host):
        settings = settings.model_copy(update={"kafka": await order_by_reachability(settings)})
        if not await topics.ensure_topics_or_stop(settings, stop):
            return
        worker = build(settings)
        kafka_problem = None
        try:
            await _run_until(stop, worker)
        except Exception as failure:
            if kafka_problem := await diagnose(settings):
                raise topics.BrokerUnavailable(kafka_problem) from failure
            raise
        finally:
            await _stop(worker, kafka_problem, stop_seconds)
            hooks.stop()


async def _run_until(stop: asyncio.Event, worker: Worker) -> None:
    """Returns when `stop` is set. Raises the worker's first failure, or TimeoutError if it does not start in 60 s."""
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


async def _stop(worker: Worker, kafka_problem: str | None, seconds: float | None) -> None:
    """Stops the worker; exits the process after `seconds`. `kafka_problem`: the failure of Kafka that caused the
    stop."""
    deadline = None
    if seconds is not None:  # a thread, because the event loop may be blocked
        deadline = threading.Timer(seconds + _BLOCKED_SECONDS, _exit_process, (worker, kafka_problem, seconds))
        deadline.daemon = True
        deadline.start()
    # Not `asyncio.timeout`: Faust's services swallow the cancellation of their stop and then hang in the next step.
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
    _exit_process(worker, kafka_problem, seconds)


def _exit_process(worker: Worker, kafka_problem: str | None, seconds: float | None) -> None:
    """Exits without waiting for Faust, whose services may wait forever. All acknowledged writes are durable."""
    cause = kafka_problem or worker.supervisor.failure or "no failure"
    log.warning("Faust did not stop within %.0f s; the process exits without it (%s)", seconds or 0.0, cause)
    logging.shutdown()
    os._exit(0 if worker.stopped_cleanly else os.EX_TEMPFAIL if kafka_problem else _EXIT_NOT_STOPPED)
