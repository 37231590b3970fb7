"""Packs events and commands into records of `attn.log`, and unpacks them. No I/O.

A pack has the entries of one log partition that arrived within a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from schemas.log import Command, Event, KeyUsed, Pack, Report, SessionUsed, decode_pack, encode_pack
from schemas.scalars import EARLIEST, LATEST
from schemas.topics import partition_of
from streams.tracing.context import MAX_LINKS, EntryLink, TraceLink, traces_header

__all__ = ["MAX_PACK_BYTES", "MAX_PACK_ENTRIES", "PackRecord", "Packer", "unpack"]

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


class PackRecord(NamedTuple):
    """A record of `attn.log` to write. `headers`: trace contexts of sampled entries; none while traces are off."""

    partition: int
    entries: int
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class Packer:
    """Collects events and commands into packs. Encodes each once, when it is added, so the size of a pack is known."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.events = 0
        self._open: dict[int, list[msgspec.Raw]] = {}
        self._sizes: dict[int, int] = {}
        self._full: list[tuple[int, list[msgspec.Raw]]] = []
        self._links: dict[int, list[EntryLink]] = {}  # by id of the list of entries

    def add(self, event: Event | Command | Report | KeyUsed | SessionUsed, trace: TraceLink | None = None) -> None:
        """Adds an entry. `trace`: its sampled context, for the header of the record."""
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
        if trace is not None:
            links = self._links.setdefault(id(entries), [])
            if len(links) < MAX_LINKS:
                links.append(EntryLink(len(entries) - 1, *trace))

    def drain(self, at: int) -> list[PackRecord]:
        """Returns and removes all packs. `at`: time of the packs in microseconds."""
        packs = [*self._full, *self._open.items()]
        links, self._links = self._links, {}
        self._full, self._open, self._sizes, self.events = [], {}, {}, 0
        # The entries are encoded already: msgspec writes Raw as it is.
        return [
            PackRecord(
                partition, len(entries), encode_pack(Pack(at, entries)),  # type: ignore[arg-type]
                traces_header(links[id(entries)]) if id(entries) in links else ())
            for partition, entries in packs
        ]
