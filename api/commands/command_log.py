"""What people do, from the edge's side: a command goes to `attn.log`, and its caller waits until the fold has decided
it and this edge shows what it changed. The fold alone decides
(streams.core.fold.command_handlers); what an edge checks before
only saves a way.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from api import metrics
from schemas.facts import Outcome
from schemas.log import Command
from schemas.scalars import SECOND
from schemas.settings import Settings
from schemas.topics import LOG
from streams.core.packs import Packer
from streams.kafka.connection import close_client
from streams.kafka.producer import idempotent_producer, wait_acknowledged

__all__ = ["Append", "CommandLog", "CommandUndecided", "open_log_writer"]

# While a pack is on its way, commands that come within this time share the next one, seconds: less than anybody
# notices. A command that comes when nothing is on its way does not wait: then there is room for a pack of its own.
_LINGER = 0.002
_CLOSE_SECONDS = 1.0
_MOST = 10_000  # commands on their way: beyond that the log is not keeping up, and more would only wait longer

Append = Callable[[int, bytes], Awaitable[None]]  # partition of the log, a pack; returns when it is durable

_log = structlog.get_logger("attn.edge")


class CommandUndecided(Exception):
    """Nobody knows yet what becomes of the command; `str(error)` says so. It may still be carried out."""


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
        """The time of a command that begins now, microseconds."""
        return int(self._clock() * SECOND)

    @staticmethod
    def new_id() -> str:
        return secrets.token_hex(16)

    async def submit(self, command: Command) -> Outcome:
        """What the fold said; a read that follows shows it. Raises NotDone."""
        if self.append is None or len(self._waiting) >= _MOST:
            raise CommandUndecided("the log can't be written now")
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = done
        try:
            self._send(command)
            async with asyncio.timeout(self._seconds):
                return await done
        except TimeoutError:
            metrics.COMMANDS.labels("timeout").inc()
            raise CommandUndecided(f"not decided within {self._seconds:g} s; it may still be carried out") from None
        finally:
            self._waiting.pop(command.id, None)

    def is_waiting(self, outcome: Outcome) -> bool:
        """Whether a caller of this edge waits for this outcome."""
        return outcome.command in self._waiting

    def on_outcome(self, outcome: Outcome) -> None:
        """Answers the caller that waits for the outcome, if any. The edge's replica must show its changes by now."""
        if (future := self._waiting.get(outcome.command)) is not None and not future.done():
            metrics.COMMANDS.labels(str(outcome.status)).inc()
            future.set_result(outcome)

    def _send(self, command: Command) -> None:
        self._packer.add(command)
        if self._flush is None:
            # Not at once but when the loop comes to it: what several connections brought together is one pack.
            self._flush = asyncio.get_running_loop().call_later(_LINGER if self._sending else 0.0, self._begin)

    def _begin(self) -> None:
        self._flush = None
        packs = self._packer.take(self.now())
        for partition, _, pack in packs:
            task = asyncio.create_task(self._append(partition, pack))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _append(self, partition: int, pack: bytes) -> None:
        """Whether it is durable is not known when this fails; then nobody is told anything, and callers time out."""
        assert self.append is not None
        try:
            await self.append(partition, pack)
        except (KafkaError, TimeoutError) as error:
            _log.warning("a pack of commands was not acknowledged", partition=partition, error=repr(error))


@contextlib.asynccontextmanager
async def open_log_writer(settings: Settings) -> AsyncIterator[Append]:
    """`attn.log`, to be appended to."""
    out = await _started(settings)

    async def append(partition: int, pack: bytes) -> None:
        await wait_acknowledged([await out.send(LOG, pack, partition=partition)])

    try:
        yield append
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await close_client(out)


async def _started(settings: Settings) -> AIOKafkaProducer:
    """As soon as a broker answers."""
    while True:
        out = idempotent_producer(settings, "edge")
        try:
            await out.start()
            return out
        except KafkaError:
            await close_client(out)
            await asyncio.sleep(1.0)
        except BaseException:
            await close_client(out)
            raise
