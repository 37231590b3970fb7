"""`attn roles try`: shows which workspaces and roles the roles file gives to an account."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.http.auth.oidc.roles import AccountRefused, map_account
from api.http.auth.oidc.roles_file import RolesFileError, load_roles
from ops import config
from ops.errors import UserError

__all__ = ["app"]

_MAX_BYTES = 1 << 20  # of the claims
_REFUSED, _USAGE, _NO_WORKSPACE = 1, 2, 3  # exit codes

app = typer.Typer(no_args_is_help=True, help="Try the roles file, which maps claims of the issuer to roles.")


@app.callback()
def _group() -> None:
    pass


@app.command("try")
def try_claims(
    claims: Annotated[str, typer.Argument(metavar="CLAIMS.json", help="Claims of an ID token; - is stdin.")],
    roles: Annotated[Path | None, typer.Option(
        "--roles", help="Roles file. [ATTN_OIDC_ROLES]", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the user, the workspaces and the roles that these claims give, each with its rule.

    Exit codes: 0 at least one workspace; 1 the account is refused; 2 wrong usage, or a file that cannot be used; 3 no
    workspace.
    """
    settings = config.load_settings()
    path = roles or settings.oidc_roles
    if path is None:
        raise UserError("no roles file: set ATTN_OIDC_ROLES or pass --roles FILE", code=_USAGE)
    try:
        mapping = load_roles(path)
        account = map_account(mapping, _read(claims))
    except RolesFileError as error:
        raise UserError(str(error), code=_USAGE) from None
    except AccountRefused as error:
        raise UserError(str(error), code=_REFUSED) from None
    if as_json:
        typer.echo(json.dumps({
            "user": account.user, "name": account.name, "notes": account.notes,
            "grants": [{"workspace": grant.workspace, "role": grant.role, "rule": rule, "value": value}
                       for grant, (rule, value) in zip(account.grants, account.reasons, strict=True)]}))
    else:
        typer.echo(_shown(f"user {account.user}" + (f" ({account.name})" if account.name else "")))
        for grant, (rule, value) in zip(account.grants, account.reasons, strict=True):
            because = f"rule {rule}, which holds for every account" if value is None else f"rule {rule}, {value!r}"
            typer.echo(_shown(f"{grant.workspace}  {grant.role}  by {because}"))
        for note in account.notes:
            typer.echo(_shown(f"note: {note}"), err=True)
        if not account.grants:
            says = settings.oidc_contact or "ATTN_OIDC_CONTACT is empty"
            typer.echo(_shown(f"no workspace; the page says: {says}"), err=True)
    if not account.grants:
        raise typer.Exit(_NO_WORKSPACE)


def _read(name: str) -> dict[str, Any]:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{name}: {error.strerror}", code=_USAGE) from None
    if len(content) > _MAX_BYTES:
        raise UserError(f"{name}: more than {_MAX_BYTES} bytes", code=_USAGE)
    try:
        claims = json.loads(content)
    except (ValueError, RecursionError):
        raise UserError(f"{name}: is not JSON", code=_USAGE) from None
    if not isinstance(claims, dict):
        raise UserError(f"{name}: is not a JSON object of claims", code=_USAGE)
    return claims


def _shown(text: str) -> str:
    """Returns text that has no effect on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
