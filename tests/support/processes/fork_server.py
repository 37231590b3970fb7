"""Starts Python programs by fork, in place of new interpreters: `start(["-m", "ops.cli", "token"], ...)`.

A process of attn needs 1 to 3 s of CPU for its imports, most of it for libraries. One server per pytest process
imports the libraries once and forks for each program. A program is a separate process with its own pid, signals,
environment and files. It imports the modules of attn itself, so a missing import still fails. The tests of the wheel,
the image and `attn up` start processes by exec, as users do.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Forked", "start"]

LIBRARIES = (
    "aiohttp", "aiokafka", "aiokafka.admin", "clickhouse_connect", "faust", "faust.transport.drivers.aiokafka",
    "httpx", "jwt", "msgspec", "orjson", "prometheus_client", "pydantic_settings", "rich.traceback", "structlog",
    "structlog.dev", "typer", "uvloop",
)
_NUMBER = struct.Struct("!i")


class Forked:
    """A process that the server forked, with the part of the interface of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        return self._read_status(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._read_status(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _read_status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = _NUMBER.unpack(self._status.recv(_NUMBER.size))[0]
            self._status.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    command: Sequence[str], *, cwd: Path | str | None = None, env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL, stdout: int = 1, stderr: int = 2,
) -> Forked:
    """Starts `python -P COMMAND`: `-m MODULE` or a script, with its arguments. `stdin` to `stderr` are descriptors."""
    request = {"argv": list(command), "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else None
    with theirs:
        files = [theirs.fileno(), stdin if null is None else null, stdout, stderr]
        socket.send_fds(_server(), [json.dumps(request).encode()], files)
    if null is not None:
        os.close(null)
    return Forked(_NUMBER.unpack(ours.recv(_NUMBER.size))[0], ours)


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL)
    atexit.register(server.wait)
    atexit.register(ours.close)  # the closed socket ends the server
    return ours


def _serve(requests: socket.socket) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    while True:
        data, files, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not data:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(data), files)
            return
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watch(request: dict[str, Any], files: list[int]) -> None:
    """Forks the program, reports its pid and then its exit code. Returns in the program's process only."""
    pid = os.fork()
    if pid == 0:
        _become(request, files)
        return
    for file in files[1:]:
        os.close(file)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # the server must not keep pipes of the program open
        os.dup2(null, number)
    with socket.socket(fileno=files[0]) as status:
        status.sendall(_NUMBER.pack(pid))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            status.sendall(_NUMBER.pack(code))
    os._exit(0)


def _become(request: dict[str, Any], files: list[int]) -> None:
    for number, file in enumerate(files[1:]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    argv = request["argv"]
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        _serve(connection)
