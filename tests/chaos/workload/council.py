"""People who vote, decide and take back during the run, through any edge, with all responses that they received.

A request with an unknown result is sent again with the same Idempotency-Key; it must have one effect.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from support.model import Reader

from chaos.environment.edge_client import EdgeClient
from chaos.workload.questions import PEOPLE, Questions

__all__ = ["Answered", "Council", "Decider"]

_ANSWER = 20.0  # seconds until a response; longer than the edge's limit for a write
_PAUSE = 0.3  # mean seconds between two answers of a person
_UNSURE = {429, 502, 503, 504}
# Another status is an error of the harness or of an edge.
_EXPECTED = {"POST": {200, 201, 202, 403, 404, 409, 410, 412}, "DELETE": {200, 403, 404, 409}}


@dataclass(frozen=True, slots=True)
class Answered:
    """One request and its final response."""

    ws: str
    user: str
    method: str
    item: str
    status: int
    decision: str | None


@dataclass
class Decider:
    """One person. `answers`: all final responses; `again`: number of repeated requests."""

    ws: str
    reader: Reader
    urls: Sequence[str]
    edge: EdgeClient
    rng: random.Random
    answers: list[Answered] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    again: int = 0
    _keys: int = 0
    _stale: dict[str, str] = field(default_factory=dict)  # item -> a former digest

    async def run(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=_ANSWER, trust_env=False) as client:
            while not stop.is_set():
                items = (await self._certain(client, "GET", "/org/me/inbox?limit=50", None)).json()["items"]
                asking = [item for item in items if "ask" in item]
                for item in self.rng.sample(asking, min(3, len(asking))):
                    await self._answer(client, item)
                    await asyncio.sleep(self.rng.expovariate(1 / _PAUSE))
                if not asking:
                    await asyncio.sleep(_PAUSE)

    async def _answer(self, client: httpx.AsyncClient, item: dict[str, Any]) -> None:
        path = f"/api/v1/inbox/{item['id']}/decision"
        option = self.rng.choices(("yes", "no", "wait"), (6, 1, 2))[0]
        digest = self._stale.setdefault(item["id"], item["digest"]) if self.rng.random() < 0.1 else item["digest"]
        answer = await self._record(client, "POST", path, item["id"], {"option": option, "digest": digest})
        if answer == 201 and self.rng.random() < 0.25:
            await self._record(client, "DELETE", path, item["id"], None)

    async def _record(self, client: httpx.AsyncClient, method: str, path: str, item: str, body: Any) -> int:
        answer = await self._certain(client, method, path, body)
        found = answer.json()
        if answer.status_code not in _EXPECTED[method]:
            self.wrong.append(f"{self.ws}: {method} {path} {body}: {answer.status_code} {answer.text[:200]}")
        self.answers.append(Answered(
            self.ws, self.reader.user, method, item, answer.status_code, (found.get("decision") or {}).get("id")))
        return answer.status_code

    async def _certain(self, client: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
        """Returns the final response, after as many requests as needed."""
        self._keys += 1
        key = {} if method == "GET" else {"Idempotency-Key": f"{self.ws}-{self.reader.user}-{self._keys}"}
        while True:
            headers = self.edge.headers(self.ws, self.reader) | key
            try:
                answer = await client.request(method, self.rng.choice(self.urls) + path, headers=headers, json=body)
                if answer.status_code not in _UNSURE:
                    return answer
            except httpx.TransportError:
                pass
            self.again += 1
            await asyncio.sleep(_PAUSE)


class Council:
    """All workspaces with questions, and their people."""

    def __init__(self, count: int, seed: int, settings: Any, urls: Sequence[str], edge: EdgeClient, http: bool) -> None:
        names = [f"council-{number}" for number in range(count)]
        self.questions = [Questions(ws, seed * 100 + number, settings, http) for number, ws in enumerate(names)]
        self.people = [
            Decider(ws, Reader(user, role), urls, edge, random.Random(f"{seed} {ws} {user}"))
            for ws in names for user, role in PEOPLE]

    @property
    def names(self) -> set[str]:
        return {one.ws for one in self.questions}

    @property
    def answers(self) -> list[Answered]:
        return [answer for one in self.people for answer in one.answers]

    @property
    def numbers(self) -> dict[str, Any]:
        statuses = Counter(f"{one.method} {one.status}" for one in self.answers)
        return {
            "events of questions": sum(len(one.lines) for one in self.questions),
            "asks changed": sum(one.changed for one in self.questions),
            "questions withdrawn": sum(one.withdrawn for one in self.questions),
            "answers of deciders": ", ".join(f"{name}: {count}" for name, count in sorted(statuses.items())),
            "answers without certainty, so sent again": sum(one.again for one in self.people),
        }
