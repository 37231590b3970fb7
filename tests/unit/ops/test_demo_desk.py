"""The demo's sources apply each decision once and refuse some with a reason. They hold a decision until its undo time
has ended."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.demo import effects
from ops.demo.desk import DecisionDesk
from ops.demo.player import StoryPosition, events
from ops.demo.sources import apply_due
from ops.demo.users import choose_answer, may_decide
from schemas.asking.ask import Ask
from schemas.asking.decision_event import (
    Actor,
    DecisionData,
    DecisionEvent,
    DecisionVerb,
    Fence,
    QuestionRef,
    encode_decision,
)
from schemas.scalars import SECOND, format_timestamp, parse_timestamp
from schemas.topics import DECISION_REPORTS, TOPIC_OF_TYPE
from streams.core.normalise import normalise

NOW = parse_timestamp("2026-05-20T12:00:00Z")
UNDO = 5 * SECOND
KINDS = {
    "waitpoint.created": "waitpoint", "escalation.opened": "escalation", "run.failed": "failed_run",
    "session.waiting": "session_waiting", "plan.proposed": "plan_approval", "action.requested": "pending_action",
    "draft.edited": "draft_review", "task.blocked": "blocked_task", "case.state_changed": "blocked_case",
}
# Effects of the default options of each kind, for asks without options (CONTRACT §7).
DEFAULTS = {
    "plan_approval": ["approve", "reject"], "session_waiting": ["respond"], "draft_review": ["approve", "reject"],
    "blocked_case": ["approve", "ignore", "reject"], "blocked_task": ["acknowledge"],
}


def story(count: int, seed: int = 7) -> list[dict[str, Any]]:
    return [event for _, _, event in islice(events(StoryPosition(seed, NOW), NOW), count)]


STORY = story(4000)


def asking(kind: str, **wanted: Any) -> dict[str, Any]:
    """Returns the story's first event of this type that has an ask and these values in `data`."""
    return next(event for event in STORY if event["type"] == kind and "ask" in event["data"]
                and all(event["data"].get(name) == value for name, value in wanted.items()))


def deploy(stack: str) -> dict[str, Any]:
    return next(event for event in STORY if event["type"] == "waitpoint.created" and event["data"]["stack"] == stack
                and event["data"]["cluster"].startswith("prod") and event["data"]["ask"]["action"]["name"] == "deploy")


def record(
    event: dict[str, Any], does: str | None, *, verb: DecisionVerb = "made", number: int = 0, at: int = NOW,
    question: str | None = None, **more: Any,
) -> dict[str, Any]:
    """Returns a record of topic `decisions` about the item of `event`, as attn writes it."""
    decision = f"dec_{event['id']}_{number}"
    data = DecisionData(
        decision=decision, item="in_1", kind=KINDS[event["type"]], source=event["source"],
        question=QuestionRef(question or event["data"]["ask"]["id"], "0" * 64), opened_at=format_timestamp(at),
        decided_at=format_timestamp(at), fence=Fence(0, number), option=does, does=does,
        undo_until=format_timestamp(at + UNDO),
        actors=(Actor("maria", "OWNER", format_timestamp(at), str(does), "Maria Okafor"),) if does else (), **more)
    return json.loads(encode_decision(DecisionEvent(  # type: ignore[no-any-return]
        id=f"{decision}.{verb}", type=f"decision.{verb}", subject=event["subject"], time=format_timestamp(at),
        workspaceid="demo", data=data)))


@pytest.fixture
def desk(tmp_path: Path) -> DecisionDesk:
    return DecisionDesk(tmp_path / "desk.json")


def applied(desk: DecisionDesk, at: int = NOW + UNDO) -> list[dict[str, Any]]:
    """Returns all events of the due decisions, and marks these decisions as done."""
    sent = []
    for decision, new_events in desk.due(at):
        sent += new_events
        desk.mark_done(decision, new_events)
    return sent


def options(event: dict[str, Any]) -> list[str]:
    given = event["data"]["ask"].get("options")
    return [option["does"] for option in given] if given else DEFAULTS[KINDS[event["type"]]]


