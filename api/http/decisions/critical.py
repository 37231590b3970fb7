"""Who decides an action with risk `critical` has signed in lately and strongly: ATTN_CRITICAL_MAX_AGE, _ACR."""

from __future__ import annotations

import msgspec

from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.auth.tokens import Caller
from schemas.scalars import SECOND
from schemas.views import ItemRow

__all__ = ["check_sign_in", "checks_sign_in"]

_SIGN_IN = "/auth/login?strong"


class _Action(msgspec.Struct):
    risk: str | None = None


class _Ask(msgspec.Struct):
    action: _Action | None = None


_decode_ask = msgspec.json.Decoder(_Ask).decode


def checks_sign_in(edge: Edge) -> bool:
    """Returns whether a setting restricts who decides critical actions."""
    return edge.settings.critical_max_age is not None or bool(edge.settings.critical_acr)


def check_sign_in(edge: Edge, caller: Caller, row: ItemRow | None) -> None:
    """Raises ApiError 403 if the item's action is critical and the caller's sign-in is too old or too weak.

    A bearer token counts from its `iat` and has no `acr`. An item that this edge does not show yet is 404.
    """
    settings = edge.settings
    if not checks_sign_in(edge):
        return
    if row is None:
        raise ApiError(404, "not found")
    if not _is_critical(row):
        return
    session = caller.session
    acr = session.acr if session is not None else None
    if settings.critical_acr and acr not in settings.critical_acr.split():
        raise ApiError(403, "an action with risk critical needs a stronger sign-in", sign_in=_SIGN_IN)
    if settings.critical_max_age is not None:
        since = caller.issued_at
        if session is not None:
            since = (session.auth_time if session.auth_time is not None else session.created_at) / SECOND
        if since is None or edge.clock() - since > settings.critical_max_age.total_seconds():
            raise ApiError(403, "an action with risk critical needs a new sign-in", sign_in=_SIGN_IN)


def _is_critical(row: ItemRow) -> bool:
    action = _decode_ask(row.data.ask).action if row.data.ask else None
    return row.data.risk == "critical" or (action is not None and action.risk == "critical")
