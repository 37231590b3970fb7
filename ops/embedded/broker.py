"""The embedded Kafka broker (noida-db) as a child process: for one machine, for trying and for tests.

It keeps its data in memory and saves it every moment; a clean stop saves all. When it is killed its last moment is
lost, so the next start sees that (`unclean`) and raises `incarnation`, which tells the workers that offsets may have
been given twice.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
from pathlib import Path

import structlog

from ops.process import identity, parent_death
from ops.process.environment import cleaned
from ops.process.ports import HOST, free_port
from streams.runtime import private_files

__all__ = ["BrokerError", "EmbeddedBroker", "binary"]

log = structlog.get_logger("attn.broker")


class BrokerError(Exception):
    """The broker did not start; `str(error)` is for the person who wanted it to."""


def binary() -> str | None:
    """The path of noida-db's own binary (its Python wrapper would be one more process to kill), or None."""
    spec = importlib.util.find_spec("noida_db")
    if spec is not None and spec.origin:
        packaged = Path(spec.origin).with_name("noida-db")
        if packaged.is_file():
            if not os.access(packaged, os.X_OK):
                packaged.chmod(0o755)
            return str(packaged)
    return shutil.which("noida-db")


class EmbeddedBroker:
    """One broker on 127.0.0.1, its state in `data_dir`; the caller sees to it that nobody else uses that directory.

    `port` 0 takes a free one, kept over restarts of this object. Not tied to an event loop.
    """

    def __init__(self, data_dir: Path | str, port: int = 0) -> None:
        self.data_dir = Path(data_dir)
        self.port = port
        self.unclean = False  # after start(): the run before this one ended without saving
        self._process: subprocess.Popen[bytes] | None = None
        self._state = self.data_dir / "broker"
        self._marker = self.data_dir / "broker.pid"  # there while it runs, and after an unclean death
        self._control = self._state / "noida.control.json"  # noida-db's own: gone once it has saved all
        self._log = self.data_dir / "broker.log"

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def incarnation(self) -> int:
        """How often the broker died without saving."""
        try:
            return int((self.data_dir / "incarnation").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    async def start(self, timeout: float = 300.0) -> None:  # noqa: ASYNC109 - it also ends the child
        """Return when it takes requests. BrokerError: no binary, the port is taken, or it did not come up in time."""
        if self.alive:
            return
        private_files.make_private_dir(self._state)
        await self._settle_last_run()
        any_port = self.port == 0
        for attempt in range(3):
            self.port = free_port() if any_port else self.port
            self._spawn()
            if await self._came_up(timeout):
                return
            await self.stop()
            reason = self._reason()
            # A free port may be taken by another process before the broker has it.
            if not (any_port and "already in use" in reason and attempt < 2):
                self._marker.unlink(missing_ok=True)
                hint = "; choose another with --kafka-port" if "already in use" in reason else ""
                raise BrokerError(f"the embedded broker did not start: {reason}{hint}")

    async def stop(self, timeout: float = 10.0, leave: bool = False) -> bool:  # noqa: ASYNC109
        """Let it save and end. True: it saved all. May be called at any time.

        After `timeout` seconds it is killed, or left to end by itself; the next `start` waits for that.
        """
        if self._process is None:
            return True
        if self.alive:
            self._process.terminate()
            if not await identity.wait_until(lambda: not self.alive, timeout):
                if leave:
                    return False
                self._process.kill()
        self._process.wait()
        self._process = None
        if self._control.exists():
            return False
        self._marker.unlink(missing_ok=True)
        return True

    async def wait(self) -> int:
        """Return when it has died or was stopped: its exit code, negative for a signal."""
        process = self._process
        if process is None:
            raise BrokerError("the embedded broker was not started")
        await identity.wait_until(lambda: process.poll() is not None, math.inf)
        return process.returncode

    def kill(self) -> None:
        """Kill it as a crash would (for tests)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _settle_last_run(self) -> None:
        """End a broker that outlived its parent, and find out whether the last one saved all."""
        before = identity.read(self._marker)
        if before is not None and identity.is_alive(before):
            log.info("waiting until the broker of the last run has saved its data", pid=before.pid)
            await identity.end(before, timeout=60.0)  # some 100 MB a second
        self.unclean = self._marker.exists() and self._control.exists()
        if self.unclean:
            # Before the broker runs: a crash in between raises it once more, which only repeats the warning.
            with private_files.replace_atomically(self.data_dir / "incarnation") as draft:
                draft.write_text(f"{self.incarnation + 1}\n")

    def _spawn(self) -> None:
        program = binary()
        if program is None:
            raise BrokerError("noida-db is not installed: pip install 'attn[embedded]', or use a Kafka with --kafka")
        arguments = [
            program, "start", "--data-dir", str(self._state.resolve()), "--host", HOST,
            "--only", "kafka", "--kafka-port", str(self.port),
        ]
        with self._log.open("wb") as log:
            # SIGTERM, not SIGKILL, when the parent is gone: so it saves.
            self._process = subprocess.Popen(
                parent_death.command(arguments, signal.SIGTERM), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, env=cleaned("broker", os.environ),
            )
        now = identity.identify(self._process.pid)
        if now is not None:
            identity.write(self._marker, now)

    async def _came_up(self, timeout: float) -> bool:  # noqa: ASYNC109
        """noida-db writes its control file once the port is bound and the data is loaded."""
        patience = min(5.0, timeout)
        if not await identity.wait_until(lambda: self._took_over() or not self.alive, patience):
            log.info("the broker loads its data")
            await identity.wait_until(lambda: self._took_over() or not self.alive, timeout - patience)
        return self._took_over() and self.alive

    def _took_over(self) -> bool:
        try:
            return bool(json.loads(self._control.read_text())["pid"] == self.pid)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _reason(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if "weak version" not in line]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return "; ".join(errors or lines[-3:]) or "no word from it; is the machine out of memory or disk?"
