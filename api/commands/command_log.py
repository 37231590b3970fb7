"""Write path of the edge: appends commands to `attn.log` and waits for their outcome.

A caller gets the outcome once the fold has decided the command and this edge's replica shows the changes. Only the fold
decides (streams.core.fold.command_handlers). The edge checks preconditions first only to save the round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import stamina
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api import metrics
from schemas.facts import Outcome
from schemas.log import Command, KeyUsed, SessionUsed
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import LOG
from streams.core.packs import Packer, PackRecord
from streams.kafka.connection import close_client
from streams.kafka.producer import idempotent_producer, wait_acknowledged
from streams.tracing import hooks

__all__ = ["Append", "CommandLog", "CommandUndecided", "open_log_writer", "start_producer"]

# Seconds. While a pack is being appended, commands that arrive within this time share the next pack. A command that
# arrives while no pack is being appended does not wait.
_LINGER = 0.002
_CLOSE_SECONDS = 1.0
_START_RETRY = stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_initial=1.0, wait_max=1.0, wait_jitter=0.0)
_MAX_PENDING = 10_000  # commands without an outcome; beyond that more commands would only wait longer

Append = Callable[[PackRecord], Awaitable[None]]  # returns once the pack is durable

_log = structlog.get_logger("attn.edge")


class CommandUndecided(Exception):
    """The outcome of the command is unknown: it may still be applied. `str(error)` is for the caller."""


class CommandLog:
    """Commands of this edge's callers. `clock` returns seconds since the epoch, `seconds` is how long a caller waits.
    `append` is None until the log can be written."""

    def __init__(self, partitions: int, clock: Callable[[], float], seconds: float) -> None:
        self.append: Append | None = None
        self._clock, self._seconds = clock, seconds
        self._packer = Packer(partitions)
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def now(self) -> int:
        """Returns the time of a new command: now, in microseconds."""
        return int(self._clock() * SECOND)

    @staticmethod
    def new_id() -> str:
        """Returns a random id for a new command."""
        return secrets.token_hex(16)

    async def submit(self, command: Command) -> Outcome:
        """Appends the command and returns its outcome. Reads of this edge show the changes from then on.

        Raises CommandUndecided if the log can't be written, 10,000 commands wait already, or no outcome arrives within
        `seconds`.
        """
        if self.append is None or len(self._waiting) >= _MAX_PENDING:
            raise CommandUndecided("commands can't be written to the log now")
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = done
        try:
            self._send(command)
            async with asyncio.timeout(self._seconds):
                return await done
        except TimeoutError:
            metrics.COMMANDS.labels("timeout").inc()
            raise CommandUndecided(f"no outcome within {self._seconds:g} s; the command may still be applied") from None
        finally:
            self._waiting.pop(command.id, None)

    def post(self, entry: Command | KeyUsed | SessionUsed) -> None:
        """Appends an entry without waiting for an outcome. Drops it if the log can't be written."""
        if self.append is not None:
            self._send(entry)

    def is_waiting(self, outcome: Outcome) -> bool:
        """Whether a caller of this edge waits for this outcome."""
        return outcome.command in self._waiting

    def on_outcome(self, outcome: Outcome) -> None:
        """Answers the caller that waits for the outcome, if any. The edge's replica must show its changes by now."""
        if (future := self._waiting.get(outcome.command)) is not None and not future.done():
            metrics.COMMANDS.labels(str(outcome.status)).inc()
            future.set_result(outcome)

    def _send(self, entry: Command | KeyUsed | SessionUsed) -> None:
        self._packer.add(entry, hooks.current_link())
        if self._flush is None:
            # Even a delay of 0 runs after the event loop's ready callbacks, so commands of several connections share a
            # pack.
            self._flush = asyncio.get_running_loop().call_later(_LINGER if self._sending else 0.0, self._send_packs)

    def _send_packs(self) -> None:
        self._flush = None
        for pack in self._packer.drain(self.now()):
            task = asyncio.create_task(self._append(pack))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _append(self, pack: PackRecord) -> None:
        """Appends one pack. After an error it is unknown whether the pack is durable, so its callers time out."""
        assert self.append is not None
        try:
            await self.append(pack)
        except (KafkaError, TimeoutError) as error:
            _log.warning("Kafka did not acknowledge a pack of commands", partition=pack.partition, error=repr(error))


@contextlib.asynccontextmanager
async def open_log_writer(settings: Settings) -> AsyncIterator[Append]:
    """Returns the function that appends packs to `attn.log`. Waits until a broker answers."""
    out = await start_producer(settings, "edge")

    async def append(pack: PackRecord) -> None:
        await wait_acknowledged([
            await out.send(LOG, pack.value, partition=pack.partition, headers=pack.headers)])

    try:
        yield append
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(out)


async def start_producer(settings: Settings, name: str) -> AIOKafkaProducer:
    """Returns a started producer; `name` is part of its client id. Retries every second until a broker answers."""

    async def start() -> AIOKafkaProducer:
        producer = idempotent_producer(settings, name)
        try:
            await producer.start()
        except BaseException:
            await close_client(producer)
            raise
        return producer

    started: AIOKafkaProducer = await _START_RETRY(KafkaError, start)
    return started
