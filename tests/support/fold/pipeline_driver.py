"""Drives the fold as a worker and reads its rows as an edge. No I/O: topics are a list and a dict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from support.model import Draft, Item, Reader, View

from schemas.asking.decision_event import encode_decision
from schemas.facts import encode_fact
from schemas.log import Event, Pack, decode_pack, encode_pack
from schemas.views import ActivityRow, DraftRow, ItemRow, apply_changes, decode_row, encode_row, position_key
from streams.core.config import FoldConfig
from streams.core.domain.rank import is_pinned, rank_key
from streams.core.domain.visibility import can_see
from streams.core.fold.fold import Fold
from streams.core.normalise import normalise
from streams.core.sealing import KEY_BYTES, Sealer

# Seals the reply tokens of folded events. Tests of `decisions` open them with it.
SEALER = Sealer([bytes(range(KEY_BYTES))])


class Crash(Exception):
    """Simulates SIGKILL at this point."""


def event_of(line: dict[str, Any]) -> Event:
    return normalise(line["topic"], json.dumps(line["value"], ensure_ascii=False).encode(), sealer=SEALER)


def packs(events: Sequence[Event], sizes: Iterable[int], clock: Callable[[int], int]) -> list[bytes]:
    """Returns encoded packs of these sizes; the last one has the rest. `clock(index)`: time of the writer of a pack."""
    log, rest = [], list(events)
    for size in sizes:
        log.append(encode_pack(Pack(at=clock(len(log)), entries=list(rest[:size]))))
        del rest[:size]
    return [*log, encode_pack(Pack(at=clock(len(log)), entries=list(rest)))]


class Worker:
    """Successive workers on the same durable log, rows and facts of one partition."""

    def __init__(
        self, log: Sequence[bytes] = (), rules: FoldConfig | None = None, partition: int = 0,
        rows: dict[bytes, bytes] | None = None,
    ) -> None:
        self.log = list(log)
        self.rules = rules or FoldConfig()
        self.partition = partition
        self.rows: dict[bytes, bytes] = rows if rows is not None else {}
        self.facts: list[bytes] = []
        self.decisions: list[bytes] = []  # records of the topic `decisions`
        self.start()

    def start(self) -> None:
        """Starts a new worker that knows only the durable rows."""
        self.fold = Fold(self.rows, self.partition, self.rules)
        self.fold.load()
        self.fold.reconcile(len(self.log))

    def step(self) -> bool:
        """Folds the next pack of the log, if there is one."""
        if self.fold.position.next >= len(self.log):
            return False
        offset = self.fold.position.next
        while not self.fold.apply(decode_pack(self.log[offset]), offset):
            self.write()
        return True

    def write(self, crash_after: int | None = None) -> None:
        """Writes the facts, then the decisions, then one batch of rows.

        Raises Crash after `crash_after` facts and decisions; -1: after the rows.
        """
        batch = self.fold.pending_batch()
        facts = [encode_fact(fact) for fact in batch.facts]
        decisions = [encode_decision(event) for event in batch.decisions]
        if crash_after is not None and crash_after >= 0:
            self.facts += facts[:crash_after]
            self.decisions += decisions[:max(0, crash_after - len(facts))]
            raise Crash
        self.facts += facts
        self.decisions += decisions
        apply_changes(self.rows, batch.rows)
        if crash_after is not None:
            raise Crash
        self.fold.mark_durable()

    def run(self) -> Worker:
        """Folds the rest of the log, one batch for each pack."""
        while self.step():
            self.write()
        return self

    def tick(self, at: int) -> None:
        """Appends ticks until no timer is due at `at`, as the worker does."""
        for _ in range(1000):
            self.log.append(encode_pack(Pack(at=at)))
            self.run()
            wake = self.fold.next_timer()
            if wake is None or wake > at:
                return
        raise AssertionError("timers are still due after 1000 ticks")

    def known_facts(self) -> list[bytes]:
        """Returns the facts without repeats: a fact at or before the last position is a repeat."""
        kept, last = [], (-1, -1)
        for raw in self.facts:
            value = json.loads(raw)
            if (value["pos"], value["index"]) > last:
                last = value["pos"], value["index"]
                kept.append(raw)
        return kept


class Shown:
    """The content of one workspace that an edge reads from the rows."""

    def __init__(self, rows: dict[bytes, bytes], ws: str) -> None:
        decoded = [row for key, value in rows.items() if getattr(row := decode_row(key, value), "ws", None) == ws]
        self.items = [row for row in decoded if isinstance(row, ItemRow) and row.state != "hidden"]
        self.ids = {key_of(row): row.id for row in self.items}
        self.drafts = {row.draft_id: row for row in decoded if isinstance(row, DraftRow)}
        self.activity_rows = [row for row in decoded if isinstance(row, ActivityRow)]
        position = decode_row(b"~:", rows[position_key(0)])
        self.clock = position.clock  # type: ignore[union-attr]

    def ranked(self, reader: Reader, pins: Sequence[str] = ()) -> list[ItemRow]:
        mine = [row for row in self.items if row.is_listed and _sees(row, reader)]
        return sorted(mine, key=lambda row: rank_key(row, is_pinned(row, pins)))

    def activity(self, reader: Reader, window: int) -> dict[str, int]:
        names = {"session.completed": "sessions_completed", "plan.approved": "plans_approved",
                 "action.confirmed": "actions_resolved", "action.declined": "actions_resolved"}
        counts = dict.fromkeys(names.values(), 0)
        for row in self.activity_rows:
            if _sees(row, reader) and row.at > self.clock - window:
                counts[names[row.type]] += 1
        return counts


def _sees(row: ItemRow | ActivityRow, reader: Reader) -> bool:
    return can_see(row.target_user_id, row.target_role, reader.user, frozenset({reader.role}))


def key_of(row: ItemRow) -> tuple[str, ...]:
    target = (row.target_user_id or "", row.target_role or "") if row.kind == "incident" else ()
    return row.kind, row.source_id, *target


_TEXTS = (
    "title", "body_md", "cluster", "stack", "conversation_id", "case_id", "case_title", "session_id", "action_url",
    "pipeline", "step", "error", "incident_key", "risk", "reversible", "task_id", "proof_id",
)


def of_row(row: ItemRow, name_of: dict[str, str]) -> dict[str, Any]:
    """Converts an item's row to the field names of the model; `name_of`: item id -> source id."""
    data = row.data
    fields = {
        "state": "unread" if row.state == "read" else row.state, "created_at": row.created_at, "due_at": row.due_at,
        "priority": row.priority, "blocking": row.blocking, "target": (row.target_user_id, row.target_role),
        "overdue": row.overdue, "band": ("urgent", "high", "normal", "low")[row.band],
        "grouped": row.incident is not None, "resolved_at": row.resolved_at, "resolved_by": row.resolved_by,
        "resolved_action": row.resolved_action, "updated_at": row.updated_at,
    }
    if row.kind == "incident":
        assert row.count == len(row.members)
        return fields | {"clusters": row.clusters, "members": sorted(name_of[item] for item in row.members)}
    fields |= {name: getattr(data, name) for name in _TEXTS}
    if row.kind == "proof_expiring":
        del fields["title"]  # a proof without a title gets one from attn
    sender = data.sender
    fields["sender"] = sender and (sender.type, sender.id, sender.name)
    raw = bytes(data.payload)
    fields["payload"] = json.loads(raw) if raw else None
    fields["steps"] = None if data.steps is None else [step.mode for step in data.steps]
    return fields


