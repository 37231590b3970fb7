"""W3C Trace Context in headers of Kafka records and in CloudEvents: parsing, limits, attn's own header. Pure.

A record about one event has the headers `traceparent` and `tracestate`
(https://www.w3.org/TR/trace-context/). A record of `attn.log` or `attn.views` is about many events: its header
`attn-traces` is a JSON array with one entry per sampled event. The header never is part of a value: it changes neither
positions nor rows nor facts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

__all__ = [
    "MAX_LINKS", "TRACEPARENT", "TRACES", "TRACESTATE", "EntryLink", "Headers", "TraceLink", "WorkspaceLink",
    "link_of_attributes", "link_of_event", "link_of_headers", "link_of_texts", "read_entry_links",
    "read_workspace_links", "trace_headers", "traces_header",
]

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
TRACES = "attn-traces"

MAX_LINKS = 64  # of one record; further traces of the same batch end there
# Characters. The specification asks to forward at least 512 of `tracestate`; a longer one is dropped, not cut.
_MAX_PARENT, _MAX_STATE = 128, 512
_MAX_HEADER = 64 << 10  # bytes of `attn-traces` that are read

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?", re.DOTALL)
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_CE = "ce_"

Headers = Sequence[tuple[str, bytes | None]]


class TraceLink(NamedTuple):
    """The context of one span, as its headers have it."""

    traceparent: str
    tracestate: str = ""

    @property
    def sampled(self) -> bool:
        return bool(int(self.traceparent[53:55], 16) & 1)


class EntryLink(NamedTuple):
    """Context of one entry of a pack. `entry`: its index in the pack."""

    entry: int
    traceparent: str
    tracestate: str = ""

    @property
    def link(self) -> TraceLink:
        return TraceLink(self.traceparent, self.tracestate)


class WorkspaceLink(NamedTuple):
    """Context of a change of one workspace in a batch of rows."""

    ws: str
    traceparent: str
    tracestate: str = ""

    @property
    def link(self) -> TraceLink:
        return TraceLink(self.traceparent, self.tracestate)


_Link = TypeVar("_Link", EntryLink, WorkspaceLink)


class _Attributes(msgspec.Struct):
    """CloudEvents extension Distributed Tracing."""

    traceparent: object = None
    tracestate: object = None


_attributes_of = msgspec.json.Decoder(_Attributes).decode
_encode = msgspec.json.Encoder().encode
_entries_of = msgspec.json.Decoder(list[EntryLink]).decode
_workspaces_of = msgspec.json.Decoder(list[WorkspaceLink]).decode


def link_of_texts(traceparent: object, tracestate: object = "") -> TraceLink | None:
    """Returns the context of two header values. Returns None for a malformed one: the trace restarts, as W3C asks."""
    parent = _text(traceparent, _MAX_PARENT)
    match = _PARENT.fullmatch(parent)
    if match is None or (match[1] == "00" and match[3]):
        return None
    return TraceLink(parent[:55], _text(tracestate, _MAX_STATE))


def link_of_headers(headers: Headers, prefix: str = "") -> TraceLink | None:
    """Returns the context in the headers of a record. Returns None without one, with a malformed one and with two."""
    parents = [raw for name, raw in headers if name == prefix + TRACEPARENT]
    if len(parents) != 1:
        return None
    states = [raw for name, raw in headers if name == prefix + TRACESTATE]
    return link_of_texts(parents[0], states[0] if len(states) == 1 else "")


def link_of_event(value: bytes | None, headers: Headers) -> TraceLink | None:
    """Returns the context of a source record: its headers, else the CloudEvents attributes `traceparent` and
    `tracestate`, of the binary mode (`ce_traceparent`) or the structured mode."""
    if headers and (link := link_of_headers(headers) or link_of_headers(headers, _CE)) is not None:
        return link
    return link_of_attributes(value)


def link_of_attributes(value: bytes | None) -> TraceLink | None:
    """Returns the context in the attributes of a structured CloudEvent, None without a valid one."""
    if value is None or b'"traceparent"' not in value:  # nearly all events have none: no second parse of their JSON
        return None
    try:
        attributes = _attributes_of(value)
    except (ValueError, RecursionError):
        return None
    return link_of_texts(attributes.traceparent, attributes.tracestate)


def trace_headers(link: TraceLink | None) -> list[tuple[str, bytes]]:
    """Returns the headers of a record about one event; none without a context."""
    if link is None:
        return []
    headers = [(TRACEPARENT, link.traceparent.encode())]
    return [*headers, (TRACESTATE, link.tracestate.encode())] if link.tracestate else headers


def traces_header(links: Sequence[EntryLink | WorkspaceLink]) -> list[tuple[str, bytes]]:
    """Returns the header `attn-traces` of at most MAX_LINKS contexts; no header without one."""
    return [(TRACES, _encode(links[:MAX_LINKS]))] if links else []


def read_entry_links(headers: Headers) -> list[EntryLink]:
    """Returns the valid contexts of a record of `attn.log`."""
    return _read(headers, _entries_of)


def read_workspace_links(headers: Headers) -> list[WorkspaceLink]:
    """Returns the valid contexts of a position row of `attn.views`."""
    return _read(headers, _workspaces_of)


def _read(headers: Headers, decode: Callable[[bytes], list[_Link]]) -> list[_Link]:
    """Returns the first MAX_LINKS contexts. A header that cannot be read counts as none."""
    raw = next((raw for name, raw in headers if name == TRACES), None)
    if raw is None or len(raw) > _MAX_HEADER:
        return []
    try:
        links = decode(raw)[:MAX_LINKS]
    except (ValueError, RecursionError):
        return []
    return [link for link in links if link_of_texts(link.traceparent, link.tracestate) is not None]


def _text(raw: object, limit: int) -> str:
    """Returns a header value as text; "" if it is no printable ASCII or longer than `limit`."""
    if isinstance(raw, bytes):
        raw = raw[:limit + 1].decode("latin-1")
    if not isinstance(raw, str):
        return ""
    text = raw[:limit + 2].strip(" \t")
    return text if len(text) <= limit and _PRINTABLE.fullmatch(text) else ""
