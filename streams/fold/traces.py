"""Spans of the fold: from an entry of the log until its rows are durable. Writes their contexts to headers.

Facts and decisions get `traceparent`, position rows get `attn-traces`. Values are never changed. A pack that is folded
again after a crash has new spans for the same parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import ConsumerRecord

from schemas.facts import Fact, Outcome
from schemas.log import Command, Event, KeyUsed, Pack, Report, SessionUsed
from streams.core.domain.keys import event_name
from streams.core.fold.fold import FoldBatch
from streams.tracing import hooks
from streams.tracing.context import MAX_LINKS, WorkspaceLink, read_entry_links, trace_headers, traces_header

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["FoldTraces", "fold_traces"]

_Records = Sequence[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]  # key, value, headers
_Entry = Event | Command | Report | KeyUsed | SessionUsed


class _Traced(NamedTuple):
    """A traced entry, and what the facts and decisions name that follow from it."""

    span: Span
    ws: str
    names: frozenset[str]


class FoldTraces:
    """The spans of one partition's entries that are folded and not written; at most MAX_LINKS."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: list[_Traced] = []

    def begin(self, record: ConsumerRecord[bytes, bytes], pack: Pack) -> None:
        """Starts the spans of a record's traced entries."""
        for link in read_entry_links(record.headers):
            if len(self._open) >= MAX_LINKS or not 0 <= link.entry < len(pack.entries):
                continue
            entry = pack.entries[link.entry]
            span = self._tracer.begin(f"fold {record.topic}", self._tracer.consumer, link.link, {
                "messaging.system": "kafka", "messaging.operation.type": "process",
                "messaging.destination.name": record.topic, "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset, "attn.pack.entries": len(pack.entries),
                "attn.entry": str(type(entry).__struct_config__.tag), "attn.workspace": entry.ws,
            })
            if span is not None:
                self._open.append(_Traced(span, entry.ws, _names_of(entry)))

    def mark(self, batch: FoldBatch, facts: _Records, decisions: _Records, rows: _Records) -> None:
        """Adds the headers to the records of a batch; the position row is the last of `rows`."""
        if not self._open:
            return
        for (_, _, headers), fact in zip(facts, batch.facts, strict=True):
            self._mark(headers, fact.ws, _names_in(fact))
        for (_, _, headers), event in zip(decisions, batch.decisions, strict=True):
            self._mark(headers, event.workspaceid, (event.data.decision, event.data.item, event.subject))
        links = [WorkspaceLink(each.ws, *self._tracer.link(each.span)) for each in self._open]
        rows[-1][2].extend(traces_header(links))

    def written(self, rows: int) -> dict[str, str] | None:
        """Ends the spans: their batch is durable. Returns the exemplar of one of them."""
        spans, self._open = self._open, []
        for each in spans:
            each.span.set_attribute("attn.batch.rows", rows)
            each.span.end()
        return self._tracer.exemplar(spans[-1].span) if spans else None

    def _mark(self, headers: list[tuple[str, bytes]], ws: str, names: Sequence[str]) -> None:
        """Adds the context of the newest entry with one of these names."""
        for each in reversed(self._open):
            if each.ws == ws and not each.names.isdisjoint(names):
                headers.extend(trace_headers(self._tracer.link(each.span)))
                return


def _names_in(fact: Fact | Outcome) -> tuple[str, ...]:
    """Returns the names by which a fact refers to its entry."""
    if isinstance(fact, Outcome):
        return (fact.command,)
    # "command ID ITEM" of a command; the item or subject of a fact that follows from another one.
    return (fact.event_id, *fact.event_id.split(" ")[1:2], fact.item or "", fact.subject)


def _names_of(entry: _Entry) -> frozenset[str]:
    """Returns the ids by which facts and decisions refer to an entry."""
    if isinstance(entry, Event):
        return frozenset((event_name(entry.source, entry.id), entry.subject))
    if isinstance(entry, Report):
        return frozenset((entry.decision,))
    names = [entry.id]
    if isinstance(item := getattr(entry, "item", None), str):
        names.append(item)
    names += getattr(entry, "items", ())
    names += [answer.item for answer in getattr(entry, "answers", ())]
    return frozenset(names)


def fold_traces() -> FoldTraces | None:
    """Returns None while traces are off."""
    return FoldTraces(hooks.active) if hooks.active is not None else None
