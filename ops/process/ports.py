"""TCP ports: finds free ones, and checks that a given one can be used."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import suppress

from ops.errors import UserError

__all__ = ["HOST", "free_port", "take_port"]

HOST = "127.0.0.1"  # the embedded broker has no authentication, so it listens on loopback only

# A program that seeds `random` would draw the same ports as another one with that seed.
_random = random.SystemRandom()


def free_port() -> int:
    """Returns a TCP port that is free on loopback, as is the port after it. Raises OSError after 100 attempts.

    The port is between 15000 and 32000, below the range that systems use for outgoing connections. So no outgoing
    connection occupies it before the server binds it or while the server restarts.
    """
    for _ in range(100):
        port = _random.randrange(15_000, 32_000)
        with socket.socket() as probe, socket.socket() as after, suppress(OSError):
            probe.bind((HOST, port))
            after.bind((HOST, port + 1))
            return port
    raise OSError("no free port between 15000 and 32000")


def take_port(host: str, port: int) -> int:
    """Returns the port to listen on: `port`, or any free port if it is 0.

    Raises UserError if the port is in use, or if this process may not listen on that address.
    """
    if port == 0:
        return free_port()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"port {port} on {host} is already in use; choose another with --port") from None
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return port
