"""Keep processes alive: start, restart with backoff, kill one that is wedged, give up on one that cannot live, stop
within a time.

`RestartTracker` decides and is pure (time is an argument); `SupervisedProcess` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ops.process import identity, parent_death
from ops.process.environment import cleaned
from ops.process.liveness import LivenessPolicy, LivenessTracker, probe

__all__ = [
    "POLICY", "HealthEndpoint", "RestartLimitReached", "RestartPolicy", "RestartTracker", "SupervisedProcess",
    "role_command",
]

log = structlog.get_logger("attn.up")

_LINE = 1 << 20  # bytes: a longer line of a part is cut into pieces


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to restart, in seconds. Who lived for `quick` was well, and starts over with a clean record."""

    initial_delay: float = 0.25
    max_delay: float = 5.0
    healthy_after: float = 10.0
    max_failures: int = 5  # quick deaths in a row; with the backoff that is some 10 s of trying
    cooldown: float | None = None  # before it is tried again then; None: that is given up
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)


POLICY = RestartPolicy()


class RestartTracker:
    """The record of one part's deaths."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._deaths = 0
        self._failures = 0

    def record_exit(self, lived: float, killed: bool) -> float | None:
        """Seconds to wait before the next start, `RestartPolicy.cooldown` where it can't live; None: give up.

        Being killed (SIGKILL: a person, or the kernel short of memory) slows restarts down but is nothing the part
        did, so it never ends them. No more does its end because Kafka is away, which it says by EX_TEMPFAIL.
        """
        if lived >= self._policy.healthy_after:
            self._deaths = self._failures = 0
        self._deaths += 1
        self._failures += not killed
        if self._failures >= self._policy.max_failures:
            return self._policy.cooldown
        return min(self._policy.initial_delay * 2.0 ** min(self._deaths - 1, 30), self._policy.max_delay)


@dataclass(frozen=True, slots=True)
class HealthEndpoint:
    """Where a process about to be started will answer `/healthz` and `/readyz`, and the variables that tell it so."""

    host: str
    port: int
    env: dict[str, str]


class RestartLimitReached(Exception):
    """A part died too often; `str(error)` says which and what it said last."""


class SupervisedProcess:
    """One supervised process: `attn NAME` in a process group of its own, ended by the kernel when we are gone."""

    def __init__(
        self, name: str, arguments: Sequence[str], env: dict[str, str], run_dir: Path,
        echo: Callable[[str, str], None], policy: RestartPolicy = POLICY,
        listens: Callable[[], HealthEndpoint] | None = None,
    ) -> None:
        """`listens` is asked before each start; without it only its end tells that something is wrong with it."""
        self.name = name
        self.env = env  # over our own environment; what is changed holds from the next start
        self._arguments = list(arguments)
        self._pid_file = run_dir / f"{name}.pid"
        self._echo = echo
        self._policy = policy
        self._listens = listens
        self._url_file = run_dir / f"{name}.url"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._last: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def end_leftover(self) -> None:
        """End the process an earlier supervisor left behind, should one have outlived it."""
        left = identity.read(self._pid_file)
        if left is not None and identity.is_alive(left):
            log.warning("ending a process left over from an earlier run", part=self.name, pid=left.pid)
            await identity.end(left, timeout=2.0)
        self._pid_file.unlink(missing_ok=True)

    async def run_forever(self) -> None:
        """Run it for ever. Raises RestartLimitReached. Cancelling leaves the process to `stop`."""
        restarts = RestartTracker(self._policy)
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            where = await self._start()
            watching = asyncio.create_task(self._watch(where)) if where is not None else None
            try:
                code = await self._ended()
            finally:
                if watching is not None:
                    watching.cancel()
            delay = restarts.record_exit(clock() - begun, killed=code in (-signal.SIGKILL, os.EX_TEMPFAIL))
            if delay is None:
                raise RestartLimitReached(f"{self.name} keeps dying ({_how(code)}); it last said: {self._last_words()}")
            if delay == self._policy.cooldown:
                log.error("a part keeps dying; the others go on without it", part=self.name, how=_how(code),
                          said=self._last_words(), again=f"in {delay:g} s")
            else:
                log.warning("a part died and is started again", part=self.name, how=_how(code), after=f"{delay:g} s")
            await asyncio.sleep(delay)

    async def stop(self, patience: float) -> bool:
        """SIGTERM, and SIGKILL after `patience` seconds. True: it ended by itself."""
        if self._process is None:
            return True
        clean = True
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), patience)
            except TimeoutError:
                clean = False
                with suppress(ProcessLookupError):
                    self._process.kill()
        await self._ended()
        self._process = None
        return clean

    async def _watch(self, where: HealthEndpoint) -> None:
        """Returns when the process has been killed, as it did not answer any more."""
        liveness, clock = self._policy.liveness, asyncio.get_running_loop().time
        pulse = LivenessTracker(liveness, clock())
        while True:
            await asyncio.sleep(liveness.interval)
            path = "/healthz" if pulse.was_ready else "/readyz"
            status = await probe(where.host, where.port, path, liveness.probe_timeout)
            if status is not None:
                pulse.record_answer(clock(), ready=status == 200)
            elif pulse.record_miss(clock()):
                break
        log.error("a part does not answer any more and is killed", part=self.name,
                  silent=f"{pulse.silence(clock()):.0f} s")
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _start(self) -> HealthEndpoint | None:
        self._last.clear()
        where = self._listens() if self._listens is not None else None
        self._process = await asyncio.create_subprocess_exec(
            *parent_death.command(self._arguments, signal.SIGKILL), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=cleaned(self.name, {**os.environ, **self.env, **(where.env if where is not None else {})}),
            start_new_session=True, limit=_LINE,
        )
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        started = identity.identify(self._process.pid)
        if started is not None:
            identity.write(self._pid_file, started)
        if where is not None:
            host = f"[{where.host}]" if ":" in where.host else where.host
            self._url_file.write_text(f"http://{host}:{where.port}\n")
        return where

    async def _ended(self) -> int:
        """Its exit code, once it is gone and all it said is read."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=1.0)  # a grandchild may hold the pipe open
            self._reading.cancel()
        self._pid_file.unlink(missing_ok=True)
        return code

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                line = error.partial
                if not line:
                    return
            except asyncio.LimitOverrunError:
                line = await stream.read(_LINE)
            text = line.decode(errors="replace").rstrip("\n")
            self._last.append(text)
            with suppress(OSError):  # our terminal is gone; the part must not block on a pipe nobody empties
                self._echo(self.name, text)

    def _last_words(self) -> str:
        said = [line.strip() for line in self._last if line.strip()]
        return _gist(said[-1])[-500:] if said else "nothing"


def _gist(line: str) -> str:
    """What a log line says: of a JSON line, the event and the error itself."""
    try:
        entry = json.loads(line)
        error = str(entry.get("exception", "")).strip().splitlines()
        return ": ".join([str(entry["event"]), *error[-1:]])
    except (ValueError, KeyError, AttributeError):
        return line


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def role_command(role: str) -> list[str]:
    """The command of a role. -P: what lies in the current directory must not shadow our packages."""
    return [sys.executable, "-P", "-m", "ops.cli", role]
