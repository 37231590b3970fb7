"""`attn up`: runs broker, worker, edge and history on one machine as supervised processes, with one data directory."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from ops import config
from ops.embedded.broker import BrokerError, EmbeddedBroker
from ops.errors import UserError
from ops.process.file_lock import exclusive_lock
from ops.process.ports import free_port, take_port
from ops.process.supervisor import (
    POLICY,
    HealthEndpoint,
    RestartLimitReached,
    RestartPolicy,
    RestartTracker,
    SupervisedProcess,
    role_command,
)
from schemas.settings import Settings
from streams.kafka import doorbell, topics
from streams.runtime import keys, private_files

__all__ = ["Stack", "lock_data_dir", "readiness"]

log = structlog.get_logger("attn.up")

# Seconds before the next start of a role that keeps failing. The inbox works without these roles; if another role
# keeps failing, `attn up` ends.
_COOLDOWNS = {"history": 60.0, "deliver": 60.0, "demo": 60.0}
ROLES = ("worker", "history", "edge")  # metrics ports are assigned in this order; the edge uses its own port

# Seconds after the first SIGTERM by which the processes must have ended. The broker gets the rest: it is the only one
# that loses data when it is killed.
EDGE_BY, ROLES_BY, ALL_BY = 3.0, 5.5, 9.0


class _BrokerDied(Exception):
    """The embedded broker ended. The text is its exit."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Creates the data directory if it is missing, and locks it for this process.

    Raises UserError if another `attn up` uses it, or if it cannot be created or written.
    """
    with ExitStack() as stack:
        try:
            private_files.make_private_dir(data_dir)
            stack.enter_context(exclusive_lock(
                data_dir / "lock", f"another `attn up` uses {data_dir}; stop it, or choose another --data-dir"))
        except OSError as error:
            raise UserError(f"cannot use {data_dir} as data directory: {error.strerror}") from None
        yield


def readiness(url: str) -> tuple[bool, str]:
    """Requests GET /readyz. Returns whether the status is 200, and the reason if it is not."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2.0) as answer:  # noqa: S310 - our own http:// URL
            return answer.status == 200, ""
    except urllib.error.HTTPError as error:
        with error:
            return False, error.read(500).decode(errors="replace")
    except OSError as error:
        return False, f"the edge does not answer: {getattr(error, 'reason', error)}"


