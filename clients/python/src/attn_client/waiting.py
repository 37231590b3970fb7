"""Waits for answers. All questions of a client share one long poll of `GET /org/me/decisions`.

The poll tells that something was decided; reads by subject tell the truth about one question; a sweep repairs: it
finds questions that were withdrawn or replaced, and sends an event again that has not become an item.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attn_client import questions
from attn_client.clock import parse_time
from attn_client.errors import EventRejected, Expired, Replaced, Withdrawn
from attn_client.exact import dumps
from attn_client.http import Connection
from attn_client.questions import Answer, Question

__all__ = ["Waiter", "Watch", "newest_time", "send"]

WAIT = 25  # seconds that attn holds a poll
SWEEP = 30.0  # seconds between sweeps
LEAST = 0.1  # seconds between two polls that attn answers at once because much is decided
PLAIN = 1.0  # seconds between polls of an attn that does not hold them
PAGE = 500
MOST_PAGES = 20
MOST_MISSED = 2  # sweeps after which a question that was never shown counts as replaced by the one that is shown
MOST_READS = 50  # questions that one sweep reads one by one
BATCH = 100  # events of one request

log = logging.getLogger("attn_client")


class Waiter:
    """One question and the future of its answer. `ask_id`: the id of the ask that was sent, or found."""

    def __init__(self, question: Question, source: str, run: str | None) -> None:
        self.question, self.source = question, source
        self.handle = questions.handle_of(question, source, run)
        self.subject = questions.subject_of(question, self.handle)
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ask_id: str | None = None
        self.event: dict[str, Any] | None = None
        self.seen = False  # whether a read has shown the question
        self.missed = 0  # sweeps that did not show it
        self.made = False  # a person decided, and may still take it back

    @property
    def derived(self) -> bool:
        return self.question.subject is None

    def is_mine(self, ask_id: str | None) -> bool:
        return ask_id is not None and (ask_id == self.handle or ask_id.startswith(f"{self.handle}."))

    def take(self, entry: Mapping[str, Any]) -> bool:
        """Reads an entry of the list of decisions. Returns whether it belongs to this question."""
        same = (entry["source"], entry["kind"], entry["source_id"], entry["question"]["id"])
        if same != (self.source, self.question.kind, self.subject, self.ask_id):
            return False
        self.seen, state = True, entry["state"]
        self.made = state == "made"
        if self.future.done():
            return True
        if state in ("sending", "applied"):
            self.future.set_result(Answer.of(entry))
        elif state == "expired":
            self.future.set_exception(Expired(f"nobody answered {self.subject!r} before it expired", self.subject))
        return True


async def send(
    connection: Connection, events: Sequence[Mapping[str, Any]], topic: str, patience: float | None,
) -> None:
    """Sends events to one topic until they are durable. Raises EventRejected if attn rejects one of them."""
    for at in range(0, len(events), BATCH):
        some = events[at : at + BATCH]
        single = len(some) == 1
        answer = await connection.request(
            "POST", "/events", params={"topic": topic}, data=dumps(some[0] if single else some).encode(),
            headers={"Content-Type": f"application/cloudevents{'' if single else '-batch'}+json"}, patience=patience)
        for rejected in (answer.body or {}).get("rejected", ()):
            raise EventRejected(
                f"event {some[rejected['index']]['id']} was rejected: {rejected['error']}",
                rejected.get("status", 400), rejected)


class Watch:
    """The questions of one source that wait in this process."""

    def __init__(self, connection: Connection, source: str, run: str | None) -> None:
        self._connection, self._source, self._run_id = connection, source, run
        self._waiters: set[Waiter] = set()
        self._task: asyncio.Task[None] | None = None
        self._known: set[str] = set()  # decisions of the previous poll
        self._changed = asyncio.Event()

    async def ask(self, asked: Sequence[Question]) -> list[Answer]:
        """Asks questions that are not yet asked, and waits for all answers, in order.

        Raises EventRejected, Expired, Withdrawn or Replaced for the first question that gets none, and RequestFailed.
        """
        waiters = [Waiter(question, self._source, self._run_id) for question in asked]
        self._waiters.update(waiters)  # before the reads: the poll reports each decision after them
        try:
            await self._begin(waiters)
            self._start()
            return list(await asyncio.gather(*(waiter.future for waiter in waiters)))
        finally:
            self._waiters.difference_update(waiters)
            for waiter in waiters:
                waiter.future.cancel()
                if waiter.future.done() and not waiter.future.cancelled():
                    waiter.future.exception()  # is reported by gather, or belongs to a question after the failed one

    async def submit(self, question: Question) -> Answer | None:
        """Asks a question if it is not yet asked, and returns its answer if there is one. Does not wait for it."""
        waiter = Waiter(question, self._source, self._run_id)
        await self._begin([waiter])
        return waiter.future.result() if waiter.future.done() else None

    async def close(self) -> None:
        """Ends the poll. Questions that wait raise CancelledError; they stay in attn and can be asked again."""
        for waiter in self._waiters:
            waiter.future.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def item(self, kind: str, subject: str, patience: float | None) -> dict[str, Any] | None:
        """Returns the item of a subject, open or not. None if there is none, or the edge does not show it yet."""
        answer = await self._connection.request(
            "GET", "/api/v1/inbox", params={"source": self._source, "source_id": subject, "state": "all"},
            patience=patience)
        found: list[dict[str, Any]] = [
            row for row in answer.body["rows"] if row["kind"] == kind and row.get("source") == self._source]
        return found[0] if found else None

    # --- asking

    async def _begin(self, waiters: Iterable[Waiter]) -> None:
        """Reads what attn knows of each question, and sends events for those that have to be asked."""
        events: dict[str, list[dict[str, Any]]] = {}
        for waiter in waiters:
            item, entries = await self._look(waiter)
            if self._is_asked(waiter, item, entries):
                continue
            topic = questions.KINDS[waiter.question.kind][0]
            events.setdefault(topic, []).append(self._event(waiter, item, entries))
        for topic, some in events.items():
            await send(self._connection, some, topic, None)

    def _is_asked(self, waiter: Waiter, item: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]]) -> bool:
        """Whether attn has this question, open or with an answer that is to be handed over."""
        asked = _ask_id(item)
        if item is None or not waiter.is_mine(asked):
            return False
        entry = next((one for one in entries if one["question"]["id"] == asked), None)
        state = entry["state"] if entry is not None else None
        if state in ("applied", "expired"):
            is_kept = not waiter.derived  # a subject is answered once; a content is asked anew
        else:
            is_kept = state in ("made", "sending") or item["state"] != "resolved"
        if is_kept:
            waiter.ask_id, waiter.seen = asked, True
            if entry is not None:
                waiter.take(entry)
        return is_kept

    def _event(
        self, waiter: Waiter, item: Mapping[str, Any] | None, entries: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Returns the event that asks. Its time is after everything that the item shows, and its id follows from it."""
        before, newest = None, None
        if item is not None:
            last = next((one["id"] for one in entries), None)
            before = f"{_ask_id(item)} {item.get('resolved_at')} {last}"
            newest = newest_time(item)
        at = self._connection.clock.now(newest)
        waiter.event = questions.ask_event(
            waiter.question, self._source, waiter.subject, waiter.handle, at, before)
        waiter.ask_id = waiter.event["data"]["ask"]["id"]
        return waiter.event

    async def _look(self, waiter: Waiter) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Reads the item of a question, and the decisions of its subject if it has some, newest first."""
        item = await self.item(waiter.question.kind, waiter.subject, None)
        if item is None or not item.get("ask"):
            return item, []
        entries: list[dict[str, Any]] = []
        params = {"source": self._source, "source_id": waiter.subject}
        for _ in range(MOST_PAGES):  # a page may be empty: attn bounds the decisions that it reads for one
            answer = await self._connection.request("GET", "/org/me/decisions", params=params)
            entries += [one for one in answer.body["decisions"]  # the filter also covers sources below this one
                        if (one["source"], one["kind"]) == (self._source, waiter.question.kind)]
            if entries or not (after := answer.body.get("next")):
                break
            params["next"] = after
        return item, entries

    # --- waiting

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Polls while questions wait. An error that a repeat does not solve ends all of them."""
        try:
            await self._poll()
        except Exception as error:
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    async def _poll(self) -> None:
        etag: str | None = None
        swept = time.monotonic()
        while self._open():
            begun = time.monotonic()
            answer = await self._connection.request(
                "GET", "/org/me/decisions", params={"source": self._source, "limit": str(PAGE)},
                headers={"Prefer": f"wait={WAIT}", **({"If-None-Match": etag} if etag is not None else {})},
                seconds=WAIT + 20.0)
            if answer.status == 200:
                is_first, etag = etag is None, answer.etag
                await self._deliver(answer.body, is_first)
            if time.monotonic() - swept >= SWEEP and self._open():
                await self._sweep()
                swept = time.monotonic()
            least = LEAST if answer.status == 200 and etag is not None else PLAIN
            await asyncio.sleep(max(0.0, least * (1 + random.random()) - (time.monotonic() - begun)))  # noqa: S311

    def _open(self) -> list[Waiter]:
        return [waiter for waiter in self._waiters if not waiter.future.done()]

    async def _deliver(self, body: dict[str, Any], is_first: bool) -> None:
        """Gives each waiting question its decision. Reads further pages while they have only unknown decisions."""
        found: set[Waiter] = set()
        known: set[str] = set()
        for _ in range(MOST_PAGES):
            entries = body["decisions"]
            known.update(entry["id"] for entry in entries)
            for entry in entries:
                found.update(waiter for waiter in self._waiters if waiter.take(entry))
            is_new = self._known.isdisjoint(entry["id"] for entry in entries)
            if is_first or not is_new or not (after := body.get("next")):
                break
            answer = await self._connection.request(
                "GET", "/org/me/decisions", params={"source": self._source, "limit": str(PAGE), "next": after})
            body = answer.body
        self._known = known
        for waiter in self._open():
            if waiter.made and waiter not in found:  # too many later decisions: it is on no page that was read
                for entry in (await self._look(waiter))[1]:
                    waiter.take(entry)

    async def _sweep(self) -> None:
        """Reads the items of the source, and each waiting question that is not open among them."""
        answer = await self._connection.request(
            "GET", "/api/v1/inbox", params={"source": self._source, "state": "active", "limit": str(PAGE)})
        open_asks = {(row["kind"], row["source_id"], _ask_id(row)) for row in answer.body["rows"]
                     if row.get("source") == self._source}
        missing = []
        for waiter in self._open():
            if (waiter.question.kind, waiter.subject, waiter.ask_id) in open_asks:
                waiter.seen = True
            elif waiter.ask_id is not None:
                missing.append(waiter)
        for waiter in random.sample(missing, min(len(missing), MOST_READS)):
            await self._check(waiter)

    async def _check(self, waiter: Waiter) -> None:
        """Ends the wait for a question that was withdrawn or replaced; sends the event of a missing one again."""
        item, entries = await self._look(waiter)
        taken = [waiter.take(entry) for entry in entries]
        if waiter.future.done():
            return
        if item is not None and _ask_id(item) == waiter.ask_id:
            waiter.seen = True
            if item["state"] == "resolved" and not waiter.made:
                action = item.get("resolved_action") or "closed"
                waiter.future.set_exception(
                    Withdrawn(f"the source closed {waiter.subject!r} without an answer ({action})", waiter.subject))
        elif item is not None and not any(taken) and (waiter.seen or waiter.missed >= MOST_MISSED):
            waiter.future.set_exception(
                Replaced(f"another question was asked under the subject {waiter.subject!r}", waiter.subject))
        elif waiter.event is not None:
            waiter.missed += 1
            log.info("the question %s is not visible yet; its event is sent again", waiter.subject)
            await send(self._connection, [waiter.event], questions.KINDS[waiter.question.kind][0], None)


def _ask_id(item: Mapping[str, Any] | None) -> str | None:
    ask = item.get("ask") if item is not None else None
    return ask.get("id") if ask else None


def newest_time(item: Mapping[str, Any]) -> datetime:
    """Returns the newest time that an item shows: an event that changes it must be later."""
    return max(parse_time(item[name]) for name in ("created_at", "updated_at", "resolved_at") if item.get(name))
