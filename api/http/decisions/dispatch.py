"""Checks an answer on the replica, submits it, and adds to the outcome what only an edge has: the current item."""

from __future__ import annotations

from typing import Literal

import msgspec
import orjson
from fastapi.responses import Response

from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.http.command_dispatch import outcome_response
from api.http.decisions.critical import check_sign_in
from schemas.log import NO_PAYLOAD, Decide
from schemas.views import ItemRow
from streams.core.domain.keys import item_id
from streams.core.domain.questions import read_ask
from streams.core.fold.asking.votes import ASKS_NOTHING, refusal_of

__all__ = ["cast_vote", "check_decided", "option_that", "waitpoint_of"]

_NO_SUCH_OPTION = (
    "this waitpoint has {number} options that {does}: {options}; name one with POST /api/v1/inbox/{item}/decision"
)


async def cast_vote(edge: Edge, caller: Caller, command: Decide) -> Response:
    """Submits an answer and returns the response that the fold decided. A 412 contains the current item.

    Without an Idempotency-Key it answers what the replica shows already: 403, 404, 409, 410, 412 or 422.
    """
    row = (await edge.workspace(caller.reader)).visible_item(caller.reader, command.item)
    check_sign_in(edge, caller, row)
    if command.idempotency_key is None:
        if row is None:
            raise ApiError(404, "not found")
        if (refusal := refusal_of(row, command, edge.fold_config)) is not None:
            status, body = refusal
            return await _response(edge, caller, command, status, orjson.dumps(body))
    await _check_args(edge, row, command)
    outcome = await edge.command_log.submit(command)
    return await _response(edge, caller, command, outcome.status, bytes(outcome.body))


class _Action(msgspec.Struct):
    args_schema: msgspec.Raw = NO_PAYLOAD


class _Ask(msgspec.Struct):
    action: _Action | None = None


_decode_ask = msgspec.json.Decoder(_Ask).decode


async def _check_args(edge: Edge, row: ItemRow | None, command: Decide) -> None:
    """Raises ApiError 422 if the edited arguments do not fit the `args_schema` of the question that the caller saw.

    Only an edge checks this, because the fold must not depend on the time that a schema takes. The result follows from
    question and arguments, so that a repeat with the same Idempotency-Key has the same result.
    """
    if not command.args or row is None or row.question is None or row.question.digest != command.digest:
        return
    action = _decode_ask(row.data.ask).action if row.data.ask else None
    if action is None or not action.args_schema:
        return
    errors = await edge.args_checker.errors(bytes(action.args_schema), bytes(command.args))
    if errors:
        raise ApiError(422, "the arguments do not fit the schema of the action", fields=errors)


async def _response(edge: Edge, caller: Caller, command: Decide, status: int, body: bytes) -> Response:
    """Returns the response; a 412 with the item as this edge shows it now, if the caller may still see it."""
    if status == 412:
        row = (await edge.workspace(caller.reader)).visible_item(caller.reader, command.item)
        if row is not None:
            item = orjson.Fragment(edge.pages.crewship_json(row))
            body = orjson.dumps({**orjson.loads(body), "item": item})
    return outcome_response(status, body)


async def check_decided(edge: Edge, caller: Caller, item: str) -> None:
    """Raises ApiError 404 if the caller sees no such item, or it has no decision."""
    row = (await edge.workspace(caller.reader)).visible_item(caller.reader, item)
    if row is None or row.question is None or row.question.decision is None:
        raise ApiError(404, "not found")


async def waitpoint_of(edge: Edge, caller: Caller, token: str) -> ItemRow:
    """Returns the item of a waitpoint with a question. Raises ApiError 404 if the caller does not see it, 409 if it
    asks nothing."""
    item = item_id(caller.workspace_id, "waitpoint", token)
    row = (await edge.workspace(caller.reader)).visible_item(caller.reader, item)
    if row is None:
        raise ApiError(404, "not found")
    if row.question is None:
        raise ApiError(409, ASKS_NOTHING, kind=row.kind)
    return row


def option_that(row: ItemRow, does: Literal["approve", "reject"]) -> str:
    """Returns the option of the row's ask that does this. Raises ApiError 409 if none does, or several do and none has
    this word as its id: an alias must not guess what is approved."""
    state = read_ask(row.data.ask, row.kind)
    options = [option.id for option in state.options if option.does == does] if state is not None else []
    if len(options) == 1:
        return options[0]
    if does in options:
        return does
    raise ApiError(409, _NO_SUCH_OPTION.format(
        number=len(options), does=does, options=", ".join(options) or "none", item=row.id), kind=row.kind)
