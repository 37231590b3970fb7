"""What becomes of a decision: reports of `attn deliver` and of its source, and the timers of its row (CONTRACT §7)."""

from __future__ import annotations

from collections.abc import Callable

from schemas.asking.question import Decision, DecisionRow, DecisionState, Question
from schemas.facts import Fact
from schemas.log import Event, Report
from schemas.views import ItemRow
from streams.core.domain import decisions
from streams.core.domain.event_types import EVENT_RULES
from streams.core.domain.keys import decision_key, event_name, item_id, item_key
from streams.core.fold.asking import records
from streams.core.fold.context import FoldContext
from streams.core.fold.item_changes import store_item

__all__ = ["check_decision", "handle_report", "handle_report_event"]

_Change = Callable[[Question], Question]
_KINDS = sorted({rule.kind for rule in EVENT_RULES.values()})


def handle_report(context: FoldContext, report: Report) -> None:
    """Applies a report of `attn deliver`, of a connector, or of an operator (`again`) that is not a repeat."""
    stored = context.state.get(decision_key(report.decision))
    if not isinstance(stored, DecisionRow) or stored.ws != report.ws:
        return
    if report.state == "delivered":
        _deliver(context, stored)
    elif report.state == "again":
        _send_again(context, stored)
    else:
        state, clock = report.state, context.log_clock
        _change(context, stored, lambda question: decisions.report(question, stored.id, state, clock, report.reason))


def _deliver(context: FoldContext, stored: DecisionRow) -> None:
    """The receiver accepted the decision. Without confirmation by the source that is its effect."""
    if stored.delivered_at is None:
        stored.delivered_at = context.log_clock
        stored.rev = context.revision
        context.state.put(decision_key(stored.id), stored)
        row = context.state.item(item_key(stored.item))
        records.emit_decision_fact(context, stored, row, "delivered", context.log_clock)
        context.decisions.append(records.to_event(context, stored, "delivered"))
    if not stored.confirm:
        _apply(context, stored)


def _apply(context: FoldContext, stored: DecisionRow) -> None:
    _change(context, stored, lambda question: decisions.report(question, stored.id, "applied", context.log_clock))


def _send_again(context: FoldContext, stored: DecisionRow) -> None:
    """Publishes the same decision once more, unless its source has applied or refused it."""
    if stored.state not in ("made", "sending", "undeliverable") or not stored.published:
        return
    stored.delivered_at, was_returned = None, stored.returned is not None
    _change(context, stored, lambda question: decisions.send_again(question, context.log_clock))
    if not was_returned:
        records.publish(context, stored)
    context.state.put(decision_key(stored.id), stored)


def handle_report_event(context: FoldContext, event: Event) -> None:
    """Handles `decision.applied` and `decision.refused`, which a source writes to its own topic.

    Without `data.decision` the event concerns the current decision of the items of its subject. Only the source that
    asked may report: another `source` changes nothing.
    """
    state: DecisionState = "applied" if event.type == "decision.applied" else "refused"
    reported = [stored for stored in _decisions_of(context, event) if stored.ws == event.ws
                and stored.subject == event.subject and stored.source == event.source]
    for stored in reported:
        _change(context, stored, lambda question, of=stored.id: decisions.report(  # type: ignore[misc]
            question, of, state, context.log_clock, event.data.reason))
    if not reported:  # the history keeps what was said of an unknown decision
        context.emit(Fact(
            ws=event.ws, pos=0, index=0, event_id=event_name(event.source, event.id), time=event.time, type=event.type,
            subject=event.subject, at=context.log_clock, decision=event.data.decision, reason=event.data.reason,
            stale=True, target_user_id=event.data.target_user_id, target_role=event.data.target_role))


def _decisions_of(context: FoldContext, event: Event) -> list[DecisionRow]:
    if event.data.decision is not None:
        named = context.state.get(decision_key(event.data.decision))
        return [named] if isinstance(named, DecisionRow) else []
    found: list[DecisionRow] = []
    for kind in _KINDS:
        row = context.state.item(item_key(item_id(event.ws, kind, event.subject)))
        if row is not None and row.question is not None and row.question.decision is not None:
            stored = context.state.get(decision_key(row.question.decision.id))
            if isinstance(stored, DecisionRow):
                found.append(stored)
    return found


def check_decision(context: FoldContext, key: bytes) -> None:
    """Timer of a decision's row: the time to undo ends, nobody confirmed in time, or the retention has passed."""
    stored = context.state.get(key)
    assert isinstance(stored, DecisionRow)
    clock = context.log_clock
    stored.wake = None
    if stored.state == "made":
        _change(context, stored, lambda question: decisions.start_sending(question, clock))
        if not stored.confirm and stored.reply_to is None:
            _apply(context, stored)  # the record on the topic is all that the source asked for
    elif stored.state == "sending" and stored.returned is None:
        _change(context, stored, decisions.return_unconfirmed)
    elif stored.touched + context.config.retention <= clock:
        context.state.delete(key)
        return
    if stored.wake is None:
        stored.wake = max(clock, stored.touched) + context.config.retention
        context.state.put(key, stored)


def _change(context: FoldContext, stored: DecisionRow, change: _Change) -> None:
    """Applies a change to the question of the decision: that of its item, or a copy if the item asks another one."""
    row = context.state.item(item_key(stored.item))
    if row is not None and _is_current(row, stored):
        before = row.question
        assert before is not None
        after = change(before)
        if after is not before:
            row.question = after
            store_item(context, row, context.log_clock)
            context.note_question(row, before)
            records.record_changes(context)
        return
    copy = Question(digest=stored.digest, returned=stored.returned, decision=Decision(
        id=stored.id, option=stored.option, does=stored.does, at=stored.decided_at, undo_until=stored.undo_until,
        state=stored.state, actors=stored.actors, reason=stored.reason, changed_at=stored.changed_at))
    after = change(copy)
    if after is not copy and after.decision is not None:
        records.update_row(context, stored, after, after.decision, None)


def _is_current(row: ItemRow, stored: DecisionRow) -> bool:
    question = row.question
    return question is not None and question.decision is not None and question.decision.id == stored.id
