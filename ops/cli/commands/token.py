"""`attn token`: a token for the configured secret."""

from __future__ import annotations

import re
import time
import warnings
from typing import Annotated

import jwt
import typer

from ops import config
from ops.cli.options import DataDir
from ops.errors import UserError
from schemas.sources import ROLES

__all__ = ["parse_ttl", "token"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def token(
    workspace: Annotated[str, typer.Option("--workspace", help="Workspace the caller is in.")],
    user: Annotated[str, typer.Option("--user", help="Id of the caller.")],
    role: Annotated[str, typer.Option("--role", help=f"One of {', '.join(ROLES)}.")],
    name: Annotated[str | None, typer.Option("--name", help="Name to show.", show_default=False)] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="How long it holds: 30m, 12h, 7d, or seconds.")] = "12h",
    data_dir: DataDir = None,
) -> None:
    """Print a token for ATTN_JWT_SECRET, or for the secret of the `attn up` that uses this data directory."""
    settings = config.load_settings(data_dir=data_dir)
    if role.upper() not in ROLES:
        raise UserError(f"--role: {role!r} is not one of {', '.join(ROLES)}", code=2)
    if not workspace.strip() or not user.strip():
        raise UserError("--workspace and --user must not be blank", code=2)
    if settings.jwt_secret is None:
        raise UserError(
            "no secret to sign with: set ATTN_JWT_SECRET, or --data-dir to that of `attn up`, which makes one"
            if settings.jwks_url is None else "ATTN_JWKS_URL is set: the tokens come from there")
    now = int(time.time())
    claims = {"sub": user, "workspace_id": workspace, "role": role.upper(), "iat": now, "exp": now + parse_ttl(ttl)}
    if name is not None:
        claims["name"] = name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short secret is its owner's choice; `attn up` makes a long one
        typer.echo(jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm="HS256"))


def parse_ttl(text: str) -> int:
    """`30m`, `12h`, `7d` or seconds -> seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip().lower())
    if found is None or int(found[1]) == 0:
        raise UserError(f"--ttl: {text!r} is not a time such as 30m, 12h, 7d or 3600", code=2)
    return int(found[1]) * _UNITS[found[2] or "s"]
