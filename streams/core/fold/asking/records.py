"""Keeps the rows of decisions in step with their items, and emits what changed: facts, and records for the sources.

`record_changes` runs after each entry of a pack and after the timers. A source event, a vote, a report and a timer
change an item's question in the same way, so none of them has to know what follows from it.
"""

from __future__ import annotations

from schemas.asking.decision_event import (
    Actor,
    DecisionData,
    DecisionEvent,
    DecisionVerb,
    Fence,
    QuestionRef,
    ReplyTo,
)
from schemas.asking.question import BatchRow, Decision, DecisionRow, Question
from schemas.facts import Fact
from schemas.log import NO_PAYLOAD
from schemas.scalars import SECOND, format_timestamp
from schemas.views import ItemRow
from streams.core.domain import decisions, items, questions
from streams.core.domain.answers import edited_pointers, read_values
from streams.core.domain.incidents import MAX_LISTED_MEMBERS
from streams.core.domain.keys import decision_fact_name, decision_key
from streams.core.fold import incident_groups
from streams.core.fold.context import FoldContext
from streams.core.fold.item_changes import store_item

__all__ = ["emit_decision_fact", "publish", "record_changes", "update_row"]

# State of a decision -> verb of its record on the topic `decisions`. The other states have no record: the source knows
# them from its own clock or its own report.
_VERBS: dict[str, DecisionVerb] = {
    "made": "made", "taken_back": "taken_back", "expired": "expired", "applied": "applied", "refused": "refused",
}


def record_changes(context: FoldContext) -> None:
    """Brings the rows of all decisions in step whose items changed (`FoldContext.note_question`)."""
    while context.asked:
        row, before = context.asked.pop(0)
        decision = row.question.decision if row.question is not None else None
        if decision is not None and row.question is not None:
            known = context.state.get(decision_key(decision.id))
            if isinstance(known, DecisionRow):
                update_row(context, known, row.question, decision, row)
            elif before is None or before.decision is None or before.decision.id != decision.id:
                _create_row(context, row, row.question, decision)
        for key in {question.batch for question in (before, row.question) if question is not None} - {None}:
            _sync_batch(context, str(key), row)
        _expire_late(context, row)


def _expire_late(context: FoldContext, row: ItemRow) -> None:
    """Ends a question that arrived, or became open again, after its expiry: no later entry of the pack may answer it.

    Runs after the rows are in step, so that the facts and records of the change before it are not lost.
    """
    before = row.question
    if row.is_open and questions.expire_due(row, context.log_clock):
        store_item(context, row, context.log_clock)
        context.note_question(row, before)


def _create_row(context: FoldContext, row: ItemRow, question: Question, decision: Decision) -> None:
    """Stores a new decision, and publishes it unless its batch waits."""
    state = questions.read_ask(row.data.ask, row.kind)
    assert state is not None  # a question has an ask
    answer = decision.actors[-1] if decision.actors else None
    option = questions.option_of(state, decision.option)
    reply, args = state.ask.reply, answer.args if answer is not None else NO_PAYLOAD
    edited: list[str] = []
    if args is not NO_PAYLOAD and state.ask.action is not None:
        edited = edited_pointers(questions.shown_args(state), read_values(bytes(args)))
    stored = DecisionRow(
        id=decision.id, ws=row.ws, item=row.id, kind=row.kind, source=row.source, subject=row.source_id,
        ask_id=state.ask.id or row.source_id, digest=question.digest, option=decision.option, does=decision.does,
        title=row.data.title, cluster=row.data.cluster, option_title=option.title if option is not None else None,
        form=answer.form if answer is not None else NO_PAYLOAD, args=args, edited=tuple(edited),
        comment=answer.comment if answer is not None else None, actors=decision.actors, opened_at=row.created_at,
        decided_at=decision.at, undo_until=decision.undo_until, expires_at=state.ask.expires_at, state=decision.state,
        changed_at=decision.changed_at, revision=context.revision, reply_to=reply.to if reply is not None else None,
        sealed=state.sealed, confirm=reply.confirm if reply is not None else True, batch=question.batch,
        target_user_id=row.target_user_id, target_role=row.target_role, members=_members(context, row),
    )
    _emit_state(context, stored, row)
    held = question.batch is not None and _is_waiting(context, question.batch, row)
    if held and question.batch is not None:
        batch = _batch(context, question.batch, row.ws)
        batch.held = (*batch.held, stored.id)
        context.state.put(question.batch.encode(), batch)
    else:
        publish(context, stored)
    _store_row(context, stored)


