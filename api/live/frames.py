"""A reader's feed as bytes: snapshot, the frames of a batch, heartbeat. Pure; the same on every edge."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from api.live.sse import encode_event
from api.readmodel import listing
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import MissedBatches, WorkspaceUpdate, apply_changes_to_past
from api.readmodel.window import Frame, Window
from api.readmodel.workspace import Workspace
from schemas.views import CURSOR_BITS, cursor_of

__all__ = ["FrameEncoder"]


class FrameEncoder:
    def __init__(self, answers: PageRenderer) -> None:
        self._pages = answers

    def encode_snapshot(self, workspace: Workspace, window: Window, cursor: int) -> bytes:
        """The page of the window with what is personal; a window that is shared has nothing that is."""
        reader, keys = window.reader, window.keys
        more = not window.complete and next(listing.ranked(workspace, reader, window.pins, keys[-1]), None) is not None
        personal = self._pages.personal(workspace, reader.user)
        page = self._pages.render_page(workspace, reader, cursor, keys, more, personal)
        return encode_event(cursor, "snapshot", page)

    def encode_batch(self, update: WorkspaceUpdate, window: Window) -> list[bytes]:
        """The frames of a batch for a window, which is then after it."""
        frames = window.apply(update.changes, update.workspace)
        return self._encode(frames, window, update.workspace, update.before, update.after)

    def encode_missed(
        self, missed: MissedBatches, reader: Reader, limit: int, most: int
    ) -> tuple[list[bytes], int | None] | None:
        """What a reader missed, oldest first. After about `most` bytes it ends at the cursor returned with it, to be
        asked for the rest later. None: there is no frame such as the reader names, so only a snapshot helps."""
        workspace = missed.workspace
        window = Window(reader, limit, workspace)
        found: list[bytes] = []
        skip, size, cursor = missed.skip, 0, 0
        for batch in missed.batches:
            if size > most:
                return found, cursor
            changes = apply_changes_to_past(workspace, batch.changed[workspace.workspace_id])
            frames = self._encode(window.apply(changes, workspace), window, workspace, batch.before, batch.after)
            if skip and skip >= len(frames):
                return None
            found += frames[skip:]
            size += sum(map(len, frames))
            skip, cursor = 0, cursor_of(batch.after)
        return found, None

    def _encode(
        self, frames: list[Frame], window: Window, workspace: Workspace, before: int, after: int
    ) -> list[bytes]:
        counts = msgspec.json.encode(window.counts) if frames else b""
        found = []
        for number, frame in enumerate(frames, 1):
            # Numbers between two cursors, so that a reader may go on after any frame (ops/decisions/0002).
            cursor = cursor_of(after) if number == len(frames) else cursor_of(before) + number
            found.append(encode_event(cursor, frame.event, self._data(frame, window.reader, workspace, counts)))
        assert len(frames) < 1 << CURSOR_BITS
        return found

    def _data(self, frame: Frame, reader: Reader, workspace: Workspace, counts: bytes) -> bytes:
        if frame.event in ("added", "changed"):
            return b'{"item":%b,"counts":%b}' % (self._pages.render_item(workspace, frame.key), counts)
        if frame.event == "removed":
            gone: dict[str, Any] = {"id": frame.key.decode(), "reason": frame.reason}
            if frame.action is not None:
                gone["resolved_action"] = frame.action
            return orjson.dumps(gone)[:-1] + b',"counts":%b}' % counts
        if frame.event == "activity":
            return orjson.dumps(self._pages.activity(workspace, reader))
        if frame.event == "drafts":
            return orjson.dumps(self._pages.drafts(workspace, reader.user))
        return orjson.dumps(self._pages.preferences(workspace, reader.user))
