"""Behaviour of each kind of item (CONTRACT §2)."""

from itertools import permutations
from typing import Any

import pytest
from support.fold.fold_driver import NOON, Folding, at, event

from schemas.facts import Fact
from schemas.log import Event, Pack, SetState
from schemas.scalars import DAY, HOUR, MINUTE, format_timestamp, parse_timestamp
from schemas.views import ItemRow
from streams.core.domain.event_types import EVENT_RULES

OPENERS = {
    "waitpoint": "waitpoint.created", "escalation": "escalation.opened", "failed_run": "run.failed",
    "message": "message.posted", "session_waiting": "session.waiting", "plan_approval": "plan.proposed",
    "pending_action": "action.requested", "blocked_task": "task.blocked", "verifying_no_proof": "session.verifying",
}
CLOSERS = [
    (kind, rule.kind, rule.action) for kind, rule in EVENT_RULES.items()
    if rule.effect == "close" and rule.kind in OPENERS
]


@pytest.mark.parametrize(("closer", "kind", "action"), CLOSERS)
def test_opens_and_closes(closer: str, kind: str, action: str) -> None:
    view = Folding()
    view.pack(event(OPENERS[kind], "s1", 0, title="T"), clock=1)
    assert [(row.kind, row.state, row.data.title) for row in view.listed()] == [(kind, "unread", "T")]
    view.pack(event(closer, "s1", 5, by_user_id="u9"), clock=6)
    row = view.item(kind)
    assert (row.state, row.resolved_action, row.resolved_by) == ("resolved", action, "u9")
    assert format_timestamp(row.resolved_at or 0) == at(5)
    assert view.facts[-1].seconds_open == 300
    assert not view.listed()


def test_close_before_open_leaves_a_resolved_item() -> None:
    view = Folding()
    view.pack(event("waitpoint.approved", "s1", 5))
    assert not view.items()
    view.pack(event("waitpoint.created", "s1", 1, title="T"))
    assert [(row.state, row.resolved_action, row.created_at) for row in view.items()] == [
        ("resolved", "approved", NOON + MINUTE)]


def test_equal_times_are_closed_and_later_opening_reopens() -> None:
    view = Folding()
    view.pack(event("waitpoint.created", "s1", 1, title="T"), event("waitpoint.approved", "s1", 1))
    assert view.item("waitpoint").state == "resolved"
    view.pack(event("waitpoint.created", "s1", 2, title="T2"))
    row = view.item("waitpoint")
    assert (row.state, row.data.title, row.created_at, row.resolved_at, row.surge) == (
        "unread", "T2", NOON + 2 * MINUTE, None, 2)


def test_a_repeat_changes_nothing() -> None:
    view = Folding()
    view.pack(event("message.posted", id="same", title="first"))
    rows, facts = dict(view.rows), len(view.facts)
    view.pack(event("message.posted", id="same", minutes=3, title="second"))
    changed = {key for key in view.rows if view.rows[key] != rows.get(key)}
    assert changed == {b"~:0"}
    assert len(view.facts) == facts
    view.restart()
    view.pack(event("message.posted", id="same", minutes=3, title="second"))
    assert len(view.facts) == facts


def test_escalation_update_is_by_field_and_any_order() -> None:
    events = [
        event("escalation.opened", "s1", 0, title="T", target_role="ADMIN", cluster="c1", body_md="b"),
        event("escalation.updated", "s1", 3, cluster="c2", priority="high"),
        event("escalation.updated", "s1", 5, target_user_id="u1"),
        event("escalation.updated", "s1", 7, priority=None, body_md=None),
    ]
    seen = set()
    for order in permutations(events):
        view = Folding()
        view.pack(*order, clock=10)
        row = view.item("escalation")
        target = (row.target_user_id, row.target_role)
        seen.add((row.data.title, row.data.cluster, row.data.body_md, row.priority, *target))
    assert seen == {("T", "c2", None, "normal", "u1", None)}


def test_an_update_that_is_not_newer_than_the_shown_one_is_ignored() -> None:
    view = Folding()
    view.pack(event("escalation.opened", "s1", 4, title="T"), event("escalation.updated", "s1", 4, title="same time"))
    view.pack(event("escalation.updated", "s1", 3, title="older"))
    assert view.item("escalation").data.title == "T"


def test_escalation_action_names_the_resolution() -> None:
    view = Folding()
    view.pack(event("escalation.opened", title="T"), event("escalation.resolved", minutes=1, action="handed over"))
    assert view.item("escalation").resolved_action == "handed over"


