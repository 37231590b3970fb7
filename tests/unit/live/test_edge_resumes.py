"""Readers that resume get exactly the missed frames, also when many readers share one encoded answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.clients.feed import frames
from support.edge.edges import settings as edge_settings
from support.edge.random_rows import USERS, World
from support.examples import law

from api.edge.services import Edge
from api.live.connections import EncodedChunk
from api.readmodel.readers import Reader
from schemas.views import PreferencesRow, encode_row
from streams.core.domain.keys import preferences_key

READERS = [
    Reader("w1", user, frozenset({role})) for role in ("OWNER", "MEMBER") for user in (*USERS, "dan", "eve", "fay")
]


class Sink:
    """An outlet that accepts all bytes."""

    def __init__(self) -> None:
        self.ready, self.on_ready, self.blocks = True, lambda: None, list[bytes]()

    def write(self, piece: EncodedChunk) -> None:
        self.blocks += [block for block in piece.raw.split(b"\n\n") if block]

    def end(self) -> None:
        raise AssertionError("a stream was cut off")

    abort = end


@law(40)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([1 << 20, 1 << 14]))
def test_all_resuming_readers_get_the_missed_frames(seed: int, loaded: bool, room: int) -> None:
    world = World(seed)
    live, other = Edge(edge_settings()), Edge(edge_settings(stream_buffer=room))
    sinks = [Sink() for _ in READERS]
    for reader, sink in zip(READERS, sinks, strict=True):
        live.feed_hub.open(reader, 3, None, sink)
    for rows, position in world.batches(12):
        for edge in (live, other):
            edge.apply_batch(0, rows, position)
            edge.publish()
            if not loaded:
                edge.replica.workspace("w1")
    made = count_made(other)
    resumes = 0
    for number in range(0, 40, 3):
        for reader, sink in zip(READERS, sinks, strict=True):
            if number >= len(sink.blocks):
                continue
            resumed, [(cursor, _, _)] = Sink(), frames(sink.blocks[number] + b"\n\n")
            other.feed_hub.open(reader, 3, cursor, resumed)
            assert resumed.blocks == sink.blocks[number + 1:], (reader, number)
            resumes += 1
    assert len(made) < resumes, "some readers shared an encoded answer"


def count_made(edge: Edge) -> list[object]:
    made: list[object] = []
    encode = edge.feed_hub._encode_resume

    def counted(*arguments: object) -> object:
        made.append(arguments)
        return encode(*arguments)  # type: ignore[arg-type]

    edge.feed_hub._encode_resume = counted  # type: ignore[method-assign, assignment]
    return made


def test_personal_rows_that_existed_for_a_while_are_not_in_the_frames_of_others() -> None:
    """Pins existed between two positions and were deleted before the resume; the frames between these positions still
    have them."""
    world, live, other = World(5), Edge(edge_settings()), Edge(edge_settings())
    key, rows = preferences_key("w1", "dan"), [world.batch(12)[0] for _ in range(4)]
    pins = encode_row(PreferencesRow("w1", "dan", ["c1"]))
    sinks = {user: Sink() for user in ("dan", "eve")}
    for number, batch in enumerate([rows[0], [(key, pins)], rows[1], [(key, None)], rows[2]]):
        for edge in (live, other):
            edge.apply_batch(0, batch, type(world.position)(number + 1))
            edge.publish()
        if number == 0:
            for user, sink in sinks.items():
                live.feed_hub.open(Reader("w1", user, frozenset({"OWNER"})), 3, None, sink)
    for user in ("eve", "dan"):
        resumed, [(cursor, _, _)] = Sink(), frames(sinks[user].blocks[0] + b"\n\n")
        other.feed_hub.open(Reader("w1", user, frozenset({"OWNER"})), 3, cursor, resumed)
        assert resumed.blocks == sinks[user].blocks[1:]
    assert any(b"event: preferences" in block for block in sinks["dan"].blocks)
