"""Which of its workspaces a session enters (CONTRACT §9): the query `workspace`, the header `X-Attn-Workspace`, else
the cookie `attn_workspace`, which is no secret. An EventSource can send no header, hence the query."""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.requests import HTTPConnection

from api.http.auth.cookies import cookie_values
from api.http.auth.tokens import WorkspaceChoice

__all__ = ["WORKSPACE_COOKIE", "WORKSPACE_HEADER", "WORKSPACE_QUERY", "cookie_of_workspace", "workspace_choice"]

WORKSPACE_COOKIE, WORKSPACE_HEADER, WORKSPACE_QUERY = "attn_workspace", "x-attn-workspace", "workspace"


def workspace_choice(request: HTTPConnection) -> WorkspaceChoice:
    """Returns what the request says of the workspace. Header and cookie are percent-encoded UTF-8."""
    named = request.query_params.get(WORKSPACE_QUERY)
    if not named and (header := request.headers.get(WORKSPACE_HEADER)):
        named = unquote(header)
    remembered = cookie_values(request, WORKSPACE_COOKIE)
    return WorkspaceChoice(named or None, unquote(remembered[0]) if remembered else None)


def cookie_of_workspace(ws: str) -> str:
    """Returns the value of the cookie for a workspace."""
    return quote(ws, safe="")
