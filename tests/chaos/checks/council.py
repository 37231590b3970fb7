"""Waits until all decisions have ended, then runs the checks of `chaos.checks.decisions`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError
from support.model import Reader

from chaos.checks.decisions import LogReplay, answers_differ, decisions_of, effects_differ
from chaos.checks.topics import Watch, committed, ends
from chaos.checks.verify import Topics
from chaos.environment.edge_client import EdgeClient
from chaos.environment.stack import RECEIVERS, Stack
from chaos.workload.council import Council
from chaos.workload.hook import Hook
from chaos.workload.questions import PEOPLE
from schemas.asking.question import DecisionRow
from schemas.topics import DECISIONS
from schemas.views import decode_row

__all__ = ["check", "settled"]

_QUIET = 3  # polls in a row without a decision under way


async def settled(stack: Stack, watch: Watch, hook: Hook, seconds: float) -> str | None:
    """Waits until the receivers have confirmed every decision. Returns what is under way after `seconds`, else None."""
    until, quiet, reason = time.monotonic() + seconds, 0, ""
    while quiet < _QUIET:
        try:
            reason = await _under_way(stack, watch, hook)
        except (KafkaError, OSError, TimeoutError) as error:
            reason = repr(error)
        quiet = 0 if reason else quiet + 1
        if reason and time.monotonic() > until:
            return reason
        await asyncio.sleep(2.0)
    return None


async def _under_way(stack: Stack, watch: Watch, hook: Hook) -> str:
    if not hook.idle:
        return "the HTTP receiver has not closed all items"
    there, done = await ends(stack.settings, [DECISIONS]), await committed(stack.settings, RECEIVERS)
    left = {place.partition: end - done.get(place, 0) for place, end in there.items() if end > done.get(place, 0)}
    if left:
        return f"{RECEIVERS} has not read {left} of {DECISIONS}"
    rows = [row for number in range(stack.settings.log_partitions) for key, value in watch.rows(number).items()
            if key.startswith(b"c:") and isinstance(row := decode_row(key, value), DecisionRow)]
    open_rows = [row.id for row in rows if row.state in ("made", "sending") and row.published and row.returned is None]
    return f"{len(open_rows)} decisions are under way, such as {open_rows[:3]}" if open_rows else ""


def check(
    stack: Stack, topics: Topics, council: Council, hook: Hook, edges: Sequence[EdgeClient],
) -> tuple[list[str], dict[str, Any]]:
    """Returns all differences, and figures for the report."""
    found = [line for one in council.people for line in one.wrong]
    lines = {(one.ws, line["value"]["source"], line["value"]["id"]): line
             for one in council.questions for line in one.lines}
    lines |= _closings(topics, council.names)
    rows: dict[str, DecisionRow] = {}
    for partition, fold in topics.folds.items():
        replay = LogReplay(stack.settings, fold, _in(topics, partition, council.names), lines)
        replay.replay(topics.log[partition])
        found += replay.differences[:10]
        rows |= {name: row for name, row in decisions_of(fold).items() if row.ws in council.names}
    readers = {user: Reader(user, role) for user, role in PEOPLE}
    found += answers_differ(council.answers, rows, edges, readers)
    differ, late = effects_differ(stack.ledger, hook.effects, rows, _taken_back(topics))
    states: dict[str, int] = {}
    for row in rows.values():
        name = f"{row.state}, back as {row.returned}" if row.returned else row.state
        states[name] = states.get(name, 0) + 1
    return [*found, *differ], {
        "decisions, by state": ", ".join(f"{name}: {count}" for name, count in sorted(states.items())),
        "decisions applied over Kafka": len(stack.ledger.read_text().splitlines()),
        "decisions applied over HTTP": len(hook.effects),
        "posts to the HTTP receiver": hook.posts.total(),
        "records of decisions written again": topics.repeated_decisions,
        "take backs that the receiver had not read when it acted": late,
    }


def _in(topics: Topics, partition: int, names: set[str]) -> set[str]:
    """Returns the workspaces of this partition."""
    return {ws for ws in names if any(event[0] == ws for event in topics.folds[partition].events)}


def _closings(topics: Topics, names: set[str]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Returns the events of receivers from the source topics.

    A killed receiver sends an event again, with the same id and a later time. The first one counts.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for topic, partitions in topics.sources.items():
        for records in partitions.values():
            for record in records:
                if record.value and b".done" in record.value:
                    value = json.loads(record.value)
                    if value["workspaceid"] in names:
                        key = value["workspaceid"], value["source"], value["id"]
                        if key not in found or value["time"] < found[key]["value"]["time"]:
                            found[key] = {"topic": topic, "key": None, "value": value}
    return found


def _taken_back(topics: Topics) -> dict[str, int]:
    """Returns decision -> offset of its first `decision.taken_back`."""
    found: dict[str, int] = {}
    for records in topics.decisions.values():
        for record in records:
            event = json.loads(record.value)
            if event["type"] == "decision.taken_back":
                found.setdefault(event["data"]["decision"], record.offset)
    return found
