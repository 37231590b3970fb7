"""The live feeds: windows shared by all who see the same, and the frames each connection has still to get.

A batch costs once per window, then one write per connection. A connection that can't take a frame keeps its place in
the window's ring of encoded frames; when the ring has to let go of that place, it is cut off and may resume.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from api import metrics
from api.live.connections import EncodedChunk, LiveStream, Sink
from api.live.cursor_cache import CursorCache
from api.live.frames import FrameEncoder
from api.live.resume_roles import ResumeRoles
from api.live.sse import encode_heartbeat
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica, WorkspaceUpdate
from api.readmodel.window import Window
from schemas.views import cursor_of

__all__ = ["FeedHub"]

# Snapshots and answers to resumes that are kept for others who ask the same at once, bytes and number.
_KEPT_BYTES, _KEPT = 8 << 20, 32
ResumeResponse = tuple[EncodedChunk | None, int | None]
ChannelKey = tuple[str, frozenset[str], int, str]  # workspace, roles, limit, user ("": all who have nothing personal)


class FeedChannel:
    """A window, who follows it, and frames for those of them who lag."""

    __slots__ = (
        "_ring_bytes", "first_chunk", "name", "pending", "pending_bytes", "pending_since", "ring", "streams",
        "waiting_counts", "window",
    )

    def __init__(self, name: ChannelKey, window: Window) -> None:
        self.name, self.window = name, window
        self.streams: set[FeedStream] = set()
        self.pending: list[bytes] = []
        self.pending_bytes = 0  # bytes of `pending`
        self.pending_since = 0  # the cursor that `pending` leads on from
        self.ring: deque[tuple[int, EncodedChunk]] = deque()  # the cursor it leads on from, frames
        self.waiting_counts: deque[int] = deque()  # how many wait for each piece of the ring
        self.first_chunk = 0  # number of the ring's first piece
        self._ring_bytes = 0

    def send_pending(self, room: int) -> None:
        """Hands the pending frames to everybody who can take them; keeps them, up to `room` bytes, for the others."""
        if not self.pending:
            return
        piece = EncodedChunk(b"".join(self.pending))
        metrics.FRAMES.inc(len(self.pending))
        self.pending, self.pending_bytes = [], 0
        number = self.first_chunk + len(self.ring)
        lagging = 0
        for stream in self.streams:
            outlet = stream.sink
            if outlet.ready and stream.next_chunk is None:
                outlet.write(piece)
                continue
            if stream.next_chunk is None:
                stream.next_chunk = number
            lagging += 1
        metrics.SENT.inc((len(self.streams) - lagging) * len(piece.raw))
        if lagging:
            self.ring.append((self.pending_since, piece))
            self.waiting_counts.append(sum(stream.next_chunk == number for stream in self.streams))
            self._ring_bytes += len(piece.raw)
            self._enforce_limit(room)

    def _enforce_limit(self, room: int) -> None:
        while self._ring_bytes > room and len(self.ring) > 1:
            self._drop_oldest()
        evicted = [
            stream for stream in self.streams
            if stream.next_chunk is not None and stream.next_chunk < self.first_chunk
        ]
        for stream in evicted:
            self.streams.discard(stream)
            stream.disconnect()
        self.trim()

    def _drop_oldest(self) -> None:
        self.waiting_counts.popleft()
        _, piece = self.ring.popleft()
        self._ring_bytes -= len(piece.raw)
        self.first_chunk += 1

    def trim(self) -> None:
        """Lets go of what nobody waits for any more: who waits for one piece has had all before it."""
        while self.ring and not self.waiting_counts[0]:
            self._drop_oldest()

    def set_next_chunk(self, stream: FeedStream, lag: int | None) -> None:
        """The stream waits for this piece from now on, or for none."""
        for number, more in ((stream.next_chunk, -1), (lag, 1)):
            if number is not None and number >= self.first_chunk:  # else it was let go of, and the stream is cut off
                self.waiting_counts[number - self.first_chunk] += more
        stream.next_chunk = lag

    def remove(self, stream: FeedStream) -> None:
        """The stream is no longer of this channel, though it may still have a place in it."""
        self.streams.discard(stream)
        if stream.next_chunk is not None and stream.next_chunk >= self.first_chunk:
            self.waiting_counts[stream.next_chunk - self.first_chunk] -= 1


class FeedStream(LiveStream):
    """`channel` None: it still gets what it missed, from `rest` on. `lag`: the number of the piece it waits for."""

    __slots__ = ("channel", "first_cursor", "hub", "limit", "next_chunk", "opened_at", "reader", "resume_from")

    def __init__(self, hub: FeedHub, reader: Reader, limit: int, outlet: Sink) -> None:
        super().__init__(reader.workspace_id, reader.user, outlet)
        self.hub, self.reader, self.limit = hub, reader, limit
        self.channel: FeedChannel | None = None
        self.resume_from = self.first_cursor = self.opened_at = 0  # cursors, and which feed it is
        self.next_chunk: int | None = None

    def catch_up(self) -> None:
        channel = self.channel
        if channel is None:
            self.hub.continue_resume(self)
            return
        while self.next_chunk is not None and self.sink.ready:
            at = self.next_chunk - channel.first_chunk
            self.sink.write(channel.ring[at][1])
            channel.set_next_chunk(self, self.next_chunk + 1 if at + 1 < len(channel.ring) else None)
        channel.trim()

    def send_heartbeat(self, now: int) -> None:
        if self.channel is not None and self.next_chunk is None and self.sink.ready:
            self.sink.write(self.hub.heartbeat(self.workspace_id, now))

    def disconnect(self) -> None:
        self.channel = None
        super().disconnect()

    def on_disconnect(self) -> None:
        self.hub.leave(self)


class FeedHub:
    """The feeds of one edge. `room`: bytes kept for those who lag, and given at once to one who resumes."""

    def __init__(self, replica: Replica, answers: PageRenderer, room: int) -> None:
        self._replica, self._pages, self._room = replica, answers, room
        self._frames = FrameEncoder(answers)
        self._resume_roles = ResumeRoles()
        self._channels: dict[str, dict[ChannelKey, FeedChannel]] = {}
        self._dirty: set[FeedChannel] = set()
        self._snapshots: CursorCache[ChannelKey, EncodedChunk] = CursorCache(_KEPT, _KEPT_BYTES)
        self._resume_responses: CursorCache[tuple[str, frozenset[str], int, int], ResumeResponse | None] = CursorCache(
            _KEPT, _KEPT_BYTES)
        self._heartbeat: tuple[int, int, EncodedChunk] = (-1, -1, EncodedChunk(b""))

    def open(self, reader: Reader, limit: int, cursor: int | None, outlet: Sink) -> LiveStream:
        """A connection's feed: a snapshot, or what it missed since `cursor`, and from then on every frame."""
        stream = FeedStream(self, reader, limit, outlet)
        fits = cursor is None or self._resume_roles.allows_resume(reader, cursor)
        stream.opened_at = self._resume_roles.begin(reader, None if fits else cursor)
        resumed = cursor is not None and fits and self._resume(stream, cursor)
        stream.first_cursor = cursor if cursor is not None and resumed else self._replica.cursor(reader.workspace_id)
        if cursor is not None:
            metrics.RESUMED.labels("frames" if resumed else "snapshot").inc()
        if not resumed:
            stream.sink.write(self._snapshot(self._join(stream), stream))
        return stream

    def continue_resume(self, stream: FeedStream) -> None:
        """Another piece of what a reader missed; if it is no longer held, the reader is cut off."""
        if not self._resume(stream, stream.resume_from):
            stream.disconnect()

    def leave(self, stream: FeedStream) -> None:
        last_cursor = self._replica.cursor(stream.workspace_id)
        self._resume_roles.end(stream.reader, stream.opened_at, stream.first_cursor, last_cursor)
        channel, stream.channel = stream.channel, None
        if channel is not None:
            channel.remove(stream)
            channel.trim()
            self._close_if_empty(channel)

    def heartbeat(self, ws: str, now: int) -> EncodedChunk:
        cursor = self._replica.cursor(ws)
        if self._heartbeat[:2] != (cursor, now):
            self._heartbeat = (cursor, now, EncodedChunk(encode_heartbeat(cursor, now)))
        return self._heartbeat[2]

    def render(self, updates: Iterable[WorkspaceUpdate]) -> None:
        """Makes the frames of a batch that the replica has just applied. They go out with `flush`, which comes before
        anything else may happen."""
        for update in updates:
            channels = self._channels.get(update.workspace.workspace_id)
            if not channels:
                continue
            self._split_shared_windows(channels, update)
            for channel in list(channels.values()):
                if not channel.streams:  # all of them have windows of their own now
                    self._close_if_empty(channel)
                    continue
                frames = self._frames.encode_batch(update, channel.window)
                if frames:
                    channel.pending_since = channel.pending_since if channel.pending else cursor_of(update.before)
                    channel.pending += frames
                    self._dirty.add(channel)
                    channel.pending_bytes += sum(map(len, frames))
                    if channel.pending_bytes > self._room:  # a poll may bring many batches of large items
                        channel.send_pending(self._room)

    def send(self) -> None:
        for channel in self._dirty:
            channel.send_pending(self._room)
            self._close_if_empty(channel)
        self._dirty.clear()

    # --- opening ---

    def _snapshot(self, channel: FeedChannel, stream: FeedStream) -> EncodedChunk:
        cursor = self._replica.cursor(stream.workspace_id)
        known = self._snapshots.get(channel.name, cursor)
        if known is None:
            workspace = self._replica.workspace(stream.workspace_id)
            known = EncodedChunk(self._frames.encode_snapshot(workspace, channel.window, cursor))
            self._snapshots.put(channel.name, cursor, known, len(known.raw))
        return known

    def _resume(self, stream: FeedStream, cursor: int) -> bool:
        told = self._resume_response(stream, cursor)
        if told is None:
            return False
        piece, rest = told
        if rest is None:
            self._join(stream)
        else:
            stream.resume_from = rest
        if piece is not None:
            stream.sink.write(piece)
        if rest is not None and stream.sink.ready:
            self.continue_resume(stream)
        return True

    def _resume_response(self, stream: FeedStream, cursor: int) -> ResumeResponse | None:
        """Frames a reader missed, and the cursor to go on from. When an edge comes back, all who look at the same ask
        for the same: it is made once."""
        reader, ws = stream.reader, stream.workspace_id
        space = self._replica.workspace(ws)
        if (space.has_personal_rows(reader.user, self._pages.activity_types)
                or self._replica.has_personal_change(ws, cursor, reader.user)):
            return self._encode_resume(reader, stream.limit, cursor)
        name, now = (ws, reader.roles, stream.limit, cursor), self._replica.cursor(ws)
        if (name, now) in self._resume_responses:
            return self._resume_responses.get(name, now)
        told = self._encode_resume(Reader(ws, "", reader.roles), stream.limit, cursor)
        self._resume_responses.put(name, now, told, len(told[0].raw) if told is not None and told[0] is not None else 0)
        return told

    def _encode_resume(self, reader: Reader, limit: int, cursor: int) -> ResumeResponse | None:
        missed = self._replica.missed_since(reader.workspace_id, cursor)
        told = self._frames.encode_missed(missed, reader, limit, self._room) if missed is not None else None
        if told is None:
            return None
        frames, rest = told
        return (EncodedChunk(b"".join(frames)) if frames else None), rest

    def _join(self, stream: FeedStream) -> FeedChannel:
        reader, space = stream.reader, self._replica.workspace(stream.workspace_id)
        user = reader.user if space.has_personal_rows(reader.user, self._pages.activity_types) else ""
        channel = self._channel(reader, stream.limit, user)
        if channel is None:
            window = Window(Reader(reader.workspace_id, user, reader.roles), stream.limit, space)
            channel = self._open(reader, stream.limit, user, window)
        channel.streams.add(stream)
        stream.channel, stream.next_chunk = channel, None
        return channel

    # --- channels ---

    def _channel(self, reader: Reader, limit: int, user: str) -> FeedChannel | None:
        return self._channels.get(reader.workspace_id, {}).get((reader.workspace_id, reader.roles, limit, user))

    def _open(self, reader: Reader, limit: int, user: str, window: Window) -> FeedChannel:
        channel = FeedChannel((reader.workspace_id, reader.roles, limit, user), window)
        self._channels.setdefault(reader.workspace_id, {})[channel.name] = channel
        metrics.WINDOWS.inc()
        return channel

    def _close_if_empty(self, channel: FeedChannel) -> None:
        channels = self._channels.get(channel.name[0], {})
        if not channel.streams and channels.pop(channel.name, None) is not None:
            metrics.WINDOWS.dec()
            if not channels:
                del self._channels[channel.name[0]]

    def _split_shared_windows(self, channels: dict[ChannelKey, FeedChannel], update: WorkspaceUpdate) -> None:
        """Those for whom something personal begins with this batch get windows of their own, as it was before it."""
        users = update.changes.affected_users()
        shared = [channel for channel in channels.values() if not channel.name[3]] if users else []
        for channel in shared:
            for stream in [stream for stream in channel.streams if stream.user in users]:
                channel.send_pending(self._room)
                if stream.channel is channel:  # not cut off just now
                    self._move_to_own_window(stream, channel)
            channel.trim()

    def _move_to_own_window(self, stream: FeedStream, channel: FeedChannel) -> None:
        channel.remove(stream)
        stream.channel = None
        if stream.next_chunk is not None:
            # It goes on from where it is, by itself, once it has taken what it was given.
            stream.resume_from = channel.ring[stream.next_chunk - channel.first_chunk][0]
            return
        own = self._channel(stream.reader, stream.limit, stream.user)
        if own is None:
            own = self._open(stream.reader, stream.limit, stream.user, channel.window.fork_for(stream.user))
        own.send_pending(self._room)
        own.streams.add(stream)
        stream.channel = own