def fail(run: str, cluster: str | None, minutes: float = 0, **data: Any) -> Event:
    given = {"title": f"{run} failed", "pipeline": "p", "step": "s", "cluster": cluster, **data}
    return event("run.failed", run, minutes, **given)


def test_incident_of_two_clusters() -> None:
    view = Folding()
    view.pack(fail("r1", "c1", 0, priority="high"))
    assert [row.kind for row in view.listed()] == ["failed_run"]
    view.pack(fail("r2", "c2", 1, blocking=True))
    [incident] = view.listed()
    assert (incident.kind, incident.count, incident.clusters, incident.priority, incident.blocking) == (
        "incident", 2, ["c1", "c2"], "high", True)
    assert incident.created_at == NOON + MINUTE
    assert incident.members == [view.item("failed_run", "r1").id, view.item("failed_run", "r2").id]
    assert view.item("failed_run", "r1").incident == incident.id
    view.pack(event("run.recovered", "r1", 2))
    [incident] = view.listed()
    assert (incident.count, incident.clusters, incident.state) == (1, ["c2"], "unread")
    view.pack(event("run.retried", "r2", 3, by_user_id="u7"))
    assert not view.listed()
    incident = view.item("incident", "p/s")
    assert (incident.state, incident.resolved_action, incident.resolved_by) == ("resolved", "retried", "u7")


def test_incident_is_the_same_in_any_order() -> None:
    events = [
        fail("r1", "c1", 0), fail("r2", "c2", 1), event("run.recovered", "r1", 2), fail("r3", "c2", 3),
        event("run.recovered", "r2", 4), fail("r1", "c1", 5),
    ]
    seen = set()
    for order in permutations(events):
        view = Folding()
        for run_event in order:
            view.pack(run_event, clock=10)
        seen.add(tuple(
            (row.kind, row.source_id, row.state, row.created_at, row.count, tuple(row.members), row.resolved_at,
             row.resolved_action, bool(row.incident), row.data.title, row.due_at) for row in view.items()
        ))
    assert len(seen) == 1
    assert [row.kind for row in view.listed()] == ["incident"]


def test_an_incident_undone_by_a_late_event_is_hidden_and_can_start_afresh() -> None:
    """A late event undoes the incident: it is hidden and forgets its end. A later outage opens it as a new incident."""
    view = Folding()
    view.pack(fail("r1", "c1", 0), fail("r2", "c2", 1), event("run.recovered", "r1", 2))
    view.pack(event("run.retried", "r2", 3, by_user_id="u7"))
    assert view.item("incident", "p/s").resolved_by == "u7"
    view.pack(event("run.recovered", "r1", 0.5))
    [incident] = [row for row in view.all(ItemRow) if row.kind == "incident"]
    assert (incident.state, incident.clusters, incident.count) == ("hidden", [], 0)
    assert incident.resolved_at is incident.resolved_by is incident.resolved_action is None
    view.pack(fail("r1", "c1", 4), fail("r2", "c2", 5))
    assert [(row.kind, row.state, row.created_at) for row in view.listed()] == [
        ("incident", "unread", NOON + 5 * MINUTE)]


def test_runs_of_one_cluster_other_targets_or_no_group_are_not_grouped() -> None:
    view = Folding()
    view.pack(fail("r1", "c1"), fail("r2", "c1"), fail("r3", "c2", target_role="OWNER"), fail("r4", None),
              fail("r5", "c3", pipeline=None, step=None), fail("r6", "c4", incident_key="p/s"))
    assert {row.kind for row in view.listed(roles=["OWNER"])} == {"failed_run"}
    assert len(view.listed(roles=["OWNER"])) == 6


def test_a_large_incident_marks_its_members_in_steps() -> None:
    view = Folding()
    view.pack(*(fail(f"r{n}", "c1") for n in range(100)))
    view.pack(fail("r100", "c2"))
    for tick in range(5):
        view.pack(clock=tick)
    assert [row.kind for row in view.listed()] == ["incident"]
    assert view.listed()[0].count == 101


