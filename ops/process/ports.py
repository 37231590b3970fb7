"""Free TCP ports on loopback."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

__all__ = ["HOST", "free_port"]

HOST = "127.0.0.1"  # never another: the broker knows no callers


def free_port() -> int:
    """A TCP port that is free, and the one after it too. Below the range that systems give to outgoing connections, so
    that none of those takes it before its server is there, or while that one restarts."""
    for _ in range(100):
        port = random.randrange(15_000, 32_000)  # noqa: S311 - no secret
        with socket.socket() as probe, socket.socket() as after, suppress(OSError):
            probe.bind((HOST, port))
            after.bind((HOST, port + 1))
            return port
    raise OSError("no free port between 15000 and 32000")
