"""Handlers of people's answers: a vote, a take back, the same answer to many (CONTRACT §7).

The edge has checked each against its replica. Only the fold knows the order of all votes, so it checks again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.asking.ask import Option
from schemas.asking.question import Question, Vote
from schemas.facts import Fact
from schemas.log import NO_PAYLOAD, Command, Decide, DecideMany, TakeBack
from schemas.views import ItemRow
from streams.core.domain import decisions, questions
from streams.core.domain.keys import command_name
from streams.core.domain.questions import AskState, decision_json
from streams.core.fold import outcomes
from streams.core.fold.context import FoldContext
from streams.core.fold.item_changes import NOT_FOUND, find_visible, store_item

__all__ = ["VOTE_HANDLERS"]

ASKS_NOTHING = (
    "this item asks nothing that can be decided here; its source decides it (ATTN_DECISIONS=all asks for items without "
    "an ask, too)"
)
NO_DECIDER = "you may see this question but not decide it; deciders names who may"
EXPIRED = "the question expired"
WITHDRAWN = "its source closed or withdrew the question"
CHANGED = "the question has changed since you saw it"
DECIDED = "somebody else decided"
TOO_MANY_VOTES = f"{decisions.MAX_VOTES} people gave other answers; no more votes are kept for this question"
NO_OPTION = "is not an option of this question"
TOO_LATE = "the decision cannot be taken back any more"
NOT_YOURS = "only those who decided can take the decision back"


class _Answer:
    """One answer to one item: its item, its ask, and the result of checking it."""

    def __init__(self, context: FoldContext, command: Decide | DecideMany, row: ItemRow, state: AskState) -> None:
        self.context, self.command, self.row, self.state = context, command, row, state
        assert row.question is not None
        self.question: Question = row.question
        self.option = questions.option_of(state, command.option)

    @property
    def may_decide(self) -> bool:
        return decisions.is_decider(
            self.state.ask.deciders, self.command.user, self.command.role, self.row.data.by_user_id,
            self.context.config.decider_roles)

    def vote(self, option: Option) -> Vote:
        command = self.command
        return Vote(
            user=command.user, role=command.role, at=self.context.log_clock, option=option.id, does=option.does,
            name=command.name, form=command.form if isinstance(command, Decide) else NO_PAYLOAD,
            args=command.args if isinstance(command, Decide) else NO_PAYLOAD, comment=command.comment or None,
            viewed=command.viewed if isinstance(command, Decide) else None,
        )

    def cast(self) -> tuple[int, dict[str, Any]]:
        """Applies the answer. Returns the status and the body of the response."""
        if self.option is None:
            return 422, {"error": f"option {NO_OPTION}", "fields": {"option": NO_OPTION}}
        if not self.may_decide:
            return 403, {"error": NO_DECIDER}
        vote = self.vote(self.option)
        if decisions.is_open(self.question) and (fields := questions.answer_errors(
                self.state, self.option, vote.form, vote.args, vote.comment)):
            return 422, {"error": "the answer does not fit the question", "fields": fields}
        result = decisions.cast_vote(
            self.question, vote, item_id=self.row.id, quorum=questions.quorum_of(self.state),
            undo_us=self.context.config.undo, may_decide=True)
        if result.question is not self.question:
            self._store(result.question, vote)
        elif result.again:
            self._store(decisions.send_again(self.question, self.context.log_clock), vote)
        return result.status, self._body(result)

    def _store(self, question: Question, vote: Vote) -> None:
        row, before = self.row, self.question
        row.question = question
        store_item(self.context, row, self.context.log_clock)
        self.context.note_question(row, before)
        _emit_vote_fact(self.context, self.command, row, vote)

    def _body(self, result: decisions.VoteResult) -> dict[str, Any]:
        question = self.row.question or result.question
        decision = decision_json(question.decision, question) if question.decision is not None else None
        match result.status:
            case 202:
                return {"votes": questions.votes_json(question.votes), "needed": result.needed}
            case 200 if decision is None or decisions.is_open(question):
                return {"votes": questions.votes_json(question.votes), "needed": result.needed}
            case 410:
                expired = question.decision is not None and question.decision.state == "expired"
                return {"error": EXPIRED if expired else WITHDRAWN, **({"decision": decision} if decision else {})}
            case 409:
                return {"error": DECIDED, "decision": decision}
            case 429:
                return {"error": TOO_MANY_VOTES, "limit": decisions.MAX_VOTES}
        return {"decision": decision}


def _ask_of(context: FoldContext, row: ItemRow) -> AskState | None:
    if row.question is None:
        return None
    return questions.read_ask(row.data.ask, row.kind)


def _decide(context: FoldContext, command: Decide) -> None:
    """Handles a vote for one item: each status of CONTRACT §7."""
    row = find_visible(context, command, command.item)
    if row is None:
        return outcomes.respond(context, command, 404, NOT_FOUND)
    state = _ask_of(context, row)
    if state is None or row.question is None:
        return outcomes.respond(context, command, 409, {"error": ASKS_NOTHING, "kind": row.kind})
    answer = _Answer(context, command, row, state)
    if not answer.may_decide:
        return outcomes.respond(context, command, 403, {"error": NO_DECIDER})
    if row.question.closing is not None and row.question.decision is None:
        return outcomes.respond(context, command, 410, {"error": WITHDRAWN})
    if command.digest != row.question.digest:
        return outcomes.respond(context, command, 412, {"error": CHANGED, "digest": row.question.digest})
    status, body = answer.cast()
    changed = [row.id] if status in (201, 202) else []
    return outcomes.respond(context, command, status, body, changed)


def _decide_many(context: FoldContext, command: DecideMany) -> None:
    """Gives the same plain option to several items; each is fenced by the revision that the client saw."""
    skipped: list[str] = []
    changed: list[str] = []
    stored: list[str] = []
    counts = {"decided": 0, "voted": 0, "not_found": 0}
    for answer in command.answers:
        row = find_visible(context, command, answer.item)
        if row is None:
            counts["not_found"] += 1
            continue
        if row.rev != answer.rev:
            changed.append(row.id)
            continue
        status = _answer_plainly(context, command, row)
        if status in (200, 201, 202):
            counts["voted" if status == 202 or (row.question and row.question.decision is None) else "decided"] += 1
            stored.append(row.id)
        else:
            skipped.append(row.id)
    outcomes.respond(context, command, 200, {
        "decided": counts["decided"], "voted": counts["voted"], "skipped": len(skipped), "skipped_ids": skipped,
        "changed": len(changed), "changed_ids": changed, "not_found": counts["not_found"], "option": command.option,
    }, stored)


def _answer_plainly(context: FoldContext, command: DecideMany, row: ItemRow) -> int:
    """Returns the status of one answer of `DecideMany`: 422 for an option with a form, or one that edits."""
    state = _ask_of(context, row)
    if state is None:
        return 409
    answer = _Answer(context, command, row, state)
    option = answer.option
    if option is None or option.does == "edit" or questions.form_of(state, option) is not None:
        return 422
    return answer.cast()[0]


def _take_back(context: FoldContext, command: TakeBack) -> None:
    """Undoes a decision within the time to undo: 200, 403, 404 or 409."""
    row = find_visible(context, command, command.item)
    if row is None or row.question is None or row.question.decision is None:
        return outcomes.respond(context, command, 404, NOT_FOUND)
    before = row.question
    after, status = decisions.take_back(before, command.user, context.log_clock)
    if after is not before:
        row.question = after
        store_item(context, row, context.log_clock)
        context.note_question(row, before)
    question = row.question
    assert question.decision is not None
    decision = decision_json(question.decision, question)
    if status == 403:
        return outcomes.respond(context, command, 403, {"error": NOT_YOURS, "decision": decision})
    if status == 409:
        return outcomes.respond(context, command, 409, {"error": TOO_LATE, "decision": decision})
    return outcomes.respond(
        context, command, status, {"decision": decision}, [row.id] if after is not before else [])


def _emit_vote_fact(context: FoldContext, command: Decide | DecideMany, row: ItemRow, vote: Vote) -> None:
    """Emits the fact `vote.cast`."""
    question = row.question
    context.emit(Fact(
        ws=row.ws, pos=0, index=0, event_id=command_name(command.id, row.id), time=command.time, type="vote.cast",
        subject=row.source_id, at=context.log_clock, item=row.id, kind=row.kind, priority=row.priority,
        title=row.data.title, cluster=row.data.cluster, stack=row.data.stack, case_id=row.data.case_id,
        session_id=row.data.session_id, actor=vote.user, role=vote.role, option=vote.option, does=vote.does,
        decision=question.decision.id if question is not None and question.decision is not None else None,
        viewed=vote.viewed, target_user_id=row.target_user_id, target_role=row.target_role,
    ))


VOTE_HANDLERS: dict[type[Command], Callable[[FoldContext, Any], None]] = {
    Decide: _decide, DecideMany: _decide_many, TakeBack: _take_back,
}
