"""Rows as the fold writes them into `attn.views`: items with titles and bodies, marks, activity, decisions, drafts.

Times aside, the rows of a workspace depend on its number alone, so several processes make parts of one topic. Titles
and bodies are random pieces of a text of 40,000 words with Zipf's frequencies, so they compress about as well as
English does.
"""

from __future__ import annotations

import itertools
import random
import time
from binascii import b2a_base64
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import msgspec

from schemas.asking.question import DecisionRow, Question, Vote
from schemas.log import NO_PAYLOAD, Data, Sender, Step
from schemas.scalars import HOUR, MINUTE, SECOND
from schemas.views import (
    ActivityRow,
    Close,
    DraftEditor,
    DraftRow,
    ItemRow,
    MarkRow,
    PreferencesRow,
    Row,
    SeenRow,
    Stamp,
    encode_row,
)
from streams.core.domain.keys import (
    activity_key,
    decision_key,
    draft_key,
    item_id,
    item_key,
    mark_key,
    preferences_key,
    seen_key,
)

__all__ = ["BEGIN", "Shape", "hot_rows", "sizes", "workspace_name", "workspace_rows"]

# The begin of this hour. A worker that loads the rows has no timer that is due, until hours later.
BEGIN = time.time_ns() // 1000 // HOUR * HOUR
_KINDS = ("waitpoint", "escalation", "failed_run", "message", "session_waiting", "plan_approval", "pending_action")
_ROLES = ("OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER")
_PRIORITIES = ("normal", "normal", "normal", "low", "high", "urgent")
# Of 100 rows. Three quarters of the items are resolved: they stay readable for 30 days. No edge keeps `seen` rows.
_MIX = {"item": 62, "mark": 10, "activity": 10, "decision": 8, "draft": 4, "preferences": 2, "seen": 4}
_OPEN_SHARE = 0.25
_WORDS = 40_000


class Shape(NamedTuple):
    """`rows` in `workspaces`; the largest workspace has `skew` times the rows of an average one."""

    rows: int
    workspaces: int
    skew: float = 8.0


def workspace_name(number: int) -> str:
    return f"ws_{number:05d}"


def sizes(shape: Shape) -> list[int]:
    """Returns the rows of each workspace: a power law, whose sum is about `shape.rows`."""
    exponent = 1 - 1 / shape.skew
    weights = [(number + 1) ** -exponent for number in range(shape.workspaces)]
    factor = shape.rows / sum(weights)
    average = shape.rows / shape.workspaces
    return [max(1, round(min(weight * factor, average * shape.skew * 10))) for weight in weights]


@cache
def _text() -> list[str]:
    chance = random.Random(5)
    syllables = ["".join(pair) for pair in itertools.product("bcdfghklmnprstvw", "aeiou")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(4000)]
    return chance.choices(words, [1 / (rank + 2) for rank in range(len(words))], k=_WORDS)


