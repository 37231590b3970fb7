"""From a request to a command, and from the fold's outcome to an answer.

What the view already shows is answered at once: 404, 409, 412. A request with an Idempotency-Key goes to the log in any
case, as its outcome may have been decided long ago.
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

__all__ = ["ItemSerializer", "command_fields", "execute"]

ItemSerializer = Callable[[ItemRow], bytes]  # an item as the route's dialect has it

_ITEM_CHANGED = "the item has changed"
_OUTCOMES_RETRY_AFTER = "3600"  # seconds; each outcome goes after a day, so room comes little by little


def command_fields(edge: Edge, caller: Caller, key: str | None) -> dict[str, Any]:
    """The fields that every command has."""
    return {
        "ws": caller.ws, "id": CommandLog.new_id(), "time": edge.command_log.now(), "user": caller.user,
        "roles": tuple(sorted(caller.reader.roles)), "edge": edge.settings.instance, "idempotency_key": key,
    }


async def execute(edge: Edge, caller: Caller, command: Command, serialize: ItemSerializer | None = None) -> Response:
    """Sends it, and answers as the fold decides. ApiError: what is known at once; NotDone: nobody knows in time.

    `shape` is how the current item is shown to somebody whose revision is old.
    """
    item = _item_of(command)
    if item is not None and command.idempotency_key is None:
        space = await edge.space(caller.reader)
        row = space.visible(caller.reader, item)
        _check_preconditions(command, row, edge.settings.source_managed_kinds)
        if command.if_rev is not None and row is not None and command.if_rev != row.rev:
            return _revision_conflict(row, serialize)
    else:
        await edge.space(caller.reader)  # it is served here, and the view is there
    outcome = await edge.command_log.submit(command)
    if outcome.status == 412 and item is not None:
        row = (await edge.space(caller.reader)).visible(caller.reader, item)
        if row is not None:
            return _revision_conflict(row, serialize)
    answer = json_response(bytes(outcome.body), outcome.status)
    if outcome.status == 429:  # no room for another outcome (streams.core.fold.outcomes)
        answer.headers["retry-after"] = _OUTCOMES_RETRY_AFTER
    return answer


def _item_of(command: Command) -> str | None:
    if isinstance(command, Dismiss | Restore):
        return command.item
    return command.items[0] if isinstance(command, SetState) and not command.bulk else None


def _check_preconditions(command: Command, row: ItemRow | None, managed: frozenset[str]) -> None:
    if row is None:
        raise ApiError(404, "not found")
    if command.if_rev is not None and command.if_rev != row.rev:
        return  # that comes first, as in the fold
    if isinstance(command, SetState) and command.state != "read" and row.kind in managed:
        raise ApiError(409, SOURCE_MANAGED, kind=row.kind)


def _revision_conflict(row: ItemRow, serialize: ItemSerializer | None) -> Response:
    body: dict[str, Any] = {"error": _ITEM_CHANGED, "revision": row.rev}
    if serialize is not None:
        body["item"] = orjson.Fragment(serialize(row))
    return json_response(orjson.dumps(body), 412)
