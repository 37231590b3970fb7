"""W3C Trace Context in headers and CloudEvents: what is read, what counts as none, and the limits."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.log import Data, Event, decode_pack
from streams.core.packs import MAX_PACK_ENTRIES, Packer
from streams.tracing.context import (
    MAX_LINKS,
    TRACES,
    EntryLink,
    TraceLink,
    WorkspaceLink,
    link_of_event,
    link_of_headers,
    link_of_texts,
    read_entry_links,
    read_workspace_links,
    trace_headers,
    traces_header,
)

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = PARENT.replace("4bf9", "5bf9")

hexadecimal = st.text("0123456789abcdefABCDEF-g \x00é", max_size=60)


@given(st.one_of(hexadecimal, st.builds(
    "-".join, st.tuples(st.sampled_from(["00", "01", "ff", "0", "zz"]), st.sampled_from(["0" * 32, "a" * 32, "A" * 32]),
                        st.sampled_from(["0" * 16, "b" * 16, "b" * 15]), st.sampled_from(["00", "01", "f", "ff"])))))
def test_it_reads_what_opentelemetrys_propagator_reads(text: str) -> None:
    found = trace.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    mine = link_of_texts(text)
    assert (mine is not None) == found.is_valid
    if mine is not None:
        assert mine.traceparent[3:52] == f"{found.trace_id:032x}-{found.span_id:016x}"
        assert mine.sampled == bool(found.trace_flags & 1)


@pytest.mark.parametrize(("text", "expected"), [
    (PARENT, PARENT), (f" {PARENT}\t", PARENT), ("01" + PARENT[2:] + "-future", "01" + PARENT[2:]),
    (PARENT + "-x", None), (PARENT[:-1], None), (PARENT.upper(), None), (None, None), (7, None), (["x"], None),
    (PARENT.encode(), PARENT), (b"\xff" * 60, None), ("x" * 100_000, None),
], ids=["plain", "spaces", "future", "longer", "shorter", "upper", "none", "number", "list", "bytes", "binary", "huge"])
def test_malformed_contexts_count_as_none(text: object, expected: str | None) -> None:
    link = link_of_texts(text)
    assert (link.traceparent if link is not None else None) == expected


def test_a_state_that_is_too_long_or_not_printable_is_dropped_and_the_trace_stays() -> None:
    assert link_of_texts(PARENT, "a=1").tracestate == "a=1"  # type: ignore[union-attr]
    assert link_of_texts(PARENT, "a=" + "1" * 510).tracestate == "a=" + "1" * 510  # type: ignore[union-attr]
    for state in ("a=" + "1" * 511, "a=\n", "é", 7, None):
        assert link_of_texts(PARENT, state) == TraceLink(PARENT)


def test_two_contexts_of_one_record_count_as_none() -> None:
    one = [("traceparent", PARENT.encode())]
    assert link_of_headers(one) == TraceLink(PARENT)
    assert link_of_headers([*one, *one]) is None
    assert link_of_headers([*one, ("tracestate", b"a=1"), ("tracestate", b"b=1")]) == TraceLink(PARENT)
    assert link_of_headers([("traceparent", None)]) is None


def test_the_header_comes_before_the_attributes_of_the_event() -> None:
    value = json.dumps({"traceparent": OTHER, "tracestate": "b=1"}).encode()
    assert link_of_event(value, []) == TraceLink(OTHER, "b=1")
    assert link_of_event(value, [("traceparent", PARENT.encode())]) == TraceLink(PARENT)
    assert link_of_event(value, [("traceparent", b"bad")]) == TraceLink(OTHER, "b=1")
    assert link_of_event(b"{}", [("ce_traceparent", PARENT.encode()), ("ce_tracestate", b"a=1")]) == TraceLink(
        PARENT, "a=1")
    inner = b'{"data":{"traceparent":"' + PARENT.encode() + b'"}}'
    for raw in (None, b"", b'{"traceparent"', b'["traceparent"]', inner, b'{"traceparent":{"a":1}}',
                b"[" * 5000 + b'"traceparent"'):
        assert link_of_event(raw, []) is None


@given(st.binary(max_size=300))
def test_a_header_that_cannot_be_read_has_no_contexts(raw: bytes) -> None:
    for read in (read_entry_links, read_workspace_links):
        assert isinstance(read([(TRACES, raw)]), list)


def test_contexts_of_a_record_are_bounded() -> None:
    many = [EntryLink(number, PARENT, "s=" + "x" * 500) for number in range(500)]
    header = traces_header(many)
    assert read_entry_links(header) == many[:MAX_LINKS]
    assert len(header[0][1]) < 64 << 10
    places = [WorkspaceLink("w" * 256, OTHER)] * 100
    assert read_workspace_links(traces_header(places)) == places[:MAX_LINKS]
    assert read_entry_links([(TRACES, msgspec.json.encode(many * 10))]) == []  # larger than any that attn writes
    assert read_entry_links([(TRACES, msgspec.json.encode([[0, "bad"], [1, PARENT]]))]) == [EntryLink(1, PARENT)]
    assert traces_header([]) == trace_headers(None) == read_entry_links([]) == read_entry_links([(TRACES, None)]) == []


def entry(number: int) -> Event:
    return Event("ws", "message.posted", f"s{number}", 1, "/s", f"e{number}", Data(title="T"))


def test_a_pack_names_its_entries() -> None:
    traced, plain = Packer(1), Packer(1)
    for number in range(MAX_PACK_ENTRIES + 3):
        link = TraceLink(PARENT.replace("4bf92f35", f"{number + 1:08x}"), "a=1")
        traced.add(entry(number), link if number % 100 == 1 or number >= MAX_PACK_ENTRIES else None)
        plain.add(entry(number))
    packs = traced.drain(7)
    assert [pack.value for pack in packs] == [pack.value for pack in plain.drain(7)]  # no value has a context
    named = [[decode_pack(pack.value).entries[link.entry].id for link in read_entry_links(pack.headers)]
             for pack in packs]
    assert named == [["e1", "e101", "e201", "e301", "e401"], ["e500", "e501", "e502"]]
    assert traced.drain(8) == []
    traced.add(entry(1))
    assert [pack.headers for pack in traced.drain(9)] == [()]


def test_neither_sdk_nor_exporter_is_imported_while_traces_are_off() -> None:
    """Libraries of attn import the package `opentelemetry-api` by themselves."""
    code = ("import sys, streams.worker.main, streams.delivery.main, api.main\n"
            "from streams.tracing import hooks\n"
            "from schemas.settings import Settings\n"
            "hooks.start(Settings(_env_file=None), 'worker')\n"
            "assert hooks.active is None\n"
            "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.proto', 'streams.tracing.tracer')\n"
            "print([name for name in sys.modules if name.startswith(heavy)])\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