def test_draft_review_and_recent_draft() -> None:
    view = Folding()
    ai, ann = {"type": "ai", "id": "claude", "name": "Claude"}, {"type": "user", "id": "ann", "name": "Ann"}
    view.pack(event("draft.edited", "d1", 0, editor=ann, title="Web", cluster="c1", stack="web"))
    assert not view.listed("ann")
    assert [(draft.has_ai_edits, draft.title) for draft in view.drafts()] == [(False, "Web")]
    view.pack(event("draft.edited", "d1", 1, editor=ai, title="Web 2"))
    assert [row.kind for row in view.listed("ann")] == ["draft_review"]
    assert not view.listed("bob")
    [draft] = view.drafts()
    assert (draft.has_ai_edits, draft.title, draft.cluster, [editor.id for editor in draft.editors]) == (
        True, "Web 2", "c1", ["claude", "ann"])
    view.pack(event("draft.edited", "d1", 2, editor=ann, owner_user_id="bob"))
    row = view.item("draft_review", "d1")
    assert (row.state, row.resolved_action, row.resolved_by, row.target_user_id) == ("resolved", "edited", "ann", "bob")
    view.pack(event("draft.edited", "d1", 3, editor=ai, title="Web 3"))
    assert [row.kind for row in view.listed("bob")] == ["draft_review"]
    view.pack(event("draft.committed", "d1", 4))
    assert view.item("draft_review", "d1").resolved_action == "committed"
    assert not view.drafts()


def test_blocked_case() -> None:
    view = Folding()
    view.pack(event("case.state_changed", "c1", 1, state="BLOCKED", title="Stuck", case_title="Case 1"))
    [row] = view.listed()
    assert (row.kind, row.data.case_id) == ("blocked_case", "c1")
    view.pack(event("case.state_changed", "c1", 0, state="NEW"))
    assert view.facts[-1].stale
    assert view.listed()
    view.pack(event("case.state_changed", "c1", 2, state="DONE", by_user_id="u1"))
    assert view.item("blocked_case", "c1").resolved_action == "state_left"


def test_proof_ends_verifying_and_will_expire() -> None:
    view = Folding()
    view.pack(event("session.verifying", "se1", 0, title="Verify", case_id="c1"), clock=1)
    expires = at(30 * 60)
    view.pack(event("proof.attached", "p1", 2, session_id="se1", case_id="c1", expires_at=expires), clock=2)
    assert view.item("verifying_no_proof", "se1").resolved_action == "attached"
    assert (view.facts[-1].kind, view.facts[-1].seconds_open) == ("verifying_no_proof", 120)
    assert not view.listed()
    assert view.fold.next_timer() == NOON + 6 * HOUR
    view.pack(clock=6 * 60)
    [row] = view.listed()
    assert (row.kind, row.source_id, format_timestamp(row.due_at), row.created_at) == (
        "proof_expiring", "p1", expires, NOON + 6 * HOUR)
    assert view.facts[-1].derived
    assert view.facts[-1].type == "proof.expiring"
    view.pack(event("proof.attached", "p2", 7 * 60, case_id="c1", expires_at=at(90 * 60)), clock=7 * 60)
    row = view.item("proof_expiring", "p1")
    assert (row.state, row.resolved_action) == ("resolved", "attached")
    assert not view.listed()


def test_a_time_of_the_year_one_makes_nothing_overdue_and_no_proof_expire() -> None:
    zero = {"due_at": "0001-01-01T00:00:00Z", "expires_at": "0001-01-01T00:00:00Z"}
    view = Folding()
    view.pack(
        event("waitpoint.created", "w", title="T", priority="low", **zero),
        event("proof.attached", "p", case_id="c1", **zero), clock=1)
    [row] = view.listed()
    assert (row.source_id, row.overdue, row.due_at) == ("w", False, NOON + 3 * DAY)


def test_proofs_of_a_case_in_any_order() -> None:
    events = [
        event("proof.attached", "p1", 0, case_id="c1", expires_at=at(60)),
        event("proof.attached", "p2", 10, case_id="c1", expires_at=at(120)),
        event("proof.attached", "p3", 20, case_id="c1", expires_at=at(180)),
        event("proof.expired", "p2", 15),
        event("proof.attached", "p1", 12, case_id="c1", expires_at=at(200)),
    ]
    seen = set()
    for order in permutations(events):
        view = Folding()
        view.pack(*order, clock=30)
        seen.add(tuple((row.source_id, row.state, row.created_at, row.resolved_at, row.resolved_action)
                       for row in view.items()))
    assert len(seen) == 1, seen
    assert [row.source_id for row in view.listed()] == ["p3"]


