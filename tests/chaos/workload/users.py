"""People who act through the edges meanwhile, and what must have become of it.

Each has a workspace, and open messages in it, of their own, so what was acknowledged is all that happened to an item.
A request that has no certain answer (no answer, 503, 429) is sent again, to any edge, with the same Idempotency-Key:
it must happen once, and every other answer but 200 is wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from support.model import Reader

from chaos.environment.edge_client import Asker
from chaos.workload.load import Send
from schemas.facts import Fact, Outcome
from schemas.scalars import format_timestamp

__all__ = ["ACTS", "Desks", "Person", "acts_differ"]

_MESSAGES = 8
_ANSWER = 20.0  # seconds for an answer, beyond the edge's own time for a write
_PAUSE = 0.25  # between two acts, on average
_UNSURE = {429, 502, 503, 504}
ACTS = ("item.read", "item.unread", "item.resolved", "item.dismissed", "item.snoozed", "item.restored")


@dataclass(slots=True)
class Known:
    """What is known of an item of one's own."""

    state: str = "unread"
    read: bool = False  # since it last opened
    action: str | None = None
    away: bool = False


class Person:
    """`acts` counts what was acknowledged, by (source id, what); `again` the requests that were sent again."""

    def __init__(self, number: int, seed: int, urls: Sequence[str], asker: Asker) -> None:
        self.ws, self.reader = f"desk-{number}", Reader(f"clerk_{number}", "MEMBER")
        self.items = {f"msg_{number}_{index}": Known() for index in range(_MESSAGES)}
        self.acts: Counter[tuple[str, str]] = Counter()
        self.again = 0
        self.wrong: list[str] = []
        self._rng = random.Random(seed * 1000 + number)
        self._urls, self._asker = urls, asker
        self._ids: dict[str, str] = {}
        self._keys = 0

    async def run(self, stop: asyncio.Event) -> None:
        """One act after the other until `stop`; the last one to its end."""
        async with httpx.AsyncClient(timeout=_ANSWER, trust_env=False) as client:
            await self._find(client)
            while not stop.is_set():
                await self._act(client)
                await asyncio.sleep(self._rng.expovariate(1 / _PAUSE))

    async def _find(self, client: httpx.AsyncClient) -> None:
        """The ids of one's items, as soon as they are there."""
        while len(self._ids) < _MESSAGES:
            body = await self._certain(client, "GET", "/api/v1/inbox?limit=500", None)
            self._ids = {row["source_id"]: row["id"] for row in body["rows"]}
            await asyncio.sleep(_PAUSE)

    async def _act(self, client: httpx.AsyncClient) -> None:
        source = self._rng.choice(sorted(self.items))
        known, item = self.items[source], self._ids[source]
        what = self._rng.choice(("read", "unread", "resolved", "away", "away"))
        if what != "away":
            action = f"done {self._keys}" if what == "resolved" else None
            asked = {"state": what} | ({"resolved_action": action} if action else {})
            if await self._certain(client, "PATCH", f"/api/v1/inbox/{item}", asked) is None:
                return
            if what == "unread" and known.state == "resolved":
                known.away = False  # opened again, it returns to those who put it away
            changes = {"read": not known.read, "unread": known.state != "unread"}.get(what, True)
            known.read = what == "read" or (what == "resolved" and known.read)
            if what != "read" or known.state == "unread":
                known.state, known.action = what, action
            if changes:  # else it leaves no fact
                self.acts[source, f"item.{what}"] += 1
        elif known.away:
            if await self._certain(client, "DELETE", f"/org/me/inbox/{item}/dismiss", None) is not None:
                known.away = False
                self.acts[source, "item.restored"] += 1
        else:
            until = datetime.now(UTC) + timedelta(days=1) if self._rng.random() < 0.5 else None
            asked = {"dismissed_until": until.isoformat()} if until else {}
            if await self._certain(client, "POST", f"/org/me/inbox/{item}/dismiss", asked) is not None:
                known.away = True
                self.acts[source, "item.snoozed" if until else "item.dismissed"] += 1

    async def _certain(self, client: httpx.AsyncClient, method: str, path: str, body: Any) -> Any:
        """The answer, however often it takes to ask; None: it is wrong, and noted."""
        self._keys += 1
        key = {} if method == "GET" else {"Idempotency-Key": f"{self.reader.user}-{self._keys}"}
        while True:
            headers = self._asker.headers(self.ws, self.reader) | key
            try:
                answer = await client.request(
                    method, self._rng.choice(self._urls) + path, headers=headers, json=body)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code not in _UNSURE:
                break
            self.again += 1
            await asyncio.sleep(_PAUSE)
        if answer.status_code == 200:
            return answer.json()
        self.wrong.append(f"{self.ws}: {method} {path} {body}: {answer.status_code} {answer.text[:200]}")
        return None

    def differences(self, askers: Iterable[Asker]) -> list[str]:
        """Whether every edge shows what was acknowledged, and no more."""
        found = list(self.wrong)
        for number, asker in enumerate(askers, start=1):
            rows = asker.get("/api/v1/inbox", self.ws, self.reader, limit=500)["rows"]
            away = {one["source_id"] for one in asker.get(
                "/org/me/inbox", self.ws, self.reader, limit=500, dismissed="true")["items"]}
            shown = {row["source_id"]: row for row in rows}
            for source, known in self.items.items():
                row = shown.get(source, {})
                got = row.get("state"), row.get("resolved_action")
                if got != (known.state, known.action):
                    found.append(f"edge {number}: {self.ws} {source} is {got}, was made {known}")
                if known.state != "resolved" and (source in away) is not known.away:
                    found.append(f"edge {number}: {self.ws} {source} away: {source in away}, was made {known}")
        return found


