"""Laws of the HTTP binding: values survive the encoding, limits hold for any input, and accepted events match the scope
of the key."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.examples import law
from support.fold.fold_driver import cloud_event

from api.intake.acceptance import AcceptedEvent, EventRefused, Gate
from api.intake.gzip_body import MAX_RATIO, GzipError, GzipReader, InflatedTooLarge
from api.intake.http_binding import MalformedRequest, SentEvent, UnsupportedMedia, binary_event, mode_of, split_batch
from schemas.topics import DECISION_REPORTS, SOURCE_TYPES
from schemas.views import SourceKeyRow
from streams.core.normalise import EventLimits, normalise
from streams.runtime.source_keys import covers_source

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8)


@law(200)
@given(TEXT, st.randoms(use_true_random=False))
def test_a_value_survives_any_legal_encoding(text: str, rng: random.Random) -> None:
    """Required characters are encoded, others optionally, with hex digits in either case."""
    def encoded(byte: int) -> str:
        return f"%{byte:02X}" if rng.random() < 0.5 else f"%{byte:02x}"

    value = "".join(
        char if "!" <= char <= "~" and char not in '"%' and rng.random() < 0.7 else "".join(map(encoded, char.encode()))
        for char in text)
    event = binary_event([(b"ce-x", value.encode())], b"")
    assert event.headers == [("ce_x", text.encode())]


@law(200)
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7e, exclude_characters="%"), max_size=40))
def test_a_quoted_value_is_unescaped(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert binary_event([(b"ce-x", quoted.encode())], b"").headers == [("ce_x", text.encode())]


@law(300)
@given(st.lists(st.tuples(st.binary(max_size=12).map(lambda name: b"ce-" + name.lower()), st.binary(max_size=30)),
                max_size=5), st.binary(max_size=50))
def test_any_headers_make_an_event_or_an_error(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        event = binary_event(headers, body)
    except MalformedRequest:
        return
    assert event.value == body
    for _, value in event.headers:
        value.decode()


@law(300)
@given(st.text(max_size=60), st.booleans())
def test_any_content_type_has_a_mode_or_is_unsupported(content_type: str, has_attributes: bool) -> None:
    with contextlib.suppress(UnsupportedMedia):
        assert mode_of(content_type, has_attributes) in ("structured", "batch", "binary")


@law(200)
@given(st.lists(JSON, max_size=6), st.integers(0, 3))
def test_a_batch_is_split_into_the_bytes_of_its_events(events: list[Any], indent: int) -> None:
    texts = [json.dumps(value, indent=indent or None).encode() for value in events]
    assert split_batch(b" [ " + b" , ".join(texts) + b" ] ", 6) == texts


@law(300)
@given(st.binary(max_size=200) | st.text(alphabet='[]{},:"\\u1d8 ', max_size=60).map(str.encode))
def test_any_bytes_are_a_batch_or_an_error(body: bytes) -> None:
    try:
        events = split_batch(body, 10)
    except MalformedRequest:
        return
    assert isinstance(json.loads(b"[" + b",".join(events) + b"]"), list)


PIECES = st.lists(st.integers(1, 5000), max_size=10)


def inflate(reader: GzipReader, data: bytes, pieces: list[int]) -> bytes:
    out, at = b"", 0
    for size in [*pieces, len(data)]:
        out += b"".join(reader.feed(data[at:at + size]))
        at += size
    reader.close()
    return out


@law(100)
@given(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), PIECES)
def test_gzip_in_any_pieces_gives_the_body(members: list[bytes], pieces: list[int]) -> None:
    packed = b"".join(map(gzip.compress, members))
    assert inflate(GzipReader(1 << 20), packed, pieces) == b"".join(members)


@law(100)
@given(st.binary(min_size=1, max_size=3000), PIECES, st.data())
def test_cut_or_changed_gzip_is_an_error_or_the_body(body: bytes, pieces: list[int], data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(body, mtime=0))
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(GzipError):
        inflate(GzipReader(1 << 20), bytes(packed[:cut]), pieces)
    packed[cut] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert inflate(GzipReader(1 << 20), bytes(packed), pieces) == body
    except (GzipError, InflatedTooLarge):
        pass


@law(30)
@given(st.integers(1, 40), st.integers(1, 1 << 22))
def test_no_piece_passes_a_limit(megabytes: int, limit: int) -> None:
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(megabytes)) + deflate.flush()
    reader, out = GzipReader(limit), 0
    try:
        for piece in reader.feed(bomb):
            out += len(piece)
        reader.close()
        assert out == megabytes << 20 <= limit
    except InflatedTooLarge:
        assert out <= limit
        assert out <= max(MAX_RATIO * len(bomb), 1 << 20)


KEYS = st.builds(
    SourceKeyRow, id=st.just("k"), ws=st.just("ws"), digest=st.just(""), name=st.just(""),
    topics=st.lists(st.sampled_from(sorted(SOURCE_TYPES)), min_size=1, unique=True).map(tuple),
    source=st.none() | st.sampled_from(["/a", "/a/b", "/"]))
KINDS = [kind for kinds in SOURCE_TYPES.values() for kind in kinds] + list(DECISION_REPORTS)
EVENTS = st.builds(
    lambda kind, changes, data: {**cloud_event(kind, "s", **({"title": "T", "state": "BLOCKED"} | data)), **changes},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(["workspaceid", "source", "type", "id", "time", "subject", "x"]),
                    st.sampled_from(["ws", "other", "/a", "/a/b/c", "/ab", None, 1, "waitpoint.created"]), max_size=3),
    st.dictionaries(st.sampled_from(["title", "priority", "payload", "body_md"]), JSON, max_size=2))


@law(500)
@given(KEYS, EVENTS, st.booleans(), st.none() | st.sampled_from(sorted(SOURCE_TYPES)))
def test_an_accepted_event_is_in_scope_for_a_worker(
    key: SourceKeyRow, event: dict[str, Any], binary: bool, topic: str | None,
) -> None:
    if binary:
        assume(all(isinstance(value, str) for name, value in event.items() if name != "data"))
        sent = SentEvent(json.dumps(event["data"]).encode(), [
            (f"ce_{name}", value.encode()) for name, value in event.items() if name != "data"])
    else:
        sent = SentEvent(json.dumps(event).encode(), [])
    try:
        accepted = Gate("ws", key, EventLimits(), None, topic).accept(sent, binary)
    except EventRefused:
        return
    checked = normalise(accepted.topic, accepted.value, accepted.headers)
    assert checked.ws == "ws"
    assert accepted.topic in key.topics
    assert covers_source(key.source, checked.source)
    if event.get("workspaceid") is not None:
        assert accepted == AcceptedEvent(accepted.topic, *sent), "the event has the bytes that were sent"


@law(300)
@given(
    st.binary(max_size=100), st.lists(st.tuples(TEXT.map(lambda name: f"ce_{name}"), TEXT.map(str.encode)), max_size=4),
    st.booleans())
def test_any_bytes_are_accepted_or_refused(value: bytes, headers: list[tuple[str, bytes]], binary: bool) -> None:
    with pytest.raises(EventRefused):
        Gate("ws", None, EventLimits(), None).accept(SentEvent(value, headers if binary else []), binary)
