"""The live feeds: windows shared by all who see the same, and the frames each connection has still to get.

A batch costs once per window, then one write per connection. A connection that can't take a frame keeps its place in
the window's ring of encoded frames; when the ring has to let go of that place, it is cut off and may resume.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from api import metrics
from api.live.connections import Outlet, Piece, Stream
from api.live.cursor_cache import Kept
from api.live.frames import Frames
from api.live.resume_roles import Given
from api.live.sse import heartbeat
from api.readmodel.pages import Answers
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica, Update
from api.readmodel.window import Window
from schemas.views import cursor_of

__all__ = ["Hub"]

# Snapshots and answers to resumes that are kept for others who ask the same at once, bytes and number.
_KEPT_BYTES, _KEPT = 8 << 20, 32
_Told = tuple[Piece | None, int | None]
_Name = tuple[str, frozenset[str], int, str]  # workspace, roles, limit, user ("": all who have nothing personal)


class _Channel:
    """A window, who follows it, and frames for those of them who lag."""

    __slots__ = ("_held", "first", "name", "pending", "ring", "start", "streams", "waiting", "waits", "window")

    def __init__(self, name: _Name, window: Window) -> None:
        self.name, self.window = name, window
        self.streams: set[_Feed] = set()
        self.pending: list[bytes] = []
        self.waiting = 0  # bytes of `pending`
        self.start = 0  # the cursor that `pending` leads on from
        self.ring: deque[tuple[int, Piece]] = deque()  # the cursor it leads on from, frames
        self.waits: deque[int] = deque()  # how many wait for each piece of the ring
        self.first = 0  # number of the ring's first piece
        self._held = 0

    def flush(self, room: int) -> None:
        """Hands the pending frames to everybody who can take them; keeps them, up to `room` bytes, for the others."""
        if not self.pending:
            return
        piece = Piece(b"".join(self.pending))
        metrics.FRAMES.inc(len(self.pending))
        self.pending, self.waiting = [], 0
        number = self.first + len(self.ring)
        lagging = 0
        for stream in self.streams:
            outlet = stream.outlet
            if outlet.ready and stream.lag is None:
                outlet.write(piece)
                continue
            if stream.lag is None:
                stream.lag = number
            lagging += 1
        metrics.SENT.inc((len(self.streams) - lagging) * len(piece.raw))
        if lagging:
            self.ring.append((self.start, piece))
            self.waits.append(sum(stream.lag == number for stream in self.streams))
            self._held += len(piece.raw)
            self._make_room(room)

    def _make_room(self, room: int) -> None:
        while self._held > room and len(self.ring) > 1:
            self._drop()
        for stream in [stream for stream in self.streams if stream.lag is not None and stream.lag < self.first]:
            self.streams.discard(stream)
            stream.cut()
        self.tidy()

    def _drop(self) -> None:
        self.waits.popleft()
        _, piece = self.ring.popleft()
        self._held -= len(piece.raw)
        self.first += 1

    def tidy(self) -> None:
        """Lets go of what nobody waits for any more: who waits for one piece has had all before it."""
        while self.ring and not self.waits[0]:
            self._drop()

    def go_on(self, stream: _Feed, lag: int | None) -> None:
        """The stream waits for this piece from now on, or for none."""
        for number, more in ((stream.lag, -1), (lag, 1)):
            if number is not None and number >= self.first:  # else it was let go of, and the stream is cut off
                self.waits[number - self.first] += more
        stream.lag = lag

    def part_with(self, stream: _Feed) -> None:
        """The stream is no longer of this channel, though it may still have a place in it."""
        self.streams.discard(stream)
        if stream.lag is not None and stream.lag >= self.first:
            self.waits[stream.lag - self.first] -= 1


class _Feed(Stream):
    """`channel` None: it still gets what it missed, from `rest` on. `lag`: the number of the piece it waits for."""

    __slots__ = ("began", "channel", "first", "hub", "lag", "limit", "reader", "rest")

    def __init__(self, hub: Hub, reader: Reader, limit: int, outlet: Outlet) -> None:
        super().__init__(reader.ws, reader.user, outlet)
        self.hub, self.reader, self.limit = hub, reader, limit
        self.channel: _Channel | None = None
        self.rest = self.first = self.began = 0  # cursors, and which feed it is
        self.lag: int | None = None

    def catch_up(self) -> None:
        channel = self.channel
        if channel is None:
            self.hub.go_on(self)
            return
        while self.lag is not None and self.outlet.ready:
            at = self.lag - channel.first
            self.outlet.write(channel.ring[at][1])
            channel.go_on(self, self.lag + 1 if at + 1 < len(channel.ring) else None)
        channel.tidy()

    def beat(self, now: int) -> None:
        if self.channel is not None and self.lag is None and self.outlet.ready:
            self.outlet.write(self.hub.heartbeat(self.ws, now))

    def cut(self) -> None:
        self.channel = None
        super().cut()

    def leave(self) -> None:
        self.hub.leave(self)


class Hub:
    """The feeds of one edge. `room`: bytes kept for those who lag, and given at once to one who resumes."""

    def __init__(self, replica: Replica, answers: Answers, room: int) -> None:
        self._replica, self._answers, self._room = replica, answers, room
        self._frames = Frames(answers)
        self._given = Given()
        self._channels: dict[str, dict[_Name, _Channel]] = {}
        self._dirty: set[_Channel] = set()
        self._snapshots: Kept[_Name, Piece] = Kept(_KEPT, _KEPT_BYTES)
        self._told: Kept[tuple[str, frozenset[str], int, int], _Told | None] = Kept(_KEPT, _KEPT_BYTES)
        self._heartbeat: tuple[int, int, Piece] = (-1, -1, Piece(b""))

    def open(self, reader: Reader, limit: int, cursor: int | None, outlet: Outlet) -> Stream:
        """A connection's feed: a snapshot, or what it missed since `cursor`, and from then on every frame."""
        stream = _Feed(self, reader, limit, outlet)
        fits = cursor is None or self._given.fits(reader, cursor)
        stream.began = self._given.begin(reader, None if fits else cursor)
        resumed = cursor is not None and fits and self._resume(stream, cursor)
        stream.first = cursor if cursor is not None and resumed else self._replica.cursor(reader.ws)
        if cursor is not None:
            metrics.RESUMED.labels("frames" if resumed else "snapshot").inc()
        if not resumed:
            stream.outlet.write(self._snapshot(self._join(stream), stream))
        return stream

    def go_on(self, stream: _Feed) -> None:
        """Another piece of what a reader missed; if it is no longer held, the reader is cut off."""
        if not self._resume(stream, stream.rest):
            stream.cut()

    def leave(self, stream: _Feed) -> None:
        self._given.end(stream.reader, stream.began, stream.first, self._replica.cursor(stream.ws))
        channel, stream.channel = stream.channel, None
        if channel is not None:
            channel.part_with(stream)
            channel.tidy()
            self._close_if_empty(channel)

    def heartbeat(self, ws: str, now: int) -> Piece:
        cursor = self._replica.cursor(ws)
        if self._heartbeat[:2] != (cursor, now):
            self._heartbeat = (cursor, now, Piece(heartbeat(cursor, now)))
        return self._heartbeat[2]

    def publish(self, updates: Iterable[Update]) -> None:
        """Makes the frames of a batch that the replica has just applied. They go out with `flush`, which comes before
        anything else may happen."""
        for update in updates:
            channels = self._channels.get(update.space.name)
            if not channels:
                continue
            self._part(channels, update)
            for channel in list(channels.values()):
                if not channel.streams:  # all of them have windows of their own now
                    self._close_if_empty(channel)
                    continue
                frames = self._frames.of(update, channel.window)
                if frames:
                    channel.start = channel.start if channel.pending else cursor_of(update.before)
                    channel.pending += frames
                    self._dirty.add(channel)
                    channel.waiting += sum(map(len, frames))
                    if channel.waiting > self._room:  # a poll may bring many batches of large items
                        channel.flush(self._room)

    def flush(self) -> None:
        for channel in self._dirty:
            channel.flush(self._room)
            self._close_if_empty(channel)
        self._dirty.clear()

    # --- opening ---

    def _snapshot(self, channel: _Channel, stream: _Feed) -> Piece:
        cursor = self._replica.cursor(stream.ws)
        known = self._snapshots.get(channel.name, cursor)
        if known is None:
            known = Piece(self._frames.snapshot(self._replica.space(stream.ws), channel.window, cursor))
            self._snapshots.put(channel.name, cursor, known, len(known.raw))
        return known

    def _resume(self, stream: _Feed, cursor: int) -> bool:
        told = self._missed(stream, cursor)
        if told is None:
            return False
        piece, rest = told
        if rest is None:
            self._join(stream)
        else:
            stream.rest = rest
        if piece is not None:
            stream.outlet.write(piece)
        if rest is not None and stream.outlet.ready:
            self.go_on(stream)
        return True

    def _missed(self, stream: _Feed, cursor: int) -> _Told | None:
        """Frames a reader missed, and the cursor to go on from. When an edge comes back, all who look at the same ask
        for the same: it is made once."""
        reader, ws = stream.reader, stream.ws
        space = self._replica.space(ws)
        if space.is_personal(reader.user, self._answers.types) or self._replica.touched(ws, cursor, reader.user):
            return self._tell(reader, stream.limit, cursor)
        name, now = (ws, reader.roles, stream.limit, cursor), self._replica.cursor(ws)
        if (name, now) in self._told:
            return self._told.get(name, now)
        told = self._tell(Reader(ws, "", reader.roles), stream.limit, cursor)
        self._told.put(name, now, told, len(told[0].raw) if told is not None and told[0] is not None else 0)
        return told

    def _tell(self, reader: Reader, limit: int, cursor: int) -> _Told | None:
        missed = self._replica.since(reader.ws, cursor)
        told = self._frames.missed(missed, reader, limit, self._room) if missed is not None else None
        if told is None:
            return None
        frames, rest = told
        return (Piece(b"".join(frames)) if frames else None), rest

    def _join(self, stream: _Feed) -> _Channel:
        reader, space = stream.reader, self._replica.space(stream.ws)
        user = reader.user if space.is_personal(reader.user, self._answers.types) else ""
        channel = self._channel(reader, stream.limit, user)
        if channel is None:
            window = Window(Reader(reader.ws, user, reader.roles), stream.limit, space)
            channel = self._open(reader, stream.limit, user, window)
        channel.streams.add(stream)
        stream.channel, stream.lag = channel, None
        return channel

    # --- channels ---

    def _channel(self, reader: Reader, limit: int, user: str) -> _Channel | None:
        return self._channels.get(reader.ws, {}).get((reader.ws, reader.roles, limit, user))

    def _open(self, reader: Reader, limit: int, user: str, window: Window) -> _Channel:
        channel = _Channel((reader.ws, reader.roles, limit, user), window)
        self._channels.setdefault(reader.ws, {})[channel.name] = channel
        metrics.WINDOWS.inc()
        return channel

    def _close_if_empty(self, channel: _Channel) -> None:
        channels = self._channels.get(channel.name[0], {})
        if not channel.streams and channels.pop(channel.name, None) is not None:
            metrics.WINDOWS.dec()
            if not channels:
                del self._channels[channel.name[0]]

    def _part(self, channels: dict[_Name, _Channel], update: Update) -> None:
        """Those for whom something personal begins with this batch get windows of their own, as it was before it."""
        users = update.changes.users()
        shared = [channel for channel in channels.values() if not channel.name[3]] if users else []
        for channel in shared:
            for stream in [stream for stream in channel.streams if stream.user in users]:
                channel.flush(self._room)
                if stream.channel is channel:  # not cut off just now
                    self._move(stream, channel)
            channel.tidy()

    def _move(self, stream: _Feed, channel: _Channel) -> None:
        channel.part_with(stream)
        stream.channel = None
        if stream.lag is not None:
            # It goes on from where it is, by itself, once it has taken what it was given.
            stream.rest = channel.ring[stream.lag - channel.first][0]
            return
        own = self._channel(stream.reader, stream.limit, stream.user)
        if own is None:
            own = self._open(stream.reader, stream.limit, stream.user, channel.window.for_user(stream.user))
        own.flush(self._room)
        own.streams.add(stream)
        stream.channel = own
