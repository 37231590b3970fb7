"""A replica and the live feeds of some readers, without socket and event loop."""

from __future__ import annotations

from support.clients.feed import Copy, frames
from support.edge.random_rows import ROLES, World

from api.live.frames import FrameEncoder
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window

LIMITS = (1, 3, 5, 1000)


def readers() -> list[Reader]:
    return [
        Reader("w1", "ann", frozenset({"OWNER"})), Reader("w1", "bob", frozenset({"MEMBER"})),
        Reader("w1", "bob", frozenset(ROLES)), Reader("w1", "nobody", frozenset({"VIEWER"})),
        Reader("w2", "cyd", frozenset({"MEMBER"})),
    ]


class Edge:
    """A replica and the live feeds of some readers. Stores all frames that it sends."""

    def __init__(self, start: World | None = None, limits: tuple[int, ...] = LIMITS) -> None:
        self.replica = Replica(1)
        if start is not None:
            self.replica.load(0, start.rows, start.position)
        self.frames = FrameEncoder(PageRenderer())
        self.feeds: dict[tuple[Reader, int], tuple[Window, list[bytes], Copy]] = {}
        for reader in readers():
            for limit in limits:
                window = Window(reader, limit, self.replica.workspace(reader.workspace_id))
                first = self.snapshot(reader, window)
                self.feeds[reader, limit] = (window, [first], Copy())
                self._apply_frames(self.feeds[reader, limit][2], [first])

    def snapshot(self, reader: Reader, window: Window) -> bytes:
        space = self.replica.workspace(reader.workspace_id)
        return self.frames.encode_snapshot(space, window, self.replica.cursor(reader.workspace_id))

    def apply(self, rows: list[tuple[bytes, bytes | None]], position: object) -> None:
        for update in self.replica.apply(0, rows, position):  # type: ignore[arg-type]
            for (reader, _), (window, sent, copy) in self.feeds.items():
                if reader.workspace_id == update.workspace.workspace_id:
                    new = self.frames.encode_batch(update, window)
                    sent += new
                    self._apply_frames(copy, new)

    def _apply_frames(self, copy: Copy, new: list[bytes]) -> None:
        for frame in frames(b"".join(new)):
            copy.apply(frame)
