"""A GitHub connector with the stub of GitHub, and decisions as `GET /org/me/decisions` lists them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.peers.github_stub import REPO, TOKEN, GithubStub

from schemas.scalars import SECOND, format_timestamp
from streams.connectors.github.auth import AppAuthorizer, TokenAuthorizer
from streams.connectors.github.client import GithubClient
from streams.connectors.github.github_peer import GithubPeer
from streams.connectors.github.sweep import SweepOptions
from streams.connectors.mappings.github import GithubOptions

__all__ = ["APP_ID", "PRIVATE", "PUBLIC", "KnownItems", "connected", "decided", "decision_id"]

APP_ID = "Iv1.attn"


def rsa_key() -> tuple[str, str]:
    """Returns a private and a public key, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


PRIVATE, PUBLIC = rsa_key()


class KnownItems:
    """A client of attn whose items the test sets."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.all = list(items)

    async def items(
        self, *, state: str = "all", source: str | None = None, source_id: str | None = None,
    ) -> list[dict[str, Any]]:
        active = ("unread", "read")
        return [item for item in self.all if source_id in (None, item["source_id"])
                and (state == "all" or item["state"] in active)]


@asynccontextmanager
async def connected(
    stub: GithubStub, items: Any = None, app_key: str = "", token: str = TOKEN, grace: float = 0.0,
    repositories: Sequence[str] = (REPO,),
) -> AsyncIterator[GithubPeer]:
    """Yields a new connector with a token, and with an app if `app_key` is set. Simulates a new process."""
    github = GithubClient(stub.url, TokenAuthorizer(token))
    app = GithubClient(stub.url, AppAuthorizer(APP_ID, app_key)) if app_key else None
    options = SweepOptions(tuple(repositories), GithubOptions(ask_runs=True), grace=grace,
                           app="attn-app" if app_key else "")
    try:
        yield GithubPeer(github, items if items is not None else KnownItems(), options, app)
    finally:
        await github.close()
        if app is not None:
            await app.close()


def decision_id(number: int) -> str:
    return f"dec_{number:032x}"


def decided(subject: str, does: str, at: float, number: int = 1, **more: Any) -> dict[str, Any]:
    """Returns a decision in state `sending`. `at`: time of the decision in seconds."""
    return {
        "id": decision_id(number), "state": "sending", "kind": "waitpoint", "source": "/github", "source_id": subject,
        "question": {"id": subject, "digest": "0" * 64}, "does": does, "option": does, "comment": "looks good",
        "at": format_timestamp(int(at * SECOND)), "changed_at": "t1",
        "actors": [{"user": "ann", "name": "Ann", "role": "OWNER", "vote": does}]} | more
