"""Laws 4 and 6 with writes of users: source events and commands of several users and roles, in any order.

After every step the snapshot and frames of each reader equal the reader's page, and no channel has sent invisible
data.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.clients.feed import Copy, frames
from support.edge.expected_view import Truth
from support.edge.random_rows import marker
from support.examples import law
from support.fold.fold_driver import NOON, event

from api.commands.visibility_barrier import VisibilityBarrier
from api.live.frames import FrameEncoder
from api.live.notifications import NotificationHub, Subscriber
from api.readmodel.pages import PageRenderer, PageRequest
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from schemas.asking.question import DecisionRow
from schemas.facts import Fact, Outcome
from schemas.log import (
    BatchAnswer,
    Decide,
    DecideMany,
    Dismiss,
    Pack,
    Report,
    Restore,
    SetPreferences,
    SetState,
    TakeBack,
    Widget,
    decode_pack,
    encode_pack,
)
from schemas.scalars import MINUTE
from schemas.views import ItemRow, KeysRow, OutcomeRow, PositionRow, apply_changes, decode_row, position_key
from streams.core.config import FoldConfig
from streams.core.domain import periods
from streams.core.fold.asking.votes import refusal_of
from streams.core.fold.fold import Fold

SEEDS = st.integers(0, 2**32)
READERS = [Reader(ws, user, frozenset({role})) for ws, user, role in (
    ("w1", "ann", "OWNER"), ("w1", "bob", "MEMBER"), ("w1", "cyd", "MEMBER"), ("w2", "ann", "OWNER"))]
LIMITS = (2, 1000)
OPENS = ("waitpoint.created", "message.posted", "run.failed", "escalation.opened", "plan.proposed")
# Effect `retry` applies to failed runs; with `confirm` false a delivered decision counts as applied.
ASKS = (None, {}, {"quorum": {"approve": 2}}, {"reply": {"to": "x", "confirm": False}}, {"batch": {"key": "b"}},
        {"deciders": {"roles": ["MEMBER"]}}, {"expires_at": "2026-05-20T14:00:00Z"})
CLOSES = ("waitpoint.approved", "message.withdrawn", "run.recovered", "escalation.resolved", "plan.rejected")


class Followed:
    """One reader's feed: its bytes, and the copy that a browser would have."""

    def __init__(self, reader: Reader, limit: int, replica: Replica, frames_of: FrameEncoder) -> None:
        self.reader, self.limit = reader, limit
        self.window = Window(reader, limit, replica.workspace(reader.workspace_id))
        self.copy = Copy()
        self.bytes = b""
        cursor = replica.cursor(reader.workspace_id)
        self.receive(frames_of.encode_snapshot(replica.workspace(reader.workspace_id), self.window, cursor))

    def receive(self, *sent: bytes) -> None:
        self.bytes += b"".join(sent)
        for frame in frames(b"".join(sent)):
            self.copy.apply(frame)


