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
from streams.core.config import FoldConfig
from streams.core.domain import decisions, questions
from streams.core.domain.keys import command_name
from streams.core.domain.questions import AskState, decision_json
from streams.core.fold import outcomes
from streams.core.fold.context import FoldContext
from streams.core.fold.item_changes import NOT_FOUND, find_visible, store_item

__all__ = ["ASKS_NOTHING", "VOTE_HANDLERS", "refusal_of"]

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


Refusal = tuple[int, dict[str, Any]]  # status and body of the response


class _Answer:
    """One answer to one item: its item, its ask, and the result of checking it. `clock`: of the log, in µs."""

    def __init__(
        self, config: FoldConfig, clock: int, command: Decide | DecideMany, row: ItemRow, state: AskState,
    ) -> None:
        self.config, self.clock, self.command, self.row, self.state = config, clock, command, row, state
        assert row.question is not None
        self.question: Question = row.question
        self.option = questions.option_of(state, command.option)

    @property
    def may_decide(self) -> bool:
        return decisions.is_decider(
            self.state.ask.deciders, self.command.user, self.command.role, self.row.data.by_user_id,
            self.config.decider_roles)

    def vote(self, option: Option) -> Vote:
        command = self.command
        return Vote(
            user=command.user, role=command.role, at=self.clock, option=option.id, does=option.does,
            name=command.name, form=command.form if isinstance(command, Decide) else NO_PAYLOAD,
            args=command.args if isinstance(command, Decide) else NO_PAYLOAD, comment=command.comment or None,
            viewed=command.viewed if isinstance(command, Decide) else None,
        )

    def refusal(self) -> Refusal | None:
        """Returns 403 or 422 and the body if the answer does not fit the question."""
        if self.option is None:
            return 422, {"error": f"option {NO_OPTION}", "fields": {"option": NO_OPTION}}
        if not self.may_decide:
            return 403, {"error": NO_DECIDER}
        vote = self.vote(self.option)
        if decisions.is_open(self.question) and (fields := questions.answer_errors(
                self.state, self.option, vote.form, vote.args, vote.comment)):
            return 422, {"error": "the answer does not fit the question", "fields": fields}
        return None

    def count(self) -> decisions.VoteResult:
        """Returns what the vote of this answer makes of the question. `refusal` has returned None."""
        assert self.option is not None
        return decisions.cast_vote(
            self.question, self.vote(self.option), item_id=self.row.id, quorum=questions.quorum_of(self.state),
            undo_us=self.config.undo, may_decide=True)

    def body(self, result: decisions.VoteResult) -> dict[str, Any]:
        """Returns the body of the response. The row has the question of the result, if it is stored."""
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


def _ask_of(row: ItemRow) -> AskState | None:
    if row.question is None:
        return None
    return questions.read_ask(row.data.ask, row.kind)


def refusal_of(row: ItemRow, command: Decide, config: FoldConfig) -> Refusal | None:
    """Returns why an answer to a visible item must fail: 403, 409, 410, 412, 422 or 429 and the body.

    None: the answer counts, or repeats an earlier one. The edges use the same function on their replica.
    """
    if (refusal := _fence(row, command, config)) is not None:
        return refusal
    answer = _answer_to(row, command, config, 0)
    if (refusal := answer.refusal()) is not None:
        return refusal
    result = answer.count()
    return (result.status, answer.body(result)) if result.status >= 400 else None


def _answer_to(row: ItemRow, command: Decide, config: FoldConfig, clock: int) -> _Answer:
    state = _ask_of(row)
    assert state is not None  # `_fence` has checked it
    return _Answer(config, clock, command, row, state)


def _fence(row: ItemRow, command: Decide, config: FoldConfig) -> Refusal | None:
    """Returns 403, 409, 410 or 412 if the command's user may not decide, or the question is not the one they saw."""
    if row.question is None or _ask_of(row) is None:
        return 409, {"error": ASKS_NOTHING, "kind": row.kind}
    if not _answer_to(row, command, config, 0).may_decide:
        return 403, {"error": NO_DECIDER}
    if row.question.closing is not None and row.question.decision is None:
        return 410, {"error": WITHDRAWN}
    if command.digest != row.question.digest:
        return 412, {"error": CHANGED, "digest": row.question.digest}
    return None


def _cast(context: FoldContext, answer: _Answer) -> Refusal:
    """Applies the answer. Returns the status and the body of the response."""
    if (refusal := answer.refusal()) is not None:
        return refusal
    result = answer.count()
    if result.question is not answer.question:
        _store(context, answer, result.question)
    elif result.again:
        _store(context, answer, decisions.send_again(answer.question, context.log_clock))
    return result.status, answer.body(result)


def _store(context: FoldContext, answer: _Answer, question: Question) -> None:
    row, before = answer.row, answer.question
    row.question = question
    store_item(context, row, context.log_clock)
    context.note_question(row, before)
    assert answer.option is not None
    _emit_vote_fact(context, answer.command, row, answer.vote(answer.option))


def _decide(context: FoldContext, command: Decide) -> None:
    """Handles a vote for one item: each status of CONTRACT §7."""
    row = find_visible(context, command, command.item)
    if row is None:
        return outcomes.respond(context, command, 404, NOT_FOUND)
    status, body = _fence(row, command, context.config) or _cast(
        context, _answer_to(row, command, context.config, context.log_clock))
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
    state = _ask_of(row)
    if state is None:
        return 409
    answer = _Answer(context.config, context.log_clock, command, row, state)
    option = answer.option
    if option is None or option.does == "edit" or questions.form_of(state, option) is not None:
        return 422
    return _cast(context, answer)[0]


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
