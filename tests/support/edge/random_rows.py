"""Random rows and batches of the view, not made by the fold: any input that an edge can receive."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from msgspec import Raw
from support.edge.random_questions import random_ask, random_decision, random_question

from schemas.asking.question import DecisionRow
from schemas.log import NO_PAYLOAD, Data, Editor, Sender, Step, Widget
from schemas.scalars import HOUR
from schemas.views import (
    ActivityRow,
    DraftEditor,
    DraftRow,
    ItemRow,
    MarkRow,
    PositionRow,
    PreferencesRow,
    decode_row,
    encode_row,
)
from streams.core.domain.keys import draft_key, item_id, item_key, mark_key, preferences_key
from streams.core.domain.rank import band_of

KINDS = ("waitpoint", "escalation", "message", "incident", "failed_run", "plan_approval", "session_waiting")
USERS = ("ann", "bob", "cyd")
ROLES = ("OWNER", "MEMBER", "VIEWER")
CLUSTERS = ("c1", "c2", "c3")
AT = 1_747_728_862_000_000  # 2025-05-20T08:14:22Z
DONE = ("session.completed", "plan.approved", "action.confirmed", "action.declined")


def marker(ws: str, user: str | None, role: str | None) -> str:
    """Returns a text with the target. Every text of a row contains it, so tests find leaks by a search in the bytes."""
    return f"<{ws}/{user or '-'}/{role or '-'}>"


def item(ws: str = "w1", source_id: str = "s1", **fields: Any) -> tuple[bytes, ItemRow]:
    """Returns an open item with the given fields. Its title contains the `marker` of its targets."""
    kind = fields.pop("kind", "waitpoint")
    data = fields.pop("data", None) or Data()
    row = ItemRow(id=item_id(ws, kind, source_id), ws=ws, kind=kind, source_id=source_id, data=data,
                  **{"state": "unread", "created_at": 1000, "due_at": 2000, "base": (1, "00"), **fields})
    row.band = fields.get("band", band_of(row.priority, row.overdue))
    data.title = data.title or f"{source_id} {marker(ws, row.target_user_id, row.target_role)}"
    return item_key(row.id), row


class World:
    """Rows of one partition and random batches that change them. All randomness comes from `seed`."""

    def __init__(self, seed: int, items: int = 14) -> None:
        self.random = random.Random(seed)
        self.items = items
        self.rows: dict[bytes, bytes] = {}
        self.position = PositionRow(next=0)
        self.surges: dict[bytes, int] = {}

    def batch(self, most: int = 6) -> tuple[list[tuple[bytes, bytes | None]], PositionRow]:
        """Applies a random batch to `rows`. Returns up to `most` changed rows, and the position row."""
        self.position = PositionRow(self.position.next + self.random.randint(1, 3), clock=1, shift=self.position.shift)
        changed: dict[bytes, bytes | None] = {}
        for _ in range(self.random.randint(0, most)):
            key, row = self._row()
            changed[key] = None if row is None else encode_row(row)
        for key, raw in changed.items():
            if raw is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = raw
        return list(changed.items()), self.position

    def batches(self, number: int, most: int = 6) -> Iterator[tuple[list[tuple[bytes, bytes | None]], PositionRow]]:
        return (self.batch(most) for _ in range(number))

    def _row(self) -> tuple[bytes, Any]:
        kinds = ("item", "mark", "draft", "preferences", "activity", "decision")
        made = getattr(self, "_" + self.random.choices(kinds, (12, 4, 2, 1, 3, 4))[0])()
        return made if self.random.random() > 0.12 or made[0][:2] == b"p:" else (made[0], None)

    def _item(self) -> tuple[bytes, ItemRow]:
        pick = self.random.choice
        number = self.random.randrange(self.items)
        ws = "w2" if number % 5 == 4 else "w1"
        user, role = pick((None, None, *USERS)), pick((None, None, *ROLES))
        kind = KINDS[number % len(KINDS)]
        text = marker(ws, user, role)
        data = Data(
            title=f"title {text}", body_md=f"body\n{text}", cluster=pick((None, *CLUSTERS)),
            case_id=pick((None, "k1")),
            sender=pick((None, Sender("agent", "ag", text))), payload=Raw(b'{"of":\n"%b"}' % text.encode()),
            steps=pick((None, [Step(text, "auto"), Step("x", "confirm")])),
            editor=pick((None, Editor("ai", "e", text))),
        )
        key, row = item(
            ws, f"s{number}", kind=kind, data=data, target_user_id=user, target_role=role,
            state=pick(("unread", "unread", "unread", "read", "read", "decided", "resolved", "hidden")),
            priority=pick(("urgent", "high", "normal", "low")),
            overdue=pick((False, True)), blocking=pick((False, True)),
            due_at=self.random.randrange(5), created_at=self.random.randrange(5), rev=self.position.next - 1,
            incident=pick((None, None, None, None, "ibx_other")) if kind == "failed_run" else None,
            clusters=self.random.sample(CLUSTERS, 2) if kind == "incident" else [],
        )
        if kind == "incident":
            data.cluster = None
        row.surge = self.surges[key] = self.surges.get(key, 0) + (self.random.random() < 0.3)
        if row.state == "resolved":
            row.resolved_at, row.resolved_action = 9, pick((None, "approved"))
        return key, self._asking(self._little(key, row))

    def _asking(self, row: ItemRow) -> ItemRow:
        """Gives a third of the rows a question that fits the state. A decided row always has one."""
        if row.state != "decided" and self.random.random() < 0.6:
            row.source, row.question, row.data.ask = "", None, NO_PAYLOAD
            return row
        text = marker(row.ws, row.target_user_id, row.target_role)
        row.source, row.data.ask = "/s", random_ask(self.random)
        row.question = random_question(self.random, row, text, USERS)
        return row

    def _little(self, key: bytes, row: ItemRow) -> ItemRow:
        """Returns, in half of the cases, the existing row with one changed field: such changes reveal index errors."""
        known = self.rows.get(key)
        if known is None or self.random.random() < 0.5:
            return row
        old = decode_row(key, known)
        assert isinstance(old, ItemRow)
        names = ("state", "priority", "overdue", "blocking", "due_at", "created_at", "clusters", "incident", "surge")
        name = self.random.choice((*names, "cluster", "case_id", "targets"))
        if name == "targets":
            row.blocking, row.state, row.priority, row.surge = old.blocking, old.state, old.priority, old.surge
            row.due_at, row.created_at, row.band, row.overdue = old.due_at, old.created_at, old.band, old.overdue
            return row  # its texts name its target
        if name in ("cluster", "case_id"):
            setattr(old.data, name, getattr(row.data, name))
        else:
            setattr(old, name, old.surge + 1 if name == "surge" else getattr(row, name))
        if name in ("overdue", "priority"):
            old.band = self.random.choice((old.band, band_of(old.priority, old.overdue)))
        self.surges[key] = old.surge
        old.rev = row.rev
        return old

    def _mark(self) -> tuple[bytes, MarkRow]:
        number, user = self.random.randrange(self.items), self.random.choice(USERS[:2])
        ws = "w2" if number % 5 == 4 else "w1"
        name = item_id(ws, KINDS[number % len(KINDS)], f"s{number}")
        surge = self.surges.get(item_key(name), 0) - (self.random.random() < 0.2)
        return mark_key(name, user), MarkRow(ws, name, user, surge, self.random.choice((None, 5)), self.position.next)

    def _draft(self) -> tuple[bytes, DraftRow]:
        pick = self.random.choice
        name, owner, editor = f"d{self.random.randrange(4)}", pick((None, *USERS)), pick(USERS)
        editors = [DraftEditor("ai", "ag", None, 3), DraftEditor("user", editor, "E", 2)][self.random.randrange(2):]
        return draft_key("w1", name), DraftRow(
            ws="w1", draft_id=name, title=f"of {owner} {editor}", owner=owner, touched_at=self.random.randrange(1, 9),
            ai_at=3, done_at=pick((0, 0, 9)), editors=editors, rev=self.position.next,
        )

    def _preferences(self) -> tuple[bytes, PreferencesRow]:
        user = self.random.choice(USERS[:2])
        pins = self.random.sample(CLUSTERS, self.random.randrange(3))
        return preferences_key("w1", user), PreferencesRow("w1", user, pins, [Widget("x", True)], self.position.next)

    def _activity(self) -> tuple[bytes, ActivityRow]:
        pick = self.random.choice
        name, user, role = f"a:{self.random.randrange(8)}", pick((None, *USERS)), pick((None, *ROLES))
        ws = pick(("w1", "w1", "w2"))
        return (f"{name}{ws}".encode(), ActivityRow(
            ws=ws, id=name, type=pick(DONE), at=self.random.randrange(9), item="ibx_1", kind="message",
            target_user_id=user, target_role=role, title=marker(ws, user, role), rev=self.position.next,
        ))

    def _decision(self) -> tuple[bytes, DecisionRow]:
        ws, user, role = self.random.choice(("w1", "w1", "w2")), self.random.choice((None, *USERS)), None
        if self.random.random() < 0.5:
            role = self.random.choice(ROLES)
        return random_decision(self.random, ws, user, role, marker(ws, user, role), USERS)


def waitpoint() -> tuple[bytes, ItemRow]:
    """Returns the example of CONTRACT §2 as a row, with values that are hard to encode."""
    return item(
        source_id="wp_tok_abc", priority="high", blocking=True, target_role="OWNER", created_at=AT, updated_at=AT,
        due_at=AT + HOUR, rev=7,
        data=Data(
            title="Review production deploy", body_md="PR #128 ready", sender=Sender("agent", "ag_1", "Daniel"),
            cluster="prod-us-east-1", stack="web", case_id="case/1", session_id="s 1",
            payload=Raw(b'{"deploy_target":\r\n"prod", "n":12345678901234567890123}'),
        ),
    )
