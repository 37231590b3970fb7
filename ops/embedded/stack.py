"""`attn up`: broker, worker, edge and history on one machine, kept alive together, their state in one directory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from ops import config
from ops.embedded.broker import BrokerError, EmbeddedBroker
from ops.errors import UserError
from ops.process.ports import free_port
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
from streams.kafka import topics
from streams.runtime import private_files

__all__ = ["Stack", "locked", "readiness"]

log = structlog.get_logger("attn.up")

# Seconds after which a part is tried again that can't live; without the others there is no inbox, so they end it all.
_RESTS = {"history": 60.0, "demo": 60.0}
ROLES = ("worker", "history", "edge")  # metrics ports are counted up in this order; the edge serves its own

# Seconds from the first SIGTERM by which each must have ended; the rest of 10 s is the broker's, as it alone loses
# something when it is killed.
EDGE_BY, ROLES_BY, ALL_BY = 3.0, 5.5, 9.0


class _BrokerDied(Exception):
    pass


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. The lock goes with the process, however it ends; children do not inherit it."""
    try:
        private_files.make_private_dir(data_dir)
        file = (data_dir / "lock").open("a")
    except OSError as error:
        raise UserError(f"cannot use {data_dir} as data directory: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another `attn up` uses {data_dir}; stop it, or take another --data-dir") from None
        yield


def take_port(host: str, port: int) -> int:
    """The port to listen on: the given one if it is free, or any. UserError: it is taken, or not ours to take."""
    if port == 0:
        return free_port()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"port {port} on {host} is already in use; choose another with --port") from None
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return port


