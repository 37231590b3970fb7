"""Sinks that collect the bytes of a stream in memory."""

from __future__ import annotations

from collections.abc import Callable

from api.live.connections import EncodedChunk


class Kept:
    """An outlet that takes everything and keeps it."""

    def __init__(self) -> None:
        self.ready = True
        self.on_ready: Callable[[], None] = lambda: None
        self.raw = b""

    def write(self, piece: EncodedChunk) -> None:
        self.raw += piece.raw

    def end(self) -> None:
        raise AssertionError("nobody ends it")

    abort = end