def of_item(item: Item) -> dict[str, Any]:
    """Converts an item of the model to the same fields."""
    shown = item.shown
    fields: dict[str, Any] = {
        "state": item.state, "created_at": item.created_at, "due_at": item.due_at, "priority": item.priority,
        "blocking": item.blocking, "target": item.target, "overdue": item.overdue, "band": item.band,
        "grouped": item.grouped, "resolved_at": item.resolved_at, "resolved_by": item.resolved_by,
        "resolved_action": item.resolved_action, "updated_at": item.updated_at,
    }
    if item.kind == "incident":
        return fields | {"clusters": item.clusters, "members": item.members}
    fields |= {name: shown.get(name) for name in _TEXTS}
    if item.kind == "proof_expiring":
        del fields["title"]
    sender = shown.get("sender")
    fields["sender"] = sender and (sender.get("type"), sender.get("id"), sender.get("name"))
    fields["payload"] = shown.get("payload")
    fields["steps"] = [step["mode"] for step in shown["steps"]] if "steps" in shown else None
    return fields


def of_draft(row: DraftRow | Draft) -> dict[str, Any]:
    if isinstance(row, Draft):
        return {**vars(row), "editors": row.editors}
    return {
        "draft_id": row.draft_id, "owner": row.owner, "title": row.title, "cluster": row.cluster, "stack": row.stack,
        "last_touched_at": row.touched_at, "has_ai_edits": row.has_ai_edits, "in_progress": row.in_progress,
        "editors": [(editor.type, editor.id) for editor in row.editors],
    }


