"""Golden examples: one per event type; each is accepted and has the effect of the contract's table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from support.fold.pipeline_driver import Shown, Worker, event_of
from support.model import us

from schemas.log import Pack, encode_pack
from schemas.scalars import HOUR
from schemas.sources import MODELS
from schemas.topics import TOPIC_OF_TYPE
from schemas.views import ItemRow
from streams.core.domain.questions import read_ask
from streams.core.normalise import normalise

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"
WS = "ws_acme"
ASKS = (
    "waitpoint.created.ask-approval", "session.waiting.ask-choice", "session.waiting.ask-form",
    "action.requested.ask-edit", "plan.proposed.ask-quorum", "action.requested.ask-batch",
    "waitpoint.created.ask-expiry",
)

# CONTRACT §2: kind, its opening type, its closing types -> resolved_action
TABLE: list[tuple[str, str, dict[str, str]]] = [
    ("waitpoint", "waitpoint.created", {"waitpoint.approved": "approved", "waitpoint.rejected": "rejected",
                                        "waitpoint.cancelled": "cancelled", "waitpoint.expired": "expired"}),
    ("escalation", "escalation.opened", {"escalation.resolved": "approved"}),  # `data.action` of the example
    ("failed_run", "run.failed", {"run.retried": "retried", "run.recovered": "recovered",
                                  "run.cancelled": "cancelled"}),
    ("message", "message.posted", {"message.withdrawn": "withdrawn"}),
    ("session_waiting", "session.waiting", {"session.resumed": "resumed", "session.completed": "completed",
                                            "session.failed": "failed"}),
    ("plan_approval", "plan.proposed", {"plan.approved": "approved", "plan.rejected": "rejected",
                                        "plan.superseded": "superseded"}),
    ("pending_action", "action.requested", {"action.confirmed": "confirmed", "action.declined": "declined",
                                            "action.expired": "expired"}),
    ("draft_review", "draft.edited", {"draft.committed": "committed", "draft.discarded": "discarded"}),
    ("blocked_task", "task.blocked", {"task.unblocked": "unblocked"}),
    ("verifying_no_proof", "session.verifying", {"proof.attached": "attached"}),
]
CLOSES = [(kind, opens, closes, action) for kind, opens, closing in TABLE for closes, action in closing.items()]
BLOCKING = {"waitpoint", "session_waiting", "plan_approval", "pending_action"}


def example(name: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def line(value: dict[str, Any]) -> dict[str, Any]:
    return {"topic": TOPIC_OF_TYPE.get(value["type"], "waitpoints"), "value": value}


def rows_by_kind(*values: dict[str, Any], at: int = 0) -> dict[str, ItemRow]:
    """Returns kind -> row after these events, at the time of the last one or `at`."""
    clock = max(at, *(us(value["time"]) for value in values))
    worker = Worker([encode_pack(Pack(at=clock, entries=[event_of(line(value))])) for value in values]).run()
    worker.tick(clock)
    return {row.kind: row for row in Shown(worker.rows, WS).items}


def test_every_type_has_an_example() -> None:
    names = {path.name.removesuffix(".json") for path in EXAMPLES.glob("*.json")}
    assert names == {*MODELS, "waitpoint.created.binary", *ASKS}


@pytest.mark.parametrize("name", sorted({*MODELS, *ASKS}))
def test_an_example_is_accepted(name: str) -> None:
    value = example(name)
    event = event_of(line(value))
    assert (event.type, event.subject, event.ws) == (name.partition(".ask-")[0], value["subject"], WS)
    assert jsonschema.Draft202012Validator(MODELS[event.type].model_json_schema()).is_valid(value)


@pytest.mark.parametrize("name", ASKS)
def test_an_example_with_an_ask_opens_an_item_that_asks(name: str) -> None:
    value = example(name)
    [row] = rows_by_kind(value).values()
    assert row.question is not None
    state = read_ask(row.data.ask, row.kind)
    assert state is not None
    given = {**value["data"]["ask"]}
    reply = {name: part for name, part in given.pop("reply", {}).items() if name != "token"}
    seen = json.loads(state.shown)
    assert {name: seen[name] for name in given} == given
    assert seen.get("reply", {}) == reply
    assert (state.sealed is not None) == ("token" in value["data"]["ask"].get("reply", {}))


@pytest.mark.parametrize("raw", [False, True])
def test_binary_mode_means_the_same(raw: bool) -> None:
    given = example("waitpoint.created.binary")
    headers = [(name.upper() if raw else name, value.encode()) for name, value in given["headers"].items()]
    binary = normalise("waitpoints", orjson.dumps(given["value"]), headers)
    assert binary == normalise("waitpoints", orjson.dumps(example("waitpoint.created")))


@pytest.mark.parametrize(("kind", "opens", "closes", "action"), CLOSES)
def test_example_events_open_and_close_the_item_of_their_kind(kind: str, opens: str, closes: str, action: str) -> None:
    first, last = example(opens), example(closes)
    row = rows_by_kind(first)[kind]
    assert row.state == "unread"
    assert row.data.title == first["data"]["title"]
    assert row.blocking == first["data"].get("blocking", kind in BLOCKING)
    assert row.priority == first["data"].get("priority", "normal")
    row = rows_by_kind(first, last)[kind]
    assert (row.state, row.resolved_action, row.resolved_at) == ("resolved", action, us(last["time"]))
    assert row.resolved_by == last.get("data", {}).get("by_user_id")


def test_an_escalation_is_updated() -> None:
    row = rows_by_kind(example("escalation.opened"), example("escalation.updated"))["escalation"]
    assert (row.priority, row.target_user_id, row.target_role) == ("urgent", "u_maria", None)
    assert row.data.due_at is None, "null removes the due time; the target of the priority applies again"
    assert row.due_at == us(example("escalation.opened")["time"]) + HOUR // 4


def test_a_session_that_starts_opens_no_item() -> None:
    assert not rows_by_kind(example("session.started"))


def test_a_case_is_blocked_until_its_state_changes() -> None:
    blocked = example("case.state_changed")
    left = {**blocked, "id": "case-def-5", "time": "2026-05-20T16:00:00Z", "data": {"state": "IMPLEMENTING"}}
    assert rows_by_kind(blocked)["blocked_case"].is_open
    assert rows_by_kind(blocked, left)["blocked_case"].resolved_action == "state_left"


def test_a_proof_begins_to_expire_by_itself() -> None:
    proof, expired = example("proof.attached"), example("proof.expired")
    due = us(proof["data"]["expires_at"])
    assert "proof_expiring" not in rows_by_kind(proof, at=due - 24 * HOUR - 1)
    assert rows_by_kind(proof, at=due - 24 * HOUR)["proof_expiring"].is_open
    assert rows_by_kind(proof, expired)["proof_expiring"].resolved_action == "expired"
    newer = {**proof, "id": "prf-4-1", "subject": "proof_4", "time": "2026-05-27T00:00:00Z"}
    newer["data"] = {**proof["data"], "expires_at": "2026-06-30T00:00:00Z"}
    assert rows_by_kind(proof, newer)["proof_expiring"].resolved_action == "attached"


def test_a_draft_waits_for_its_owner() -> None:
    row = rows_by_kind(example("draft.edited"))["draft_review"]
    assert (row.target_user_id, row.target_role) == ("u_jonas", None)