class Stack:
    """All processes of one machine.

    `embedded`: start the embedded broker; otherwise `settings.kafka` names the brokers. `env` is added to the
    environment of all processes. `echo` gets their output as (name, line). `announce` is called once, when the edge is
    ready. `demo`: run the demo as well. `attn deliver` runs if ATTN_ENDPOINTS is set.
    """

    def __init__(
        self, settings: Settings, embedded: bool, env: dict[str, str], echo: Callable[[str, str], None],
        announce: Callable[[Settings, str], Awaitable[None]], policy: RestartPolicy = POLICY, demo: bool = False,
    ) -> None:
        self.settings = settings
        self._embedded = embedded
        self._env = env
        self._echo = echo
        self._announce = announce
        self._policy = policy
        self._roles = (*ROLES, *(["deliver"] if settings.endpoints is not None else []), *(["demo"] if demo else []))
        self._broker: EmbeddedBroker | None = None
        self._processes: list[SupervisedProcess] = []

    @property
    def url(self) -> str:
        """URL of the edge."""
        host = self._reachable
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    @property
    def _reachable(self) -> str:
        """Address under which a socket bound to the host is reached."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104

    async def run(self, stop: asyncio.Event) -> None:
        """Runs all processes until `stop` is set. All of them have ended when it returns or raises.

        Raises UserError if a process cannot be started or keeps failing.
        """
        with lock_data_dir(self.settings.data_dir):
            work, stopping = asyncio.create_task(self._work()), asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                started = time.monotonic()
                for task in (work, stopping):
                    task.cancel()
                await asyncio.wait({work, stopping})
                await self._shut_down(started)
            if not work.cancelled():
                work.result()

    async def _work(self) -> None:
        await self._prepare()
        restarts = RestartTracker(self._policy)
        while True:
            started = time.monotonic()
            await self._start_broker()
            await self._ensure_topics()
            failure = await self._until_one_fails(started)
            if isinstance(failure, RestartLimitReached):
                raise UserError(str(failure)) from None
            if not isinstance(failure, _BrokerDied):
                raise failure
            log.error("the embedded broker ended; restarting all processes", exit=str(failure))
            await self._kill_processes()  # all their state is in the log
            await asyncio.sleep(restarts.record_exit(time.monotonic() - started, killed=True) or 0)

    async def _until_one_fails(self, started: float) -> Exception:
        """Runs all processes; returns the first exception."""
        try:
            async with asyncio.TaskGroup() as group:
                for process in self._processes:
                    group.create_task(process.run_forever())
                group.create_task(self._announce_when_ready(started))
                if self._broker is not None:
                    group.create_task(self._watch(self._broker))
        except ExceptionGroup as failed:
            return failed.exceptions[0]
        raise AssertionError("unreachable: processes run until one fails")

    async def _prepare(self) -> None:
        data_dir = self.settings.data_dir
        run_dir = data_dir / "run"
        run_dir.mkdir(exist_ok=True)
        liveness = replace(self._policy.liveness, timeout=self.settings.unresponsive_seconds)
        policy = replace(self._policy, liveness=liveness)
        self._processes = [
            SupervisedProcess(
                role, role_command(role), {}, run_dir, self._echo, replace(policy, cooldown=_COOLDOWNS.get(role)),
                partial(self._endpoint, role))
            for role in self._roles
        ]
        for process in self._processes:
            await process.end_leftover()
        doorbell.make_directory(doorbell.directory(self.settings), wanted=self._embedded)
        chosen: dict[str, object] = {"port": take_port(self.settings.host, self.settings.port)}
        if self._embedded:
            self._broker = EmbeddedBroker(data_dir, self.settings.kafka_port)
            if "kafka_compression" not in self.settings.model_fields_set:
                chosen["kafka_compression"] = "zstd"
        if config.make_secret(self.settings):
            log.info("created the secret that signs tokens", file=str(config.secret_path(self.settings)))
        if not self.settings.clickhouse:
            private_files.create_secret(self.settings.clickhouse_password_file)
            private_files.create_secret(self.settings.clickhouse_edge_password_file)  # edges read it
            chosen["clickhouse_port"] = self.settings.clickhouse_port or free_port()
        self.settings = self.settings.model_copy(update=chosen)

    def _endpoint(self, role: str) -> HealthEndpoint:
        """Returns where the role will serve its health routes: at a port that is free now, unless one is configured."""
        if role == "edge":
            return HealthEndpoint(self._reachable, self.settings.port, {})
        fixed = self.settings.metrics_port
        port = fixed + self._roles.index(role) if fixed else free_port()
        return HealthEndpoint(self._reachable, port, {"ATTN_METRICS_PORT": str(port)})

    async def _start_broker(self) -> None:
        if self._broker is not None:
            await self._broker.stop()  # reaps it after a crash
            try:
                await self._broker.start()
            except BrokerError as error:
                raise UserError(str(error)) from None
            self.settings = self.settings.model_copy(
                update={"kafka": self._broker.bootstrap, "incarnation": self._broker.incarnation})
            if self._broker.unclean:
                log.warning(
                    "the embedded broker ended without saving its data: the last records it accepted may be lost, "
                    "on source topics too; the view is rebuilt from the records that are left",
                    incarnation=self._broker.incarnation,
                )
        config.write_runtime_file(self.settings)
        for process in self._processes:
            process.env = {**self._env, **_environment(self.settings)}

    async def _ensure_topics(self) -> None:
        try:
            await topics.ensure_topics(self.settings)
        except topics.TopicError as error:
            raise UserError(str(error)) from None

    async def _watch(self, broker: EmbeddedBroker) -> None:
        code = await broker.wait()
        raise _BrokerDied(f"exit code {code}" if code >= 0 else f"signal {-code}")

    async def _announce_when_ready(self, started: float) -> None:
        """Waits for the edge, and logs every 15 s why it is not ready."""
        next_report = started + 15.0
        while True:
            ready, reason = await asyncio.to_thread(readiness, self.url)
            if ready:
                break
            if time.monotonic() > next_report:
                next_report += 15.0
                log.warning("not ready yet", seconds=round(time.monotonic() - started), reason=reason)
            await asyncio.sleep(0.1)
        log.info("ready", url=self.url, seconds=round(time.monotonic() - started, 1))
        await self._announce(self.settings, self.url)

    async def _shut_down(self, started: float) -> None:
        """Stops the edge first, because readers would see the other processes end; the broker last, because it must
        save what the others wrote."""
        log.info("stopping")

        async def stop(process: SupervisedProcess, by: float) -> None:
            if not await process.stop(max(started + by - time.monotonic(), 0.1)):
                log.warning("process did not stop in time and was killed", process=process.name)

        await asyncio.gather(*(stop(process, EDGE_BY) for process in self._processes if process.name == "edge"))
        await asyncio.gather(*(stop(process, ROLES_BY) for process in self._processes if process.name != "edge"))
        seconds_left = max(started + ALL_BY - time.monotonic(), 1.0)
        if self._broker is not None and not await self._broker.stop(seconds_left, leave=True):
            log.warning("the broker is still saving its data and will end afterwards; the next start waits for it")
        log.info("stopped", seconds=round(time.monotonic() - started, 1))

    async def _kill_processes(self) -> None:
        await asyncio.gather(*(process.stop(0.0) for process in self._processes))


def _environment(settings: Settings) -> dict[str, str]:
    """Returns the settings that all processes must share, whether they came from flags or variables.

    Keys are among them, because a role without the secret cannot derive them. Each role gets only those that it uses
    (`ops.process.environment`).
    """
    seal_keys = ",".join(map(keys.encode_key, keys.seal_keys(settings)))
    listed = {"ATTN_SEAL_KEYS": seal_keys, "ATTN_RECEIPT_KEYS": keys.receipt_key_list(settings)}
    return {
        **{name: text for name, text in listed.items() if text},
        "ATTN_KAFKA": settings.kafka,
        "ATTN_KAFKA_COMPRESSION": settings.kafka_compression,
        "ATTN_CLICKHOUSE": settings.clickhouse,
        "ATTN_CLICKHOUSE_PORT": str(settings.clickhouse_port),
        "ATTN_DATA_DIR": str(settings.data_dir.resolve()),
        "ATTN_HOST": settings.host,
        "ATTN_PORT": str(settings.port),
        "ATTN_INCARNATION": str(settings.incarnation),
    }
