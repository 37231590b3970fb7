"""Applies random questions and decisions to a fold, step by step, and compares each response with the reference model.

A step is a name and small numbers, as hypothesis draws them. `Play.entries` has all entries of the log: other tests
fold them again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from support.fold.pipeline_driver import Worker, event_of
from support.model import Reader, us
from support.model.decisions import Asking

from schemas.asking.question import DecisionRow
from schemas.facts import Fact, Outcome, decode_fact
from schemas.log import (
    BatchAnswer,
    Decide,
    DecideMany,
    Pack,
    Report,
    TakeBack,
    encode_pack,
)
from schemas.scalars import format_timestamp
from schemas.views import ItemRow, decode_row

__all__ = ["ASKS", "PEOPLE", "STEPS", "Play"]

WS = "ws"
SECOND = 1_000_000
START = us("2026-05-20T12:00:00Z")
WAITS = (0, 1, 3, 6, 60, 1200)  # seconds between two steps
PEOPLE = (
    Reader("ann", "OWNER"), Reader("bob", "MEMBER"), Reader("cy", "MANAGER"), Reader("dee", "ADMIN"),
    Reader("zoe", "VIEWER"),
)
OPTIONS = [
    {"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"}, {"id": "hold", "does": "ignore", "safe": True},
]
ASKS: tuple[dict[str, Any] | None, ...] = (
    {"options": OPTIONS}, {"options": OPTIONS, "quorum": {"approve": 2}},
    {"options": OPTIONS, "quorum": {"approve": 3}, "deciders": {"roles": ["OWNER", "MEMBER", "MANAGER"]}},
    {"options": OPTIONS, "deciders": {"users": ["bob", "zoe"], "not": ["requester"], "requester": "bob"}},
    {"options": OPTIONS, "expires": 30}, {"options": OPTIONS, "expires": 30, "on_expiry": "hold"},
    {"options": OPTIONS, "batch": {"key": "b"}}, {"options": OPTIONS, "batch": {"key": "b"}, "expires": 60},
    {"options": OPTIONS, "reply": {"confirm": False}}, {"options": OPTIONS, "reply": {"confirm": False, "to": "hook"}},
    {}, None,
)
TARGETS: tuple[dict[str, Any], ...] = ({}, {}, {}, {"target_role": "OWNER"}, {"target_user_id": "bob"})
ANSWERS = ("yes", "no", "hold", "resolve", "absent")
REPORTS = ("delivered", "applied", "refused", "undeliverable")
# Name of a step -> the largest value of each of its numbers. The first number is always the wait before it.
_OPENING = (5, 2, len(ASKS) - 1, len(TARGETS) - 1)
STEPS: dict[str, tuple[int, ...]] = {
    "open": _OPENING, "update": _OPENING, "close": (5, 2), "late": (5, 2, 1), "decide": (5, 2, 4, 4, 3),
    "back": (5, 2, 4), "many": (5, 4, 2, 1), "report": (5, 9, 3), "source": (5, 2, 3), "tick": (5,),
}


class Play:
    """One log and its fold beside the model. Three escalations, `q0` to `q2`, ask."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.model = Asking()
        self.clock = START
        self.entries: list[tuple[int, Any]] = []  # (clock, entry): all of the log
        self.lines: list[dict[str, Any]] = []  # all source events
        self.outcomes: list[Outcome] = []
        self._number = 0
        self._facts = 0
        self._seen: dict[str, list[tuple[str, str | None]]] = {}  # subject -> (digest, identity) of each content so far

    def step(self, name: str, numbers: Sequence[int]) -> None:
        """Plays one step, and compares outcome, item, decisions and records with the model."""
        self.clock += WAITS[numbers[0]] * SECOND + 1
        getattr(self, f"_{name}")(*numbers[1:])
        self._compare(f"{name} {numbers}")

    # --- steps ---

    def _open(self, subject: int, ask: int, target: int) -> None:
        self._event("escalation.opened", subject, title="T", **self._ask(ask), **TARGETS[target])

    def _update(self, subject: int, ask: int, target: int) -> None:
        asks = self._ask(ask) or {"ask": None}
        self._event("escalation.updated", subject, **(asks if ask % 2 else {}), **TARGETS[target])

    def _close(self, subject: int) -> None:
        self._event("escalation.resolved", subject, action="done")

    def _late(self, subject: int, closes: int) -> None:
        """Applies an event that is 40 s late."""
        kind, data = ("escalation.resolved", {}) if closes else ("escalation.opened", {"title": "T", **self._ask(0)})
        self._event(kind, subject, before=40 * SECOND, **data)

    def _tick(self) -> None:
        self._append()
        self.model.tick(self.clock)

    def _decide(self, subject: int, person: int, option: int, stale: int) -> None:
        row, who = self._row(subject), PEOPLE[person]
        if row is None:
            return
        shown = self._seen.get(row.source_id, [])
        digest, identity = ("0" * 64, "never") if stale == 3 or not shown else shown[0] if stale == 2 else shown[-1]
        self._append(Decide(
            **self._command(who), item=row.id, option=ANSWERS[option], digest=digest, role=who.role))
        expected = self.model.decide(
            self.clock, who, ("escalation", row.source_id), identity, ANSWERS[option])
        outcome = self._outcome()
        assert outcome.status in expected.statuses, (outcome.status, sorted(expected.statuses), bytes(outcome.body))
        body = json.loads(bytes(outcome.body))
        if expected.decision is not None and outcome.status in (200, 201, 409):
            made = expected.decision
            assert body["decision"]["option"] == made.option
            assert [actor["user"] for actor in body["decision"].get("actors", ())] == made.actors
        if outcome.status == 202:
            assert body["needed"] == expected.needed

    def _many(self, person: int, option: int, stale: int) -> None:
        who, rows = PEOPLE[person], [row for number in range(3) if (row := self._row(number)) is not None]
        fresh = [row.rev if not stale or number % 2 else row.rev - 1 for number, row in enumerate(rows)]
        self._append(DecideMany(**self._command(who), role=who.role, option=ANSWERS[option], answers=tuple(
            BatchAnswer(row.id, rev) for row, rev in zip(rows, fresh, strict=True))))
        body = json.loads(bytes(self._outcome().body))
        self.model.tick(self.clock)  # timers change revisions before the answers are compared with them
        skipped: list[str] = []
        for row, rev in zip(rows, fresh, strict=True):
            if not who.sees((row.target_user_id, row.target_role)):
                continue
            if row.id in body["changed_ids"]:
                assert rev != row.rev or self._changed_by_timer(row)
                continue
            assert rev == row.rev
            key = ("escalation", row.source_id)
            expected = self.model.decide(self.clock, who, key, self.model.identity(key), ANSWERS[option])
            if not expected.statuses & {200, 201, 202, 404}:
                skipped.append(row.id)
        assert body["skipped_ids"] == skipped

    def _back(self, subject: int, person: int) -> None:
        row, who = self._row(subject), PEOPLE[person]
        if row is not None:
            self._append(TakeBack(**self._command(who), item=row.id))
            expected = self.model.take_back(self.clock, who, ("escalation", row.source_id))
            assert self._outcome().status in expected.statuses, sorted(expected.statuses)

    def _report(self, which: int, state: int) -> None:
        if self.model.named:
            names = list(self.model.named)
            name = names[which % len(names)]
            self._number += 1
            self._append(Report(ws=WS, id=f"report-{self._number}", time=self.clock, decision=name,
                                state=REPORTS[state], reason="why"))  # type: ignore[arg-type]
            self.model.report(self.clock, self.model.named[name], REPORTS[state])

    def _source(self, subject: int, what: int) -> None:
        """The source reports the first decision of its item, or the current one, as applied or refused."""
        kind = "decision.applied" if what % 2 else "decision.refused"
        own = [name for name, made in self.model.named.items() if made.key[1] == f"q{subject}"]
        data = {"decision": own[0]} if what > 1 and own else {}
        self._event(kind, subject, reason="freeze", **data)

    # --- the fold ---

    def _event(self, kind: str, subject: int, before: int = 0, **data: Any) -> None:
        self._number += 1
        value = {
            "specversion": "1.0", "id": f"e{self._number}", "source": "/s", "type": kind, "subject": f"q{subject}",
            "time": format_timestamp(self.clock - before), "workspaceid": WS, "data": data}
        line = {"topic": "escalations", "key": None, "value": value}
        self.lines.append(line)
        self._append(event_of(line))
        self.model.event(line, self.clock)

    def _ask(self, number: int) -> dict[str, Any]:
        ask = ASKS[number]
        if ask is None:
            return {}
        fields = {name: value for name, value in ask.items() if name != "expires"}
        if "expires" in ask:
            fields["expires_at"] = format_timestamp(START + (self.clock - START) // (60 * SECOND) * 60 * SECOND
                                                   + (60 + ask["expires"]) * SECOND)
        return {"ask": fields}

    def _command(self, who: Reader) -> dict[str, Any]:
        self._number += 1
        return {"ws": WS, "id": f"c{self._number}", "time": self.clock, "user": who.user, "roles": (who.role,),
                "edge": f"edge-{self._number % 2}"}

    def _append(self, *entries: Any) -> None:
        self.entries += [(self.clock, entry) for entry in entries] or [(self.clock, None)]
        self.worker.log.append(encode_pack(Pack(self.clock, list(entries))))
        self.worker.run()

    def _outcome(self) -> Outcome:
        outcome = decode_fact(next(raw for raw in reversed(self.worker.facts) if b'"t":"outcome"' in raw))
        assert isinstance(outcome, Outcome)
        self.outcomes.append(outcome)
        return outcome

    def rows(self, kind: type[Any]) -> list[Any]:
        decoded = (decode_row(key, value) for key, value in self.worker.rows.items() if key[:2] in (b"i:", b"c:"))
        return [row for row in decoded if isinstance(row, kind)]

    def _row(self, subject: int) -> ItemRow | None:
        return next((row for row in self.rows(ItemRow) if row.source_id == f"q{subject}" and row.state != "hidden"),
                    None)

    def _changed_by_timer(self, row: ItemRow) -> bool:
        now = self._row(int(row.source_id[1:]))
        return now is None or now.rev != row.rev

    # --- the comparison ---

    def _compare(self, step: str) -> None:
        self._name_new_decisions()
        stored = {row.id: row for row in self.rows(DecisionRow)}
        published = [json.loads(raw) for raw in self.worker.decisions]
        assert set(stored) == set(self.model.named), step
        for name, made in self.model.named.items():
            row = stored[name]
            assert (row.state, row.returned) == (made.state, made.back), f"{step}: {made}"
            verbs = [each["type"].removeprefix("decision.") for each in published if each["data"]["decision"] == name]
            assert verbs == made.published, f"{step}: {made}"
        for row in self.rows(ItemRow):
            if row.state == "hidden":
                continue
            key = (row.kind, row.source_id)
            shown = "open" if row.state in ("unread", "read") else row.state
            assert shown == self.model.state(key), f"{step}: {key} {row.question}"
            identity, digest = self.model.identity(key), row.question.digest if row.question else None
            assert (identity is None) == (digest is None), step
            if identity is not None and digest is not None:
                seen = self._seen.setdefault(row.source_id, [])
                for before in seen:
                    assert (before[0] == digest) == (before[1] == identity), f"{step}: one digest for each content"
                if not seen or seen[-1] != (digest, identity):
                    seen.append((digest, identity))

    def _name_new_decisions(self) -> None:
        """Sets the ids of new decisions of the model, from their facts `decision.made` or `decision.expired`."""
        facts = [decode_fact(raw) for raw in self.worker.facts[self._facts:]]
        self._facts = len(self.worker.facts)
        for fact in facts:
            if isinstance(fact, Fact) and fact.type in ("decision.made", "decision.expired"):
                assert fact.decision not in self.model.named, "a decision has two facts"
                made = next(each for each in self.model.made if each.key == (fact.kind, fact.subject)
                            and each not in self.model.named.values())
                assert (fact.option, fact.does) == (made.option, made.does)
                self.model.named[str(fact.decision)] = made
