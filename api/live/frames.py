"""Encodes the frames of a feed: snapshot, the frames of a batch, missed frames. Pure: every edge encodes the same."""

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
    """Encodes frames of windows as server-sent events (CONTRACT: feed frames)."""

    def __init__(self, answers: PageRenderer) -> None:
        self._pages = answers

    def encode_snapshot(self, workspace: Workspace, window: Window, cursor: int) -> bytes:
        """Returns the snapshot event: the page of the window with the drafts and preferences of its user."""
        reader, keys = window.reader, window.keys
        more = not window.complete and next(listing.ranked(workspace, reader, window.pins, keys[-1]), None) is not None
        personal = self._pages.personal(workspace, reader.user)
        page = self._pages.render_page(workspace, reader, cursor, keys, more, personal)
        return encode_event(cursor, "snapshot", page)

    def encode_batch(self, update: WorkspaceUpdate, window: Window) -> list[bytes]:
        """Applies a batch to a window. Returns its frames."""
        frames = window.apply(update.changes, update.workspace)
        return self._encode(frames, window, update.workspace, update.before, update.after)

    def encode_missed(
        self, missed: MissedBatches, reader: Reader, limit: int, max_bytes: int
    ) -> tuple[list[bytes], int | None] | None:
        """Returns the frames that a reader missed, oldest first, and the cursor to continue at if there are more.

        Stops after the batch that exceeds `max_bytes`. Returns None if the reader names a frame that does not exist:
        send a snapshot.
        """
        workspace = missed.workspace
        window = Window(reader, limit, workspace)
        encoded: list[bytes] = []
        skip, size, cursor = missed.skip, 0, 0
        for batch in missed.batches:
            if size > max_bytes:
                return encoded, cursor
            changes = apply_changes_to_past(workspace, batch.changed[workspace.workspace_id])
            frames = self._encode(window.apply(changes, workspace), window, workspace, batch.before, batch.after)
            if skip and skip >= len(frames):
                return None
            encoded += frames[skip:]
            size += sum(map(len, frames))
            skip, cursor = 0, cursor_of(batch.after)
        return encoded, None

    def _encode(
        self, frames: list[Frame], window: Window, workspace: Workspace, before: int, after: int
    ) -> list[bytes]:
        counts = msgspec.json.encode(window.counts) if frames else b""
        encoded = []
        for number, frame in enumerate(frames, 1):
            # The id lies between two cursors, so a reader can resume after any frame (ops/decisions/0002).
            cursor = cursor_of(after) if number == len(frames) else cursor_of(before) + number
            encoded.append(encode_event(cursor, frame.event, self._data(frame, window.reader, workspace, counts)))
        assert len(frames) < 1 << CURSOR_BITS
        return encoded

    def _data(self, frame: Frame, reader: Reader, workspace: Workspace, counts: bytes) -> bytes:
        if frame.event in ("added", "changed"):
            return b'{"item":%b,"counts":%b}' % (self._pages.render_item(workspace, frame.key), counts)
        if frame.event == "removed":
            removed: dict[str, Any] = {"id": frame.key.decode(), "reason": frame.reason}
            if frame.action is not None:
                removed["resolved_action"] = frame.action
            return orjson.dumps(removed)[:-1] + b',"counts":%b}' % counts
        if frame.event == "activity":
            return orjson.dumps(self._pages.activity(workspace, reader))
        if frame.event == "drafts":
            return orjson.dumps(self._pages.drafts(workspace, reader.user))
        return orjson.dumps(self._pages.preferences(workspace, reader.user))
