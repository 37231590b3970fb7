"""Wakes idle consumers in the other processes of one `attn up` after an acknowledged write (decision 0072).

The embedded broker does not hold empty fetches, so idle consumers wait between two of them (`idle_fetch`). A consumer
binds a UNIX datagram socket for each bell of its topics in a private directory. After a write is acknowledged, the
producer sends one empty datagram to each socket of the topic's bell, and a consumer that waits fetches at once.

Ringing neither blocks nor raises. A lost datagram costs time only: the consumer fetches again when its wait ends.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from schemas.settings import Settings
from schemas.topics import SOURCE_TYPES

__all__ = ["SOURCES", "Bell", "BellDirectory", "Ringer", "bell_of", "directory", "make_directory", "make_producer"]

log = logging.getLogger(__name__)

SOURCES = "sources"  # the bell of all source topics
# Seconds between two rings of one bell. Writes in between ring once, at the end of it.
_MIN_INTERVAL = 0.001
_numbers = itertools.count()


def bell_of(topic: str) -> str:
    """Returns the name of the topic's bell."""
    return SOURCES if topic in SOURCE_TYPES else topic


def directory(settings: Settings) -> Path:
    """Returns the directory of the sockets. Only `attn up` with the embedded broker creates it."""
    return settings.data_dir / "run" / "bells"


def make_directory(path: Path, wanted: bool) -> None:
    """Creates an empty directory for the sockets, with mode 0700. With `wanted` false it only removes an old one. No
    other process may use it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        for old in path.iterdir():
            old.unlink()
        path.rmdir()
    if wanted:
        path.mkdir(mode=0o700)


class BellDirectory:
    """An open directory of sockets."""

    def __init__(self, path: Path, handle: int) -> None:
        self._handle = handle
        # An address has at most 107 bytes, and the path of the directory may be longer.
        short = f"/proc/self/fd/{handle}"
        self._prefix = short if os.path.isdir(short) else str(path)
        self._listed: tuple[int, list[str]] = (-1, [])

    @classmethod
    def open(cls, path: Path) -> BellDirectory | None:
        """Opens it. Returns None if it does not exist, or if another user owns it or can write to it."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        status = os.fstat(handle)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            log.warning("%s is not private (owner %d, mode %o); idle consumers are not woken by writes",
                        path, status.st_uid, stat.S_IMODE(status.st_mode))
            os.close(handle)
            return None
        return cls(path, handle)

    def close(self) -> None:
        os.close(self._handle)

    def address(self, name: str) -> str:
        """Returns the address of a socket."""
        return f"{self._prefix}/{name}"

    def listeners(self, bell: str) -> list[str]:
        """Returns the names of the sockets that listen to the bell."""
        changed = os.fstat(self._handle).st_mtime_ns
        if changed != self._listed[0]:
            self._listed = changed, os.listdir(self._handle)
        return [name for name in self._listed[1] if name.partition("@")[0] == bell]

    def remove(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._handle)


class Bell:
    """The sockets of one consumer. All calls come from the consumer's event loop."""

    def __init__(self, listening: BellDirectory) -> None:
        self._directory = listening
        self._sockets: dict[str, tuple[str, socket.socket]] = {}  # by bell: file name and socket
        self._waiters: set[asyncio.Future[None]] = set()

    def listen(self, bells: Iterable[str]) -> None:
        """Listens to these bells too. Raises OSError."""
        for bell in bells:
            if bell not in self._sockets:
                name = f"{bell}@{os.getpid()}-{next(_numbers)}"
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sock.setblocking(False)
                self._directory.remove(name)  # of an earlier process with this pid
                try:
                    sock.bind(self._directory.address(name))
                except OSError:
                    sock.close()
                    raise
                self._sockets[bell] = name, sock

    async def wait(self, seconds: float) -> bool:
        """Waits until a bell rings, at most `seconds`. Returns whether one rang, now or since the last call."""
        if self._drain():
            return True
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = loop.call_later(seconds, _finish, waiter)
        if not self._waiters:
            for _, sock in self._sockets.values():
                loop.add_reader(sock, self._wake)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
            if not self._waiters:
                for _, sock in self._sockets.values():
                    loop.remove_reader(sock)
        return self._drain()

    def _wake(self) -> None:
        for waiter in self._waiters:
            _finish(waiter)

    def _drain(self) -> bool:
        rang = False
        for _, sock in self._sockets.values():
            with suppress(OSError):
                while True:
                    sock.recv(1)
                    rang = True
        return rang

    def close(self) -> None:
        """Closes the sockets and removes their files. No `wait` may run."""
        for name, sock in self._sockets.values():
            sock.close()
            self._directory.remove(name)
        self._sockets.clear()


class Ringer:
    """Rings the bells of one producer's topics. All calls come from the producer's event loop."""

    def __init__(self, listening: BellDirectory) -> None:
        self._directory = listening
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._last: dict[str, float] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}

    def notify(self, topic: str) -> None:
        """Wakes the consumers of the topic, at once or within 1 ms."""
        bell, loop = bell_of(topic), asyncio.get_running_loop()
        if bell in self._due:
            return
        left = self._last.get(bell, 0.0) + _MIN_INTERVAL - loop.time()
        if left > 0:
            self._due[bell] = loop.call_later(left, self._ring, bell)
        else:
            self._ring(bell)

    def close(self) -> None:
        for timer in self._due.values():
            timer.cancel()
        self._socket.close()
        self._directory.close()

    def _ring(self, bell: str) -> None:
        self._due.pop(bell, None)
        self._last[bell] = asyncio.get_running_loop().time()
        for name in self._directory.listeners(bell):
            try:
                self._socket.sendto(b"", self._directory.address(name))
            except ConnectionRefusedError:  # its process has ended
                self._directory.remove(name)
            except OSError:  # it is full, so its consumer has a datagram to read; or it was removed
                pass


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class _RingingProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """A producer that rings the bell of a topic after each answer of the broker to a write."""

    def __init__(self, ringer: Ringer, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._ringer = ringer

    async def send(self, topic: str, *args: Any, **more: Any) -> asyncio.Future[Any]:
        return self._ring_after(topic, await super().send(topic, *args, **more))

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        return self._ring_after(topic, await super().send_batch(batch, topic, partition=partition))

    def _ring_after(self, topic: str, answer: asyncio.Future[Any]) -> asyncio.Future[Any]:
        answer.add_done_callback(lambda _: self._ringer.notify(topic))
        return answer

    async def stop(self) -> None:
        try:
            await super().stop()
        finally:
            self._ringer.close()


def make_producer(settings: Settings, **arguments: Any) -> AIOKafkaProducer:
    """Creates an idempotent producer with acks=all that rings the bells of `attn up`. Without their directory it is
    aiokafka's own."""
    listening = BellDirectory.open(directory(settings))
    if listening is None:
        return AIOKafkaProducer(acks="all", enable_idempotence=True, **arguments)
    return _RingingProducer(Ringer(listening), acks="all", enable_idempotence=True, **arguments)
