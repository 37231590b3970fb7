"""One Apache Kafka node as a child process: broker and controller, with data and logs in one directory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from ops.errors import UserError
from ops.kafka import jars
from ops.kafka.properties import HOST, Ports, properties
from ops.process import identity, parent_death

__all__ = ["Node"]

LOGGING = Path(__file__).with_name("log4j2.properties")
# Three of them and the tests fit on a small machine.
HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")


class Node:
    """Node `number` (from 1) in `directory`; the caller must have locked that directory.

    `tied`: the process ends when this one does. Else it outlives it, and is found again by its pid file. `jvm`: more
    flags for java, the later ones win. Not tied to an event loop, but to be started in a thread that lives on: Linux
    ends a tied process with that thread. After `kill`, `start` uses the same data.
    """

    def __init__(
        self, directory: Path, number: int, ports: Sequence[Ports], cluster_id: str,
        overrides: Mapping[str, str] = {}, tied: bool = True, jvm: Sequence[str] = (),
    ) -> None:
        self.directory = directory.resolve()
        self.number = number
        self.port = ports[number - 1][0]
        self._ports = ports
        self._cluster_id = cluster_id
        self._overrides = overrides
        self._tied = tied
        self._jvm = jvm
        self._child: subprocess.Popen[bytes] | None = None
        self._data = self.directory / "data"
        self._config = self.directory / "server.properties"
        self._marker = self.directory / "pid"
        self.log = self.directory / "kafka.log"
        self._output = self.directory / "output.log"  # what the JVM itself says

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def process(self) -> identity.ProcessIdentity | None:
        """The running process, whichever process started it."""
        if self._child is not None:
            self._child.poll()  # reaps it
        found = identity.read(self._marker)
        return found if found is not None and identity.is_alive(found) else None

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def pid(self) -> int | None:
        found = self.process
        return found.pid if found else None

    async def start(self, timeout: float = 120.0) -> None:  # noqa: ASYNC109 - it also ends the child
        """Return when it answers; with the others away it can't, see `spawn`. UserError: it did not come up."""
        await self.spawn()
        await self.wait_ready(timeout)

    async def spawn(self) -> None:
        """Start the process, without waiting until it answers."""
        if self.alive:
            return
        await asyncio.to_thread(self._prepare)
        self._launch()

    def _launch(self) -> None:
        command = self._java(f"-Dattn.log={self.log}", *HEAP, *self._jvm, "kafka.Kafka", str(self._config))
        with self._output.open("wb") as output:
            # It is given no time to end in peace: what is acknowledged is kept by the others, or by the system's cache.
            self._child = subprocess.Popen(
                parent_death.command(command, signal.SIGKILL) if self._tied else command, cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        now = identity.identify(self._child.pid)
        if now is not None:
            identity.write(self._marker, now)

    async def wait_ready(self, timeout: float = 120.0) -> None:  # noqa: ASYNC109
        """Return when it is a broker of the cluster that takes requests."""
        until = asyncio.get_running_loop().time() + timeout
        while not await self.is_ready():
            if not self.alive:
                raise UserError(f"Kafka node {self.number} has ended: {self.reason()}")
            if asyncio.get_running_loop().time() > until:
                raise UserError(f"Kafka node {self.number} is not ready after {timeout:.0f} s: {self.reason()}")
            await asyncio.sleep(0.1)

    async def is_ready(self) -> bool:
        return self.number in await self.members()

    async def members(self) -> set[int]:
        """The numbers of the brokers that it says are there; none when it does not answer."""
        if not self.alive or not self._listens():
            return set()
        client = AIOKafkaClient(bootstrap_servers=self.address, request_timeout_ms=5000)
        try:
            await client.bootstrap()
            return {broker.nodeId for broker in client.cluster.brokers()}
        except (KafkaError, OSError):
            return set()
        finally:
            await client.close()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((HOST, self.port)) == 0

    async def stop(self, timeout: float = 30.0) -> bool:  # noqa: ASYNC109
        """SIGTERM; killed after so many seconds. True: it ended by itself. May be called at any time."""
        found = self.process
        if found is None:
            return True
        self.resume()
        clean = await identity.end(found, timeout)
        self._reap()
        return clean

    def kill(self) -> None:
        """kill -9, as a crash would."""
        self._signal(signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: int) -> None:
        if (found := self.process) is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signum)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _prepare(self) -> None:
        """Write its settings; format its storage once."""
        self._data.mkdir(parents=True, exist_ok=True)
        self._config.write_text(properties(self.number, self._ports, self._data, self._overrides))
        if (self._data / "meta.properties").exists():
            return
        command = self._java(
            f"-Dattn.log={self.log}", "-XX:TieredStopAtLevel=1", *self._jvm, "kafka.tools.StorageTool", "format", "-t",
            self._cluster_id, "-c", str(self._config))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise UserError(f"Kafka could not format {self._data}: {(done.stderr or done.stdout).strip()[-500:]}")

    def _java(self, *arguments: str) -> list[str]:
        return [
            jars.java(), "-cp", f"{jars.resolve()}/*", f"-Dlog4j2.configurationFile={LOGGING}",
            "-Djava.awt.headless=true", *arguments,
        ]

    def reason(self) -> str:
        """What it said last that may explain its end."""
        lines: list[str] = []
        for path in (self._output, self.log):
            with suppress(FileNotFoundError):
                lines += path.read_text(errors="replace").splitlines()[-400:]
        telling = [line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line]
        return "; ".join((telling or lines)[-3:]) or "no word from it; is the machine out of memory?"