def readiness(url: str) -> tuple[bool, str]:
    """GET /readyz: whether it answers 200, and what it says."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2.0) as answer:  # noqa: S310 - our own http:// URL
            return answer.status == 200, ""
    except urllib.error.HTTPError as error:
        with error:
            return False, error.read(500).decode(errors="replace")
    except OSError as error:
        return False, f"the edge does not answer: {getattr(error, 'reason', error)}"


class Stack:
    """All parts of one machine. `settings.kafka` names the broker when it is not `embedded`."""

    def __init__(
        self, settings: Settings, embedded: bool, env: dict[str, str], echo: Callable[[str, str], None],
        announce: Callable[[Settings, str], None], policy: RestartPolicy = POLICY, demo: bool = False,
    ) -> None:
        self.settings = settings
        self._embedded = embedded
        self._env = env
        self._echo = echo
        self._announce = announce
        self._policy = policy
        self._roles = (*ROLES, "demo") if demo else ROLES
        self._broker: EmbeddedBroker | None = None
        self._parts: list[SupervisedProcess] = []

    @property
    def url(self) -> str:
        host = self._reachable
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    @property
    def _reachable(self) -> str:
        """An address at which what listens on the host is reached."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`. UserError: it could not start, or a part cannot live. Everything has ended by then."""
        with locked(self.settings.data_dir):
            work, asked = asyncio.create_task(self._work()), asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                begun = time.monotonic()
                for task in (work, asked):
                    task.cancel()
                await asyncio.wait({work, asked})
                await self._shut_down(begun)
            if not work.cancelled():
                work.result()

    async def _work(self) -> None:
        await self._prepare()
        restarts = RestartTracker(self._policy)
        while True:
            begun = time.monotonic()
            await self._start_broker()
            await self._ensure_topics()
            why = await self._until_one_fails(begun)
            if isinstance(why, RestartLimitReached):
                raise UserError(str(why)) from None
            if not isinstance(why, _BrokerDied):
                raise why
            log.error("the broker died; everything is started again", how=str(why))
            await self._kill_parts()  # they keep nothing that is not in the log
            await asyncio.sleep(restarts.record_exit(time.monotonic() - begun, killed=True) or 0)

    async def _until_one_fails(self, begun: float) -> Exception:
        try:
            async with asyncio.TaskGroup() as group:
                for part in self._parts:
                    group.create_task(part.run_forever())
                group.create_task(self._say_when_ready(begun))
                if self._broker is not None:
                    group.create_task(self._watch(self._broker))
        except ExceptionGroup as failed:
            return failed.exceptions[0]
        raise AssertionError("parts are kept for ever")

    async def _prepare(self) -> None:
        data_dir = self.settings.data_dir
        run_dir = data_dir / "run"
        run_dir.mkdir(exist_ok=True)
        liveness = replace(self._policy.liveness, timeout=self.settings.unresponsive_seconds)
        policy = replace(self._policy, liveness=liveness)
        self._parts = [
            SupervisedProcess(
                role, role_command(role), {}, run_dir, self._echo, replace(policy, cooldown=_RESTS.get(role)),
                partial(self._listens, role))
            for role in self._roles
        ]
        for part in self._parts:
            await part.end_leftover()
        found: dict[str, object] = {"port": take_port(self.settings.host, self.settings.port)}
        if self._embedded:
            self._broker = EmbeddedBroker(data_dir, self.settings.kafka_port)
        if config.make_secret(self.settings):
            log.info("made a secret for tokens", file=str(config.secret_path(self.settings)))
        if not self.settings.clickhouse:
            private_files.create_secret(self.settings.clickhouse_password_file)
            private_files.create_secret(self.settings.clickhouse_edge_password_file)  # before an edge looks for it
            found["clickhouse_port"] = self.settings.clickhouse_port or free_port()
        self.settings = self.settings.model_copy(update=found)

    def _listens(self, role: str) -> HealthEndpoint:
        """A free port at each start, unless one is set: what else would have to be free is not our user's to know."""
        if role == "edge":
            return HealthEndpoint(self._reachable, self.settings.port, {})
        fixed = self.settings.metrics_port
        port = fixed + self._roles.index(role) if fixed else free_port()
        return HealthEndpoint(self._reachable, port, {"ATTN_METRICS_PORT": str(port)})

    async def _start_broker(self) -> None:
        if self._broker is not None:
            await self._broker.stop()  # after a death: reap it
            try:
                await self._broker.start()
            except BrokerError as error:
                raise UserError(str(error)) from None
            found = {"kafka": self._broker.bootstrap, "incarnation": self._broker.incarnation}
            self.settings = self.settings.model_copy(update=found)
            if self._broker.unclean:
                log.warning(
                    "the embedded broker had died without saving: what it took in its last moment may be lost, "
                    "on the source topics too; the view is rebuilt from what it kept",
                    incarnation=self._broker.incarnation,
                )
        config.write_runtime_file(self.settings)
        for part in self._parts:
            part.env = {**self._env, **_environment(self.settings)}

    async def _ensure_topics(self) -> None:
        try:
            await topics.ensure_topics(self.settings)
        except topics.TopicError as error:
            raise UserError(str(error)) from None

    async def _watch(self, broker: EmbeddedBroker) -> None:
        code = await broker.wait()
        raise _BrokerDied(f"exit code {code}" if code >= 0 else f"signal {-code}")

    async def _say_when_ready(self, begun: float) -> None:
        patience = begun + 15.0
        while True:
            ready, reason = await asyncio.to_thread(readiness, self.url)
            if ready:
                break
            if time.monotonic() > patience:
                patience += 15.0
                log.warning("not ready yet", seconds=round(time.monotonic() - begun), reason=reason)
            await asyncio.sleep(0.1)
        log.info("ready", url=self.url, seconds=round(time.monotonic() - begun, 1))
        self._announce(self.settings, self.url)

    async def _shut_down(self, begun: float) -> None:
        """The edge first, so that no reader sees the rest go; the broker last, so that all is saved."""
        log.info("stopping")

        async def stop(part: SupervisedProcess, by: float) -> None:
            if not await part.stop(max(begun + by - time.monotonic(), 0.1)):
                log.warning("did not stop in time and was killed", part=part.name)

        await asyncio.gather(*(stop(part, EDGE_BY) for part in self._parts if part.name == "edge"))
        await asyncio.gather(*(stop(part, ROLES_BY) for part in self._parts if part.name != "edge"))
        left = max(begun + ALL_BY - time.monotonic(), 1.0)
        if self._broker is not None and not await self._broker.stop(left, leave=True):
            log.warning("the broker is still saving its data and ends by itself; the next start waits for it")
        log.info("stopped", seconds=round(time.monotonic() - begun, 1))

    async def _kill_parts(self) -> None:
        await asyncio.gather(*(part.stop(0.0) for part in self._parts))


def _environment(settings: Settings) -> dict[str, str]:
    """What the children must agree on with us, whatever flags we got."""
    return {
        "ATTN_KAFKA": settings.kafka,
        "ATTN_CLICKHOUSE": settings.clickhouse,
        "ATTN_CLICKHOUSE_PORT": str(settings.clickhouse_port),
        "ATTN_DATA_DIR": str(settings.data_dir.resolve()),
        "ATTN_HOST": settings.host,
        "ATTN_PORT": str(settings.port),
        "ATTN_INCARNATION": str(settings.incarnation),
    }
