"""Response models of sign-in, sessions and terminals."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.contract.responses.base import ResponseModel
from schemas.sources import ROLES


class OwnWorkspace(ResponseModel):
    """A workspace that the caller may enter, and the caller's role there."""

    id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class Me(ResponseModel):
    """The caller, by the claims of the token or by the session. `workspaces`: of a token the one that it names."""

    user_id: str
    name: str | None = None
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]
    expires_at: datetime
    workspaces: list[OwnWorkspace]
    session_id: str | None = None


class SignInIssuer(ResponseModel):
    name: str = Field(examples=["login.example.com"])


class SignInMethods(ResponseModel):
    issuer: SignInIssuer | None = None


class SignedOut(ResponseModel):
    logout_url: str | None = None


class SignedIn(ResponseModel):
    user_id: str
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class StartedTerminal(ResponseModel):
    """RFC 8628 section 3.2. `expires_in` and `interval` in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int


class TerminalSession(ResponseModel):
    """RFC 6749 section 5.1. `access_token`: the session, for `Authorization: Bearer`."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    user_id: str
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class TerminalDetails(ResponseModel):
    """Who asks. `device` is what the terminal says, `address` that of its connection, which may be a proxy."""

    device: str
    address: str
    expires_at: datetime


class TerminalAnswered(ResponseModel):
    allowed: bool


class SessionEntry(ResponseModel):
    """A session, without its text. `last_used`: begin of the newest hour in which it was used. `expires_at`: its end
    without further use. `current`: the request has this session."""

    id: str
    user_id: str
    name: str | None = None
    role: Literal[ROLES]  # type: ignore[valid-type]
    via: str = Field(description="how the user signed in", examples=["oidc"])
    device: str | None = Field(None, examples=["Firefox on Linux"])
    address: str | None = None
    created_at: datetime
    last_used: datetime
    expires_at: datetime
    current: bool


class SessionList(ResponseModel):
    sessions: list[SessionEntry]


class EndedSessions(ResponseModel):
    """Ids of the sessions that were ended."""

    ended: list[str]


class RevokedTokens(ResponseModel):
    """What was revoked: the token with this `jti`, or those of `sub` that were issued before a time."""

    revoked: bool
    jti: str | None = None
    sub: str | None = None
    issued_before: datetime | None = None