def _members(context: FoldContext, row: ItemRow) -> tuple[str, ...]:
    """Returns the source ids of an incident's open runs, at most MAX_LISTED_MEMBERS; none for other kinds."""
    if row.kind != "incident":
        return ()
    runs = incident_groups.incident_runs(context, row)[:MAX_LISTED_MEMBERS]
    return tuple(run.source_id for run in runs if run.is_open)


def update_row(
    context: FoldContext, stored: DecisionRow, question: Question, decision: Decision, row: ItemRow | None,
) -> None:
    """Copies the state of a decision to its row; emits a fact and a record if it changed. `row`: its item, if the
    decision is still that of the item's question."""
    changed = (stored.state, stored.returned) != (decision.state, question.returned)
    targets = (row.target_user_id, row.target_role) if row is not None else (stored.target_user_id, stored.target_role)
    if not changed and targets == (stored.target_user_id, stored.target_role):
        return
    state_changed, returned_before = stored.state != decision.state, stored.returned
    stored.state, stored.returned = decision.state, question.returned
    stored.reason, stored.changed_at = decision.reason, decision.changed_at
    stored.target_user_id, stored.target_role = targets
    if state_changed and decision.state != "sending":
        _emit_state(context, stored, row)
        if stored.published and decision.state in _VERBS:
            context.decisions.append(to_event(context, stored, _VERBS[decision.state]))
    elif question.returned == "unconfirmed" != returned_before:
        emit_decision_fact(context, stored, row, "unconfirmed", context.log_clock)
    elif returned_before is not None and question.returned is None and stored.published:
        emit_decision_fact(context, stored, row, "sending", context.log_clock)
        publish(context, stored)  # it is sent again
    _store_row(context, stored)


def _store_row(context: FoldContext, stored: DecisionRow) -> None:
    """Stores the row with its timer: undo, confirmation, retention."""
    stored.rev, stored.touched = context.revision, context.log_clock
    if stored.state == "made":
        stored.wake = stored.undo_until if stored.published else None  # a batch publishes it
    elif stored.state == "sending" and stored.returned is None:
        stored.wake = stored.changed_at + context.config.confirm if stored.published else None
    else:
        stored.wake = context.log_clock + context.config.retention
    context.state.put(decision_key(stored.id), stored)


def publish(context: FoldContext, stored: DecisionRow) -> None:
    """Emits the record of a new decision, or of one that is sent again."""
    stored.published = True
    verb: DecisionVerb = "expired" if stored.state == "expired" else "made"
    context.decisions.append(to_event(context, stored, verb))


def _is_waiting(context: FoldContext, key: str, row: ItemRow) -> bool:
    """Returns whether another question of the batch is undecided."""
    batch = context.state.get(key.encode())
    return isinstance(batch, BatchRow) and any(item != row.id for item in batch.items)


def _batch(context: FoldContext, key: str, ws: str) -> BatchRow:
    batch = context.state.get(key.encode())
    return batch if isinstance(batch, BatchRow) else BatchRow(ws=ws)


