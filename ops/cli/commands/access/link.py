"""`attn link`: prints a link that signs a user in once."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ops import config
from ops.cli.data.sign_in_links import Person, create_link
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.scalars import is_valid_unicode
from schemas.sources import ROLES

__all__ = ["link"]

_LONGEST = 2000  # characters of a workspace, user or name


def link(
    workspace: Annotated[str, typer.Option("--workspace", help="Workspace of the user.")],
    user: Annotated[str, typer.Option("--user", help="Id of the user.")],
    role: Annotated[str, typer.Option("--role", help=f"One of {', '.join(ROLES)}.")],
    name: Annotated[str | None, typer.Option("--name", help="Display name.", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(
        "--url", show_default=False,
        help="Address of attn in the user's browser. [ATTN_URL, else this machine]")] = None,
    kafka: Kafka = None, data_dir: DataDir = None,
) -> None:
    """Print a link that signs a user in. It is valid once, for ten minutes; whoever has it can use it."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    if role.upper() not in ROLES:
        raise UserError(f"--role: {role!r} is not one of {', '.join(ROLES)}", code=2)
    for option, text in (("--workspace", workspace), ("--user", user), ("--name", name or "-")):
        if not text.strip() or len(text) > _LONGEST or not is_valid_unicode(text):
            raise UserError(f"{option}: must be text of 1 to {_LONGEST} characters that is not blank", code=2)
    address = url or settings.url or f"http://{settings.host}:{settings.port}"
    person = Person(workspace, user, role.upper(), name)
    typer.echo(asyncio.run(create_link(settings, address.rstrip("/"), person, "attn link")))
