"""Runs the embedded Kafka broker (noida-db) as a child process: for one machine, for evaluation and for tests.

The broker keeps its data in memory and saves it to disk continuously; a clean stop saves all of it. If it is killed,
the last records are lost and their offsets are used again. The next start detects that (`unclean`) and increments
`incarnation`, by which workers detect that offsets were reused.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
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

_WATCH_SECONDS = 0.25  # between two checks whether the broker still runs


class BrokerError(Exception):
    """The broker did not start. The text is for the user."""


def binary() -> str | None:
    """Returns the path of noida-db's binary, or None if it is not installed. The binary is run directly, because its
    Python wrapper would be one more process to supervise."""
    spec = importlib.util.find_spec("noida_db")
    if spec is not None and spec.origin:
        packaged = Path(spec.origin).with_name("noida-db")
        if packaged.is_file():
            if not os.access(packaged, os.X_OK):
                packaged.chmod(0o755)
            return str(packaged)
    return shutil.which("noida-db")


class EmbeddedBroker:
    """One broker on 127.0.0.1 with its state in `data_dir`. The caller must have locked that directory.

    `port` 0: any free port, which restarts of this object keep. The object may be used from several event loops.
    """

    def __init__(self, data_dir: Path | str, port: int = 0) -> None:
        self.data_dir = Path(data_dir)
        self.port = port
        self.unclean = False  # after start(): the previous run ended without saving
        self._process: subprocess.Popen[bytes] | None = None
        self._state = self.data_dir / "broker"
        self._marker = self.data_dir / "broker.pid"  # exists while it runs, and after an unclean end
        self._control = self._state / "noida.control.json"  # noida-db deletes it once it has saved all data
        self._log = self.data_dir / "broker.log"

    @property
    def bootstrap(self) -> str:
        """Address for clients, HOST:PORT."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def incarnation(self) -> int:
        """Number of times the broker ended without saving its data."""
        try:
            return int((self.data_dir / "incarnation").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    async def start(self, timeout: float = 300.0) -> None:  # noqa: ASYNC109 - it also ends the child
        """Starts the broker and waits until it accepts requests.

        Raises BrokerError if noida-db is not installed, the port is in use, or it is not up after `timeout` seconds.
        """
        if self.alive:
            return
        private_files.make_private_dir(self._state)
        await self._finish_last_run()
        any_port = self.port == 0
        for attempt in range(3):
            self.port = free_port() if any_port else self.port
            self._spawn()
            if await self._wait_until_up(timeout):
                return
            await self.stop()
            reason = self._reason()
            # Another process may bind a free port before the broker does.
            if not (any_port and "already in use" in reason and attempt < 2):
                self._marker.unlink(missing_ok=True)
                hint = "; choose another with --kafka-port" if "already in use" in reason else ""
                raise BrokerError(f"the embedded broker did not start: {reason}{hint}")

    async def stop(self, timeout: float = 10.0, leave: bool = False) -> bool:  # noqa: ASYNC109
        """Stops the broker; returns True if it has saved all its data. May be called at any time.

        If it still runs after `timeout` seconds, it is killed. With `leave` it continues to save and ends afterwards;
        the next `start` waits for that.
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
        """Waits until the broker has ended; returns its exit code, negative for a signal."""
        process = self._process
        if process is None:
            raise BrokerError("the embedded broker was not started")
        while process.poll() is None:  # noqa: ASYNC110 - a thread that waits would delay the end of `attn up`
            await asyncio.sleep(_WATCH_SECONDS)
        return process.returncode

    def kill(self) -> None:
        """Sends SIGKILL, to simulate a crash in tests."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def _finish_last_run(self) -> None:
        """Ends a broker that outlived its parent, and detects whether the previous run saved its data."""
        previous = identity.read(self._marker)
        if previous is not None and identity.is_alive(previous):
            log.info("waiting until the broker of the last run has saved its data", pid=previous.pid)
            await identity.end(previous, timeout=60.0)  # it saves about 100 MB/s
        self.unclean = self._marker.exists() and self._control.exists()
        if self.unclean:
            # Before the broker starts: after a crash in between, the number is incremented again, which is harmless.
            incarnation = self.incarnation + 1
            with private_files.replace_atomically(self.data_dir / "incarnation") as draft:
                draft.write_text(f"{incarnation}\n")

    def _spawn(self) -> None:
        program = binary()
        if program is None:
            raise BrokerError(
                "noida-db is not installed: run pip install 'attn[embedded]', or use an existing Kafka with --kafka")
        arguments = [
            program, "start", "--data-dir", str(self._state.resolve()), "--host", HOST,
            "--only", "kafka", "--kafka-port", str(self.port),
        ]
        with self._log.open("wb") as log:
            # SIGTERM, not SIGKILL, when the parent is gone: the broker saves its data.
            self._process = subprocess.Popen(
                parent_death.command(arguments, signal.SIGTERM), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, env=cleaned("broker", os.environ),
            )
        process = identity.identify(self._process.pid)
        if process is not None:
            identity.write(self._marker, process)

    async def _wait_until_up(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Waits until the broker accepts requests or has ended; returns whether it accepts requests."""
        quick = min(5.0, timeout)
        if not await identity.wait_until(lambda: self._is_up() or not self.alive, quick):
            log.info("the broker is loading its data")
            await identity.wait_until(lambda: self._is_up() or not self.alive, timeout - quick)
        return self._is_up() and self.alive

    def _is_up(self) -> bool:
        # noida-db writes its control file once the port is bound and the data is loaded.
        try:
            return bool(json.loads(self._control.read_text())["pid"] == self.pid)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _reason(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if "weak version" not in line]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return "; ".join(errors or lines[-3:]) or "no output; is the machine out of memory or disk?"
