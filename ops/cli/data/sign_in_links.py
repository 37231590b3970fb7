"""Creates sign-in links (CONTRACT §9): a command in `attn.log`, whose text is printed once."""

from __future__ import annotations

import secrets
import time
from typing import NamedTuple

import msgspec

from ops.cli.data.log_commands import run_command
from ops.errors import UserError
from schemas.log import CreateLink
from schemas.scalars import SECOND
from schemas.settings import Settings
from streams.runtime.secret_texts import ENTROPY_BYTES, LINKS

__all__ = ["LINK_SECONDS", "Person", "create_link"]

LINK_SECONDS = 600


class Person(NamedTuple):
    """Who signs in by a link, and where."""

    workspace: str
    user: str
    role: str
    name: str | None = None


async def create_link(settings: Settings, url: str, person: Person, by: str, recorded: bool = True) -> str:
    """Returns a URL that signs the person in once, within ten minutes. `url`: of the edge; `by`: who creates the link,
    for the history, which has a fact of it if `recorded`.

    The text is in the fragment of the URL, which browsers send to no server. Raises UserError if Kafka is unreachable,
    no worker answers, or the worker refuses the link.
    """
    made, now = LINKS.new(secrets.token_bytes(ENTROPY_BYTES)), int(time.time() * SECOND)
    outcome = await run_command(settings, CreateLink(
        ws=person.workspace, id=secrets.token_hex(16), time=now, user=by, roles=("OWNER",), link=made.id,
        digest=made.digest, of_user=person.user, role=person.role, name=person.name,
        expires_at=now + LINK_SECONDS * SECOND, recorded=recorded))
    if outcome.status != 201:
        raise UserError(str(msgspec.json.decode(outcome.body).get("error", f"status {outcome.status}")))
    return f"{url}/#signin={made.text}"
