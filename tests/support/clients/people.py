"""Users who answer questions of a running attn over HTTP, for tests of clients. They also create keys of sources."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any
from urllib.parse import quote

import httpx

__all__ = ["People", "until"]

_names = itertools.count()


async def until(holds: Callable[[], Awaitable[Any]], what: str, seconds: float = 90) -> Any:
    """Waits for a true value of `holds()` and returns it."""
    end = time.monotonic() + seconds
    while not (value := await holds()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.2)
    return value


class People:
    """Users of one workspace. They repeat requests while an edge restarts."""

    def __init__(self, url: str, token_of: Callable[[str], str]) -> None:
        self.url, self.token = url, cache(token_of)

    def create_key(self, source: str, *topics: str) -> str:
        """Returns the text of a new key for `source`; default topics: waitpoints and messages."""
        body = {"name": f"client-{next(_names)}", "topics": topics or ["waitpoints", "messages"], "source": source}
        answer = httpx.post(f"{self.url}/org/me/keys", json=body, trust_env=False, timeout=30,
                            headers={"Authorization": f"Bearer {self.token('ann')}"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    async def get(self, path: str, user: str = "ann") -> Any:
        """Returns the JSON of a path; None while there is no answer."""
        async with httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False) as client:
            try:
                answer = await client.get(path, headers={"Authorization": f"Bearer {self.token(user)}"})
            except httpx.HTTPError:
                return None
        return answer.json() if answer.status_code == 200 else None

    async def items(self, state: str = "active", **filters: Any) -> list[dict[str, Any]]:
        only = f"&source_id={quote(filters['source_id'])}" if "source_id" in filters else ""
        page = await self.get(f"/api/v1/inbox?state={state}&limit=500{only}")
        return [row for row in (page or {"rows": []})["rows"]
                if all(row.get(name) == value for name, value in filters.items())]

    async def question(self, subject: str, **filters: Any) -> dict[str, Any]:
        """Waits for an open question of this subject."""
        async def first() -> Any:
            return next(iter(await self.items(source_id=subject, **filters)), None)

        return dict(await until(first, f"the question {subject}"))

    async def answer(self, subject: str, option: str, user: str = "ann", **body: Any) -> dict[str, Any]:
        """Answers the open question of a subject. Returns the decision, or the votes."""
        item = await self.question(subject)

        async def sent() -> Any:
            async with httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False) as client:
                try:
                    answer = await client.post(
                        f"/api/v1/inbox/{item['id']}/decision",
                        json={"option": option, "digest": item["digest"], **body},
                        headers={"Authorization": f"Bearer {self.token(user)}"})
                except httpx.HTTPError:
                    return None
            assert answer.status_code in (200, 201, 202, 503), answer.text
            return answer.json() if answer.status_code != 503 else None

        return dict(await until(sent, f"the answer of {subject}"))

    async def state(self, subject: str) -> str | None:
        """Returns the state of the newest decision of a subject."""
        page = await self.get(f"/org/me/decisions?source_id={quote(subject)}")
        return page["decisions"][0]["state"] if page and page["decisions"] else None

    async def becomes(self, subject: str, state: str) -> None:
        async def is_so() -> bool:
            return await self.state(subject) == state

        await until(is_so, f"the decision of {subject} is {state}")
