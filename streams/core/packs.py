"""Packs: what arrived within a few milliseconds for one partition of the log, as one record of it. No I/O."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from schemas.log import Command, Event, Pack, decode_pack, encode_pack
from schemas.scalars import EARLIEST, LATEST
from schemas.topics import partition_of

__all__ = ["MAX_PACK_BYTES", "MAX_PACK_ENTRIES", "Packer", "unpack"]

# A fold takes at least a pack at a time, so a pack bounds what one batch of rows, and one wait of its loop, can be.
MAX_PACK_ENTRIES = 500
MAX_PACK_BYTES = 400_000  # an event larger than this goes alone

_encode = msgspec.json.Encoder().encode
_partition_of = lru_cache(maxsize=1 << 16)(partition_of)


def unpack(value: bytes | None) -> Pack:
    """ValueError or RecursionError: not a pack; UnsupportedVersion: a newer attn's."""
    pack = decode_pack(value or b"")
    if not EARLIEST <= pack.at < LATEST:
        raise ValueError(f"at: {pack.at} is not a time between 1970 and 2200")
    return pack


class Packer:
    """Collects events or commands, gives packs. Each is encoded once, so its size is known before it is packed."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.events = 0
        self._open: dict[int, list[msgspec.Raw]] = {}
        self._sizes: dict[int, int] = {}
        self._full: list[tuple[int, list[msgspec.Raw]]] = []

    def add(self, event: Event | Command) -> None:
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
        """All packs so far, as (log partition, events in it, record value), stamped `at` (µs); empty again after it."""
        packs = [*self._full, *self._open.items()]
        self._full, self._open, self._sizes, self.events = [], {}, {}, 0
        # The entries are encoded already; Raw is taken over as it is.
        return [
            (partition, len(entries), encode_pack(Pack(at, entries)))  # type: ignore[arg-type]
            for partition, entries in packs
        ]
