"""Sends bytes to a Kafka broker as record batches, over a socket: also batches that no client sends."""

from __future__ import annotations

import socket
import struct

__all__ = ["produce"]

_SECONDS = 30.0


def produce(bootstrap: str, topic: str, batches: bytes, partition: int = 0) -> tuple[int, int]:
    """Sends a Produce request of version 7 to a single broker. Returns its error code and the first record's offset."""
    name = topic.encode()
    body = struct.pack(">hhii", -1, 1, int(_SECONDS * 1000), 1)
    body += struct.pack(">h", len(name)) + name + struct.pack(">iii", 1, partition, len(batches)) + batches
    request = struct.pack(">hhih", 0, 7, 1, 3) + b"raw" + body
    host, port = bootstrap.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as line:
        line.sendall(struct.pack(">i", len(request)) + request)
        answer = _exactly(line, struct.unpack(">i", _exactly(line, 4))[0])
    at = 4 + 4 + 2 + len(name) + 4 + 4  # correlation, topics, name, partitions, number
    code, offset = struct.unpack_from(">hq", answer, at)
    return code, offset


def _exactly(line: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        part = line.recv(count - len(received))
        if not part:
            raise ConnectionError(f"the broker closed the connection after {len(received)} of {count} bytes")
        received += part
    return bytes(received)