def test_a_proof_attached_again_or_to_another_case_in_any_order() -> None:
    events = [
        event("proof.attached", "p1", 0, case_id="c1", expires_at=at(60)),
        event("proof.attached", "p2", 5, case_id="c1", expires_at=at(60)),
        event("proof.attached", "p2", 9, case_id="c2", expires_at=at(60)),
        event("proof.attached", "p3", 12, case_id="c2", expires_at=at(60)),
        event("proof.attached", "p2", 15, expires_at=at(60)),  # no case: no proof supersedes it
    ]
    for count, listed, ended in ((3, ["p2"], {"p1": 5}), (4, ["p3"], {"p1": 5, "p2": 12}),
                                 (5, ["p2", "p3"], {"p1": 5})):
        for order in permutations(events[:count]):
            view = Folding()
            view.pack(*order, clock=30)
            assert sorted(row.source_id for row in view.listed()) == listed
            assert {row.source_id: (row.resolved_at - NOON) // MINUTE for row in view.items() if row.resolved_at
                    } == ended


def test_a_late_proof_older_than_all_that_are_remembered_is_superseded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.core.domain.proofs.MAX_PROOFS", 3)
    attached = [event("proof.attached", f"p{n}", n, case_id="c1", expires_at=at(60 + n)) for n in range(6)]
    for events in (attached, attached[::-1], [*attached[3:], *attached[:3]]):
        view = Folding()
        view.pack(*events, clock=30)
        assert [row.source_id for row in view.listed()] == ["p5"]


def test_seconds_open_are_never_negative() -> None:
    view = Folding()
    view.pack(event("proof.attached", "p1", 0, case_id="c1", expires_at=at(25 * 60)), clock=90)
    assert [row.created_at for row in view.listed()] == [NOON + HOUR]
    view.pack(event("proof.expired", "p1", 30), clock=91)  # half an hour before the item would open by its timer
    assert not view.listed()
    assert (view.facts[-1].seconds_open, view.facts[-1].resolved_action) == (0, "expired")
    view.pack(event("message.posted", "m", 95, title="Of a source whose clock is ahead"), clock=92)
    view.pack(SetState(
        ws="ws", id="c1", time=NOON + 92 * MINUTE, user="u1", roles=("OWNER",), edge="e1",
        items=(view.item("message", "m").id,), state="resolved",
    ), clock=92)
    assert view.item("message", "m").state == "resolved"
    [fact] = [fact for fact in view.facts if isinstance(fact, Fact) and fact.type == "item.resolved"]
    assert fact.seconds_open == 0


def test_activity_follows_its_item() -> None:
    from schemas.views import ActivityRow

    view = Folding()
    view.pack(event("plan.approved", "pl", 5), event("session.completed", "se", 5), event("action.expired", "a", 5))
    assert {row.type: row.target_user_id for row in view.all(ActivityRow)} == {
        "plan.approved": None, "session.completed": None}
    view.pack(event("plan.proposed", "pl", 1, title="Plan", target_user_id="ann"))
    assert {row.type: (row.target_user_id, row.title) for row in view.all(ActivityRow)} == {
        "plan.approved": ("ann", "Plan"), "session.completed": (None, None)}
    view.pack(clock=24 * 60 + 5)
    assert not view.all(ActivityRow)


def test_titles_times_survive_the_codec() -> None:
    assert format_timestamp(parse_timestamp("2026-05-20T08:14:22.5+02:00")) == "2026-05-20T06:14:22.500000Z"


def test_a_group_that_is_full_leaves_further_runs_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.core.domain.incidents.MAX_OPEN_MEMBERS", 3)
    monkeypatch.setattr("streams.core.domain.incidents.MAX_CLOSED_MEMBERS", 0)
    view = Folding()
    view.pack(fail("r1", "c1"), fail("r2", "c2"), fail("r3", "c3"), fail("r4", "c4"))
    assert sorted((row.kind, row.count) for row in view.listed()) == [("failed_run", 0), ("incident", 3)]
    view.pack(event("run.recovered", "r4", 1), event("run.recovered", "r1", 1))
    assert [(row.kind, row.count) for row in view.listed()] == [("incident", 2)]


def test_a_row_has_the_same_bytes_after_it_was_read_back() -> None:
    events = [fail("r1", "c1", 0, priority="normal"), fail("r2", "c2", 1), event("run.recovered", "r1", 2)]
    calm, restarted = Folding(), Folding()
    for each in events:
        calm.fold.apply(Pack(NOON, [each]), calm.fold.position.next)
        restarted.pack(each)
        restarted.restart()
    calm.commit()
    assert calm.rows[b"i:" + calm.item("incident", "p/s").id.encode()] == (
        restarted.rows[b"i:" + calm.item("incident", "p/s").id.encode()])
