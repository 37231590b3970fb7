"""The fold of questions and decisions: each state of CONTRACT §7, with rows, facts, outcomes and records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fold.asking_driver import Asking

from schemas.facts import Fact
from schemas.scalars import MINUTE, SECOND
from schemas.views import ItemRow, decode_row
from streams.core.config import FoldConfig

PLAIN = {"reply": {"token": "sealed"}}
UNDO = FoldConfig().undo / SECOND
CONFIRM = FoldConfig().confirm / SECOND
QUORUM = {"quorum": {"approve": 2}}


def test_a_vote_decides_a_question_once() -> None:
    asking = Asking()
    item = asking.ask(PLAIN)
    assert item.question is not None
    assert asking.item().is_listed
    status, body = asking.vote("ada", at=10)
    assert status == 201
    decision = body["decision"]
    assert decision["state"] == "made"
    assert [actor["user"] for actor in decision["actors"]] == ["ada"]
    assert asking.item().state == "decided"
    assert not asking.item().is_listed
    status, body = asking.vote("bob", "reject")
    assert (status, body["decision"]["id"]) == (409, decision["id"])
    assert asking.vote("ada")[0] == 200
    assert asking.records == [("made", "s1")]
    record = asking.decisions[0]
    assert (record.id, record.data.question.digest) == (f"{decision['id']}.made", item.question.digest)
    assert record.data.reply is not None
    assert record.data.reply.token == "sealed"  # the worker unseals the token when it writes the record
    assert asking.decision(decision["id"]).decided_at == asking.time


def test_a_decision_is_sent_after_the_time_to_undo_and_applied_when_the_source_closes() -> None:
    asking = Asking()
    asking.ask(PLAIN)
    _, body = asking.vote("ada")
    asking.tick(UNDO)
    assert asking.decision(body["decision"]["id"]).state == "sending"
    assert asking.take_back("ada")[0] == 409
    facts = asking.event("waitpoint.approved", at=UNDO + 1)
    row = asking.decision(body["decision"]["id"])
    assert row.state == "applied"
    assert asking.item().state == "resolved"
    assert [fact.type for fact in facts if isinstance(fact, Fact)] == ["waitpoint.approved", "decision.applied"]
    assert asking.records == [("made", "s1"), ("applied", "s1")]
    assert asking.vote("bob")[0] == 409


def test_a_decision_is_taken_back_by_its_actor_in_time() -> None:
    asking = Asking()
    asking.ask(PLAIN)
    first = asking.vote("ada")[1]["decision"]["id"]
    assert asking.take_back("bob")[0] == 403
    status, body = asking.take_back("ada", at=UNDO - 1)
    assert (status, body["decision"]["state"]) == (200, "taken_back")
    assert asking.item().is_listed
    assert asking.item().state == "unread"
    second = asking.vote("bob", "reject")
    assert second[0] == 201
    assert second[1]["decision"]["id"] != first
    assert asking.records == [("made", "s1"), ("taken_back", "s1"), ("made", "s1")]


def test_a_refused_decision_comes_back() -> None:
    asking = Asking()
    item = asking.ask(PLAIN)
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.event("decision.refused", decision=decision, reason="the budget is closed", at=UNDO + 1)
    back = asking.item()
    assert back.state == "unread"
    assert back.surge > item.surge
    assert back.question is not None
    assert (back.question.returned, back.question.decision.reason) == (  # type: ignore[union-attr]
        "refused", "the budget is closed")
    status, body = asking.vote("ada")
    assert (status, body["decision"]["id"] != decision) == (201, True)


def test_a_report_of_another_source_changes_nothing() -> None:
    asking = Asking()
    asking.ask(PLAIN)
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.event("decision.applied", source="/other", decision=decision)
    asking.event("decision.applied", "s2", decision=decision)
    assert asking.decision(decision).state == "made"
    asking.event("decision.applied")  # a report about the subject's current decision
    assert asking.decision(decision).state == "applied"
    assert asking.item().state == "resolved"
    assert asking.item().resolved_action == "approve"
    assert asking.item().resolved_by == "ada"


def test_an_unconfirmed_decision_comes_back_and_can_only_be_sent_again() -> None:
    asking = Asking()
    asking.ask(PLAIN)
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.tick(UNDO)
    asking.tick(UNDO + CONFIRM)
    assert asking.item().is_listed
    assert asking.decision(decision).returned == "unconfirmed"
    assert asking.vote("bob", "reject")[0] == 409
    status, body = asking.vote("bob")
    assert (status, body["decision"]["id"], body["decision"]["state"]) == (200, decision, "sending")
    assert asking.records == [("made", "s1"), ("made", "s1")]
    assert asking.decisions[0].id == asking.decisions[1].id
    assert asking.item().state == "decided"
    asking.tick(UNDO + 3 * CONFIRM)
    assert asking.item().is_listed, "the decision is unconfirmed again"
    asking.event("decision.applied")
    assert asking.item().state == "resolved"


def test_an_operator_sends_a_decision_again() -> None:
    asking = Asking()
    asking.ask(PLAIN)
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.tick(UNDO)
    asking.report(decision, "again")
    asking.report(decision, "undeliverable", "503 for three days")
    assert asking.item().is_listed
    asking.report(decision, "again")
    assert not asking.item().is_listed
    assert asking.records == [("made", "s1")] * 3


def test_without_confirmation_delivery_is_the_effect() -> None:
    asking = Asking()
    asking.ask({"reply": {"to": "hook", "confirm": False}})
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.tick(UNDO)
    assert asking.decision(decision).state == "sending"
    asking.report(decision, "delivered")
    assert asking.decision(decision).state == "applied"
    assert asking.records == [("made", "s1"), ("delivered", "s1"), ("applied", "s1")]
    asking.ask({"reply": {"confirm": False}}, "s2")
    decision = asking.vote("ada", item=asking.item("s2"))[1]["decision"]["id"]
    asking.tick(2 * UNDO + 1)
    assert asking.decision(decision).state == "applied", "the record on the topic counts as delivery"


def test_a_quorum_needs_different_people_and_one_reject_ends_it() -> None:
    asking = Asking()
    asking.ask(QUORUM)
    status, body = asking.vote("ada")
    assert (status, body["needed"], [vote["user"] for vote in body["votes"]]) == (202, 1, ["ada"])
    assert asking.vote("ada")[0] == 200
    assert asking.vote("bob")[0] == 201
    asking.ask(QUORUM, "s2")
    asking.vote("ada", item=asking.item("s2"))
    assert asking.vote("bob", "reject", asking.item("s2"))[0] == 201


def test_a_changed_ask_is_a_new_question() -> None:
    asking = Asking()
    item = asking.ask(QUORUM, kind="escalation.opened")
    assert item.question is not None
    old = item.question.digest
    asking.vote("ada", "resolve", item)
    asking.event("escalation.updated", title="Deploy both?", at=5)
    item = asking.item(kind="escalation")
    assert item.question is not None
    assert item.question.digest != old
    assert item.question.votes == ()
    assert item.surge == 2
    status, body = asking.vote("bob", "resolve", item, digest=old)
    assert (status, body["digest"]) == (412, item.question.digest)


@pytest.mark.parametrize(("named", "state", "action"), [(None, "resolved", "expired"), ("reject", "decided", None)])
def test_an_expired_question_is_decided_by_its_safe_option_or_closed(
    named: str | None, state: str, action: str | None,
) -> None:
    asking = Asking()
    asking.ask({
        "options": [{"id": "approve", "does": "approve"}, {"id": "reject", "does": "reject", "safe": True}],
        "expires_at": "2026-09-21T14:15:00Z", **({"on_expiry": named} if named else {}),
    })
    expires = 1_790_000_100 - 1_790_000_000
    asking.tick(expires - 1)
    assert asking.item().is_listed
    asking.tick(expires)
    item = asking.item()
    assert (item.state, item.resolved_action) == (state, action)
    assert asking.records == [("made" if named else "expired", "s1")]
    assert asking.decisions[0].data.actors == ()
    assert asking.vote("ada")[0] == (409 if named else 410)


def test_a_source_that_closes_first_withdraws_the_question_and_may_ask_again() -> None:
    asking = Asking()
    item = asking.ask(PLAIN, at=1)
    asking.event("waitpoint.cancelled", at=2)
    assert asking.vote("ada", item=item)[0] == 410
    assert asking.records == []
    asking.ask(PLAIN, at=3)
    assert asking.vote("ada")[0] == 201
    asking.event("waitpoint.approved", at=4)
    first = asking.decisions[0].data.decision
    asking.ask(PLAIN, at=5)
    status, body = asking.vote("bob")
    assert (status, body["decision"]["id"] != first) == (201, True)


def test_answers_of_a_batch_go_out_together() -> None:
    asking = Asking()
    ask = {"batch": {"key": "b"}}
    for subject in ("s1", "s2", "s3"):
        asking.ask(ask, subject)
    asking.vote("ada", item=asking.item("s1"))
    asking.vote("ada", "reject", asking.item("s3"))
    assert asking.records == []
    asking.take_back("ada", asking.item("s3"))
    asking.tick(UNDO * 2)
    assert asking.records == []
    assert asking.decision(asking.item("s1").question.decision.id).state == "made"  # type: ignore[union-attr]
    asking.vote("ada", "reject", asking.item("s3"))
    asking.event("waitpoint.cancelled", "s2", at=UNDO * 2 + 1)
    assert sorted(asking.records) == [("made", "s1"), ("made", "s3")]
    asking.tick(UNDO * 4)
    assert asking.decision(asking.item("s1").question.decision.id).state == "sending"  # type: ignore[union-attr]
    assert not [key for key in asking.worker.rows if key.startswith(b"b:")]


def test_the_same_answer_to_many_is_fenced_by_revisions() -> None:
    asking = Asking()
    items = [asking.ask({}, subject) for subject in ("s1", "s2", "s3")]
    form = asking.ask({"form": {"properties": {"n": {"type": "integer"}}}}, "s4")
    pairs = [(item.id, item.rev) for item in (*items, form)]
    asking.event("waitpoint.created", "s2", title="Something else?", at=1)
    asking.vote("bob", "reject", items[2])
    pairs[2] = (pairs[2][0], asking.item("s3").rev)
    status, body = asking.vote_many("ada", [*pairs, ("ibx_none", 1)])
    assert status == 200
    assert body == {
        "decided": 1, "voted": 0, "skipped": 2, "skipped_ids": [items[2].id, form.id], "changed": 1,
        "changed_ids": [items[1].id], "not_found": 1, "option": "approve"}


def test_a_user_who_may_not_decide_is_refused() -> None:
    asking = Asking()
    asking.ask({"deciders": {"roles": ["OWNER"], "not": ["requester"]}}, by_user_id="ada")
    assert asking.vote("bob", role="ADMIN")[0] == 403
    assert asking.vote("ada", role="OWNER")[0] == 403
    assert asking.vote("cyd", role="OWNER")[0] == 201
    asking.ask({}, "s2")
    assert asking.vote("vic", item=asking.item("s2"), role="VIEWER")[0] == 403
    asking.ask({}, "s3", target_user_id="ada")
    assert asking.vote("bob", item=asking.item("s3"))[0] == 404


def test_an_edit_keeps_digits_and_names_what_changed() -> None:
    asking = Asking()
    asking.ask({
        "options": [{"id": "edit", "does": "edit"}, {"id": "no", "does": "reject", "comment": "required"}],
        "action": {"name": "pay", "args": {"amount": 10, "to": {"iban": "x"}}, "editable": ["amount"]},
    })
    status, body = asking.vote("ada", "edit", args={"amount": 9007199254740993, "to": {"iban": "y"}})
    assert (status, body["fields"]) == (422, {"args.to": "is not editable"})
    assert asking.vote("ada", "no")[1]["fields"] == {"comment": "option no requires a comment"}
    assert asking.vote("ada", "edit", args={"amount": 9007199254740993, "to": {"iban": "x"}})[0] == 201
    data = asking.decisions[0].data
    assert (bytes(data.args), data.edited) == (b'{"amount":9007199254740993,"to":{"iban":"x"}}', ("/amount",))


def test_an_item_without_an_ask_can_be_decided_only_with_the_setting() -> None:
    asking = Asking()
    asking.event("run.failed", title="build failed", cluster="a", pipeline="p")
    assert asking.item(kind="failed_run").question is None
    everything = Asking(replace(FoldConfig(), decisions="all"))
    everything.event("run.failed", title="build failed", cluster="a", pipeline="p")
    item = everything.item(kind="failed_run")
    assert item.question is not None
    assert everything.vote("ada", "retry", item)[0] == 201
    assert everything.decisions[0].data.source == "/agent"
    off = Asking(replace(FoldConfig(), decisions="off"))
    assert off.ask({}).question is None


def test_an_idempotency_key_gives_the_same_answer_again() -> None:
    asking = Asking()
    asking.ask({})
    first = asking.vote("ada", key="k1")
    assert asking.vote("ada", key="k1") == first
    asking.take_back("ada")
    assert asking.vote("ada", key="k1") == first
    assert len(asking.records) == 2


def test_rows_of_decisions_pass_their_retention() -> None:
    asking = Asking(replace(FoldConfig(), retention=30 * MINUTE))
    asking.ask({})
    decision = asking.vote("ada")[1]["decision"]["id"]
    asking.event("waitpoint.approved", at=UNDO + 1)
    asking.tick(20 * 60)
    assert asking.decision(decision).state == "applied"
    asking.tick(61 * 60)
    assert not [key for key in asking.worker.rows if key[:2] in (b"c:", b"i:")]


def test_a_decision_about_an_incident_names_its_runs_and_is_applied_when_the_last_one_closes() -> None:
    asking = Asking(replace(FoldConfig(), decisions="all"))
    for cluster in ("a", "b"):
        asking.event("run.failed", f"run-{cluster}", title="build failed", cluster=cluster, pipeline="p", step="s")
    rows = [decode_row(key, value) for key, value in asking.worker.rows.items() if key.startswith(b"i:")]
    [incident] = [row for row in rows if isinstance(row, ItemRow) and row.kind == "incident"]
    status, body = asking.vote("ada", "retry", incident)
    assert status == 201
    assert asking.decisions[0].data.members == ("run-a", "run-b")
    for cluster in ("a", "b"):
        asking.event("run.retried", f"run-{cluster}", at=UNDO + 1)
    assert asking.decision(body["decision"]["id"]).state == "applied"
