"""Server-sent event framing: one event as bytes, and the heartbeat frame."""

from __future__ import annotations

import orjson

from schemas.scalars import format_timestamp

__all__ = ["encode_event", "encode_heartbeat", "one_line"]

# Line ends to Unicode, not to JSON nor to event streams; but many clients split the text of a stream at all of them.
_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def one_line(data: bytes) -> bytes:
    """The same JSON, on one line for whatever reads it. JSON escapes all other line ends itself."""
    for end, escaped in _ENDS:
        if end in data:
            data = data.replace(end, escaped)
    return data



def encode_event(cursor: int, event: str, data: bytes) -> bytes:
    """One frame of an event stream."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (cursor, event.encode(), one_line(data))



def encode_heartbeat(cursor: int, now: int) -> bytes:
    """`now` in microseconds: the edge's clock, as it says that the edge is alive."""
    return encode_event(cursor, "heartbeat", orjson.dumps({"at": format_timestamp(now), "cursor": cursor}))
