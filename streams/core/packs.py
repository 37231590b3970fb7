"""Packs events and commands into records of `attn.log`, and unpacks them. No I/O.

A pack has the entries of one log partition that arrived within a few milliseconds.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from schemas.log import Command, Event, KeyUsed, Pack, Report, SessionUsed, decode_pack, encode_pack
from schemas.scalars import EARLIEST, LATEST
from schemas.topics import partition_of

__all__ = ["MAX_PACK_BYTES", "MAX_PACK_ENTRIES", "Packer", "unpack"]

# The fold applies whole packs, so these limits bound a batch of rows, and how long the event loop is blocked.
MAX_PACK_ENTRIES = 500
MAX_PACK_BYTES = 400_000  # a larger event is a pack of its own

_encode = msgspec.json.Encoder().encode
_partition_of = lru_cache(maxsize=1 << 16)(partition_of)


def unpack(value: bytes | None) -> Pack:
    """Returns the pack of a record value.

    Raises ValueError or RecursionError if it is no pack, UnsupportedVersion if a newer attn wrote it.
    """
    pack = decode_pack(value or b"")
    if not EARLIEST <= pack.at < LATEST:
        raise ValueError(f"at: {pack.at} is not a time between 1970 and 2200")
    return pack


class Packer:
    """Collects events and commands into packs. Encodes each once, when it is added, so the size of a pack is known."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.events = 0
        self._open: dict[int, list[msgspec.Raw]] = {}
        self._sizes: dict[int, int] = {}
        self._full: list[tuple[int, list[msgspec.Raw]]] = []

    def add(self, event: Event | Command | Report | KeyUsed | SessionUsed) -> None:
        raw = _encode(event)
        partition = _partition_of(event.ws, self.partitions)
        entries = self._open.get(partition)
        size = len(raw) + 1
        if entries is None or len(entries) >= MAX_PACK_ENTRIES or self._sizes[partition] + size > MAX_PACK_BYTES:
            if entries is not None:
                self._full.append((partition, entries))
            entries = self._open[partition] = []
            self._sizes[partition] = 0
        entries.append(msgspec.Raw(raw))
        self._sizes[partition] += size
        self.events += 1

    def drain(self, at: int) -> list[tuple[int, int, bytes]]:
        """Returns and removes all packs as (log partition, number of entries, record value). `at`: time of the packs in
        microseconds."""
        packs = [*self._full, *self._open.items()]
        self._full, self._open, self._sizes, self.events = [], {}, {}, 0
        # The entries are encoded already: msgspec writes Raw as it is.
        return [
            (partition, len(entries), encode_pack(Pack(at, entries)))  # type: ignore[arg-type]
            for partition, entries in packs
        ]
