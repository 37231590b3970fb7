"""Feed channel: one window, the streams that share it, and a ring of encoded frames for slow streams.

A batch costs one encoding per window, then one write per stream. A stream whose sink is not ready keeps the number of
its next chunk in the ring. If the ring must drop that chunk, the stream is disconnected; its client may resume.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from api import metrics
from api.live.connections import EncodedChunk, LiveStream, Sink
from api.readmodel.readers import Reader
from api.readmodel.window import Window

__all__ = ["ChannelKey", "FeedChannel", "FeedStream"]

ChannelKey = tuple[str, frozenset[str], int, str]  # workspace, roles, limit, user ("": all without personal rows)


class FeedChannel:
    """A window, its streams, and the frames that some of them have not received yet.

    `pending` holds the frames that were rendered but not sent, `pending_bytes` their size, `pending_since` the cursor
    before them. `ring` holds (cursor before, frames) for slow streams; `waiting_counts` says how many streams wait for
    each entry. `first_chunk` is the number of the first entry of the ring.
    """

    __slots__ = (
        "_ring_bytes", "first_chunk", "key", "pending", "pending_bytes", "pending_since", "ring", "streams",
        "waiting_counts", "window",
    )

    def __init__(self, key: ChannelKey, window: Window) -> None:
        self.key, self.window = key, window
        self.streams: set[FeedStream] = set()
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self.pending_since = 0
        self.ring: deque[tuple[int, EncodedChunk]] = deque()
        self.waiting_counts: deque[int] = deque()
        self.first_chunk = 0
        self._ring_bytes = 0

    def send_pending(self, max_ring_bytes: int) -> None:
        """Sends the pending frames to the streams that are ready. Keeps them in the ring for the others."""
        if not self.pending:
            return
        chunk = EncodedChunk(b"".join(self.pending))
        metrics.FRAMES.inc(len(self.pending))
        self.pending, self.pending_bytes = [], 0
        number = self.first_chunk + len(self.ring)
        slow_streams = 0
        for stream in self.streams:
            sink = stream.sink
            if sink.ready and stream.next_chunk is None:
                sink.write(chunk)
                continue
            if stream.next_chunk is None:
                stream.wait_for(number)
            slow_streams += 1
        metrics.SENT.inc((len(self.streams) - slow_streams) * len(chunk.raw))
        if slow_streams:
            self.ring.append((self.pending_since, chunk))
            self.waiting_counts.append(sum(stream.next_chunk == number for stream in self.streams))
            self._ring_bytes += len(chunk.raw)
            self._enforce_limit(max_ring_bytes)

    def _enforce_limit(self, max_ring_bytes: int) -> None:
        """Drops the oldest chunks above the limit, and disconnects the streams that waited for them."""
        while self._ring_bytes > max_ring_bytes and len(self.ring) > 1:
            self._drop_oldest()
        too_slow = [
            stream for stream in self.streams
            if stream.next_chunk is not None and stream.next_chunk < self.first_chunk
        ]
        for stream in too_slow:
            self.streams.discard(stream)
            stream.disconnect()
        self.trim()

    def _drop_oldest(self) -> None:
        self.waiting_counts.popleft()
        _, chunk = self.ring.popleft()
        self._ring_bytes -= len(chunk.raw)
        self.first_chunk += 1

    def trim(self) -> None:
        """Drops the oldest chunks that no stream waits for. A stream that waits for a chunk has all before it."""
        while self.ring and not self.waiting_counts[0]:
            self._drop_oldest()

    def set_next_chunk(self, stream: FeedStream, number: int | None) -> None:
        """Records that the stream now waits for this chunk of the ring, or for none."""
        for chunk, change in ((stream.next_chunk, -1), (number, 1)):
            if chunk is not None and chunk >= self.first_chunk:  # otherwise dropped, and the stream is disconnected
                self.waiting_counts[chunk - self.first_chunk] += change
        stream.wait_for(number)

    def remove(self, stream: FeedStream) -> None:
        """Removes the stream. The ring no longer keeps a chunk for it."""
        self.streams.discard(stream)
        if stream.next_chunk is not None and stream.next_chunk >= self.first_chunk:
            self.waiting_counts[stream.next_chunk - self.first_chunk] -= 1


class FeedOwner(Protocol):
    """What a feed stream needs of its hub (`api.live.feed_hub.FeedHub`)."""

    def continue_resume(self, stream: FeedStream) -> None: ...
    def heartbeat(self, workspace_id: str, now: int) -> EncodedChunk: ...
    def leave(self, stream: FeedStream) -> None: ...


class FeedStream(LiveStream):
    """One feed connection.

    `channel` None: the stream still resumes, from the cursor `resume_at`. `next_chunk`: number of the chunk in the
    channel's ring that it waits for; None: it has received all. `first_cursor` is the cursor of its first frame, and
    `opened_at` its number among the feeds of this edge (`api.live.resume_roles`).
    """

    __slots__ = ("channel", "first_cursor", "hub", "limit", "next_chunk", "opened_at", "reader", "resume_at")

    def __init__(self, hub: FeedOwner, reader: Reader, limit: int, sink: Sink) -> None:
        super().__init__(reader.workspace_id, reader.user, sink)
        self.hub, self.reader, self.limit = hub, reader, limit
        self.channel: FeedChannel | None = None
        self.resume_at = self.first_cursor = self.opened_at = 0
        self.next_chunk: int | None = None

    def attach(self, channel: FeedChannel) -> None:
        """Joins a channel, up to whose pending frames the stream has received everything."""
        channel.streams.add(self)
        self.channel, self.next_chunk = channel, None

    def detach(self, resume_at: int | None = None) -> None:
        """Leaves the channel. `resume_at`: the cursor from which the stream resumes once its sink is ready."""
        self.channel, self.next_chunk = None, None
        if resume_at is not None:
            self.resume_at = resume_at

    def wait_for(self, number: int | None) -> None:
        """Sets the chunk of the ring that the stream waits for. Only its channel calls this."""
        self.next_chunk = number

    def catch_up(self) -> None:
        channel = self.channel
        if channel is None:
            self.hub.continue_resume(self)
            return
        while self.next_chunk is not None and self.sink.ready:
            index = self.next_chunk - channel.first_chunk
            self.sink.write(channel.ring[index][1])
            channel.set_next_chunk(self, self.next_chunk + 1 if index + 1 < len(channel.ring) else None)
        channel.trim()

    def send_heartbeat(self, now: int) -> None:
        if self.channel is not None and self.next_chunk is None and self.sink.ready:
            self.sink.write(self.hub.heartbeat(self.workspace_id, now))

    def disconnect(self) -> None:
        self.detach()
        super().disconnect()

    def on_disconnect(self) -> None:
        self.hub.leave(self)
