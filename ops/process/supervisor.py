"""Supervises processes: starts them, restarts them with exponential backoff, kills unresponsive ones, gives up on
those that keep failing, and stops them within a time limit.

`RestartTracker` decides about restarts and is pure (time is an argument). `SupervisedProcess` runs the process.
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

_MAX_LINE_BYTES = 1 << 20  # a longer line of a process is split


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to restart a process; times in seconds.

    `initial_delay`, `max_delay`: wait before a restart; it doubles with each exit. `healthy_after`: a process that ran
    for so long counts as healthy, and its failures are forgotten; if it was killed, it is started again at once.
    `max_failures`: failures in a row after which it is given up, about 10 s of trying with the default delays.
    `cooldown`: wait before the next start of a given-up process; None: it is not started again.
    """

    initial_delay: float = 0.25
    max_delay: float = 5.0
    healthy_after: float = 10.0
    max_failures: int = 5
    cooldown: float | None = None
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)


POLICY = RestartPolicy()


class RestartTracker:
    """Counts the exits of one process, and decides when it is started again."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._exits = 0
        self._failures = 0

    def record_exit(self, lived: float, killed: bool) -> float | None:
        """Records that the process ended after `lived` seconds. Returns the seconds to wait before the next start:
        the backoff, or `RestartPolicy.cooldown` after `max_failures` failures; None: do not start it again.

        `killed`: the exit was not the fault of the process. That is SIGKILL (by a person, or by the kernel when memory
        is short) and EX_TEMPFAIL (Kafka is unreachable). Such exits count for the backoff, never as failures.
        """
        if lived >= self._policy.healthy_after:
            self._exits = self._failures = 0
            if killed:
                return 0.0
        self._exits += 1
        self._failures += not killed
        if self._failures >= self._policy.max_failures:
            return self._policy.cooldown
        return min(self._policy.initial_delay * 2.0 ** min(self._exits - 1, 30), self._policy.max_delay)


@dataclass(frozen=True, slots=True)
class HealthEndpoint:
    """Where a process will serve `/healthz` and `/readyz`. `env`: the variables that configure it to do so."""

    host: str
    port: int
    env: dict[str, str]


class RestartLimitReached(Exception):
    """A process failed `max_failures` times in a row. The text names the process, the exit and its last output."""


class SupervisedProcess:
    """One supervised process. It runs in a session of its own; the kernel kills it if the supervisor ends."""

    def __init__(
        self, name: str, arguments: Sequence[str], env: dict[str, str], run_dir: Path,
        echo: Callable[[str, str], None], policy: RestartPolicy = POLICY,
        endpoint: Callable[[], HealthEndpoint] | None = None,
    ) -> None:
        """`echo` gets each output line, as (name, line). `endpoint` is called before each start; without it the process
        is not probed, and only its exit leads to a restart."""
        self.name = name
        self.env = env  # added to the environment of the supervisor; a change applies from the next start
        self._arguments = list(arguments)
        self._pid_file = run_dir / f"{name}.pid"
        self._echo = echo
        self._policy = policy
        self._endpoint = endpoint
        self._url_file = run_dir / f"{name}.url"
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._last_lines: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int | None:
        """Pid of the running process; None if it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def end_leftover(self) -> None:
        """Ends the process of an earlier supervisor if it still runs."""
        leftover = identity.read(self._pid_file)
        if leftover is not None and identity.is_alive(leftover):
            log.warning("ending a process left over from an earlier run", process=self.name, pid=leftover.pid)
            await identity.end(leftover, timeout=2.0)
        self._pid_file.unlink(missing_ok=True)

    async def run_forever(self) -> None:
        """Runs the process and restarts it whenever it ends. Raises RestartLimitReached if the policy gives it up.

        Cancelling this task does not end the process; call `stop` for that.
        """
        restarts = RestartTracker(self._policy)
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            endpoint = await self._start()
            watching = asyncio.create_task(self._watch(endpoint)) if endpoint is not None else None
            try:
                code = await self._ended()
            finally:
                if watching is not None:
                    watching.cancel()
            delay = restarts.record_exit(clock() - started, killed=code in (-signal.SIGKILL, os.EX_TEMPFAIL))
            if delay is None:
                raise RestartLimitReached(
                    f"{self.name} keeps failing ({_exit_text(code)}); last output: {self._last_output()}")
            if delay == self._policy.cooldown:
                log.error("process keeps failing; running without it", process=self.name, exit=_exit_text(code),
                          last_output=self._last_output(), retry_in=f"{delay:g} s")
            else:
                log.warning("process ended; restarting it", process=self.name, exit=_exit_text(code),
                            restart_in=f"{delay:g} s")
            await asyncio.sleep(delay)

    async def stop(self, timeout: float) -> bool:  # noqa: ASYNC109 - it also kills the process
        """Sends SIGTERM, and SIGKILL after `timeout` seconds. Returns True if the process ended without SIGKILL."""
        if self._process is None:
            return True
        clean = True
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), timeout)
            except TimeoutError:
                clean = False
                with suppress(ProcessLookupError):
                    self._process.kill()
        await self._ended()
        self._process = None
        return clean

    async def _watch(self, endpoint: HealthEndpoint) -> None:
        """Probes the process until it is unresponsive; then kills it and returns."""
        liveness, clock = self._policy.liveness, asyncio.get_running_loop().time
        tracker = LivenessTracker(liveness, clock())
        while True:
            await asyncio.sleep(liveness.interval)
            path = "/healthz" if tracker.was_ready else "/readyz"
            status = await probe(endpoint.host, endpoint.port, path, liveness.probe_timeout)
            if status is not None:
                tracker.record_answer(clock(), ready=status == 200)
            elif tracker.record_miss(clock()):
                break
        log.error("process is unresponsive; killing it", process=self.name,
                  silent_for=f"{tracker.silence(clock()):.0f} s")
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _start(self) -> HealthEndpoint | None:
        self._last_lines.clear()
        endpoint = self._endpoint() if self._endpoint is not None else None
        self._process = await asyncio.create_subprocess_exec(
            *parent_death.command(self._arguments, signal.SIGKILL), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=cleaned(self.name, {**os.environ, **self.env, **(endpoint.env if endpoint is not None else {})}),
            start_new_session=True, limit=_MAX_LINE_BYTES,
        )
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        process = identity.identify(self._process.pid)
        if process is not None:
            identity.write(self._pid_file, process)
        if endpoint is not None:
            host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
            self._url_file.write_text(f"http://{host}:{endpoint.port}\n")
        return endpoint

    async def _ended(self) -> int:
        """Waits until the process has ended and its output is read; returns the exit code."""
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
                line = await stream.read(_MAX_LINE_BYTES)
            text = line.decode(errors="replace").rstrip("\n")
            self._last_lines.append(text)
            with suppress(OSError):  # without a terminal, keep reading: a full pipe would block the process
                self._echo(self.name, text)

    def _last_output(self) -> str:
        lines = [line.strip() for line in self._last_lines if line.strip()]
        return _summary_of(lines[-1])[-500:] if lines else "none"


def _summary_of(line: str) -> str:
    """Returns the event and the last line of the traceback of a JSON log line; any other line as it is."""
    try:
        entry = json.loads(line)
        error = str(entry.get("exception", "")).strip().splitlines()
        return ": ".join([str(entry["event"]), *error[-1:]])
    except (ValueError, KeyError, AttributeError):
        return line


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def role_command(role: str) -> list[str]:
    """Returns the command line of a role. -P: modules in the current directory must not shadow attn's packages."""
    return [sys.executable, "-P", "-m", "ops.cli", role]
