"""Sets and deletes the cookies of a session, so that browsers keep them (ops/decisions/0049)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response

from api.contract.errors import ApiError
from api.contract.requests import SESSION_COOKIE
from api.http.auth.cookies import csrf_of
from api.http.auth.workspaces import WORKSPACE_COOKIE, cookie_of_workspace

__all__ = ["CSRF_COOKIE", "check_page", "delete_session_cookies", "is_loopback", "page_origin", "set_session_cookies"]

CSRF_COOKIE = "attn_csrf"
_MAX_PARENT_DOMAINS = 3  # parent domains of the host whose cookies are deleted
_YEAR = 365 * 86400


def check_page(request: Request, session_over_http: bool) -> None:
    """Raises ApiError 403 for a page of another site, which could sign the user in to its own account, and 400 for a
    page over plain http from another host than loopback, where a browser drops the cookie without an error."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise ApiError(403, "a page of another site cannot create a session here")
    scheme, host = page_origin(request)
    if scheme == "http" and not is_loopback(host) and not session_over_http:
        raise ApiError(400, f"this page came over plain http from {host}, where a browser drops the session cookie: "
                           "open attn over https, or on its own machine as localhost, or set "
                           "ATTN_SESSION_OVER_HTTP=true, which sends the token over the network unencrypted")


def set_session_cookies(
    request: Request, response: Response, text: str, seconds: float, workspace: str | None = None,
    secure: bool | None = None,
) -> str:
    """Sets the cookies `attn_session` (HttpOnly) and `attn_csrf` for `seconds`, and `attn_workspace`, if given. Returns
    the value of `attn_csrf`. `secure` None: by the origin of the page."""
    csrf = csrf_of(text)
    secure = page_origin(request)[0] == "https" if secure is None else secure
    options: dict[str, Any] = {"max_age": int(seconds), "path": "/", "samesite": "lax", "secure": secure}
    response.set_cookie(SESSION_COOKIE, text, httponly=True, **options)
    response.set_cookie(CSRF_COOKIE, csrf, **options)
    if workspace is not None:
        response.set_cookie(WORKSPACE_COOKIE, cookie_of_workspace(workspace), **options | {"max_age": _YEAR})
    return csrf


def delete_session_cookies(request: Request, response: Response) -> None:
    """Deletes the cookies `attn_session` and `attn_csrf`, including those that were set for a parent domain."""
    scheme, host = page_origin(request)
    for name in (SESSION_COOKIE, CSRF_COOKIE):
        for domain in (None, *_cookie_domains(host)):
            response.delete_cookie(name, path="/", domain=domain, samesite="lax", secure=scheme == "https",
                                 httponly=name == SESSION_COOKIE)


def page_origin(request: Request) -> tuple[str, str]:
    """Returns scheme and host of the page that sent the request, by its Origin: the scheme of the request itself may
    differ, because a proxy may terminate TLS. Without an Origin the client is no page; the scheme is then http on
    loopback, else https."""
    for url in (request.headers.get("origin", ""), f"//{request.headers.get('host', '')}"):
        try:
            parts = urlsplit(url)
        except ValueError:  # invalid IPv6 address in brackets
            continue
        if parts.hostname and parts.scheme in ("", "http", "https"):
            return parts.scheme or ("http" if is_loopback(parts.hostname) else "https"), parts.hostname
    return "https", ""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine: a loopback address, `localhost`, or a name under `.localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _cookie_domains(host: str) -> list[str]:
    """Returns the domains whose cookies a browser sends to this host: the host and up to three parent domains."""
    parts = host.rstrip(".").split(".")
    if parts[-1].isdigit() or ":" in host or not re.fullmatch(r"[\w.-]{1,253}", host, re.ASCII):
        return []  # an IP address, or not a host name
    return [".".join(parts[first:]) for first in range(min(len(parts) - 1, _MAX_PARENT_DOMAINS + 1))]
