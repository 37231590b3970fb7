"""Restricts this process to the files that the history needs, with Linux Landlock. Embedded ClickHouse runs queries of
readers in this process. If a query passes `query_guard` by mistake, the kernel still denies access to other files, and
to memory and environment of other processes.

Readable: programs, libraries, /etc, certificates of the settings, the password files. Writable: the directory of
ClickHouse, the directory for its exports, and one for temporary files. Sockets may be created in the directory of
bells (`streams.kafka.doorbell`). Connections are not restricted: a broker may have any address.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import ssl
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from schemas.settings import Settings
from streams.history.clickhouse.client import directory
from streams.history.embedded.query_server import results
from streams.kafka import doorbell
from streams.runtime import private_files

__all__ = ["confine"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION = 1  # flag of _CREATE: returns the ABI of the kernel
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
# linux/landlock.h. ABI 1: execute, write, read, list, and nine rights to create and remove. ABI 2: rename into another
# directory. ABI 3: truncate. ABI 1 would refuse every rename between directories.
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_UNLINK, _MAKE_SOCKET = 1 << 5, 1 << 9
_LEAST_ABI = 3
# Capabilities with which root reads other processes in /proc, past Landlock: SYS_PTRACE, SYS_ADMIN, PERFMON.
_CAPABILITIES, _SEE_OTHERS = 0x20080522, (1 << 19) | (1 << 21) | (1 << 38)
_ALL = (1 << 15) - 1
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/nix/store", "/etc", "/proc", "/sys", "/run/systemd/resolve",
           "/run/resolvconf", "/run/NetworkManager")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_OURS = ("api", "ops", "schemas", "streams")


def confine(settings: Settings) -> str | None:
    """Restricts this process until it ends. Returns None, or the reason why it is not restricted at all.

    Call it before any thread starts: running threads are not restricted.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock"
    if threading.active_count() > 1:
        return f"{threading.active_count()} threads run already"
    if any(settings.data_dir.resolve().is_relative_to(path) for path in _SYSTEM):
        return f"the data directory {settings.data_dir} lies in a directory of the system"
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if abi < _LEAST_ABI:
        return f"the kernel's Landlock has ABI {max(abi, 0)}, {_LEAST_ABI} is required (Linux 6.2)"
    scratch = settings.data_dir / "clickhouse-tmp"
    shutil.rmtree(scratch, ignore_errors=True)  # left by a process that was killed
    ours = directory(settings), results(directory(settings)), scratch
    for path in ours:
        private_files.make_private_dir(path)
    for file in (settings.clickhouse_password_file, settings.clickhouse_edge_password_file):
        private_files.create_secret(file)
    rules = [*((path, _READ | _LIST | _EXECUTE) for path in _readable(settings)), *((path, _ALL) for path in ours),
             (doorbell.directory(settings), _LIST | _UNLINK | _MAKE_SOCKET),
             *((Path(path), _READ | _WRITE) for path in _DEVICES)]
    ruleset = libc.syscall(_CREATE, struct.pack("Q", _ALL), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    try:
        for path, access in rules:
            _allow(libc, ruleset, path, access)
        _see_no_others(libc)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(_RESTRICT, ruleset, 0):
            return f"Landlock: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    os.environ["TMPDIR"] = str(scratch.resolve())  # chdb makes a directory there
    return None


def _see_no_others(libc: ctypes.CDLL) -> None:
    """Drops the capabilities to read other processes. Only root has them."""
    head, data = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES, 0)), ctypes.create_string_buffer(24)
    if libc.capget(head, data) == 0:
        masks = (_SEE_OTHERS & 0xFFFFFFFF, _SEE_OTHERS >> 32)
        kept = [has & ~masks[number // 3] for number, has in enumerate(struct.unpack("=6I", data.raw[:24]))]
        libc.capset(head, struct.pack("=6I", *kept))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    """Adds a rule for a path. Does nothing if the path does not exist."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            access &= _OF_FILES
        libc.syscall(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, handle), 0)
    finally:
        os.close(handle)


def _readable(settings: Settings) -> Iterator[Path]:
    """Yields the system's directories, and the directories of Python and attn. Of the latter it leaves out those that
    contain the data directory, the home directory, or the working directory."""
    yield from map(Path, _SYSTEM)
    apart = [settings.data_dir.resolve(), Path.home().resolve(), Path.cwd()]
    for path in _candidates(settings):
        if not any(one.is_relative_to(path.resolve()) for one in apart):
            yield path.resolve()


def _candidates(settings: Settings) -> Iterator[Path]:
    yield from map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.executable))
    yield from (Path(path) for path in sys.path if path)
    yield from _packages(_OURS)  # a checkout may contain the data directory
    certificates = ssl.get_default_verify_paths()
    for name in (certificates.cafile, certificates.capath, settings.kafka_ca, settings.kafka_certificate,
                 settings.kafka_key, settings.clickhouse_password_file, settings.clickhouse_edge_password_file):
        if name:
            yield Path(name)


def _packages(names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        if (spec := importlib.util.find_spec(name)) is not None:
            yield from map(Path, spec.submodule_search_locations or ())
