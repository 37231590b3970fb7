"""Authenticates the sender of a webhook: by a key, or by the signature of the body (CONTRACT §8).

Keys come as `Authorization: Bearer attn_...`, or as the password of `Authorization: Basic`. A key in the URL is not
accepted, because URLs end up in logs. The signature can be checked only after the body was read, so the request is
admitted before as one of its hook.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from api.contract.errors import ApiError
from api.contract.requests import SESSION_COOKIE
from api.edge.services import Edge
from api.http.auth.cookies import cookie_values
from api.http.auth.keys import basic_password, caller_of_key
from api.http.auth.tokens import Caller, Unauthorized
from api.http.dependencies import check_sender, get_caller_or_key, get_edge
from api.http.protocol.unauthenticated import mark_authenticated
from api.intake.hook_signature import is_signature, is_signed
from schemas.topics import SOURCE_TYPES
from schemas.views import SourceKeyRow
from streams.connectors.hooks.hooks_file import Hook

__all__ = ["HookSender", "hook_sender", "verify"]

_CHALLENGE = {"www-authenticate": 'Bearer, Basic realm="attn"'}
# The same text without a signature, with a wrong one, and for a hook that does not exist.
_NO_SENDER = ("a webhook needs a key, as Authorization: Bearer or as the password of Authorization: Basic, or a body "
              "that is signed with a secret of the hook")


@dataclass(frozen=True, slots=True)
class HookSender:
    """Who sends a delivery, and to which hook. `signature`: to be verified with the body; None: a key was checked."""

    workspace: str
    user: str
    hook: Hook
    key: SourceKeyRow | None = None
    signature: str | None = None


async def hook_sender(request: Request, name: str) -> HookSender:
    """Returns the sender of a request to the hook `name`.

    Raises ApiError 401 without a valid key and without a signature, 403 for a caller who may not send events, and 404
    if there is no such hook in the caller's workspace. Without a valid caller the answer is the same for each name.
    """
    edge = get_edge(request)
    hook = edge.hooks.current().get(name)
    if "authorization" in request.headers or hook is None or not hook.secrets:
        return _of_caller(await _caller(request, edge), hook, name)
    sent = request.headers.getlist(hook.signature_header)
    if len(sent) != 1 or not is_signature(sent[0]):
        raise ApiError(401, _NO_SENDER, _CHALLENGE)
    assert hook.workspace is not None  # the file of hooks has it with every secret
    edge.require_served(hook.workspace)
    return HookSender(hook.workspace, f"hook:{hook.name}", hook, signature=sent[0])


def verify(request: Request, sender: HookSender, body: bytes) -> None:
    """Raises ApiError 401 if the sender has no key and the body is not signed with a secret of the hook."""
    if sender.signature is None:
        return
    if not is_signed(body, sender.signature, sender.hook.secrets):
        raise ApiError(401, _NO_SENDER, _CHALLENGE)
    mark_authenticated(request.scope)


async def _caller(request: Request, edge: Edge) -> Caller:
    sent = request.headers.getlist("authorization")
    if not sent and not cookie_values(request, SESSION_COOKIE):
        raise ApiError(401, _NO_SENDER, _CHALLENGE)
    password = basic_password(sent[0]) if len(sent) == 1 else None
    if password is None:
        return await check_sender(request, await get_caller_or_key(request))
    try:
        caller = caller_of_key(edge, password)
    except Unauthorized as error:
        raise ApiError(401, str(error), _CHALLENGE) from None
    mark_authenticated(request.scope)
    edge.require_served(caller.workspace_id)
    return caller


def _of_caller(caller: Caller, hook: Hook | None, name: str) -> HookSender:
    if hook is None or (hook.workspace is not None and hook.workspace != caller.workspace_id):
        raise ApiError(404, f"no hook named {name[:100]!r}; alertmanager, grafana and github are built in, others are "
                            "in the file ATTN_HOOKS")
    key = caller.key
    topics = frozenset(key.topics if key is not None else SOURCE_TYPES)
    return HookSender(caller.workspace_id, caller.user, hook.adapted(key.source if key else None, topics), key)
