"""Injects the faults of the schedule into a stack, and ends them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.environment.disk_throttle import Throttle
from chaos.environment.stack import Stack
from chaos.faults.schedule import KINDS, Fault
from ops.kafka import Node
from ops.process import identity
from schemas.topics import VIEWS

__all__ = ["Done", "Faults"]

_WORKERS = (1, 3, 2)  # number of workers after each scaling
_SLOW = 128 << 10  # bytes per second
_IN_SYNC = 240.0  # seconds until all replicas are in sync after a broker restarted
_PATIENCE = 240.0  # seconds until a broker has started; the machine may be busy


@dataclass(slots=True)
class Done:
    """A fault that was injected: begin and end (monotonic seconds) and its target. A killed process may return after
    `ended`."""

    kind: str
    begun: float
    ended: float = 0.0
    target: str = ""


@dataclass
class Faults:
    """Injects faults, also several at once. `over` returns when all have ended."""

    stack: Stack
    throttle: Throttle
    done: list[Done] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # kind -> why

    def __post_init__(self) -> None:
        self._brokers = asyncio.Lock()  # one broker at a time, until its replicas are in sync
        self._fleet = asyncio.Lock()  # one fault at a time that adds or removes workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._scaled = 0

    def inject(self, fault: Fault) -> None:
        """Begins a fault as a task."""
        task = asyncio.create_task(self._one(fault), name=fault.kind)
        self._tasks.add(task)

    async def over(self) -> None:
        """Returns when all faults have ended. Raises an error of the harness."""
        if self._tasks:
            await asyncio.gather(*self._tasks)
        self._tasks.clear()

    def check(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()

    @property
    def busy(self) -> int:
        return sum(not task.done() for task in self._tasks)

    async def _one(self, fault: Fault) -> None:
        kind = KINDS[fault.kind]
        if kind.lane == "broker":
            async with self._brokers:
                await self._broker(fault)
            return
        actions: dict[str, Callable[[Fault, Done], Awaitable[None]]] = {
            "workers restarted in turn": self._in_turn, "workers scaled": self._scale,
            "disk of a broker slow": self._slow_disk,
        }
        done = Done(fault.kind, time.monotonic())
        if fault.kind in actions:
            await actions[fault.kind](fault, done)
        elif fault.kind.endswith("killed"):
            everyone = fault.kind.startswith(("all", "both"))
            await self._kill(kind.lane, None if everyone else fault.pick, done)
        else:
            await self._pause(kind.lane, fault, done)
        if done.target:
            done.ended = time.monotonic()
            self.done.append(done)

    async def _kill(self, role: str, pick: int | None, done: Done) -> None:
        names = self.stack.running(role)
        hit = []
        for name in names if pick is None else [names[pick % len(names)]]:
            if await self._alive(name):
                done.begun = time.monotonic()
                self.stack.signal(name, signal.SIGKILL)
                hit.append(name)
        done.target = ", ".join(hit)

    async def _alive(self, name: str) -> bool:
        """Returns whether the process runs, after the time of a restart at most."""
        for _ in range(100):
            if self.stack.parts[name].pid is not None:
                return True
            await asyncio.sleep(0.05)
        return False

    async def _pause(self, role: str, fault: Fault, done: Done) -> None:
        names = self.stack.running(role)
        name = names[fault.pick % len(names)]
        if await self._alive(name):
            done.begun, done.target = time.monotonic(), name
            found = self.stack.signal(name, signal.SIGSTOP)
            await asyncio.sleep(fault.length)
            if found is not None and identity.is_alive(found):
                self.stack.resume(name)

    async def _in_turn(self, fault: Fault, done: Done) -> None:
        """Sends SIGTERM to each worker, to the next one when the former is ready again."""
        async with self._fleet:
            done.begun = time.monotonic()
            for name in self.stack.running("worker"):
                self.stack.signal(name, signal.SIGTERM)
                await asyncio.sleep(4.0)
            done.target = "all"

    async def _scale(self, fault: Fault, done: Done) -> None:
        async with self._fleet:
            wanted, names = _WORKERS[self._scaled % len(_WORKERS)], self.stack.running("worker")
            self._scaled += 1
            done.begun = time.monotonic()
            for name in names[wanted:]:
                self.stack.resume(name)  # it may be paused
                await self.stack.remove(name)
            for number in range(len(names) + 1, wanted + 1):
                self.stack.add(f"worker-{number}")
            done.target = f"{len(names)} to {wanted}"

    async def _slow_disk(self, fault: Fault, done: Done) -> None:
        if self.throttle.missing is not None:
            self.skipped[fault.kind] = self.throttle.missing
            return
        nodes = self.stack.kafka.nodes
        node = nodes[fault.pick % len(nodes)]
        if (pid := node.pid) is not None:
            done.begun, done.target = time.monotonic(), f"broker {node.number}"
            with self.throttle.slow(pid, _SLOW):
                await asyncio.sleep(fault.length)

    async def _broker(self, fault: Fault) -> None:
        kafka = self.stack.kafka
        nodes = await self._victims(fault)
        done = Done(fault.kind, time.monotonic(), target=", ".join(f"broker {node.number}" for node in nodes))
        if fault.kind == "broker paused":
            nodes[0].pause()
            await asyncio.sleep(fault.length)
            nodes[0].resume()
        else:
            for node in nodes:
                node.kill()
            if fault.kind.startswith("worker, edge"):
                for role in ("worker", "edge", "history"):
                    await self._kill(role, fault.pick, Done("", 0.0))
            await asyncio.sleep(fault.length)
        done.ended = time.monotonic()
        await asyncio.gather(*(node.spawn() for node in nodes))
        await kafka.wait_ready(_PATIENCE)
        await self._in_sync()
        self.done.append(done)

    async def _victims(self, fault: Fault) -> list[Node]:
        kafka = self.stack.kafka
        any_one = kafka.nodes[fault.pick % len(kafka.nodes)]
        if fault.kind == "all brokers killed":
            return list(kafka.nodes)
        if fault.kind == "leader of a view killed":
            return [await kafka.leader_of(VIEWS, fault.pick % self.stack.settings.log_partitions) or any_one]
        if fault.kind == "controller killed":
            return [self.stack.controller() or any_one]
        return [any_one]

    async def _in_sync(self) -> None:
        """Returns when every replica is in sync, so that the next broker may be stopped."""
        until = time.monotonic() + _IN_SYNC
        while not await self.stack.in_sync():
            if time.monotonic() > until:
                raise TimeoutError(f"replicas are not in sync {_IN_SYNC:.0f} s after a broker restarted")
            await asyncio.sleep(0.5)
