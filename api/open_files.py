"""Computes how many streams an edge accepts from its limit of open files. Each connection takes one file descriptor.

A process without free descriptors closes each new connection at once, without a log line, and cannot connect to Kafka
again. Therefore the edge raises its limit at start, defers streams before the last descriptors are used, and closes
unauthenticated connections first (`api.http.protocol.unauthenticated`).
"""

from __future__ import annotations

import contextlib
import resource

__all__ = ["SPARE", "file_limit", "raise_file_limit", "stream_capacity"]

# Descriptors for Kafka, ClickHouse, the issuer of tokens, files and the event loop. Clients cannot use them.
SPARE = 64
# Share and bounds of the descriptors that streams leave to other requests: reads, writes, health checks.
_REQUEST_SHARE, _MIN_REQUESTS, _MAX_REQUESTS = 0.02, 32, 1024
_UNLIMITED = 1 << 20


def file_limit() -> int:
    """Returns the number of files that this process may open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft > 0 else _UNLIMITED  # RLIM_INFINITY is -1


def raise_file_limit() -> int:
    """Raises the limit to what the system allows this process, and returns it. The usual limit of 1,024 is less than
    one edge can serve."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return file_limit()


def stream_capacity(limit: int) -> int:
    """Returns how many streams a process with this limit of open files accepts, at least one."""
    requests = min(max(int(limit * _REQUEST_SHARE), _MIN_REQUESTS), _MAX_REQUESTS)
    return max(1, limit - SPARE - requests)