class Stage:
    """Log, fold and edge of one partition."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: dict[bytes, bytes] = {}
        self.fold = Fold(self.rows, 0, FoldConfig())
        self.fold.load()
        self.fold.reconcile(0)
        self.replica, self.answers = Replica(1), PageRenderer()
        self.pushes, self.barrier = NotificationHub(self.replica), VisibilityBarrier(self.replica.position_of)
        self.subscribers = [Subscriber(reader) for reader in READERS]
        for subscriber in self.subscribers:
            self.pushes.subscribe(subscriber)
        self.frames = FrameEncoder(self.answers)
        self.feeds = [Followed(reader, limit, self.replica, self.frames) for reader in READERS for limit in LIMITS]
        self.clock = 0
        self.number = 0
        self.fact_count = 0  # number of facts
        self.outcomes: dict[str, Outcome] = {}  # command -> outcome
        self.net_openings: Counter[str | None] = Counter()  # item -> openings minus closings in its facts

    def step(self) -> None:
        self.clock += self.random.randrange(0, 40)
        entries = [self._entry() for _ in range(self.random.randrange(0, 4))]
        pack = decode_pack(encode_pack(Pack(NOON + self.clock * MINUTE, entries)))
        whole = False
        while not whole:
            whole = self.fold.apply(pack, self.fold.position.next)
            self._publish()

    def _entry(self) -> Any:
        self.number += 1
        return self.random.choice((self._event, self._event, self._command, self._command, self._report))()

    def _event(self) -> Any:
        pick = self.random.choice
        kind, ws = pick(OPENS + OPENS + CLOSES), pick(("w1", "w1", "w2"))
        user, role = pick(((None, None), (None, "OWNER"), ("bob", None), ("cyd", "OWNER")))
        targets = {"target_user_id": user, "target_role": role}
        asks = {} if kind in CLOSES else {"ask": pick(ASKS)}
        return event(kind, f"s{pick(range(4))}", self.clock - pick(range(-5, 60)), ws, id=f"e{self.number}",
                     title=marker(ws, user, role), cluster=pick("abc"), priority=pick(("low", "high", "urgent")),
                     incident_key="k", **{name: value for name, value in (targets | asks).items() if value})

    def _command(self) -> Any:
        """Returns a command of any user for any item, invisible ones included."""
        pick, reader = self.random.choice, self.random.choice(READERS)
        ids = [row.id for row in map(self._item, list(self.rows)) if row is not None] or ["ibx_none"]
        common = {
            "ws": reader.workspace_id, "id": f"c{self.number}", "time": NOON + self.clock * MINUTE, "user": reader.user,
            "roles": tuple(reader.roles), "idempotency_key": pick((None, None, "k1", "k2")),
        }
        state = pick(("unread", "read", "resolved"))
        until = pick((None, NOON + (self.clock + 30) * MINUTE))
        return pick((
            lambda: SetState(**common, items=(pick(ids),), state=state),
            lambda: SetState(**common, items=tuple(self.random.sample(ids, min(len(ids), 3))), state=state, bulk=True),
            lambda: Dismiss(**common, item=pick(ids), until=until), lambda: Restore(**common, item=pick(ids)),
            lambda: SetPreferences(**common, pinned_clusters=[pick("abc")], widgets=[Widget("w", True)]),
            *(lambda: self._decision_command(reader, common, ids),) * 4,
        ))()

    def _decision_command(self, reader: Reader, common: dict[str, Any], ids: list[str]) -> Any:
        """Returns a vote (most for the current question), its undo, or one option for several items."""
        pick = self.random.choice
        common = common | {"idempotency_key": None}  # stored outcomes of decisions keep their whole body
        claims = {"role": next(iter(reader.roles)), "option": pick(("approve", "approve", "reject", "retry"))}
        rows = [row for row in map(self._item, list(self.rows)) if row is not None and row.question is not None]
        if not rows or self.random.random() < 0.2:
            some = tuple(BatchAnswer(item, pick((0, 1, self.fold.position.position - 1))) for item in ids[:3])
            return pick((
                lambda: TakeBack(**common, item=pick(ids)), lambda: DecideMany(**common, **claims, answers=some)))()
        row = pick(rows)
        if self.random.random() < 0.2:
            return TakeBack(**common, item=row.id)
        assert row.question is not None
        digest = pick((row.question.digest, row.question.digest, row.question.digest, "other"))
        return Decide(**common, **claims, item=row.id, digest=digest)

    def _report(self) -> Any:
        """Returns the report of `attn deliver` or of a source about a decision."""
        decisions = [row for key, raw in self.rows.items() if isinstance(row := decode_row(key, raw), DecisionRow)]
        if not decisions:
            return self._event()
        row = self.random.choice(decisions)
        state = self.random.choice(("delivered", "applied", "refused", "undeliverable", "again"))
        return Report(row.ws, f"r{self.number}", NOON + self.clock * MINUTE, row.id, state, "reason")

    def _item(self, key: bytes) -> ItemRow | None:
        row = decode_row(key, self.rows[key])
        return row if isinstance(row, ItemRow) else None

    def _publish(self) -> None:
        batch = self.fold.pending_batch()
        apply_changes(self.rows, batch.rows)
        self.fold.mark_durable()
        position = decode_row(position_key(0), self.rows[position_key(0)])
        assert isinstance(position, PositionRow)
        for fact in batch.facts:
            if isinstance(fact, Outcome):
                self.outcomes[fact.command] = fact
                if self.pushes.wants(fact):
                    self.barrier.add(0, fact)
            else:
                if self.pushes.wants_fact(fact):
                    self.barrier.add(0, fact)
                self.fact_count += 1
                self.net_openings[fact.item] += fact.opened - (fact.seconds_open is not None)
        self._push_visible()
        for update in self.replica.apply(0, batch.rows, position):
            for feed in self.feeds:
                if feed.reader.workspace_id == update.workspace.workspace_id:
                    feed.receive(*self.frames.encode_batch(update, feed.window))
        self._push_visible()

    def _push_visible(self) -> None:
        visible = self.barrier.pop_visible()
        for outcome in visible:
            if isinstance(outcome, Outcome):
                self.pushes.push(outcome)
        self.pushes.push_decisions([fact for fact in visible if isinstance(fact, Fact)])

    def check_repeated_command(self) -> None:
        """A command that repeats an earlier one under another id has no effect: no row, fact, frame or push."""
        self.number += 1
        command = self._command()
        while command.idempotency_key is not None:
            command = self._command()
        self._fold(command)
        self._fold()  # a question that was asked again after its `expires_at` expires now
        rows, fact_count = self._kept(), self.fact_count
        sent = [feed.bytes for feed in self.feeds], [each.waiting.qsize() for each in self.subscribers]
        self._fold(msgspec.structs.replace(command, id=f"{command.id} again"))
        assert (self._kept(), self.fact_count) == (rows, fact_count), command
        assert sent == (
            [feed.bytes for feed in self.feeds], [each.waiting.qsize() for each in self.subscribers]), command

    def check_edge_agrees(self) -> None:
        """An edge refuses an answer on its replica exactly if the fold refuses it, with the same response."""
        self._fold()  # due timers change questions before the next command
        for number in range(4):
            reader = READERS[number]
            row_ids = [row.id for row in map(self._item, list(self.rows)) if row is not None]
            self.number += 1
            common = {"ws": reader.workspace_id, "id": f"c{self.number}", "time": NOON + self.clock * MINUTE,
                      "user": reader.user, "roles": tuple(reader.roles)}
            command = self._decision_command(reader, common, row_ids or ["ibx_none"])
            if not isinstance(command, Decide):
                continue
            row = self.replica.workspace(reader.workspace_id).visible_item(reader, command.item)
            refusal = refusal_of(row, command, FoldConfig()) if row is not None else (404, {"error": "not found"})
            self._fold(command)
            outcome = self.outcomes[command.id]
            if refusal is None:
                assert outcome.status in (200, 201, 202)
            else:
                assert (outcome.status, json.loads(bytes(outcome.body))) == refusal

    def check_late_unread(self) -> None:
        """`unread` by every user, with an old revision, opens no item that its source closed."""
        before = {row.id: row for row in map(self._item, list(self.rows)) if row is not None}
        for reader in READERS:
            self.number += 1
            ids = tuple(row.id for row in before.values())
            self._fold(SetState(
                ws=reader.workspace_id, id=f"c{self.number}", time=NOON + self.clock * MINUTE, user=reader.user,
                roles=tuple(reader.roles), items=ids or ("ibx_none",), state="unread", bulk=True))
        for row in (row for row in map(self._item, list(self.rows)) if row is not None and row.kind != "incident"):
            was = before[row.id]
            if was.state == "resolved" and row.is_open:
                assert was.closed is not None
                assert was.closed.digest.startswith("c"), "only an item that a command closed opens again"

    def _kept(self) -> dict[bytes, bytes]:
        return {key: raw for key, raw in self.rows.items() if key[:2] not in (b"e:", b"~:")}

    def _fold(self, *commands: Any) -> None:
        pack = decode_pack(encode_pack(Pack(NOON + self.clock * MINUTE, list(commands))))
        while not self.fold.apply(pack, self.fold.position.next):
            self._publish()
        self._publish()

    def check_outcomes(self) -> None:
        """The number of stored outcomes per user is correct, and each has less than 400 bytes."""
        rows = {key: decode_row(key, raw) for key, raw in self.rows.items() if key[:2] in (b"o:", b"k:")}
        kept = Counter((row.ws, row.user) for row in rows.values() if isinstance(row, OutcomeRow))
        assert kept == {(row.ws, row.user): row.count for row in rows.values() if isinstance(row, KeysRow)}
        assert all(len(self.rows[key]) < 400 for key in rows)

    def check_facts(self) -> None:
        """Items that are open by the facts are the open items of the view (an incident has no facts of its own)."""
        rows = [row for row in map(self._item, list(self.rows)) if row is not None and row.kind != "incident"]
        assert {row.id: self.net_openings[row.id] for row in rows} == {row.id: row.is_pending for row in rows}

    def check(self) -> None:
        self._check_incidents()
        for feed in self.feeds:
            truth = Truth(self.rows, feed.reader).page(feed.limit)
            assert feed.copy.page == truth
            workspace = self.replica.workspace(feed.reader.workspace_id)
            page = json.loads(self.answers.inbox_page(workspace, feed.reader, 0, PageRequest(feed.limit)))
            assert [item["id"] for item in page["items"]] == [item["id"] for item in truth["items"]]
            assert page["counts"] == truth["counts"]
        self.check_pushes()

    def check_pushes(self) -> None:
        """Called before the next step, because that may change the targets of a row."""
        for subscriber in self.subscribers:
            while not subscriber.waiting.empty():
                self._check_push(subscriber.reader, json.loads(subscriber.waiting.get_nowait()))

    def _check_incidents(self) -> None:
        """An incident is open exactly while one of its runs is open, and exactly these runs are grouped under it. A run
        whose question got an answer is not listed, but it stays a member until its source closes it."""
        rows = [row for row in map(self._item, list(self.rows)) if row is not None]
        for incident in (row for row in rows if row.kind == "incident"):
            grouped = {row.id for row in rows if row.incident == incident.id and row.is_open}
            answered = {row.id for row in rows if row.id in incident.members and not row.is_open
                        and periods.is_open(row.periods) and row.question is not None and row.question.decision}
            assert not grouped or incident.is_pending, incident
            assert not incident.is_open or grouped or answered, incident
            assert (set(incident.members), incident.count) == (grouped | answered, len(grouped | answered))
            assert incident.state == "resolved" or incident.resolved_at is None

    def _check_push(self, reader: Reader, push: Any) -> None:
        assert push["channel"] == f"workspace:{reader.workspace_id}"
        if "id" in push["payload"]:
            row = self._item(b"i:" + push["payload"]["id"].encode())
            assert row is None or row.ws == reader.workspace_id
            assert row is None or reader.can_see(row.target_user_id, row.target_role)


@law(60)
@given(SEEDS)
def test_law_4_and_6_with_writes(seed: int) -> None:
    stage = Stage(seed)
    for _ in range(25):
        stage.step()
        stage.check()
        stage.check_facts()
        stage.check_outcomes()
        stage.check_repeated_command()
        stage.check_pushes()
        stage.check_edge_agrees()
        stage.check_pushes()
    stage.check_late_unread()
    stage.check()
    for feed in stage.feeds:
        reader = feed.reader
        for ws in ("w1", "w2"):
            for user, role in ((None, None), (None, "OWNER"), ("bob", None), ("cyd", "OWNER")):
                if ws != reader.workspace_id or not reader.can_see(user, role):
                    assert marker(ws, user, role).encode() not in feed.bytes