def same(got: dict[Any, dict[str, Any]], expected: dict[Any, dict[str, Any]]) -> None:
    """Fails with the fields that differ: (got, expected)."""
    odd = {
        key: {name: (got.get(key, {}).get(name, "none"), expected.get(key, {}).get(name, "none"))
              for name in got.get(key, {}).keys() | expected.get(key, {}).keys()
              if got.get(key, {}).get(name, "none") != expected.get(key, {}).get(name, "none")}
        for key in got.keys() | expected.keys() if got.get(key) != expected.get(key)
    }
    assert not odd, f"got, expected: {odd}"


def assert_equal(rows: dict[bytes, bytes], view: View, ws: str, readers: Iterable[Reader],
                 pins: Sequence[Sequence[str]] = ((),)) -> None:
    """Fails unless the rows equal the model: items, drafts, and the list, counts and activity of every reader."""
    shown = Shown(rows, ws)
    names = {row.id: row.source_id for row in shown.items}
    expected = {key: of_item(item) for key, item in view.items.items()}
    got = {key_of(row): of_row(row, names) for row in shown.items}
    for key, item in view.items.items():
        if key in got and item.kind == "incident" and item.resolved_action is None:
            expected[key] |= {name: got[key][name] for name in ("resolved_action", "resolved_by")}
    same(got, expected)
    edited = {name: row for name, row in shown.drafts.items() if row.editors}
    same({name: of_draft(row) for name, row in edited.items()},
          {name: of_draft(draft) for name, draft in view.draft_rows.items()})
    for reader in readers:
        for pinned in pins:
            mine = [key_of(row) for row in shown.ranked(reader, pinned)]
            assert mine == [item.key for item in view.ranked(reader, pinned, shown.ids)]
        for window in (24, 6):
            window *= 3_600_000_000
            assert shown.activity(reader, window) == view.activity(reader, window)


def visible(rows: dict[bytes, bytes]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Returns what readers can see, without fields that depend on the order of arrival (rev, surge)."""
    content: dict[tuple[str, ...], dict[str, Any]] = {}
    names = {row.id: row.source_id for key, value in rows.items() if isinstance(row := decode_row(key, value), ItemRow)}
    for key, value in rows.items():
        row = decode_row(key, value)
        if isinstance(row, ItemRow) and row.state != "hidden":
            content["item", row.ws, *key_of(row)] = of_row(row, names) | {"shown": json.loads(encode_row(row.data))}
        elif isinstance(row, DraftRow):
            content["draft", row.ws, row.draft_id] = of_draft(row)
        elif isinstance(row, ActivityRow):
            content["activity", row.ws, row.id] = {
                name: getattr(row, name) for name in ("type", "at", "item", "target_user_id", "target_role", "title",
                                                      "cluster", "case_id", "session_id", "by")
            }
    return content
