"""Routes that decide (CONTRACT §7): a vote, its undo, one option for many items, waitpoints by their source id, and the
decisions of the caller. No GET decides."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.contract.requests import AliasAnswer, Answer, ManyAnswers
from api.contract.responses.base import responses_of
from api.contract.responses.decisions import AlreadyDecided, Decisions, DecisionsMade, TakenBack, decision_responses
from api.http.command_dispatch import command_fields, execute
from api.http.decisions.answers import ExactMembers, claims_of
from api.http.decisions.critical import check_sign_in, checks_sign_in
from api.http.decisions.dispatch import cast_vote, check_decided, option_that, waitpoint_of
from api.http.dependencies import CurrentEdge, IdempotencyKey, KeyOrCaller, WritingCaller
from api.http.long_poll import NOT_MODIFIED, Condition, Tagged, respond_when_changed
from api.http.paths import Id
from api.readmodel.filtered_pages import DecisionFilter, decision_of_token, decision_page
from api.readmodel.indexes import DECISIONS
from schemas.asking.question import DecisionState
from schemas.log import BatchAnswer, Decide, DecideMany, TakeBack

__all__ = ["router"]

router = APIRouter(tags=["decisions"])

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
IDS_PER_WRITE = 10  # as of a bulk change of states
_UNKNOWN_REVISION = -1  # of an item that this edge does not show: the fold has another one, or none


@router.post("/api/v1/inbox/decisions", responses=responses_of(DecisionsMade, writes=True))
async def decide_many(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: ManyAnswers) -> Response:
    """Gives one option to many items. Each is fenced by its revision: an item that has changed since is listed in
    `changed_ids` and not answered. Items that cannot be answered are listed in `skipped_ids`."""
    if len(body.ids) > edge.settings.max_bulk:
        raise ApiError(400, f"too many ids (max {edge.settings.max_bulk})")
    edge.rate_limiter.charge(caller.workspace_id, caller.user, len(body.ids) // IDS_PER_WRITE)
    workspace = await edge.workspace(caller.reader)
    answers = []
    for item in body.ids:
        row = workspace.visible_item(caller.reader, item)
        if row is not None:
            check_sign_in(edge, caller, row)
        seen = body.revisions.get(item)
        if seen is not None and (row is not None or not checks_sign_in(edge)):
            answers.append(BatchAnswer(item, seen))
        else:
            answers.append(BatchAnswer(item, row.rev if row is not None else _UNKNOWN_REVISION, by_edge=True))
    return await execute(edge, caller, DecideMany(
        **command_fields(edge, caller, key), **claims_of(caller), answers=tuple(answers), option=body.option,
        comment=body.comment))


@router.get("/api/v1/inbox/decisions", include_in_schema=False)
async def refuse_get() -> Response:
    """Answers 405 in place of `GET /api/v1/inbox/{item}`: no item has this id."""
    raise ApiError(405, "method not allowed", {"allow": "POST"})


@router.post("/api/v1/inbox/{item:id}/decision", status_code=201, responses=decision_responses())
async def decide(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, exact: ExactMembers, body: Answer, item: Id,
) -> Response:
    """Answers the question of an item. One answer decides; with a quorum, as many votes as it names."""
    return await cast_vote(edge, caller, Decide(
        **command_fields(edge, caller, key), **claims_of(caller), item=item, option=body.option, digest=body.digest,
        form=exact.form, args=exact.args, comment=body.comment, viewed=body.viewed))


@router.delete("/api/v1/inbox/{item:id}/decision", responses=responses_of(TakenBack, 404, writes=True) | {
    409: {"model": AlreadyDecided, "description": "`undo_until` has passed, or the source has acted"}})
async def take_back(edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, item: Id) -> Response:
    """Takes back a decision of the caller until its `undo_until`. The item asks again."""
    if key is None:
        await check_decided(edge, caller, item)
    return await execute(edge, caller, TakeBack(**command_fields(edge, caller, key), item=item))


@router.post("/pipelines/waitpoints/{token:id}/approve", status_code=201, responses=decision_responses())
async def approve_waitpoint(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, exact: ExactMembers, token: Id,
    body: AliasAnswer | None = None,
) -> Response:
    """Approves a waitpoint by its source id. Same as a decision with its option that approves."""
    return await _decide_waitpoint(edge, caller, key, exact, token, body or AliasAnswer(), "approve")


@router.post("/pipelines/waitpoints/{token:id}/reject", status_code=201, responses=decision_responses())
async def reject_waitpoint(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, exact: ExactMembers, token: Id,
    body: AliasAnswer | None = None,
) -> Response:
    """Rejects a waitpoint by its source id. Same as a decision with its option that rejects."""
    return await _decide_waitpoint(edge, caller, key, exact, token, body or AliasAnswer(), "reject")


async def _decide_waitpoint(
    edge: CurrentEdge, caller: WritingCaller, key: str | None, exact: ExactMembers, token: str, body: AliasAnswer,
    does: Literal["approve", "reject"],
) -> Response:
    row = await waitpoint_of(edge, caller, token)
    assert row.question is not None
    return await cast_vote(edge, caller, Decide(
        **command_fields(edge, caller, key), **claims_of(caller), item=row.id, option=option_that(row, does),
        digest=body.digest or row.question.digest, by_edge=body.digest is None, form=exact.form, args=exact.args,
        comment=body.comment))


@router.get("/org/me/decisions", tags=["personal"], responses=responses_of(Decisions) | NOT_MODIFIED)
async def get_decisions(
    request: Request, edge: CurrentEdge, caller: KeyOrCaller, condition: Condition,
    state: Annotated[DecisionState | None, Query(description="Only decisions in this state.")] = None,
    source: Annotated[str, Query(
        description="Only of items of this CloudEvents source and those below it.", max_length=2000)] = "",
    source_id: Annotated[str, Query(description="Only of items with this source id.", max_length=2000)] = "",
    limit: Annotated[
        int, Query(ge=1, description=f"Decisions per page; larger values count as {MAX_LIMIT}.")] = DEFAULT_LIMIT,
    after: Annotated[str | None, Query(
        alias="next", description="Page token from `next` of the previous page.", max_length=2000)] = None,
) -> Response:
    """Returns the decisions that the caller made or may see, newest first, and what became of each. With the key of a
    source: those that answer its questions. With `If-None-Match` and `Prefer: wait=25` the request waits until the page
    differs."""
    try:
        before = decision_of_token(after) if after is not None else None
    except ValueError as error:
        raise ApiError(400, str(error)) from None
    wanted = DecisionFilter(state or "", source, source_id)

    async def page() -> Tagged:
        workspace = await edge.workspace(caller.reader, DECISIONS)
        found = decision_page(workspace, caller.reader, min(limit, MAX_LIMIT), wanted, before, caller.key)
        return Tagged(found.etag, lambda: found.body(edge.replica.cursor(caller.workspace_id)))

    return await respond_when_changed(request, edge, caller, condition, page)