class Desks:
    """All of them."""

    def __init__(self, count: int, seed: int, urls: Sequence[str], asker: Asker) -> None:
        self.people = [Person(number, seed, urls, asker) for number in range(count)]
        self.sends: list[Send] = []
        self.lines: list[dict[str, Any]] = []  # what is sent, as the model reads it

    def fill(self, now: int) -> list[Send]:
        """The messages that they find, to be sent."""
        for person in self.people:
            for source in person.items:
                value = {
                    "specversion": "1.0", "id": source, "source": "/desk", "type": "message.posted", "subject": source,
                    "time": format_timestamp(now), "workspaceid": person.ws, "data": {"title": f"Message {source}"},
                }
                self.sends.append(Send("messages", person.ws.encode(), json.dumps(value).encode()))
                self.lines.append({"topic": "messages", "key": person.ws, "value": value})
        return self.sends

    @property
    def names(self) -> set[str]:
        return {person.ws for person in self.people}

    @property
    def numbers(self) -> dict[str, int]:
        return {
            "writes of people": sum(person.acts.total() for person in self.people),
            "writes without a certain answer, so sent again": sum(person.again for person in self.people),
        }

    def differences(self, askers: Sequence[Asker], facts: Sequence[Fact | Outcome]) -> list[str]:
        return [*(line for person in self.people for line in person.differences(askers)),
                *acts_differ(self.people, facts)]


def acts_differ(people: Iterable[Person], facts: Iterable[Fact | Outcome]) -> list[str]:
    """Whether each act that was acknowledged is one fact, and there are no others. `facts` are those of one fold."""
    told = Counter((fact.ws, fact.subject, fact.type) for fact in facts if isinstance(fact, Fact) and fact.type in ACTS)
    done: Counter[tuple[str, str, str]] = Counter()
    for person in people:
        done.update({(person.ws, source, what): count for (source, what), count in person.acts.items()})
    return [f"{key}: {told[key]} facts, {done[key]} were acknowledged"
            for key in sorted(told.keys() | done.keys()) if told[key] != done[key]]
