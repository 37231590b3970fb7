"""People who write through the edges during the run, and the expected result.

Each person has a workspace with open messages, so the acknowledged writes are all changes of an item. A request with an
unknown result (no response, 503, 429) is sent again to any edge with the same Idempotency-Key: it must have one effect,
and every other response but 200 is an error.
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

from chaos.environment.edge_client import EdgeClient
from chaos.workload.load import Send
from schemas.facts import Fact, Outcome
from schemas.scalars import format_timestamp

__all__ = ["ACTS", "Desks", "Person", "acts_differ"]

_MESSAGES = 8
_ANSWER = 20.0  # seconds until a response; longer than the edge's limit for a write
_PAUSE = 0.25  # mean seconds between two writes
_UNSURE = {429, 502, 503, 504}
ACTS = ("item.read", "item.unread", "item.resolved", "item.dismissed", "item.snoozed", "item.restored")


@dataclass(slots=True)
class Known:
    """The expected state of one item of the person."""

    state: str = "unread"
    read: bool = False  # since it opened last
    action: str | None = None
    away: bool = False


class Person:
    """`acts`: acknowledged writes by (source id, type); `again`: number of repeated requests."""

    def __init__(self, number: int, seed: int, urls: Sequence[str], edge: EdgeClient) -> None:
        self.ws, self.reader = f"desk-{number}", Reader(f"clerk_{number}", "MEMBER")
        self.items = {f"msg_{number}_{index}": Known() for index in range(_MESSAGES)}
        self.acts: Counter[tuple[str, str]] = Counter()
        self.again = 0
        self.wrong: list[str] = []
        self._rng = random.Random(seed * 1000 + number)
        self._urls, self._asker = urls, edge
        self._ids: dict[str, str] = {}
        self._keys = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Writes one change after the other until `stop`; waits for the result of the last one."""
        async with httpx.AsyncClient(timeout=_ANSWER, trust_env=False) as client:
            await self._find(client)
            while not stop.is_set():
                await self._act(client)
                await asyncio.sleep(self._rng.expovariate(1 / _PAUSE))

    async def _find(self, client: httpx.AsyncClient) -> None:
        """Returns the ids of the person's items, as soon as an edge has them."""
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
                known.away = False  # an item that opens again is shown to those who dismissed it
            changes = {"read": not known.read, "unread": known.state != "unread"}.get(what, True)
            known.read = what == "read" or (what == "resolved" and known.read)
            if what != "read" or known.state == "unread":
                known.state, known.action = what, action
            if changes:  # otherwise there is no fact
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
        """Returns the final response, after as many requests as needed; None if it is an error, which is recorded."""
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

    def differences(self, edges: Iterable[EdgeClient]) -> list[str]:
        """Compares every edge with the acknowledged writes."""
        found = list(self.wrong)
        for number, edge in enumerate(edges, start=1):
            rows = edge.get("/api/v1/inbox", self.ws, self.reader, limit=500)["rows"]
            away = {one["source_id"] for one in edge.get(
                "/org/me/inbox", self.ws, self.reader, limit=500, dismissed="true")["items"]}
            shown = {row["source_id"]: row for row in rows}
            for source, known in self.items.items():
                row = shown.get(source, {})
                got = row.get("state"), row.get("resolved_action")
                if got != (known.state, known.action):
                    found.append(f"edge {number}: {self.ws} {source} is {got}, expected {known}")
                if known.state != "resolved" and (source in away) is not known.away:
                    found.append(f"edge {number}: {self.ws} {source} away: {source in away}, expected {known}")
        return found


class Desks:
    """All people who write."""

    def __init__(self, count: int, seed: int, urls: Sequence[str], edge: EdgeClient) -> None:
        self.people = [Person(number, seed, urls, edge) for number in range(count)]
        self.sends: list[Send] = []
        self.lines: list[dict[str, Any]] = []  # the events as the model reads them

    def fill(self, now: int) -> list[Send]:
        """Returns the messages of all people, to be sent."""
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

    def differences(self, edges: Sequence[EdgeClient], facts: Sequence[Fact | Outcome]) -> list[str]:
        return [*(line for person in self.people for line in person.differences(edges)),
                *acts_differ(self.people, facts)]


def acts_differ(people: Iterable[Person], facts: Iterable[Fact | Outcome]) -> list[str]:
    """Checks that each acknowledged write has one fact, and that there are no others. `facts`: those of one fold."""
    counts = Counter(
        (fact.ws, fact.subject, fact.type) for fact in facts if isinstance(fact, Fact) and fact.type in ACTS)
    done: Counter[tuple[str, str, str]] = Counter()
    for person in people:
        done.update({(person.ws, source, what): count for (source, what), count in person.acts.items()})
    return [f"{key}: {counts[key]} facts, {done[key]} were acknowledged"
            for key in sorted(counts.keys() | done.keys()) if counts[key] != done[key]]
