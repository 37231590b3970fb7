"""`attn token`: prints a token signed with the configured secret."""

from __future__ import annotations

import time
import warnings
from typing import Annotated

import jwt
import typer

from ops import config
from ops.cli.durations import parse_duration
from ops.cli.options import DataDir
from ops.errors import UserError
from schemas.sources import ROLES

__all__ = ["parse_ttl", "token"]

_MAX_TTL = 1e14  # seconds; `exp` must stay a number that clients parse


def token(
    workspace: Annotated[str, typer.Option("--workspace", help="Workspace of the user.")],
    user: Annotated[str, typer.Option("--user", help="Id of the user.")],
    role: Annotated[str, typer.Option("--role", help=f"One of {', '.join(ROLES)}.")],
    name: Annotated[str | None, typer.Option("--name", help="Display name.", show_default=False)] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="Time until the token expires: 30m, 12h, 7d, or seconds.")] = "12h",
    data_dir: DataDir = None,
) -> None:
    """Print a token signed with ATTN_JWT_SECRET, or with the secret of the data directory of `attn up`."""
    settings = config.load_settings(data_dir=data_dir)
    if role.upper() not in ROLES:
        raise UserError(f"--role: {role!r} is not one of {', '.join(ROLES)}", code=2)
    if not workspace.strip() or not user.strip():
        raise UserError("--workspace and --user must not be blank", code=2)
    if settings.jwt_secret is None:
        raise UserError(
            "no secret to sign with: set ATTN_JWT_SECRET, or pass the --data-dir of an `attn up`, which creates one"
            if settings.jwks_url is None else "ATTN_JWKS_URL is set: get the token from your identity provider")
    now = int(time.time())
    claims = {"sub": user, "workspace_id": workspace, "role": role.upper(), "iat": now, "exp": now + parse_ttl(ttl)}
    if name is not None:
        claims["name"] = name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT warns of short secrets; `attn up` creates a long one
        typer.echo(jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256"))


def parse_ttl(text: str) -> int:
    """Returns the seconds of `30m`, `12h`, `7d` or a number of seconds. Raises UserError if `text` is none of these."""
    text = text.strip().lower()
    seconds = int(parse_duration(text if text[-1:].isalpha() else f"{text}s") or 0)
    if not 0 < seconds < _MAX_TTL:
        raise UserError(f"--ttl: {text!r} is not a duration such as 30m, 12h, 7d or 3600", code=2)
    return seconds
