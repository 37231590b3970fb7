"""Runs one Apache Kafka node (broker and controller) as a child process. One directory holds its data and logs."""

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
# Small: three nodes and the tests run on one small machine.
HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")


class Node:
    """Starts, pauses and stops node `number` (from 1) in `directory`. The caller must hold a lock on the directory.

    `tied`: the node ends with this process. Otherwise it outlives this process, and a later `Node` of the same
    directory controls it by its pid file. `jvm`: additional flags for java; a later flag overrides an earlier one. A
    node works with any event loop, but start it in a thread that lives as long: Linux ends a tied process with the
    thread that started it. `start` after `kill` uses the same data.
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
        self._output = self.directory / "output.log"  # stdout and stderr of the JVM

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def process(self) -> identity.ProcessIdentity | None:
        """The running node process, even if another process started it."""
        if self._child is not None:
            self._child.poll()  # reaps an ended child
        recorded = identity.read(self._marker)
        return recorded if recorded is not None and identity.is_alive(recorded) else None

    @property
    def alive(self) -> bool:
        return self.process is not None

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    async def start(self, timeout: float = 120.0) -> None:  # noqa: ASYNC109 - it also ends the child
        """Starts the node and waits until it answers. Raises UserError if it ends first, or after `timeout` seconds.

        A node of a cluster answers only with a quorum of controllers: start its nodes with `spawn` instead.
        """
        await self.spawn()
        await self.wait_ready(timeout)

    async def spawn(self) -> None:
        """Starts the process, and does not wait until it answers."""
        if self.alive:
            return
        await asyncio.to_thread(self._prepare)
        self._launch()

    def _launch(self) -> None:
        command = self._java(f"-Dattn.log={self.log}", *HEAP, *self._jvm, "kafka.Kafka", str(self._config))
        with self._output.open("wb") as output:
            # SIGKILL loses no acknowledged record: the other nodes or the page cache of the system have it.
            self._child = subprocess.Popen(
                parent_death.command(command, signal.SIGKILL) if self._tied else command, cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        started = identity.identify(self._child.pid)
        if started is not None:
            identity.write(self._marker, started)

    async def wait_ready(self, timeout: float = 120.0) -> None:  # noqa: ASYNC109
        """Returns when the node is a broker of the cluster and accepts requests. Raises UserError as `start` does."""
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
        """Returns the numbers of the brokers in this node's metadata; an empty set if the node does not answer."""
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
        """Sends SIGTERM, and SIGKILL after `timeout` seconds. Returns whether SIGTERM was enough, or no process ran."""
        process = self.process
        if process is None:
            return True
        self.resume()
        clean = await identity.end(process, timeout)
        self._reap()
        return clean

    def kill(self) -> None:
        """Sends SIGKILL, which simulates a crash."""
        self._signal(signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """Sends SIGSTOP: the node's connections stay open, and no request is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, signum: int) -> None:
        if (process := self.process) is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signum)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _prepare(self) -> None:
        """Writes server.properties, and formats the storage if it is new."""
        self._data.mkdir(parents=True, exist_ok=True)
        self._config.write_text(properties(self.number, self._ports, self._data, self._overrides))
        if (self._data / "meta.properties").exists():
            return
        command = self._java(
            f"-Dattn.log={self.log}", "-XX:TieredStopAtLevel=1", *self._jvm, "kafka.tools.StorageTool", "format", "-t",
            self._cluster_id, "-c", str(self._config))
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if result.returncode:
            raise UserError(f"Kafka could not format {self._data}: {(result.stderr or result.stdout).strip()[-500:]}")

    def _java(self, *arguments: str) -> list[str]:
        return [
            jars.java(), "-cp", f"{jars.resolve()}/*", f"-Dlog4j2.configurationFile={LOGGING}",
            "-Djava.awt.headless=true", *arguments,
        ]

    def reason(self) -> str:
        """Returns the last 3 lines with errors of its output and log, or the last 3 lines if there are none."""
        lines: list[str] = []
        for path in (self._output, self.log):
            with suppress(FileNotFoundError):
                lines += path.read_text(errors="replace").splitlines()[-400:]
        errors = [line for line in lines if " ERROR " in line or " FATAL " in line or "Exception" in line]
        return "; ".join((errors or lines)[-3:]) or "it wrote no output; is the machine out of memory?"
