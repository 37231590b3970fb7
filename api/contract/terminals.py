"""Bodies of the requests and responses with which a terminal signs in (CONTRACT §9, RFC 8628)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.sources import ROLES

__all__ = [
    "DeviceCode", "StartedTerminal", "TerminalAnswer", "TerminalAnswered", "TerminalDetails", "TerminalName",
    "TerminalSession", "TerminalText",
]

_Sealed = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TerminalName(_Body):
    """What the terminal says of itself, such as the name of its machine. The person reads it."""

    device: Annotated[str, StringConstraints(max_length=200)] = ""


class DeviceCode(_Body):
    """`device_code` of `POST /auth/device`."""

    device_code: _Sealed


class TerminalText(_Body):
    """What follows `#device=` in the address that the terminal shows."""

    request: _Sealed


class TerminalAnswer(TerminalText):
    """Lets a terminal in, or refuses it. `user_code`: needed to let it in; the person reads it on the terminal."""

    allow: bool
    user_code: Annotated[str, StringConstraints(max_length=100)] = ""


class StartedTerminal(BaseModel):
    """RFC 8628 section 3.2. `expires_in` and `interval` in seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int


class TerminalSession(BaseModel):
    """RFC 6749 section 5.1. `access_token`: the session, for `Authorization: Bearer`."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    user_id: str
    workspace_id: str
    role: Literal[ROLES]  # type: ignore[valid-type]


class TerminalDetails(BaseModel):
    """Who asks. `device` is what the terminal says, `address` that of its connection, which may be a proxy."""

    device: str
    address: str
    expires_at: str = Field(json_schema_extra={"format": "date-time"})


class TerminalAnswered(BaseModel):
    allowed: bool
