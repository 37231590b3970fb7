"""Routes of the keys of sources: /org/me/keys (CONTRACT §8). For the roles OWNER and ADMIN."""

from __future__ import annotations

import secrets
from typing import Annotated

import orjson
from fastapi import APIRouter, Path
from fastapi.responses import Response

from api.contract import sources
from api.contract.errors import ApiError
from api.contract.responses.base import responses_of
from api.http.auth.tokens import Caller
from api.http.command_dispatch import command_fields, execute
from api.http.dependencies import CurrentCaller, CurrentEdge, IdempotencyKey, WritingCaller, json_response
from schemas.log import CreateKey, RevokeKey
from streams.core.fold.access.key_handlers import KEY_ROLES, key_json
from streams.runtime.source_keys import ENTROPY_BYTES, new_key

__all__ = ["router"]

router = APIRouter(prefix="/org/me/keys", tags=["keys"])


@router.get("", responses=responses_of(sources.KeyList, 403))
async def list_keys(edge: CurrentEdge, caller: CurrentCaller) -> Response:
    """Returns the keys of the workspace, the newest first; expired ones for 30 days. No key's text is kept."""
    _check_role(caller)
    await edge.workspace(caller.reader)  # raises ApiError 503 if this edge does not serve the workspace
    rows = edge.replica.source_keys.of_workspace(caller.workspace_id)
    return json_response(orjson.dumps({"keys": [key_json(row) for row in rows]}))


@router.post("", status_code=201, responses=responses_of(sources.CreatedKey, 403, 409, status=201, writes=True))
async def create_key(
    edge: CurrentEdge, caller: WritingCaller, key: IdempotencyKey, body: sources.KeyRequest
) -> Response:
    """Creates a key with which a source sends events to `POST /events`. `secret` is shown in this response only."""
    _check_role(caller)
    made = new_key(secrets.token_bytes(ENTROPY_BYTES))
    response = await execute(edge, caller, CreateKey(
        **command_fields(edge, caller, key), key=made.id, digest=made.digest, name=body.name,
        topics=tuple(body.topics), source=body.source, expires_at=body.expires_at))
    if response.status_code != 201:
        return response
    answer = orjson.loads(response.body)
    if answer["key"]["id"] == made.id:  # otherwise a repeat: the first response had the text
        answer["secret"] = made.text
    return json_response(orjson.dumps(answer), 201)


@router.delete("/{key:id}", responses=responses_of(sources.RevokedKey, 403, 404, writes=True))
async def revoke_key(
    edge: CurrentEdge, caller: WritingCaller, idempotency_key: IdempotencyKey,
    key: Annotated[str, Path(max_length=200)],
) -> Response:
    """Revokes a key. Every edge refuses it within a second."""
    _check_role(caller)
    return await execute(edge, caller, RevokeKey(**command_fields(edge, caller, idempotency_key), key=key))


def _check_role(caller: Caller) -> None:
    if caller.role not in KEY_ROLES:
        raise ApiError(403, "keys are for the roles OWNER and ADMIN")
