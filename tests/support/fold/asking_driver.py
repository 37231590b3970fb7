"""Drives the fold with asks, votes and reports, as a single edge and a single worker: one command per pack."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
from support.fold.pipeline_driver import Worker

from schemas.asking.decision_event import DecisionEvent
from schemas.asking.question import DecisionRow
from schemas.facts import Fact, Outcome, decode_fact
from schemas.log import NO_PAYLOAD, BatchAnswer, Data, Decide, DecideMany, Event, Pack, Report, TakeBack, encode_pack
from schemas.scalars import SECOND
from schemas.views import ItemRow, decode_row
from streams.core.config import FoldConfig
from streams.core.domain.event_types import EVENT_RULES
from streams.core.domain.keys import decision_key, item_id, item_key

START = 1_790_000_000 * SECOND
WS = "ws_1"


class Asking:
    """One workspace. Times are seconds after START. Each call folds one pack, at the time of the last pack or later."""

    def __init__(self, config: FoldConfig | None = None) -> None:
        self.worker = Worker(rules=config)
        self.decisions: list[DecisionEvent] = []
        self.at = 0.0
        self._ids = itertools.count()

    def fold(self, *entries: Any, at: float | None = None) -> list[Fact | Outcome]:
        """Folds one pack; returns its facts and outcomes."""
        self.at = self.at if at is None else at
        self.worker.log.append(encode_pack(Pack(self.time, list(entries))))
        known = len(self.worker.facts)
        while self.worker.step():
            self.decisions += self.worker.fold.pending_batch().decisions
            self.worker.write()
        return [decode_fact(raw) for raw in self.worker.facts[known:]]

    @property
    def time(self) -> int:
        return START + int(self.at * SECOND)

    def tick(self, at: float) -> list[Fact | Outcome]:
        """Folds ticks until no timer is due at `at`."""
        facts = self.fold(at=at)
        while (wake := self.worker.fold.next_timer()) is not None and wake <= self.time:
            facts += self.fold()
        return facts

    def event(
        self, kind: str, subject: str = "s1", *, ask: Any = None, at: float | None = None, time: float | None = None,
        source: str = "/agent", **data: Any,
    ) -> list[Fact | Outcome]:
        """Folds one source event."""
        raw = NO_PAYLOAD if ask is None else msgspec.Raw(json.dumps(ask).encode())
        self.at = self.at if at is None else at
        when = START + int((self.at if time is None else time) * SECOND)
        return self.fold(Event(WS, kind, subject, when, source, f"e{next(self._ids)}", Data(ask=raw, **data)))

    def ask(self, ask: Any, subject: str = "s1", kind: str = "waitpoint.created", **fields: Any) -> ItemRow:
        """Opens an item that asks; returns its row."""
        self.event(kind, subject, ask=ask, **{"title": "Deploy?", **fields})
        return self.item(subject, EVENT_RULES[kind].kind)

    def item(self, subject: str = "s1", kind: str = "waitpoint") -> ItemRow:
        key = item_key(item_id(WS, kind, subject))
        row = decode_row(key, self.worker.rows[key])
        assert isinstance(row, ItemRow)
        return row

    def decision(self, decision: str) -> DecisionRow:
        key = decision_key(decision)
        row = decode_row(key, self.worker.rows[key])
        assert isinstance(row, DecisionRow)
        return row

    def command(self, user: str, role: str = "MEMBER", key: str | None = None) -> dict[str, Any]:
        return {"ws": WS, "id": f"{next(self._ids):032x}", "time": self.time, "user": user, "roles": (role,),
                "idempotency_key": key}

    def vote(self, user: str, option: str = "approve", item: ItemRow | None = None, *, digest: str | None = None,
             at: float | None = None, role: str = "MEMBER", form: Any = None, args: Any = None,
             comment: str | None = None, key: str | None = None) -> tuple[int, dict[str, Any]]:
        """Casts a vote; returns the status and the body of its outcome."""
        self.at = self.at if at is None else at
        item = item or self.item()
        assert item.question is not None
        return self.outcome(Decide(
            **self.command(user, role, key), item=item.id, option=option, digest=digest or item.question.digest,
            role=role, form=_raw(form), args=_raw(args), comment=comment))

    def take_back(self, user: str, item: ItemRow | None = None, at: float | None = None) -> tuple[int, dict[str, Any]]:
        self.at = self.at if at is None else at
        return self.outcome(TakeBack(**self.command(user), item=(item or self.item()).id))

    def vote_many(self, user: str, items: list[tuple[str, int]], option: str = "approve") -> tuple[int, dict[str, Any]]:
        return self.outcome(DecideMany(
            **self.command(user), answers=tuple(BatchAnswer(*each) for each in items), option=option, role="MEMBER"))

    def report(self, decision: str, state: Any, reason: str | None = None, at: float | None = None) -> None:
        self.at = self.at if at is None else at
        self.fold(Report(WS, f"r{next(self._ids)}", self.time, decision, state, reason))

    def outcome(self, command: Any) -> tuple[int, dict[str, Any]]:
        outcomes = [fact for fact in self.fold(command) if isinstance(fact, Outcome)]
        assert len(outcomes) == 1
        return outcomes[0].status, json.loads(bytes(outcomes[0].body))

    @property
    def records(self) -> list[tuple[str, str]]:
        """Verb and subject of each record of the topic `decisions`."""
        return [(event.type.removeprefix("decision."), event.subject) for event in self.decisions]


def _raw(value: Any) -> msgspec.Raw:
    if value is None:
        return NO_PAYLOAD
    return msgspec.Raw(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
