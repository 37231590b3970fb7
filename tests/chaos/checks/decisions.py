"""Compares questions and decisions after the faults: the log with the model, the topic, receivers and responses."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rfc8785
from aiokafka import ConsumerRecord
from support.model import Reader
from support.model.decisions import Asking

from chaos.checks.expected_fold import Refold
from chaos.environment.edge_client import EdgeClient
from chaos.workload.council import Answered
from schemas.asking.decision_event import DecisionEvent, encode_decision
from schemas.asking.question import DecisionRow
from schemas.facts import Fact, Outcome
from schemas.log import Command, Decide, Event, Report, TakeBack, decode_pack
from schemas.settings import Settings
from schemas.views import ItemRow, decode_row

__all__ = ["LogReplay", "answers_differ", "decisions_of", "effects_differ", "records_differ"]

_SHOWN = 5


class LogReplay:
    """Replays the log of one partition into the reference model. Each outcome must be one that the model allows."""

    def __init__(self, settings: Settings, fold: Refold, workspaces: Iterable[str],
                 lines: Mapping[tuple[str, str, str], dict[str, Any]]) -> None:
        self.differences: list[str] = []
        self._lines = lines  # (workspace, source, id) -> line of the load
        self._models = {ws: Asking(int(settings.undo_seconds * 1e6),
                                   int(settings.decision_confirm.total_seconds() * 1e6)) for ws in workspaces}
        self._fold = fold
        self._outcomes = {fact.command: fact for fact in fold.facts if isinstance(fact, Outcome)}
        self._ids: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # (ws, kind, subject) -> decisions
        for fact in fold.facts:
            if isinstance(fact, Fact) and fact.type in ("decision.made", "decision.expired"):
                self._ids[fact.ws, str(fact.kind), fact.subject].append(str(fact.decision))
        self._items = {row.id: row for key, value in fold.rows.items()
                       if key.startswith(b"i:") and isinstance(row := decode_row(key, value), ItemRow)}
        self._digests: dict[tuple[str, str], str] = {}  # (ws, digest) -> identity of the question
        self._shown: set[tuple[str, str]] = set()
        self._commands: dict[Any, Outcome | None] = {}

    def replay(self, records: Sequence[ConsumerRecord]) -> None:
        """Replays the records, then compares the final states."""
        clock = 0
        for record in records:
            try:
                pack = decode_pack(record.value or b"")
            except ValueError:
                continue
            clock = max(clock, pack.at)
            for ws in self._models:
                self._models[ws].tick(clock)
                self._name(ws)
            for entry in pack.entries:
                if entry.ws in self._models:
                    self._entry(entry, clock)
                    self._name(entry.ws)
        for ws, model in self._models.items():
            self._compare(ws, model)

    def _entry(self, entry: Any, clock: int) -> None:
        model = self._models[entry.ws]
        if isinstance(entry, Event):
            model.event(self._lines[entry.ws, entry.source, entry.id], clock)
            for shown in {(entry.ws, one.identity) for one in model.questions.values()} - self._shown:
                self._shown.add(shown)
                self._digests[entry.ws, _digest(*shown)] = shown[1]
        elif isinstance(entry, Report):
            if self._is_new(entry.ws, entry.id) and entry.decision in model.named and entry.state != "again":
                model.report(clock, model.named[entry.decision], entry.state)
        elif isinstance(entry, Command):
            self._command(model, entry, clock)

    def _is_new(self, *name: str) -> bool:
        known = name in self._commands
        self._commands.setdefault(name, None)
        return not known

    def _command(self, model: Asking, entry: Command, clock: int) -> None:
        outcome = self._outcomes.get(entry.id)
        if outcome is None:
            self.differences.append(f"{entry.ws}: command {entry.id} has no outcome")
            return
        if not self._is_new(entry.ws, entry.id):
            return  # the producer sent it twice
        if entry.idempotency_key is not None:
            name = (entry.ws, entry.user, entry.idempotency_key)
            first = self._commands.setdefault(name, outcome)
            if first is not outcome:
                if first is None or (first.status, bytes(first.body)) != (outcome.status, bytes(outcome.body)):
                    self.differences.append(f"{name}: the repeat of a request has another outcome, {outcome}")
                return
        item = self._items.get(getattr(entry, "item", ""))
        if item is None:
            return
        key, who = (item.kind, item.source_id), Reader(entry.user, entry.roles[0])
        if isinstance(entry, Decide):
            seen = self._digests.get((entry.ws, entry.digest))
            allowed = model.decide(clock, who, key, seen, entry.option)
        elif isinstance(entry, TakeBack):
            allowed = model.take_back(clock, who, key)
        else:
            return
        self._name(entry.ws)
        body = json.loads(bytes(outcome.body))
        named = (body.get("decision") or {}).get("id")
        if outcome.status not in allowed.statuses:
            self.differences.append(f"{entry.ws} {key} {type(entry).__name__} of {entry.user}: {outcome.status} "
                                    f"{body}, the model allows {sorted(allowed.statuses)}")
        elif named is not None and allowed.decision is not None and model.named.get(named) is not allowed.decision:
            self.differences.append(f"{entry.ws} {key}: {outcome.status} names {named}, the model {allowed.decision}")

    def _name(self, ws: str) -> None:
        """Assigns ids to decisions of the model: the nth decision of an item has the nth fact."""
        model = self._models[ws]
        for made in model.made[len(model.named):]:
            ids = self._ids[(ws, *made.key)]
            if made.number < len(ids):
                model.named[ids[made.number]] = made
            else:
                self.differences.append(f"{ws} {made.key}: the fold has {len(ids)} decisions, the model {made}")
                model.named[f"unknown {ws} {made.key} {made.number}"] = made

    def _compare(self, ws: str, model: Asking) -> None:
        stored = {row.id: row for key, value in self._fold.rows.items() if key.startswith(b"c:")
                  and isinstance(row := decode_row(key, value), DecisionRow) and row.ws == ws}
        found = self.differences
        if stored.keys() != model.named.keys():
            found.append(f"{ws}: decisions differ: {sorted(stored.keys() ^ model.named.keys())[:_SHOWN]}")
        records: dict[str, list[str]] = defaultdict(list)
        for event in self._fold.decisions:
            records[event.data.decision].append(event.type.removeprefix("decision."))
        for name in stored.keys() & model.named.keys():
            made, row = model.named[name], stored[name]
            if (row.state, row.returned) != (made.state, made.back):
                found.append(f"{ws} {name} is {row.state}/{row.returned}, the model has {made}")
            if records[name] != made.published:
                found.append(f"{ws} {name} has records {records[name]}, the model {made}")
        for row in self._items.values():
            if row.ws == ws and (row.kind, row.source_id) in model.items and row.state != "hidden":
                state = "open" if row.is_open else row.state
                if state != model.state((row.kind, row.source_id)):
                    found.append(f"{ws} {row.source_id} is {state}, the model has "
                                 f"{model.state((row.kind, row.source_id))}: {row.question}")


def _digest(ws: str, identity: str) -> str:
    """Returns the SHA-256 of the RFC 8785 JSON of the question, by an independent implementation."""
    source, subject, title, body, shown = json.loads(identity)
    return hashlib.sha256(rfc8785.dumps({
        "workspace": ws, "source": source, "subject": subject, "title": title, "body": body, "ask": shown})).hexdigest()


def records_differ(
    partition: int, records: Sequence[ConsumerRecord], wanted: Sequence[DecisionEvent],
) -> tuple[list[str], int]:
    """Compares the topic with the records of one fold, in order. Repeats must have the same bytes."""
    first: dict[str, bytes] = {}
    found: list[str] = []
    repeats = 0
    for record in records:
        name = json.loads(record.value)["id"]
        repeats += name in first
        if first.setdefault(name, record.value) != record.value:
            found.append(f"decisions/{partition}: {name} at offset {record.offset} differs from its first record")
    expected: dict[str, bytes] = {}
    for event in wanted:
        expected.setdefault(event.id, encode_decision(event))
    found += [f"decisions/{partition}: {name} is not on the topic" for name in expected if name not in first]
    found += [f"decisions/{partition}: {name} is on the topic, but one fold of the log does not write it"
              for name in first if name not in expected]
    odd = [name for name in first if name in expected and first[name] != expected[name]]
    found += [f"decisions/{partition}: {name} is {first[name]!r}, the fold has {expected[name]!r}" for name in odd[:2]]
    if not found and list(first) != list(expected):
        found.append(f"decisions/{partition}: the records are in another order than the fold's")
    return found[:_SHOWN], repeats


def answers_differ(
    answers: Sequence[Answered], rows: Mapping[str, DecisionRow], edges: Sequence[EdgeClient],
    readers: Mapping[str, Reader],
) -> list[str]:
    """Checks that each 201 is a separate decision which every edge shows to its decider, and that each 200 of DELETE
    holds."""
    found: list[str] = []
    responses = Counter(one.decision for one in answers if (one.method, one.status) == ("POST", 201))
    found += [f"{count} people received a 201 for {name}" for name, count in responses.items() if count > 1]
    shown: dict[tuple[int, str, str], dict[str, str]] = {}
    for answer in answers:
        row = rows.get(str(answer.decision))
        if (answer.method, answer.status) == ("POST", 201):
            if row is None or answer.user not in [vote.user for vote in row.actors]:
                found.append(f"{answer}: the fold has {row}")
                continue
            for number, edge in enumerate(edges, start=1):
                place = (number, answer.ws, answer.user)
                if place not in shown:
                    shown[place] = _decisions_of(edge, answer.ws, readers[answer.user])
                if shown[place].get(row.id) != row.state:
                    found.append(f"edge {number}: {answer.user} of {answer.ws} sees {row.id} as "
                                 f"{shown[place].get(row.id)}, it is {row.state}")
        elif (answer.method, answer.status) == ("DELETE", 200) and (row is None or row.state != "taken_back"):
            found.append(f"{answer}: was taken back, the fold has {row}")
        elif answer.status == 409 and answer.decision is not None and row is None:
            found.append(f"{answer}: names a decision that the fold does not have")
    return found[:_SHOWN * 2]


def _decisions_of(edge: EdgeClient, ws: str, reader: Reader) -> dict[str, str]:
    """Returns id -> state of all pages of GET /org/me/decisions."""
    found: dict[str, str] = {}
    more: dict[str, Any] = {}
    while True:
        page = edge.get("/org/me/decisions", ws, reader, limit=200, **more)
        found |= {one["id"]: one["state"] for one in page["decisions"]}
        if "next" not in page:
            return found
        more = {"page": page["next"]}


def effects_differ(
    ledger: Path, hook: Counter[str], rows: Mapping[str, DecisionRow], taken_back: Mapping[str, int],
) -> tuple[list[str], int]:
    """Compares the effects of receivers: each decision once, none lost, none whose take back was read before.

    Also returns the number of decisions whose take back the receiver had not read when it acted, because the worker was
    behind. `taken_back`: id -> offset of its record. `hook`: decisions that the HTTP receiver applied; `attn deliver`
    waits for the fold.
    """
    found: list[str] = []
    lines = [line.split() for line in ledger.read_text().splitlines()]
    acted = {name: int(read) for name, _, read in lines}
    times = Counter(name for name, _, _ in lines)
    found += [f"{name} was applied {count} times" for name, count in (times + hook).items() if count > 1]
    late = 0
    for name, row in rows.items():
        done = name in acted or name in hook
        if row.state == "taken_back":
            if name in acted and acted[name] <= taken_back[name] and name not in hook:
                late += 1
            elif done:
                found.append(f"{name} was applied although it had been taken back")
        elif row.state == "applied" and row.published and row.reply_to is None and not done and row.actors:
            found.append(f"{name} of {row.subject} is applied, but its source did not receive it")
        elif row.state in ("made", "sending") and row.published and row.returned is None:
            found.append(f"{name} of {row.subject} is {row.state} at the end")
    found += [f"{name} was applied, but nobody decided it" for name in (acted.keys() | hook.keys()) - rows.keys()]
    return found[:_SHOWN * 2], late


def decisions_of(fold: Refold) -> dict[str, DecisionRow]:
    """Returns all decisions of one fold of the log, by id."""
    decoded = (decode_row(key, value) for key, value in fold.rows.items() if key.startswith(b"c:"))
    return {row.id: row for row in decoded if isinstance(row, DecisionRow)}