def asks_of_each_shape() -> list[Any]:
    """Returns one event per kind and list of effects."""
    event_of = {}
    for event in STORY:
        if "ask" in event["data"]:
            event_of.setdefault((event["type"], tuple(options(event))), event)
    return [pytest.param(event, does, id=f"{event['type']}-{does}") for event in event_of.values()
            for does in dict.fromkeys(options(event))]


def test_all_kinds_that_wait_for_a_person_ask_and_each_ask_is_valid() -> None:
    kinds = set()
    for event in STORY:
        if "ask" in event["data"]:
            ask = Ask.model_validate_json(json.dumps(event["data"]["ask"]))
            assert ask.id == event["id"], "an item that opens again has an ask with a new id"
            kinds.add(event["type"])
    assert kinds == set(KINDS)


def test_the_story_has_every_form_of_asking() -> None:
    asks = [event["data"]["ask"] for event in STORY if "ask" in event["data"]]
    chosen = {does for ask in asks for does in (option["does"] for option in ask.get("options", ()))}
    assert {"approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"} == chosen
    assert any(ask.get("quorum") == {"approve": 2} and ask["deciders"]["not"] == ["requester"] for ask in asks)
    assert any("on_expiry" in ask for ask in asks)
    assert any(option.get("comment") == "required" for ask in asks for option in ask.get("options", ()))
    assert any("form" in option for ask in asks for option in ask.get("options", ()))
    batches = [ask["batch"]["key"] for ask in asks if "batch" in ask]
    assert batches
    assert all(batches.count(key) == 2 for key in batches)


@pytest.mark.parametrize(("event", "does"), asks_of_each_shape())
def test_each_answer_becomes_an_event_that_attn_accepts(event: dict[str, Any], does: str, desk: DecisionDesk) -> None:
    assert desk.accept(event)
    desk.receive(record(event, does))
    sent = applied(desk)
    if effects.is_frozen(event, {"does": does}):
        desk.receive(record(event, does, number=1, at=NOW + 300 * SECOND))
        sent = applied(desk, NOW + 300 * SECOND + UNDO)
    first = sent[0]
    assert (first["subject"], first["source"], first["workspaceid"]) == (event["subject"], event["source"], "demo")
    if first["type"] in DECISION_REPORTS:
        assert first["type"] == "decision.applied"
        assert first["data"]["decision"].startswith("dec_")
    else:
        assert first["data"]["by_user_id"] == "maria"
        assert TOPIC_OF_TYPE[first["type"]] == TOPIC_OF_TYPE[event["type"]]
    for sent_event in sent:
        if sent_event["type"] not in DECISION_REPORTS:
            normalise(TOPIC_OF_TYPE[sent_event["type"]], json.dumps(sent_event).encode())
    assert len({sent_event["id"] for sent_event in sent}) == len(sent)


def test_a_decision_waits_until_its_undo_time_has_ended(desk: DecisionDesk) -> None:
    event = asking("plan.proposed")
    desk.accept(event)
    desk.receive(record(event, "approve"))
    assert desk.next_due() == NOW + UNDO
    assert desk.due(NOW + UNDO - 1) == []
    assert next(sent["type"] for sent in applied(desk)) == "plan.approved"
    assert desk.next_due() is None


async def test_a_decision_is_done_once_kafka_has_acknowledged_its_events(desk: DecisionDesk) -> None:
    event, sent = asking("plan.proposed"), []
    desk.accept(event)
    desk.receive(record(event, "approve"))

    async def fail(_: list[dict[str, Any]]) -> None:
        raise ConnectionError("no broker")

    async def send(events: list[dict[str, Any]]) -> None:
        sent.extend(events)

    with pytest.raises(ConnectionError):
        await apply_due(desk, fail)
    await apply_due(desk, send)
    await apply_due(desk, send)
    assert [message["type"] for message in sent] == ["plan.approved", "message.posted"]


def test_a_decision_that_was_taken_back_is_not_applied(desk: DecisionDesk) -> None:
    event = asking("plan.proposed")
    desk.accept(event)
    desk.receive(record(event, "approve"))
    desk.receive(record(event, "approve", verb="taken_back"))
    assert desk.due(NOW + 10 * UNDO) == []
    desk.receive(record(event, "reject", number=1))
    assert [sent["type"] for sent in applied(desk)] == ["plan.rejected"]


