"""Questions and decisions of one workspace, written from CONTRACT §7 without any code of attn.

Unlike the rest of the model, this part depends on the order of the log. `Asking` gets its inputs one by one, each with
the log's clock. It returns the responses that the contract allows, and keeps the state of each question.

    asking = Asking(undo=5_000_000, confirm=900_000_000)
    asking.event(line, clock)                              # a source event, as in the topics
    expected = asking.decide(clock, Reader("ann", "OWNER"), key, seen, "approve")
    expected.statuses, expected.decision                   # allowed statuses of the response, and its decision

`key` is (kind, source id). `seen` identifies the content that the user saw: `asking.identity(key)` at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from support.model.effects import bearings
from support.model.model import Model
from support.model.questions import UNDER_WAY, Asked, Expected, Key, Made, does_of, identity_of
from support.model.types import Event, Item, Reader, event_of, us

__all__ = ["Asking"]


def _expected(*statuses: int, decision: Made | None = None, needed: int | None = None) -> Expected:
    return Expected(frozenset(statuses), decision, needed)


class Asking:
    """All questions of one workspace. `deciders`: the roles that decide if an ask names no deciders."""

    def __init__(
        self, undo: int = 5_000_000, confirm: int = 900_000_000,
        deciders: Iterable[str] = ("OWNER", "ADMIN", "MANAGER", "MEMBER"),
    ) -> None:
        self.undo, self.confirm, self.roles = undo, confirm, frozenset(deciders)
        self.lines: dict[Key, list[dict[str, Any]]] = {}
        self.items: dict[Key, Item] = {}
        self.questions: dict[Key, Asked] = {}
        self.made: list[Made] = []
        self.named: dict[str, Made] = {}  # id of a decision in attn -> the decision; set by the caller
        self._bases: dict[Key, Event] = {}
        self._known: set[tuple[str, str]] = set()

    # --- inputs, in the order of the log ---

    def event(self, line: dict[str, Any], clock: int) -> None:
        """Applies a source event, which may be a report of the type `decision.applied` or `decision.refused`. A repeat
        changes nothing."""
        self.tick(clock)
        value = line["value"]
        if (value["source"], value["id"]) in self._known:
            return
        self._known.add((value["source"], value["id"]))
        if value["type"] in ("decision.applied", "decision.refused"):
            self._source_reports(value, clock)
            return
        for kind, source_id, _ in bearings(event_of(line)):
            key = (kind, source_id)
            self.lines.setdefault(key, []).append(line)
            self._update_question(key, clock)
        self._release(clock)

    def decide(
        self, clock: int, who: Reader, key: Key, seen: str | None, option: str, answer: str = "", fits: bool = True,
    ) -> Expected:
        """Applies a vote. `answer`: form and arguments as one text; `fits`: they are valid for the ask."""
        self.tick(clock)
        item, asked = self.items.get(key), self.questions.get(key)
        if item is None or not who.sees(item.target):
            return _expected(404)
        if asked is None:
            return _expected(409)
        does, reasons, decision = does_of(asked.ask, key[0], option), set(), asked.decision
        if not self.may_decide(who, key):
            reasons.add(403)
        if seen != asked.identity:
            reasons.add(412)
        if does is None or not fits:
            reasons.add(422)
        mine = f"{option} {answer}"
        if not asked.undecided:
            status, again = self._decided_before(asked, who, mine)
            if again and not reasons and decision is not None:
                decision.state, decision.back, decision.sent_at = "sending", None, clock
                decision.published.append("made")
            return _expected(*(reasons | {status} if not again else reasons or {status}), decision=decision)
        if reasons:
            return _expected(*reasons)
        expected = self._vote(asked, key, who.user, mine, option, str(does), clock)
        self._release(clock)
        return expected

    def take_back(self, clock: int, who: Reader, key: Key) -> Expected:
        self.tick(clock)
        item, asked = self.items.get(key), self.questions.get(key)
        decision = asked.decision if asked is not None else None
        if item is None or not who.sees(item.target) or asked is None or decision is None:
            return _expected(404)
        mine = who.user in decision.actors
        if decision.state == "taken_back":
            return _expected(*([200] if mine else [403, 409]), decision=decision)
        if not mine:
            return _expected(403, 409, decision=decision)
        if decision.state != "made" or clock >= decision.undo_until or asked.ended:
            return _expected(409, decision=decision)
        asked.votes = {user: decision.answer for user in decision.actors if user != who.user} | asked.votes
        self._enter(decision, "taken_back")
        self._release(clock)
        return _expected(200, decision=decision)

    def report(self, clock: int, decision: Made, state: str) -> None:
        """Applies a report of `attn deliver`. `state`: delivered, applied, refused or undeliverable."""
        self.tick(clock)
        if state == "delivered":
            if "delivered" not in decision.published:
                decision.published.append("delivered")
            if decision.confirm:
                return
            state = "applied"
        self._report(decision, state, clock)
        self._release(clock)

    def tick(self, clock: int) -> None:
        """Applies all timers until `clock`: end of the undo window, missing confirmation, expiry of a question."""
        for key, asked in self.questions.items():
            self._expire(key, asked, clock)
        for decision in self.made:
            if decision.state == "made" and "made" in decision.published and decision.undo_until <= clock:
                decision.state, decision.sent_at = "sending", clock
                if not decision.confirm and decision.to is None:
                    self._report(decision, "applied", clock)
            elif (decision.state == "sending" and decision.is_published and decision.back is None
                  and decision.sent_at + self.confirm <= clock):
                decision.back = "unconfirmed"
                decision.facts.append("unconfirmed")
        self._release(clock)

    # --- the state that users see ---

    def identity(self, key: Key) -> str | None:
        """Returns all that a user sees of the question, as one text; None if the item has no question."""
        asked = self.questions.get(key)
        return None if asked is None else asked.identity

    def state(self, key: Key) -> str:
        """Returns the state of the item: open, decided or resolved."""
        asked = self.questions.get(key)
        if not self.items[key].open:
            return "resolved"
        decision = asked.decision if asked is not None else None
        if decision is None or decision.back is not None:
            return "open"
        return {"made": "decided", "sending": "decided", "applied": "resolved", "expired": "resolved"}.get(
            decision.state, "open")

    def may_decide(self, who: Reader, key: Key) -> bool:
        """Returns whether a user who sees the item may decide it."""
        deciders = self.questions[key].ask.get("deciders") or {}
        requester = deciders.get("requester") or self._bases[key].data.get("by_user_id")
        if "requester" in deciders.get("not", ()) and who.user == requester:
            return False
        users, roles = deciders.get("users") or (), deciders.get("roles") or ()
        return who.user in users or who.role in (roles if users or roles else self.roles)

    # --- internals ---

    def _update_question(self, key: Key, clock: int) -> None:
        """Computes the item after an event. Replaces its question if the content differs, or if the item opened again.
        """
        lines = self.lines[key]
        item = Model(lines).at(clock)[lines[0]["value"]["workspaceid"]].items.get(key)
        if item is None:
            return
        self.items[key] = item
        events = [event_of(line) for line in lines]
        base = max((event for event in events if ("open" in [role for _, _, role in bearings(event)])),
                   key=lambda event: event.time)
        self._bases[key] = base
        ask = item.shown.get("ask")
        if ask is None:
            self.questions.pop(key, None)
            return
        identity = identity_of(base.source, item, ask)
        asked = self.questions.get(key)
        again = asked is not None and item.open and (asked.ended or asked.final_base not in (None, base.id))
        if asked is None or asked.identity != identity or again:
            asked = self.questions[key] = Asked(identity, ask)
        if not item.open and not asked.ended:
            asked.ended = True
            if asked.decision is not None and asked.decision.state in UNDER_WAY:
                self._enter(asked.decision, "applied")
        self._expire(key, asked, clock)

    def _expire(self, key: Key, asked: Asked, clock: int) -> None:
        ends = asked.ask.get("expires_at")
        if ends is None or us(ends) > clock or not asked.undecided or not self.items[key].open:
            return
        option = asked.ask.get("on_expiry")
        self._make(asked, key, [], "", option, does_of(asked.ask, key[0], option), clock,
                   "sending" if option else "expired", clock)

    def _decided_before(self, asked: Asked, who: Reader, mine: str) -> tuple[int, bool]:
        """Returns the status of a vote on a decided question, and whether the vote sends the same decision again."""
        decision = asked.decision
        if decision is None or decision.state in ("expired", "refused", "taken_back"):
            return 410, False
        if decision.back is not None and decision.actors and decision.answer == mine:
            return 200, True
        return (200 if who.user in decision.actors and decision.answer == mine else 409), False

    def _vote(self, asked: Asked, key: Key, user: str, mine: str, option: str, does: str, clock: int) -> Expected:
        quorum = int((asked.ask.get("quorum") or {}).get("approve", 1))
        if asked.votes.get(user) == mine:
            return _expected(200, needed=quorum - sum(vote == mine for vote in asked.votes.values()))
        asked.votes.pop(user, None)
        agreeing = [other for other, vote in asked.votes.items() if vote == mine] + [user]
        if does != "reject" and len(agreeing) < quorum:
            asked.votes[user] = mine
            return _expected(202, needed=quorum - len(agreeing))
        actors = [user] if does == "reject" else agreeing
        asked.votes = {other: vote for other, vote in asked.votes.items() if other not in actors}
        made = self._make(asked, key, actors, mine, option, does, clock, "made", clock + self.undo)
        return _expected(201, decision=made)

    def _make(
        self, asked: Asked, key: Key, actors: list[str], answer: str, option: str | None, does: str | None, clock: int,
        state: str, undo_until: int,
    ) -> Made:
        reply, batch = asked.ask.get("reply") or {}, (asked.ask.get("batch") or {}).get("key")
        if not actors:
            asked.votes = {}
        source = self._bases[key].source
        made = Made(
            key, sum(made.key == key for made in self.made), option, does, clock, undo_until, state, actors, answer,
            source, reply.get("confirm", True), reply.get("to"), (source, batch) if batch else None,
            sent_at=clock, facts=["expired" if state == "expired" else "made"])
        asked.decision = made
        self.made.append(made)
        self._finish(key)
        return made

    def _enter(self, decision: Made, state: str) -> None:
        decision.state = state
        decision.facts.append(state)
        if "made" in decision.published and state in ("taken_back", "applied", "refused"):
            decision.published.append(state)
        decision.back = state if state in ("refused", "undeliverable") else None
        self._finish(decision.key)

    def _finish(self, key: Key) -> None:
        """Stores the id of the opening event of a question whose decision is final."""
        asked = self.questions.get(key)
        if (asked is not None and not asked.ended and asked.final_base is None and asked.decision is not None
                and asked.decision.state in ("applied", "expired")):
            asked.final_base = self._bases[key].id

    def _report(self, decision: Made, state: str, clock: int) -> None:
        allowed = {"applied": (*UNDER_WAY, "refused"), "refused": UNDER_WAY, "undeliverable": ("made", "sending")}
        if decision.state in allowed[state]:
            self._enter(decision, state)

    def _source_reports(self, value: Mapping[str, Any], clock: int) -> None:
        """Applies a report of a source about one of its decisions. Without an id it is about the current one."""
        named = (value.get("data") or {}).get("decision")
        current = [asked.decision for asked in self.questions.values() if asked.decision is not None]
        for decision in ([self.named[named]] if named in self.named else [] if named else current):
            if decision.key[1] == value["subject"] and decision.source == value["source"]:
                self._report(decision, value["type"].removeprefix("decision."), clock)
        self._release(clock)

    def _release(self, clock: int) -> None:
        """Expires questions. Then publishes each decision whose batch has no undecided open question."""
        for key, asked in self.questions.items():
            self._expire(key, asked, clock)
        undecided = {
            (self._bases[key].source, asked.ask["batch"]["key"]) for key, asked in self.questions.items()
            if asked.ask.get("batch") and asked.undecided and self.items[key].open}
        for decision in self.made:
            if not decision.is_published and decision.state in ("made", "sending", "expired") and (
                    decision.batch not in undecided):
                decision.published.append("expired" if decision.state == "expired" else "made")
