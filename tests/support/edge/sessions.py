"""Opens sessions on an edge with a fold, and returns the headers that a browser sends with them."""

from __future__ import annotations

import secrets
from typing import Any

from support.edge.edge_with_fold import WS, Deciding

from api.http.auth.cookies import csrf_of
from api.http.auth.sessions import Grant, Identity, OpenedSession, open_session
from schemas.log import CreateLink
from schemas.scalars import SECOND
from streams.runtime.secret_texts import ENTROPY_BYTES, LINKS

__all__ = ["cookie_of", "new_link", "signed_in"]


async def signed_in(
    attn: Deciding, user: str = "ann", role: str = "MEMBER", *grants: tuple[str, str], edge: int = 0, **more: Any
) -> OpenedSession:
    """Opens a session of the user. `grants`: (workspace, role); default: the role in `ws`. `more`: identity fields."""
    granted = [Grant(*grant) for grant in grants or ((WS, role),)]
    return await open_session(
        attn.edges[edge], Identity(user, **more), granted, device="Firefox on Linux", address="192.0.2.1", via="oidc")


def cookie_of(opened: OpenedSession, writes: bool = True, **headers: str) -> dict[str, str]:
    """Returns the headers that a browser with this session sends."""
    csrf = csrf_of(opened.text)
    own = {"cookie": f"attn_session={opened.text}; attn_csrf={csrf}"}
    return own | ({"x-csrf-token": csrf} if writes else {}) | headers


def new_link(attn: Deciding, seconds: float = 600, **more: Any) -> str:
    """Creates a sign-in link of the user `me`, as `attn link` does. Returns its text."""
    made = LINKS.new(secrets.token_bytes(ENTROPY_BYTES))
    attn.happen(CreateLink(**{
        "ws": WS, "id": secrets.token_hex(16), "time": int(attn.now * SECOND), "user": "attn link",
        "roles": ("OWNER",), "link": made.id, "digest": made.digest, "of_user": "me", "role": "MANAGER", "name": "Me",
        "expires_at": int((attn.now + seconds) * SECOND), **more}))
    return made.text
