"""Framing of server-sent events: one event as bytes, and the heartbeat event."""

from __future__ import annotations

import orjson

from schemas.scalars import format_timestamp

__all__ = ["encode_event", "encode_heartbeat", "one_line"]

# Unicode line ends. They are none in JSON nor in event streams, but many clients split a stream at them.
_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def one_line(data: bytes) -> bytes:
    """Escapes Unicode line ends in JSON, so every client reads it as one line. JSON escapes the other line ends."""
    for end, escaped in _ENDS:
        if end in data:
            data = data.replace(end, escaped)
    return data



def encode_event(cursor: int, event: str, data: bytes) -> bytes:
    """Returns one event of a stream."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (cursor, event.encode(), one_line(data))



def encode_heartbeat(cursor: int, now: int) -> bytes:
    """Returns a heartbeat event. `now`: clock of the edge in microseconds."""
    return encode_event(cursor, "heartbeat", orjson.dumps({"at": format_timestamp(now), "cursor": cursor}))
