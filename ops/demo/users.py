"""Demo users: they read, resolve, dismiss and decide items through the HTTP API, as a browser does."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import structlog

from ops.demo.scenarios import PEOPLE
from schemas.settings import Settings

__all__ = ["WORKSPACE", "DemoUsers", "choose_answer", "may_decide"]

WORKSPACE = "demo"
_PAUSE = 8.0  # mean seconds between two requests
_BY_HAND = {"message", "failed_run", "draft_review", "incident"}  # kinds of items whose source awaits no decision
_HOUR = 3600

log = structlog.get_logger("attn.demo")


class DemoUsers:
    """Simulates PEOPLE except the first, who is the visitor. `begin` starts the requests, `aclose` stops them."""

    def __init__(self, settings: Settings, url: str, seed: int) -> None:
        self._settings = settings
        self._rng = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / _PAUSE))
            try:
                await self._act()
            except httpx.HTTPError as error:  # the edge restarts, or does not answer in time
                log.debug("request of a demo user failed", error=repr(error))

    async def _act(self) -> None:
        user, role, name = self._rng.choice(PEOPLE[1:])
        headers = self._headers(user, role, name)
        items = (await self._client.get("/org/me/inbox", headers=headers, params={"limit": 50})).json().get("items", [])
        if items:
            voted = [one for one in items if one.get("votes") and may_decide(one, user, role)]
            item = self._rng.choice(voted or items)  # a second vote soon follows the first
            method, path, body = self._choose(item, user, role)
            answer = await self._client.request(method, path, headers=headers, json=body)
            log.debug("demo user acted", user=user, path=path, status=answer.status_code)

    def _choose(self, item: dict[str, Any], user: str, role: str) -> tuple[str, str, dict[str, Any]]:
        path = f"/api/v1/inbox/{item['id']}"
        if may_decide(item, user, role) and self._rng.random() < (0.8 if item.get("votes") else 0.3):
            answer = choose_answer(item, self._rng)
            if answer is not None:
                return "POST", f"{path}/decision", answer
        if item["kind"] in _BY_HAND and self._rng.random() < 0.3:
            return "PATCH", path, {"state": "resolved", "resolved_action": "done"}
        if item.get("state") == "unread":
            return "PATCH", path, {"state": "read"}
        until = datetime.now(UTC) + timedelta(minutes=self._rng.choice([1, 5, 60]))
        return "POST", f"/org/me/inbox/{item['id']}/dismiss", {"dismissed_until": until.isoformat()}

    def _headers(self, user: str, role: str, name: str) -> dict[str, str]:
        secret = self._settings.jwt_secret
        assert secret is not None, "attn up creates a secret"
        claims = {"sub": user, "workspace_id": WORKSPACE, "role": role, "name": name, "exp": int(time.time()) + _HOUR}
        return {"Authorization": f"Bearer {jwt.encode(claims, secret.get_secret_value(), 'HS256')}"}


def may_decide(item: dict[str, Any], user: str, role: str) -> bool:
    """Whether the item asks, is undecided, and lets this user decide who has not voted yet (CONTRACT §7)."""
    if "ask" not in item or item.get("state") == "decided" or user in (vote["user"] for vote in item.get("votes", ())):
        return False
    deciders = item.get("deciders", {})
    if user in deciders.get("excluded", ()):
        return False
    return user in deciders.get("users", ()) or role in deciders.get("roles", ())


def choose_answer(item: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """Returns the body of the decision: what others voted for, else any option without a form; None if there is none.

    An approval is more likely than a rejection, as in life.
    """
    plain = [option for option in item["ask"]["options"] if "form" not in option and option["does"] not in (
        "edit", "respond")]
    voted = {vote["vote"] for vote in item.get("votes", ())}
    options = [option for option in plain if option["id"] in voted] or plain
    if not options or "form" in item["ask"]:
        return None
    option = rng.choices(options, [1 if one["does"] in ("reject", "ignore") else 5 for one in options])[0]
    comment = {"comment": "See the runbook."} if option.get("comment") == "required" else {}
    return {"option": option["id"], "digest": item["digest"], **comment}