def _sync_batch(context: FoldContext, key: str, row: ItemRow) -> None:
    """Adds the item to its batch while its question is undecided. Publishes the held answers when none is left."""
    batch = _batch(context, key, row.ws)
    question = row.question
    waits = question is not None and question.batch == key and row.is_open and decisions.is_open(question)
    others = tuple(item for item in batch.items if item != row.id)
    batch.items = (*others, row.id) if waits else others
    if waits and question is not None and question.decision is not None:  # refused or taken back
        batch.held = tuple(one for one in batch.held if one != question.decision.id)
    if not batch.items:
        for one in batch.held:
            stored = context.state.get(decision_key(one))
            if isinstance(stored, DecisionRow) and not stored.published and stored.state in (
                    "made", "sending", "expired"):
                publish(context, stored)
                _store_row(context, stored)
        batch.held = ()
        context.state.delete(key.encode())
        return
    batch.touched = context.log_clock
    batch.wake = batch.wake or context.log_clock + context.config.retention
    context.state.put(key.encode(), batch)


def to_event(context: FoldContext, stored: DecisionRow, verb: DecisionVerb, reason: str | None = None) -> DecisionEvent:
    """Returns the record for the topic `decisions`. Its reply token is sealed; the worker opens it."""
    reply = ReplyTo(stored.reply_to, stored.sealed) if stored.reply_to or stored.sealed else None
    actors = tuple(Actor(user=vote.user, role=vote.role, at=format_timestamp(vote.at), vote=vote.option, name=vote.name,
                         comment=vote.comment) for vote in stored.actors)
    data = DecisionData(
        decision=stored.id, item=stored.item, kind=stored.kind, source=stored.source,
        question=QuestionRef(stored.ask_id, stored.digest), opened_at=format_timestamp(stored.opened_at),
        decided_at=format_timestamp(stored.decided_at), fence=Fence(context.state.partition, stored.revision),
        option=stored.option or None, does=stored.does or None, title=stored.title, args=stored.args,
        edited=stored.edited if stored.args is not NO_PAYLOAD else None, form=stored.form, comment=stored.comment,
        actors=actors, undo_until=format_timestamp(stored.undo_until),
        expires_at=None if stored.expires_at is None else format_timestamp(stored.expires_at),
        reason=reason or stored.reason, confirm=stored.confirm, batch=stored.batch, reply=reply,
        members=stored.members,
    )
    at = stored.decided_at if verb == "made" else stored.changed_at
    return DecisionEvent(
        id=f"{stored.id}.{verb}", type=f"decision.{verb}", subject=stored.subject, time=format_timestamp(at),
        workspaceid=stored.ws, data=data)


def _emit_state(context: FoldContext, stored: DecisionRow, row: ItemRow | None) -> None:
    """Emits the fact that a decision entered its state."""
    verb = "made" if stored.state == "sending" else stored.state  # an expired ask that named an option
    emit_decision_fact(context, stored, row, verb, stored.changed_at)


def emit_decision_fact(context: FoldContext, stored: DecisionRow, row: ItemRow | None, verb: str, at: int) -> None:
    """Emits the fact `decision.{verb}`. `at`: when, in µs; with the verb it identifies the fact of this decision."""
    last = stored.actors[-1] if stored.actors else None
    fact = Fact(
        ws=stored.ws, pos=0, index=0, event_id=decision_fact_name(stored.id, verb, at), time=at, at=context.log_clock,
        type=f"decision.{verb}", subject=stored.subject, item=stored.item, kind=stored.kind, title=stored.title,
        cluster=stored.cluster, decision=stored.id, option=stored.option or None, does=stored.does or None,
        reason=stored.reason, target_user_id=stored.target_user_id, target_role=stored.target_role,
    )
    if last is not None:
        fact.actor, fact.role, fact.viewed = last.user, last.role, last.viewed
    if row is not None:
        fact.priority, fact.stack = row.priority, row.data.stack
        fact.case_id, fact.session_id = row.data.case_id, row.data.session_id
        if verb in ("applied", "expired") and items.is_closed_by_answer(row):
            fact.resolved_action, fact.seconds_open = row.resolved_action, items.seconds_open(row, at)
    if verb == "made":
        fact.seconds_to_decide = max(0, stored.decided_at - stored.opened_at) / SECOND
    elif verb == "applied":
        fact.seconds_to_apply = max(0, at - stored.decided_at) / SECOND
    context.emit(fact)
