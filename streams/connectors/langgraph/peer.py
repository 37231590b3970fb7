"""The connector of LangGraph deployments: finds waiting threads, closes items whose question has gone, and answers.

A sweep reads all threads that wait, `interrupted` ones and failed ones, and compares them with the open items of attn.
LangGraph's webhook says nothing about interrupts, so a webhook only starts a sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp

from streams.connectors.langgraph.answering import Effect, bring
from streams.connectors.langgraph.deployments import Deployment
from streams.connectors.langgraph.events import Location, QuestionId, closing_event, opening_events
from streams.connectors.langgraph.server import LangGraphServer, Thread
from streams.connectors.peer import (
    TRANSIENT,
    Applied,
    Decision,
    Event,
    NotYet,
    Outcome,
    PeerUnavailable,
    Refused,
    text_of,
)

__all__ = ["LangGraphPeer", "OwnItems"]

log = logging.getLogger("attn.connect")

Item = Mapping[str, Any]  # an item of `GET /api/v1/inbox`

# States in which a decision may still take effect: its item is not closed by a sweep, but by its outcome.
_UNDER_WAY = ("made", "sending", "undeliverable")


class OwnItems(Protocol):
    """The part of AttnClient that the peer needs: what the key's own items and decisions are."""

    async def items(self, *, state: str, source: str | None = None) -> Sequence[Item]: ...

    async def decisions(self, *, state: str, source: str | None = None) -> Sequence[Decision]: ...


class LangGraphPeer:
    """All deployments of one process. The thread is the lane: a thread gets one answer at a time."""

    name = "langgraph"
    source = "/langgraph"
    topic = "actions"

    def __init__(self, deployments: Sequence[Deployment], attn: OwnItems, session: aiohttp.ClientSession) -> None:
        self._servers = {one.name: LangGraphServer(one, session) for one in deployments}
        self._attn = attn
        self._failing: set[str] = set()
        self._unmapped: set[str] = set()

    def lane(self, decision: Decision) -> str:
        location = Location.of(str(decision["source_id"]))
        return f"{location.deployment}/{location.thread}" if location is not None else str(decision["source_id"])

    async def sweep(self) -> Sequence[Event]:
        """Returns the events of questions that attn does not show as they are, and of items whose question has gone.

        A deployment that does not answer does not stop the others. Raises PeerUnavailable if none answers.
        """
        names = list(self._servers)
        swept = await asyncio.gather(*map(self._sweep_one, names), return_exceptions=True)
        events: list[Event] = []
        for name, result in zip(names, swept, strict=True):
            if isinstance(result, BaseException):
                self._note_failure(name, result)
            else:
                self._failing.discard(name)
                events += result
        if len(self._failing) == len(names):
            raise PeerUnavailable(f"no deployment answers: {', '.join(sorted(self._failing))}")
        return events

    def _note_failure(self, name: str, error: BaseException) -> None:
        if not isinstance(error, TRANSIENT):
            raise error
        if name not in self._failing:  # once, not at each sweep
            log.warning("langgraph: deployment %s was not swept, retrying: %s", name, text_of(error))
        self._failing.add(name)

    async def _sweep_one(self, name: str) -> list[Event]:
        server = self._servers[name]
        # Items before threads: an item that is missing in the older list is opened once more, which changes nothing.
        items = await self._items(server.deployment)
        waiting: set[str] = set()
        events: list[Event] = []
        async for thread in server.waiting():
            for event in self._events_of(server.deployment, thread):
                waiting.add(event["subject"])
                if _shown(items.get(event["subject"])) != event["data"]["ask"]["id"]:
                    events.append(event)
        return events + await self._closings(server, [item for item in items.values()
                                                      if item["source_id"] not in waiting])

    def _events_of(self, deployment: Deployment, thread: Thread) -> list[Event]:
        """The events of a thread; none if a value of it cannot be mapped, which the first sweep logs."""
        try:
            return opening_events(deployment, thread)
        except Exception:
            if thread.id not in self._unmapped:
                self._unmapped.add(thread.id)
                log.exception("langgraph: thread %s of %s cannot be mapped", thread.id, deployment.name)
            return []

    async def _items(self, deployment: Deployment) -> dict[str, Item]:
        """The open items of a deployment by subject, those that are decided included."""
        found: dict[str, Item] = {}
        for state in ("active", "decided"):
            items = await self._attn.items(state=state, source=deployment.source)
            found |= {str(item["source_id"]): item for item in items if item.get("source") == deployment.source}
        return found

    async def _closings(self, server: LangGraphServer, items: Sequence[Item]) -> list[Event]:
        """Events that close the items whose thread was deleted, or is at rest without their question."""
        locations = {str(item["source_id"]): location for item in items
                  if (location := Location.of(str(item["source_id"]))) is not None and not _is_under_way(item)}
        if not locations:
            return []
        threads = await server.threads(sorted({location.thread for location in locations.values()}))
        now = datetime.now(UTC)
        return [
            closing_event(
                server.deployment, location, _digest(item), str(item["kind"]), opened_at=str(item["created_at"]),
                now=now, outcome="gone" if location.thread in threads else "deleted")
            for item in items if (location := locations.get(str(item["source_id"]))) is not None
            and _has_gone(threads.get(location.thread), location, item)
        ]

    async def apply(self, decision: Decision) -> Outcome:
        """Brings a decision to its thread. A decision of a deployment that this process does not have is left to the
        process that has it."""
        location, asked = Location.of(str(decision["source_id"])), QuestionId.of(str(decision["question"]["id"]))
        if location is None or asked is None:
            return Refused("the question is not one of a LangGraph thread")
        server = self._servers.get(location.deployment)
        if server is None:
            return NotYet(f"deployment {location.deployment} belongs to another connector", after=60.0)
        mates = [decision]
        if asked.count > 1:
            mates = [*await self._attn.decisions(state="sending", source=server.deployment.source)]
        outcome = await bring(server, location, asked, decision, mates)
        return self._applied(server, location, decision, outcome) if isinstance(outcome, Effect) else outcome

    def _applied(self, server: LangGraphServer, location: Location, decision: Decision, effect: Effect) -> Applied:
        if effect.waits_again:  # the next sweep asks the next question with the same item
            return Applied()
        actors = decision.get("actors") or ()
        closing = closing_event(
            server.deployment, location, _digest(decision), str(decision["kind"]), opened_at=str(decision["opened_at"]),
            now=datetime.now(UTC), outcome="approve" if decision.get("does") in ("approve", "edit") else "reject",
            by_user=str(actors[0]["user"]) if actors else None)
        return Applied([closing], reported=False)


def _shown(item: Item | None) -> str | None:
    """The question that attn shows for an item, None if it shows none."""
    return item["ask"].get("id") if item is not None and isinstance(item.get("ask"), dict) else None


def _digest(of: Item | Decision) -> str:
    """The digest of the interrupt in the question of an item or decision."""
    text = of["question"]["id"] if "question" in of else _shown(of)
    asked = QuestionId.of(str(text))
    return asked.digest if asked is not None else ""


def _is_under_way(item: Item) -> bool:
    decision = item.get("decision")
    return isinstance(decision, dict) and decision.get("state") in _UNDER_WAY


def _has_gone(thread: Thread | None, location: Location, item: Item) -> bool:
    if thread is None:
        return True
    return thread.status != "busy" and thread.interrupt(location.interrupt) is None
