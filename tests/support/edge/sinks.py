"""Sinks that collect the bytes of a stream in memory."""

from __future__ import annotations

from collections.abc import Callable

from api.live.connections import EncodedChunk


class Kept:
    """Sink that accepts all chunks and keeps their bytes."""

    def __init__(self) -> None:
        self.ready = True
        self.on_ready: Callable[[], None] = lambda: None
        self.raw = b""

    def write(self, piece: EncodedChunk) -> None:
        self.raw += piece.raw

    def end(self) -> None:
        raise AssertionError("the stream was ended")

    abort = end
