"""Spans of the fold: from an entry of the log until its rows are durable. Writes their contexts to headers.

Facts and decisions get `traceparent`, position rows get `attn-traces`. Values are never changed. A pack that is folded
again after a crash has new spans for the same parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import ConsumerRecord

from schemas.asking.decision_event import DecisionEvent
from schemas.facts import Fact, Outcome
from schemas.log import Command, Event, KeyUsed, Pack, Report, SessionUsed
from schemas.topics import DECISION_REPORTS
from streams.core.domain.keys import event_name
from streams.core.fold.fold import FoldBatch
from streams.tracing import hooks
from streams.tracing.context import (
    MAX_LINKS,
    TraceLink,
    WorkspaceLink,
    read_entry_links,
    trace_headers,
    traces_header,
)

if TYPE_CHECKING:
    from streams.tracing.tracer import Span, Tracer

__all__ = ["FoldTraces", "fold_traces"]

_Records = Sequence[tuple[bytes, bytes | None, list[tuple[str, bytes]]]]  # key, value, headers
_Entry = Event | Command | Report | KeyUsed | SessionUsed


_MAX_DECIDED = 2000  # decisions of one partition whose context is kept for their reports


class _Traced(NamedTuple):
    """A traced entry."""

    span: Span
    link: TraceLink
    ws: str


class FoldTraces:
    """The spans of one partition's entries that are folded and not written; at most MAX_LINKS.

    A report of a decision without a context continues the trace of the decision. So a click ends with the source's
    confirmation, even if the source forwards no context. The contexts of the last 2,000 decisions are in memory only.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: list[_Traced] = []
        self._by_name: dict[tuple[str, str], _Traced] = {}  # (workspace, name) of an entry: the newest of each name
        self._decided: dict[tuple[str, str], TraceLink] = {}  # (workspace, decision or subject)

    def begin(self, record: ConsumerRecord[bytes, bytes], pack: Pack) -> None:
        """Starts the spans of a record's traced entries."""
        links = {link.entry: link.link for link in read_entry_links(record.headers)}
        if self._decided:
            self._add_reports(links, pack)
        for index, link in links.items():
            if len(self._open) >= MAX_LINKS or not 0 <= index < len(pack.entries):
                continue
            entry = pack.entries[index]
            span = self._tracer.begin(f"fold {record.topic}", self._tracer.consumer, link, {
                "messaging.system": "kafka", "messaging.operation.type": "process",
                "messaging.destination.name": record.topic, "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset, "attn.pack.entries": len(pack.entries),
                "attn.entry": str(type(entry).__struct_config__.tag), "attn.workspace": entry.ws,
            })
            if span is not None:
                traced = _Traced(span, self._tracer.link(span), entry.ws)
                self._open.append(traced)
                self._by_name.update(((entry.ws, name), traced) for name in _names_of(entry))

    def _add_reports(self, links: dict[int, TraceLink], pack: Pack) -> None:
        """Adds the contexts of decisions to the pack's reports of sources that have none."""
        for index, entry in enumerate(pack.entries):
            if isinstance(entry, Event) and entry.type in DECISION_REPORTS and index not in links:
                decided = self._decided.get((entry.ws, entry.data.decision or entry.subject))
                if decided is not None:
                    links[index] = decided

    def mark(self, batch: FoldBatch, facts: _Records, decisions: _Records, rows: _Records) -> None:
        """Adds the headers to the records of a batch; the position row is the last of `rows`."""
        if not self._open:
            return
        for (_, _, headers), fact in zip(facts, batch.facts, strict=True):
            headers.extend(trace_headers(self._find(fact.ws, _names_in(fact))))
        for (_, _, headers), event in zip(decisions, batch.decisions, strict=True):
            link = self._find(event.workspaceid, (event.data.decision, event.data.item, event.subject))
            headers.extend(trace_headers(link))
            if link is not None and event.type == "decision.made":
                self._keep(event, link)
        rows[-1][2].extend(traces_header([WorkspaceLink(each.ws, *each.link) for each in self._open]))

    def written(self, rows: int) -> dict[str, str] | None:
        """Ends the spans: their batch is durable. Returns the exemplar of one of them."""
        spans, self._open = self._open, []
        self._by_name.clear()
        for each in spans:
            each.span.set_attribute("attn.batch.rows", rows)
            each.span.end()
        return self._tracer.exemplar(spans[-1].span) if spans else None

    def _find(self, ws: str, names: Sequence[str]) -> TraceLink | None:
        """Returns the context of the newest entry with the first of these names that an entry has."""
        known = (self._by_name.get((ws, name)) for name in names)
        return next((each.link for each in known if each is not None), None)

    def _keep(self, event: DecisionEvent, link: TraceLink) -> None:
        for name in (event.data.decision, event.subject):
            self._decided[event.workspaceid, name] = link
        while len(self._decided) > 2 * _MAX_DECIDED:
            del self._decided[next(iter(self._decided))]


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
