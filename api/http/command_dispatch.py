"""Runs a write: checks its preconditions on the replica, submits the command, and maps the outcome to a response.

The edge answers 404, 409 and 412 itself if its replica already shows the cause. A request with an Idempotency-Key
always goes to the log: the outcome of its first attempt may be stored there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi.responses import Response

from api.commands.command_log import CommandLog
from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from api.http.dependencies import json_response
from schemas.log import Command, Dismiss, Restore, SetState
from schemas.views import ItemRow
from streams.core.fold.command_handlers import SOURCE_MANAGED

__all__ = ["ItemSerializer", "command_fields", "execute", "outcome_response"]

ItemSerializer = Callable[[ItemRow], bytes]  # row -> JSON of the item in the dialect of the route

_ITEM_CHANGED = "the item has changed"
_OUTCOMES_RETRY_AFTER = "3600"  # seconds; outcomes expire after a day each, so capacity returns gradually


def command_fields(edge: Edge, caller: Caller, key: str | None) -> dict[str, Any]:
    """Returns the fields that every command has: workspace, id, time, user, roles, edge, idempotency key."""
    return {
        "ws": caller.workspace_id, "id": CommandLog.new_id(), "time": edge.command_log.now(), "user": caller.user,
        "roles": tuple(sorted(caller.reader.roles)), "edge": edge.settings.instance, "idempotency_key": key,
    }


async def execute(edge: Edge, caller: Caller, command: Command, serialize: ItemSerializer | None = None) -> Response:
    """Submits the command and returns the response that the fold decided.

    A 412 response contains the current item, encoded by `serialize`. Raises ApiError 404 or 409 if the replica already
    shows that the command must fail, and CommandUndecided if the outcome does not arrive within ATTN_WRITE_SECONDS.
    """
    item = _item_of(command)
    if item is not None and command.idempotency_key is None:
        workspace = await edge.workspace(caller.reader)
        row = workspace.visible_item(caller.reader, item)
        _check_preconditions(command, row, edge.settings.source_managed_kinds)
        if command.if_rev is not None and row is not None and command.if_rev != row.rev:
            return _revision_conflict(row, serialize)
    else:
        await edge.workspace(caller.reader)  # raises ApiError 503 if this edge does not serve the workspace
    outcome = await edge.command_log.submit(command)
    if outcome.status == 412 and item is not None:
        row = (await edge.workspace(caller.reader)).visible_item(caller.reader, item)
        if row is not None:
            return _revision_conflict(row, serialize)
    return outcome_response(outcome.status, bytes(outcome.body))


def outcome_response(status: int, body: bytes) -> Response:
    """Returns the response of an outcome."""
    response = json_response(body, status)
    if status == 429:  # too many stored outcomes of the user (streams.core.fold.outcomes), or votes of a question
        response.headers["retry-after"] = _OUTCOMES_RETRY_AFTER
    return response


def _item_of(command: Command) -> str | None:
    if isinstance(command, Dismiss | Restore):
        return command.item
    return command.items[0] if isinstance(command, SetState) and not command.bulk else None


def _check_preconditions(command: Command, row: ItemRow | None, managed: frozenset[str]) -> None:
    if row is None:
        raise ApiError(404, "not found")
    if command.if_rev is not None and command.if_rev != row.rev:
        return  # a revision conflict takes precedence over 409, as in the fold
    if isinstance(command, SetState) and command.state != "read" and row.kind in managed:
        raise ApiError(409, SOURCE_MANAGED, kind=row.kind)


def _revision_conflict(row: ItemRow, serialize: ItemSerializer | None) -> Response:
    body: dict[str, Any] = {"error": _ITEM_CHANGED, "revision": row.rev}
    if serialize is not None:
        body["item"] = orjson.Fragment(serialize(row))
    return json_response(orjson.dumps(body), 412)
