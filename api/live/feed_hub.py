"""Feed hub: fan-out of the live feeds of one edge. Readers who see the same items share a window (a channel).

A new feed begins with a snapshot, or with the frames after the cursor that its client names (resume). Then it gets the
frames of each batch. A resume is encoded in parts, each as large as one stream may buffer.
"""

from __future__ import annotations

from collections.abc import Iterable

from api import metrics
from api.live.connections import EncodedChunk, LiveStream, Sink
from api.live.cursor_cache import CursorCache
from api.live.feed_channel import ChannelKey, FeedChannel, FeedStream
from api.live.frames import FrameEncoder
from api.live.resume_roles import ResumeRoles
from api.live.sse import encode_heartbeat
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica, WorkspaceUpdate
from api.readmodel.window import Window
from schemas.views import cursor_of

__all__ = ["FeedHub"]

# Snapshots and resume responses that are cached for other streams which request the same: bytes and number of each.
_CACHE_BYTES, _CACHE_ENTRIES = 8 << 20, 32
ResumeResponse = tuple[EncodedChunk | None, int | None]  # frames, and the cursor to resume at later


class FeedHub:
    """The feeds of one edge. `max_bytes`: size of the ring of a channel, and of one part of a resume."""

    def __init__(self, replica: Replica, pages: PageRenderer, max_bytes: int) -> None:
        self._replica, self._pages, self._max_bytes = replica, pages, max_bytes
        self._frames = FrameEncoder(pages)
        self._resume_roles = ResumeRoles()
        self._channels: dict[str, dict[ChannelKey, FeedChannel]] = {}
        self._dirty: set[FeedChannel] = set()
        self._snapshots: CursorCache[ChannelKey, EncodedChunk] = CursorCache(_CACHE_ENTRIES, _CACHE_BYTES)
        self._resume_responses: CursorCache[tuple[str, frozenset[str], int, int], ResumeResponse | None] = CursorCache(
            _CACHE_ENTRIES, _CACHE_BYTES)
        self._heartbeat: tuple[int, int, EncodedChunk] = (-1, -1, EncodedChunk(b""))

    def open(self, reader: Reader, limit: int, cursor: int | None, sink: Sink) -> LiveStream:
        """Opens a feed: a snapshot, or the frames after `cursor`, then every further frame."""
        assert not self._dirty, "a feed opens before the frames of the last batch were sent"
        stream = FeedStream(self, reader, limit, sink)
        may_resume = cursor is None or self._resume_roles.allows_resume(reader, cursor)
        stream.opened_at = self._resume_roles.begin(reader, None if may_resume else cursor)
        resumed = cursor is not None and may_resume and self._resume(stream, cursor)
        stream.first_cursor = cursor if cursor is not None and resumed else self._replica.cursor(reader.workspace_id)
        if cursor is not None:
            metrics.RESUMED.labels("frames" if resumed else "snapshot").inc()
        if not resumed:
            stream.sink.write(self._snapshot(self._join(stream), stream))
        return stream

    def continue_resume(self, stream: FeedStream) -> None:
        """Sends the next part of a resume. Disconnects the stream if the batches after its cursor were dropped."""
        if not self._resume(stream, stream.resume_at):
            stream.disconnect()

    def leave(self, stream: FeedStream) -> None:
        """Removes a stream whose connection has ended."""
        last_cursor = self._replica.cursor(stream.workspace_id)
        self._resume_roles.end(stream.reader, stream.opened_at, stream.first_cursor, last_cursor)
        channel = stream.channel
        if channel is not None:
            channel.remove(stream)
            stream.detach()
            channel.trim()
            self._close_if_empty(channel)

    def heartbeat(self, workspace_id: str, now: int) -> EncodedChunk:
        """Returns the heartbeat frame of a workspace. `now` in microseconds."""
        cursor = self._replica.cursor(workspace_id)
        if self._heartbeat[:2] != (cursor, now):
            self._heartbeat = (cursor, now, EncodedChunk(encode_heartbeat(cursor, now)))
        return self._heartbeat[2]

    def render(self, updates: Iterable[WorkspaceUpdate]) -> None:
        """Renders the frames of a batch that the replica has just applied. `send` must follow (`Edge.publishing`)."""
        for update in updates:
            channels = self._channels.get(update.workspace.workspace_id)
            if not channels:
                continue
            self._split_shared_windows(channels, update)
            for channel in list(channels.values()):
                if not channel.streams:  # all streams moved to windows of their own
                    self._close_if_empty(channel)
                    continue
                frames = self._frames.encode_batch(update, channel.window)
                if frames:
                    channel.pending_since = channel.pending_since if channel.pending else cursor_of(update.before)
                    channel.pending += frames
                    self._dirty.add(channel)
                    channel.pending_bytes += sum(map(len, frames))
                    if channel.pending_bytes > self._max_bytes:  # a poll may hold many batches with large items
                        channel.send_pending(self._max_bytes)

    def send(self) -> None:
        """Sends the frames that `render` has left pending."""
        for channel in self._dirty:
            channel.send_pending(self._max_bytes)
            self._close_if_empty(channel)
        self._dirty.clear()

    # --- opening ---

    def _snapshot(self, channel: FeedChannel, stream: FeedStream) -> EncodedChunk:
        cursor = self._replica.cursor(stream.workspace_id)
        snapshot = self._snapshots.get(channel.key, cursor)
        if snapshot is None:
            workspace = self._replica.workspace(stream.workspace_id)
            snapshot = EncodedChunk(self._frames.encode_snapshot(workspace, channel.window, cursor))
            self._snapshots.put(channel.key, cursor, snapshot, len(snapshot.raw))
        return snapshot

    def _resume(self, stream: FeedStream, cursor: int) -> bool:
        """Sends the frames after a cursor. Returns False if only a snapshot helps."""
        response = self._resume_response(stream, cursor)
        if response is None:
            return False
        chunk, resume_at = response
        if resume_at is None:
            self._join(stream)
        else:
            stream.detach(resume_at)
        if chunk is not None:
            stream.sink.write(chunk)
        if resume_at is not None and stream.sink.ready:
            self.continue_resume(stream)
        return True

    def _resume_response(self, stream: FeedStream, cursor: int) -> ResumeResponse | None:
        """Returns the frames after a cursor, and the cursor to resume at if there are more. None: send a snapshot.

        When an edge restarts, all readers of the same window resume at the same cursor. The response for readers
        without personal rows is therefore encoded once and cached.
        """
        reader, workspace_id = stream.reader, stream.workspace_id
        workspace = self._replica.workspace(workspace_id)
        if (workspace.has_personal_rows(reader.user, self._pages.activity_types)
                or self._replica.has_personal_change(workspace_id, cursor, reader.user)):
            return self._encode_resume(reader, stream.limit, cursor)
        name = (workspace_id, reader.roles, stream.limit, cursor)
        now = self._replica.cursor(workspace_id)
        if (name, now) in self._resume_responses:
            return self._resume_responses.get(name, now)
        response = self._encode_resume(Reader(workspace_id, "", reader.roles), stream.limit, cursor)
        size = len(response[0].raw) if response is not None and response[0] is not None else 0
        self._resume_responses.put(name, now, response, size)
        return response

    def _encode_resume(self, reader: Reader, limit: int, cursor: int) -> ResumeResponse | None:
        missed = self._replica.missed_since(reader.workspace_id, cursor)
        encoded = self._frames.encode_missed(missed, reader, limit, self._max_bytes) if missed is not None else None
        if encoded is None:
            return None
        frames, resume_at = encoded
        return (EncodedChunk(b"".join(frames)) if frames else None), resume_at

    def _join(self, stream: FeedStream) -> FeedChannel:
        reader, workspace = stream.reader, self._replica.workspace(stream.workspace_id)
        user = reader.user if workspace.has_personal_rows(reader.user, self._pages.activity_types) else ""
        channel = self._channel(reader, stream.limit, user)
        if channel is None:
            window = Window(Reader(reader.workspace_id, user, reader.roles), stream.limit, workspace)
            channel = self._open(reader, stream.limit, user, window)
        stream.attach(channel)
        return channel

    # --- channels ---

    def stream_count(self, workspace_id: str) -> int:
        """Returns the number of open feeds of a workspace that are up to date."""
        return sum(len(channel.streams) for channel in self._channels.get(workspace_id, {}).values())

    def _channel(self, reader: Reader, limit: int, user: str) -> FeedChannel | None:
        return self._channels.get(reader.workspace_id, {}).get((reader.workspace_id, reader.roles, limit, user))

    def _open(self, reader: Reader, limit: int, user: str, window: Window) -> FeedChannel:
        channel = FeedChannel((reader.workspace_id, reader.roles, limit, user), window)
        self._channels.setdefault(reader.workspace_id, {})[channel.key] = channel
        metrics.WINDOWS.inc()
        return channel

    def _close_if_empty(self, channel: FeedChannel) -> None:
        channels = self._channels.get(channel.key[0], {})
        if not channel.streams and channels.pop(channel.key, None) is not None:
            metrics.WINDOWS.dec()
            if not channels:
                del self._channels[channel.key[0]]

    def _split_shared_windows(self, channels: dict[ChannelKey, FeedChannel], update: WorkspaceUpdate) -> None:
        """Gives a window of its own to each user whose view this batch makes personal. It begins as before it."""
        users = update.changes.affected_users()
        shared = [channel for channel in channels.values() if not channel.key[3]] if users else []
        for channel in shared:
            for stream in [stream for stream in channel.streams if stream.user in users]:
                channel.send_pending(self._max_bytes)
                if stream.channel is channel:  # otherwise it was too slow and is disconnected
                    self._move_to_own_window(stream, channel)
            channel.trim()

    def _move_to_own_window(self, stream: FeedStream, channel: FeedChannel) -> None:
        channel.remove(stream)
        if stream.next_chunk is not None:
            # The stream is slow. It resumes by itself, from the first frame that it has not received.
            stream.detach(resume_at=channel.ring[stream.next_chunk - channel.first_chunk][0])
            return
        own = self._channel(stream.reader, stream.limit, stream.user)
        if own is None:
            own = self._open(stream.reader, stream.limit, stream.user, channel.window.fork_for(stream.user))
        own.send_pending(self._max_bytes)
        stream.attach(own)
