"""Builds the command of an answer from a request. `form` and `args` are taken from the bytes of the body: FastAPI's
parser rounds numbers, and an answer has to reach the source with all its digits."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import Depends, Request

from api.contract.errors import ApiError
from api.http.auth.tokens import Caller
from schemas.log import NO_PAYLOAD
from streams.core.canonical_json import exact_json, read_exact
from streams.core.json_text import read_json

__all__ = ["MAX_ANSWER_BYTES", "Exact", "ExactMembers", "claims_of"]

MAX_ANSWER_BYTES = 64 << 10  # of `form` and of `args`, as JSON: the view keeps the votes of up to 50 people

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Exact(NamedTuple):
    """`form` and `args` of a body as JSON texts with sorted members; NO_PAYLOAD if absent or null.

    A form without values is the same answer as no form. Arguments without members are an edit that removes all.
    """

    form: msgspec.Raw = NO_PAYLOAD
    args: msgspec.Raw = NO_PAYLOAD


async def _exact_members(request: Request) -> Exact:
    """Returns the exact texts of the body. Raises ApiError 400 if the body is no JSON object, 422 if one of the texts
    has more than MAX_ANSWER_BYTES."""
    body = await request.body()
    if not body:
        return Exact()
    try:
        text, value = read_json(body)
        members = _decode_members(text) if isinstance(value, dict) else {}
        form, args = _exact(members, "form"), _exact(members, "args")
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    return Exact(NO_PAYLOAD if bytes(form) == b"{}" else form, args)


def _exact(members: dict[str, msgspec.Raw], name: str) -> msgspec.Raw:
    raw = bytes(members.get(name, b"null"))
    if raw == b"null":
        return NO_PAYLOAD
    text = exact_json(read_exact(raw))
    if len(text) > MAX_ANSWER_BYTES:
        raise ApiError(422, "the answer is too large", fields={
            name: f"{len(text)} bytes of JSON; at most {MAX_ANSWER_BYTES} are accepted"})
    return msgspec.Raw(text)


ExactMembers = Annotated[Exact, Depends(_exact_members)]


def claims_of(caller: Caller) -> dict[str, Any]:
    """Returns the fields of a command that say who decides: role and name of the token."""
    return {"role": caller.role, "name": caller.name}