def test_a_decision_is_applied_once_for_any_number_of_its_records(tmp_path: Path) -> None:
    """The demo may end after its events are acknowledged and before it marks the decision: their ids stay the same."""
    event = asking("action.requested")
    desk = DecisionDesk(tmp_path / "desk.json")
    desk.accept(event)
    for _ in range(2):
        desk.receive(record(event, "approve"))
    desk.save()
    once = desk.due(NOW + UNDO)
    crashed = DecisionDesk(tmp_path / "desk.json")
    crashed.accept(event)
    again = crashed.due(NOW + 60 * SECOND)
    assert [[sent["id"] for sent in new_events] for _, new_events in again] == [
        [sent["id"] for sent in new_events] for _, new_events in once]
    assert len(applied(crashed)) == len(once[0][1])
    crashed.receive(record(event, "approve"))
    restarted = DecisionDesk(tmp_path / "desk.json")
    restarted.accept(event)
    restarted.receive(record(event, "approve"))
    assert (crashed.due(NOW + UNDO), restarted.due(NOW + UNDO)) == ([], [])


def test_a_payments_deploy_is_refused_with_a_reason_and_applied_after_the_freeze(desk: DecisionDesk) -> None:
    event = deploy("billing")
    desk.accept(event)
    desk.receive(record(event, "approve"))
    refused, = applied(desk)
    assert refused["type"] == "decision.refused"
    assert refused["data"] == {
        "decision": f"dec_{event['id']}_0", "reason": "payments freeze until 12:02 UTC; approve it again then"}
    desk.receive(record(event, "approve", number=1, at=NOW + 60 * SECOND))
    assert applied(desk, NOW + 70 * SECOND)[0]["type"] == "decision.refused"
    desk.receive(record(event, "approve", number=2, at=NOW + 200 * SECOND))
    assert applied(desk, NOW + 300 * SECOND)[0]["type"] == "waitpoint.approved"


def test_a_freeze_refuses_again_if_the_demo_ends_before_it_has_marked_the_refusal(tmp_path: Path) -> None:
    event = deploy("ledger")
    for at in (NOW + UNDO, NOW + 3600 * SECOND):
        desk = DecisionDesk(tmp_path / "desk.json")
        desk.accept(event)
        desk.receive(record(event, "approve"))
        desk.save()
        assert [sent["type"] for _, new_events in desk.due(at) for sent in new_events] == ["decision.refused"]


@pytest.mark.parametrize("stack", ["search", "web"])
def test_other_deploys_and_rejections_are_not_frozen(stack: str, desk: DecisionDesk) -> None:
    event, frozen = deploy(stack), deploy("billing")
    desk.accept(event)
    desk.accept(frozen)
    desk.receive(record(event, "approve"))
    desk.receive(record(frozen, "reject"))
    assert {sent["type"] for sent in applied(desk)} == {"waitpoint.approved", "waitpoint.rejected", "message.posted"}


def test_an_answer_to_an_earlier_question_does_not_answer_the_next(desk: DecisionDesk) -> None:
    first = asking("session.waiting")
    second = {**first, "id": "later", "data": {**first["data"], "ask": {**first["data"]["ask"], "id": "later"}}}
    desk.accept(first)
    desk.accept({**first, "id": "between", "type": "session.resumed", "data": {}})
    desk.accept(second)
    desk.receive(record(first, "respond"))
    assert applied(desk) == []
    desk.receive(record(second, "respond", number=1))
    assert applied(desk)[0]["type"] == "session.resumed"


def test_a_decision_about_an_item_that_its_source_has_closed_changes_nothing(desk: DecisionDesk) -> None:
    event = asking("plan.proposed")
    desk.accept(event)
    assert desk.accept({**event, "id": "closing", "type": "plan.superseded", "data": {}})
    desk.receive(record(event, "approve"))
    assert applied(desk) == []