class _Maker:
    """Makes the rows of one workspace."""

    def __init__(self, number: int, users: int) -> None:
        self.ws = workspace_name(number)
        self._chance = random.Random(number)
        self._users = [f"user_{number:05d}_{user}" for user in range(users)]

    def _words(self, least: int, most: int) -> str:
        words = _text()
        at = int(self._chance.random() * (_WORDS - most))
        return " ".join(words[at:at + least + int(self._chance.random() * (most - least))])

    def _user(self) -> str:
        return self._chance.choice(self._users)

    def item(self, number: int) -> tuple[bytes, Row]:
        chance = self._chance
        kind, at = chance.choice(_KINDS), BEGIN + number * 7 * SECOND
        is_open, asks = chance.random() < _OPEN_SHARE, chance.random() < 0.15
        user, role = chance.choice(((None, None), (None, chance.choice(_ROLES)), (self._user(), None)))
        digest = f"{chance.getrandbits(96):024x}"
        case = f"case_{chance.getrandbits(32):08x}"
        resolved = at + int(chance.random() * 40) * MINUTE
        by = self._user()
        ask = (b'{"options":[{"id":"approve","title":"Approve","does":"approve"},'
               b'{"id":"reject","title":"Reject","does":"reject","destructive":true}],'
               b'"context_url":"https://ci.example/%08x"}' % chance.getrandbits(32)) if asks else b""
        row = ItemRow(
            id=item_id(self.ws, kind, str(number)), ws=self.ws, kind=kind,
            source_id=f"{kind}_{chance.getrandbits(64):016x}", rev=number,
            state=("read" if chance.random() < 0.3 else "unread") if is_open else "resolved",
            data=Data(
                title=self._words(5, 10).capitalize(), body_md=self._words(20, 60), priority="high",
                sender=Sender("agent", f"ag_{chance.randrange(50)}", "Daniel"),
                cluster=f"prod-{chance.randrange(12)}", stack=chance.choice(("web", "api", "batch")), case_id=case,
                case_title=self._words(3, 6), session_id=f"s_{chance.getrandbits(64):016x}",
                steps=[Step(self._words(2, 5), "confirm")] if kind == "plan_approval" else None,
                payload=msgspec.Raw(b'{"run":"%016x","attempt":%d}' % (chance.getrandbits(64), chance.randrange(5))),
                ask=msgspec.Raw(ask) if asks else NO_PAYLOAD),
            priority=chance.choice(_PRIORITIES), blocking=chance.random() < 0.5, target_user_id=user, target_role=role,
            created_at=at, due_at=at + 8 * HOUR, updated_at=at, wake=at + 8 * HOUR, periods=[at],
            base=Stamp(at, digest), touched=at, source="/pipelines/deploy" if asks else "",
            question=Question(digest=f"{chance.getrandbits(128):032x}") if asks else None)
        if not is_open:
            row.read_at, row.read_by, row.resolved_at, row.resolved_by = resolved, by, resolved, by
            row.resolved_action = "approved"
            row.closed, row.periods = Close(resolved, f"{chance.getrandbits(96):024x}", "approved", by), [at, resolved]
            row.wake = resolved + 30 * 24 * HOUR
        return item_key(row.id), row

    def mark(self, number: int) -> tuple[bytes, Row]:
        """A mark on an item that may have existed: numbers of items are those of rows."""
        item = item_id(self.ws, self._chance.choice(_KINDS), str(self._chance.randrange(number + 1)))
        user = self._user()
        return mark_key(item, user), MarkRow(self.ws, item, user, 0, None, number)

    def activity(self, number: int) -> tuple[bytes, Row]:
        at = BEGIN + number * 7 * SECOND
        return activity_key(self._chance.randbytes(12)), ActivityRow(
            ws=self.ws, id=f"{self._chance.getrandbits(96):024x}", type="plan.approved", at=at,
            item=item_id(self.ws, "plan_approval", str(number)), kind="plan_approval", target_user_id=self._user(),
            title=self._words(5, 10).capitalize(), cluster="prod-3", case_id=f"case_{self._chance.getrandbits(32):08x}",
            by=self._user(), rev=number, wake=at + 24 * HOUR)

    def decision(self, number: int) -> tuple[bytes, Row]:
        chance, at, by = self._chance, BEGIN + number * 7 * SECOND, self._user()
        row = DecisionRow(
            id=f"dec_{chance.getrandbits(128):032x}", ws=self.ws, item=item_id(self.ws, "waitpoint", str(number)),
            kind="waitpoint", source="/pipelines/deploy", subject=f"waitpoint_{chance.getrandbits(64):016x}",
            ask_id="default", digest=f"{chance.getrandbits(128):032x}", option="approve", does="approve",
            title=self._words(5, 10).capitalize(), cluster="prod-3", option_title="Approve",
            comment=self._words(3, 12) if chance.random() < 0.3 else None,
            actors=(Vote(by, "MEMBER", at, "approve", "approve"),), opened_at=at - HOUR, decided_at=at, state="applied",
            delivered_at=at + SECOND, revision=number, published=True, rev=number, touched=at,
            wake=at + 30 * 24 * HOUR)
        return decision_key(row.id), row

    def draft(self, number: int) -> tuple[bytes, Row]:
        at, user = BEGIN + number * SECOND, self._user()
        editors = [DraftEditor("user", user, "Ann", at), DraftEditor("ai", "ag_1", "Daniel", at)]
        return draft_key(self.ws, str(number)), DraftRow(
            ws=self.ws, draft_id=f"draft_{self._chance.getrandbits(64):016x}", rev=number, title=self._words(4, 8),
            cluster="prod-3", stack="web", owner=user, touched_at=at, ai_at=at, editors=editors, touched=at)

    def preferences(self, number: int) -> tuple[bytes, Row]:
        user = f"{self._user()}_{number}"
        return preferences_key(self.ws, user), PreferencesRow(self.ws, user, [], [], number)

    def seen(self, number: int) -> tuple[bytes, Row]:
        """The digests of a pack of 20 events."""
        digests = b2a_base64(self._chance.randbytes(240), newline=False).decode()
        return seen_key(number, self._chance.getrandbits(40)), SeenRow(digests, BEGIN + 24 * HOUR)


def workspace_rows(number: int, count: int, users: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """Yields key and value of `count` rows of workspace `number`, the same ones each time."""
    maker = _Maker(number, users)
    kinds = random.Random(~number).choices(tuple(_MIX), tuple(_MIX.values()), k=count)
    for row_number, kind in enumerate(kinds):
        key, row = getattr(maker, kind)(row_number)
        yield key, encode_row(row)


def hot_rows(ws: str, items: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields open items of one workspace; most have the whole workspace or a role as target, and a tenth a user."""
    maker = _Maker(0, 200)
    maker.ws = ws
    for number in range(items):
        key, row = maker.item(number)
        assert isinstance(row, ItemRow)
        row.state, row.resolved_at, row.resolved_by, row.resolved_action, row.closed = "unread", None, None, None, None
        row.read_at, row.read_by = None, None
        row.target_user_id = row.target_user_id if number % 3 == 0 else None
        yield key, encode_row(row)
