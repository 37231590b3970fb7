"""Golden vectors of law 4 for clients in any language: the frames of a feed, and the response of GET after each step.

`python -m support.edge.feed_vectors` in `tests/` writes them to `data/feed-vectors`. A test compares the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from support.edge.random_rows import World
from support.fold.fold_driver import NOON, event

from api.live.frames import FrameEncoder
from api.readmodel.pages import PageRenderer, PageRequest
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from schemas.asking.question import Question
from schemas.log import (
    Decide,
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
from schemas.scalars import MINUTE, format_timestamp
from schemas.views import ItemRow, PositionRow, apply_changes, decode_row, position_key
from streams.core.config import FoldConfig
from streams.core.domain.keys import item_id, item_key
from streams.core.fold.fold import Fold

__all__ = ["FOLDER", "vectors"]

FOLDER = Path(__file__).parents[2] / "data" / "feed-vectors"
ANN, BOB = Reader("ws", "ann", frozenset({"OWNER"})), Reader("ws", "bob", frozenset({"MEMBER"}))

Rows = dict[bytes, bytes]
Batch = tuple[list[tuple[bytes, bytes | None]], PositionRow]


class _Story:
    """Numbers the entries of a story: source events and commands."""

    def __init__(self) -> None:
        self.number = 0

    def happens(self, kind: str, subject: str, minute: float, **data: Any) -> Any:
        self.number += 1
        return event(kind, subject, minute, id=f"v{self.number}", **data)

    def by(self, who: Reader, kind: Callable[..., Any], minute: float, **what: Any) -> Any:
        self.number += 1
        return kind(ws="ws", id=f"c{self.number}", time=NOON + int(minute * MINUTE), user=who.user,
                    roles=tuple(who.roles), idempotency_key=None, **what)


def _folded(story: Iterable[tuple[float, list[Any] | Callable[[Rows], list[Any]]]]) -> Iterator[Batch]:
    """Yields the batches of the real fold. Entries that depend on the view are given as a function of its rows."""
    rows: Rows = {}
    fold = Fold(rows, 0, FoldConfig())
    fold.load()
    fold.reconcile(0)
    for minute, entries in story:
        made = entries(rows) if callable(entries) else entries
        pack = decode_pack(encode_pack(Pack(NOON + int(minute * MINUTE), made)))
        whole = False
        while not whole:
            whole = fold.apply(pack, fold.position.next)
            batch = fold.pending_batch()
            apply_changes(rows, batch.rows)
            fold.mark_durable()
            position = decode_row(position_key(0), rows[position_key(0)])
            assert isinstance(position, PositionRow)
            yield batch.rows, position


def _a_morning() -> Iterator[Batch]:
    """Yields batches that cause most kinds of frames: arrivals, an incident, a snooze, pins, a draft."""
    happens, by = (tale := _Story()).happens, tale.by
    deploy, note = item_id("ws", "waitpoint", "wp_1"), item_id("ws", "message", "m_1")
    story = [
        (0, [happens("waitpoint.created", "wp_1", 0, title="Review production deploy", priority="high",
                     cluster="prod", target_role="OWNER", body_md="PR **#128** \u2028 is ready",
                     payload={"a": 1.5, "b": "ünïcödé"}),
             happens("message.posted", "m_1", 0, title="Nightly report \N{PARTY POPPER}", priority="low",
                     cluster="lab")]),
        (1, [happens("plan.proposed", "p_1", 1, title="Resize the pool", cluster="lab",
                     steps=[{"title": "Drain", "mode": "auto"}, {"title": "Delete", "mode": "confirm"}]),
             happens("action.requested", "a_1", 1, title="Drop index", risk="high", reversible=False, cluster="prod")]),
        (2, [by(ANN, SetPreferences, 2, pinned_clusters=["lab"], widgets=[Widget("momentum", True)])]),
        (3, [by(ANN, SetState, 3, items=(note,), state="read")]),
        (4, [happens("run.failed", "r_1", 4, title="build failed", pipeline="web", step="build", cluster="eu"),
             happens("message.posted", "m_2", 4, title="For Bob", target_user_id="bob")]),
        (5, [happens("run.failed", "r_2", 5, title="build failed", pipeline="web", step="build", cluster="us")]),
        (6, [by(ANN, Dismiss, 6, item=note, until=NOON + 9 * MINUTE), by(ANN, Dismiss, 6, item=deploy, until=None)]),
        (7, [happens("draft.edited", "d_1", 7, title="values.yaml", cluster="lab", owner_user_id="ann",
                     editor={"type": "ai", "id": "ag_1", "name": "Daniel"})]),
        (8, [by(ANN, Restore, 8, item=deploy), happens("action.confirmed", "a_1", 8, by_user_id="bob")]),
        (10, []),  # the snooze ends
        (11, [happens("run.recovered", "r_1", 11), happens("session.completed", "s_1", 11, title="Migration")]),
        (70, []),  # the deploy is overdue
        (71, [happens("waitpoint.approved", "wp_1", 71, by_user_id="cyd"),
              by(ANN, SetState, 71, items=(note,), state="resolved")]),
        (72, [happens("plan.superseded", "p_1", 72), happens("draft.discarded", "d_1", 72)]),
    ]
    return _folded(story)


def _a_question() -> Iterator[Batch]:
    """Yields batches of questions: votes, decisions that are taken back or refused, a repeated question, an expiry."""
    happens, by = (tale := _Story()).happens, tale.by
    gate, short = item_id("ws", "waitpoint", "wp_1"), item_id("ws", "waitpoint", "wp_2")
    options = [{"id": "approve", "does": "approve"}, {"id": "reject", "does": "reject"}]
    action = {"name": "deploy", "args": {"version": "4.2"}}

    def question(rows: Rows) -> Question:
        row = decode_row(item_key(gate), rows[item_key(gate)])
        assert isinstance(row, ItemRow)
        assert row.question is not None
        return row.question

    def answers(minute: float, option: str, *who: Reader) -> tuple[float, Callable[[Rows], list[Any]]]:
        return minute, lambda rows: [
            by(user, Decide, minute, item=gate, option=option, digest=question(rows).digest,
               role=next(iter(user.roles)))
            for user in who]

    def refuses(rows: Rows) -> list[Any]:
        decision = question(rows).decision
        assert decision is not None
        return [Report("ws", "r1", NOON + 4 * MINUTE, decision.id, "refused", "the window is closed")]

    return _folded([
        (0, [happens("waitpoint.created", "wp_1", 0, title="Deploy 4.2?", priority="high",
                     ask={"options": options, "action": action, "quorum": {"approve": 2}}),
             happens("waitpoint.created", "wp_2", 0, title="Extend the maintenance?",
                     ask={"options": options, "expires_at": format_timestamp(NOON + 8 * MINUTE)}),
             happens("escalation.opened", "e_1", 0, title="Disk is full", priority="high")]),
        answers(1, "approve", ANN),
        answers(2, "approve", BOB),  # the second vote decides
        (2.05, [by(BOB, TakeBack, 2.05, item=gate)]),
        answers(3, "approve", ANN, BOB),
        (4, []),  # the undo window ends
        (4, refuses),
        (5, [happens("waitpoint.created", "wp_1", 5, title="Deploy 4.3?", priority="high",
                     ask={"options": options, "action": action | {"args": {"version": "4.3"}}})]),
        answers(6, "reject", ANN),
        (7, [happens("waitpoint.rejected", "wp_1", 7)]),
        (9, []),  # the other question expires
        (10, [happens("waitpoint.created", "wp_1", 10, title="Deploy 4.4?", ask={"options": options})]),
        (11, [by(ANN, Dismiss, 11, item=item_id("ws", "escalation", "e_1"), until=None)]),
        (12, [by(BOB, SetState, 12, items=(short,), state="read")]),
    ])


def _followed(batches: Iterator[Batch], reader: Reader, limit: int) -> dict[str, Any]:
    """Returns, for each batch, the frames of one reader's feed and the inbox after the batch."""
    replica, answers = Replica(1), PageRenderer()
    frames = FrameEncoder(answers)
    window = Window(reader, limit, replica.workspace(reader.workspace_id))
    steps: list[dict[str, Any]] = []

    def step(sent: list[bytes]) -> None:
        space = replica.workspace(reader.workspace_id)  # read again: the replica drops empty workspaces
        inbox = json.loads(answers.inbox_page(space, reader, replica.cursor(reader.workspace_id), PageRequest(limit)))
        inbox |= {"drafts": answers.drafts(space, reader.user), "preferences": answers.preferences(space, reader.user)}
        inbox.pop("next", None)
        steps.append({"stream": b"".join(sent).decode(), "inbox": inbox})

    step([frames.encode_snapshot(replica.workspace(reader.workspace_id), window, replica.cursor(reader.workspace_id))])
    for rows, position in batches:
        for update in replica.apply(0, rows, position):
            if update.workspace.workspace_id == reader.workspace_id and (sent := frames.encode_batch(update, window)):
                step(sent)
    return {"reader": {"user": reader.user, "roles": sorted(reader.roles)}, "limit": limit, "steps": steps}


def vectors() -> dict[str, str]:
    """Returns file name -> text."""
    files = {
        "a-morning.json": _followed(_a_morning(), ANN, 500),
        "a-morning-window-of-2.json": _followed(_a_morning(), ANN, 2),
        "a-morning-of-another.json": _followed(_a_morning(), BOB, 500),
        "a-question.json": _followed(_a_question(), ANN, 500),
        "a-question-window-of-1.json": _followed(_a_question(), BOB, 1),
        "at-random.json": _followed(World(11, 10).batches(60, 5), Reader("w1", "ann", frozenset({"OWNER"})), 500),
        "at-random-window-of-3.json": _followed(
            World(12, 10).batches(60, 5), Reader("w1", "bob", frozenset({"MEMBER"})), 3),
    }
    return {name: json.dumps(vector, indent=1) + "\n" for name, vector in files.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in vectors().items():
        (FOLDER / name).write_text(text)