def test_the_story_does_not_close_an_item_with_a_decision(desk: DecisionDesk) -> None:
    event = asking("plan.proposed")
    closing = {**event, "id": "closing", "type": "plan.rejected", "data": {}}
    desk.accept(event)
    desk.receive(record(event, "approve"))
    assert not desk.accept(closing), "the decision may still be undone"
    assert applied(desk)[0]["type"] == "plan.approved"
    assert not desk.accept(closing)
    assert desk.accept({**closing, "id": "another"}), (
        "the story leaves out only the closing event of the answered question")


def test_an_expiry_is_applied_with_its_safe_option_and_without_an_actor(desk: DecisionDesk) -> None:
    event = next(candidate for candidate in STORY if "on_expiry" in candidate["data"].get("ask", {}))
    desk.accept(event)
    made = record(event, "reject")
    made["data"].pop("actors")
    desk.receive(made)
    sent = applied(desk)
    assert [candidate["type"] for candidate in sent] == ["action.declined"]
    assert "by_user_id" not in sent[0]["data"]


def test_an_expiry_without_an_answer_changes_nothing(desk: DecisionDesk) -> None:
    event = deploy("web")
    desk.accept(event)
    desk.receive(record(event, None, verb="expired"))
    assert applied(desk) == []


def test_a_message_names_the_edited_fields(desk: DecisionDesk) -> None:
    event = next(chosen for chosen in STORY
                 if "amount" in chosen["data"].get("ask", {}).get("action", {}).get("args", {}))
    desk.accept(event)
    args = {**event["data"]["ask"]["action"]["args"], "amount": 10.5}
    desk.receive(record(event, "edit", args=msgspec.Raw(json.dumps(args).encode()), edited=("/amount",)))
    _, message = applied(desk)
    assert message["type"] == "message.posted"
    assert message["data"]["target_user_id"] == "maria"
    before = event["data"]["ask"]["action"]["args"]["amount"]
    assert f"`amount`: {before} → 10.5" in message["data"]["body_md"]


def test_the_number_of_open_items_is_bounded(desk: DecisionDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.demo.desk._MAX_OPEN", 10)
    for number in range(1, 100):
        desk.accept({"type": "plan.proposed", "subject": f"p{number}", "data": {}})
    assert len(desk._opened) == 10


# --- answers of the team ---

def item(**fields: Any) -> dict[str, Any]:
    return {
        "id": "in_1", "state": "unread", "digest": "d" * 64, "votes": [],
        "ask": {"options": [{"id": "grant", "does": "approve"}, {"id": "deny", "does": "reject"}]},
        "deciders": {"users": ["li"], "roles": ["OWNER", "ADMIN"], "excluded": ["sam"]}, **fields}


def test_people_vote_only_if_they_may_decide() -> None:
    assert may_decide(item(), "jonas", "ADMIN")
    assert may_decide(item(), "li", "MANAGER")
    assert not may_decide(item(), "noor", "MEMBER")
    assert not may_decide(item(), "sam", "OWNER"), "the ask's deciders exclude sam"
    assert not may_decide(item(state="decided"), "jonas", "ADMIN")
    assert not may_decide({"id": "in_2", "state": "unread"}, "jonas", "ADMIN"), "the item has no ask"
    assert not may_decide(item(votes=[{"user": "jonas", "vote": "grant"}]), "jonas", "ADMIN"), "jonas has voted already"


def test_the_second_vote_follows_the_first() -> None:
    voted = item(votes=[{"user": "maria", "vote": "deny"}])
    assert {choose_answer(voted, random.Random(seed))["option"] for seed in range(20)} == {"deny"}  # type: ignore[index]
    answers = [choose_answer(item(), random.Random(seed)) for seed in range(50)]
    assert {vote["option"] for vote in answers if vote} == {"grant", "deny"}
    assert all(vote and vote["digest"] == "d" * 64 for vote in answers)


def test_people_leave_forms_to_the_visitor() -> None:
    options = [{"id": "edit", "does": "edit"}, {"id": "say", "does": "respond"},
               {"id": "fill", "does": "choose", "form": {}}]
    assert choose_answer(item(ask={"options": options}), random.Random(1)) is None
