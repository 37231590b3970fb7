"""Asks people for one key: sends questions, waits for answers, withdraws. Stores nothing that a restart could lose.

attn has the whole state. A call derives the names of its question (`handles`), reads how it stands, and sends the event
that is missing. Each event id follows from the question, so a call that is repeated after a crash changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import structlog

from ops.mcp.questions import events
from ops.mcp.questions.answers import Standing, closed, ended_of, handle_of, standing_of, waiting
from ops.mcp.questions.arguments import AskHuman, NotifyHuman
from ops.mcp.questions.handles import first_handle, next_handle, notice_subject, question_subject, subject_of
from ops.mcp.waiting import Bell
from schemas.scalars import parse_timestamp

__all__ = ["Asker", "AttnUnreachable", "Client", "TooManyCallers"]

log = structlog.get_logger("attn.mcp")

# Seconds.
_SETTLE_SECONDS = 5.0
_REACH_SECONDS = 10.0
_REPORT_SECONDS = 0.25
UNFETCHED = "no caller fetched the answer before the question expired"
CANCELLED = "the caller withdrew the question before it had the answer"

Json = dict[str, Any]
Tick = Callable[[], Awaitable[None]]


class AttnUnreachable(Exception):
    """attn did not answer in time. What was asked before stays asked."""


class TooManyCallers(Exception):
    """Too many different keys are in use at once."""


class Client(Protocol):
    """The part of AttnClient that an asker needs. It repeats a request until attn answers."""

    async def send(self, events: Sequence[Json], topic: str | None = None) -> Any: ...

    async def decisions(
        self, *, state: str | None = None, source: str | None = None, source_id: str | None = None,
    ) -> Sequence[Json]: ...

    async def items(
        self, *, state: str = "all", source: str | None = None, source_id: str | None = None,
    ) -> Sequence[Json]: ...

    def watch_decisions(self, *, state: str, source: str | None = None) -> AsyncIterator[Sequence[Json]]: ...


class Asker:
    """Questions and notices of one CloudEvents source, sent and read with one key."""

    def __init__(self, client: Client, source: str, clock: Callable[[], float] = time.time) -> None:
        self._client, self._source, self._clock = client, source, clock
        self._bell = Bell(client, source)
        self._background: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a call waits here or a report is on its way."""
        return self._bell.waiting > 0 or bool(self._background)

    async def close(self, seconds: float) -> None:
        """Ends the watcher. Reports under way get at most `seconds`; attn repeats what it has not got."""
        self._closing.set()
        await self._bell.close()
        if self._background:
            await asyncio.wait(self._background, timeout=seconds)
        for task in self._background:
            task.cancel()

    async def ask(self, asked: AskHuman, sender: str, named: Callable[[str], None]) -> str:
        """Returns the handle of the question once attn has it durably. It is an earlier one with the same arguments, if
        that one is open or nobody has taken its answer. `named` gets the handle before the question is sent.

        Raises InvalidArguments if the arguments are no ask, and the errors of the client.
        """
        subject = question_subject(self._source, events.identity(asked))
        item = await self._item(subject)
        ended = ended_of(item)
        if item is not None and ended is None and (handle := handle_of(item)):
            named(handle)
            return handle
        handle = next_handle(subject, ended.how) if ended is not None else first_handle(subject)
        after = ended.at if ended is not None else 0
        event = events.questioned(asked, self._source, handle, sender, self._now(), after)
        named(handle)
        await self._client.send([event])
        return handle

    async def standing(self, handle: str) -> Standing:
        """Returns how a question stands."""
        subject = subject_of(handle) or ""
        item = await self._item(subject)  # first: a decision that closes it later is then among the decisions
        return standing_of(handle, item, await self._decisions(source_id=subject))

    async def recorded(self, handle: str) -> Standing:
        """Returns how a question stands. A worker may not have read it yet: waits a few seconds until it has."""
        return await self._settled(handle, lambda standing: standing.status != "unknown")

    async def _settled(self, handle: str, holds: Callable[[Standing], bool]) -> Standing:
        until = time.monotonic() + _SETTLE_SECONDS
        while True:
            standing = await self.standing(handle)
            if holds(standing) or time.monotonic() > until:
                return standing
            await asyncio.sleep(0.2)

    async def wait(self, handle: str, seconds: float, tick: Tick, asked: bool = False) -> Standing:
        """Returns how the question stands when it is final or not known, or after `seconds`. `tick` runs every ten
        seconds, also while attn does not answer. `asked`: attn has the question, though no worker may have read it yet.

        Raises TooManyWaiting if too many calls wait, and AttnUnreachable if attn did not answer at the end of the wait.
        """
        until = time.monotonic() + seconds
        async with self._bell.waiter(subject_of(handle) or "") as rung:
            standing = await self._read(handle, self.standing if asked else self.recorded)
            while (left := until - time.monotonic()) > 0 and (
                    standing is None or standing.status == "waiting" or (asked and standing.status == "unknown")):
                await tick()
                await rung(min(left, 0.5) if standing is not None and standing.status == "unknown" else left)
                standing = await self._read(handle, self.standing)
        if standing is None:
            raise AttnUnreachable
        return waiting(handle) if asked and standing.status == "unknown" else standing

    async def _read(self, handle: str, read: Callable[[str], Awaitable[Standing]]) -> Standing | None:
        """Returns how a question stands; None if attn does not answer for ten seconds."""
        try:
            async with asyncio.timeout(_REACH_SECONDS):
                return await read(handle)
        except TimeoutError:
            return None

    def hand_out(self, standing: Standing) -> None:
        """Reports in the background that the answer was handed to the caller, unless it is known."""
        if standing.decision is not None:
            self.later(self._report_applied(standing.handle, standing.decision))

    async def _report_applied(self, handle: str, decision: str) -> None:
        with contextlib.suppress(TimeoutError):  # the result is written first: attn may learn of it late, never early
            async with asyncio.timeout(_REPORT_SECONDS):
                await self._closing.wait()
        await self._client.send([events.applied(self._source, handle, decision, self._now())], topic=events.QUESTIONS)

    async def withdraw(self, handle: str) -> Standing:
        """Ends a question whose answer nobody has taken. Returns how it stands then.

        An answer that is on its way is refused, so that its people see that it was not used. If a person decides while
        the question is being closed, the answer counts: it is returned.
        """
        standing = await self.recorded(handle)
        if standing.decision is not None:
            await self._refuse(handle, standing.decision, CANCELLED)
        elif not standing.final:
            await self._client.send([events.withdrawn(self._source, handle, self._now())])
        else:
            return standing
        after = await self._settled(handle, _is_over)
        return after if _is_over(after) else closed(handle)

    def withdraw_later(self, handle: str) -> None:
        """Withdraws in the background: its caller has gone."""
        self.later(self.withdraw(handle))

    async def notify(self, notice: NotifyHuman, sender: str) -> str:
        """Returns the handle of the notice once attn has it durably."""
        named = notice.model_dump(mode="json", include={"message", "body", "who", "reference"})
        handle = notice_subject(self._source, named, self._clock())
        await self._client.send([events.noticed(notice, self._source, handle, sender, self._now())])
        return handle

    async def withdraw_notice(self, handle: str) -> None:
        await self._client.send([events.notice_withdrawn(self._source, handle, self._now())])

    async def open_questions(self) -> list[Json]:
        """Returns the questions that wait for a person, and those whose answer nobody has taken."""
        items = await self._client.items(state="active", source=self._source)
        waiting = [(handle_of(item), item) for item in items if item["source"] == self._source]
        found = [{"handle": handle, "status": "waiting", "question": item["title"], "priority": item["priority"],
                  "asked_at": item["created_at"], "expires_at": item["ask"].get("expires_at")}
                 for handle, item in waiting if handle and not _is_answered(item)]
        decided = await self._decisions(state="sending")
        return found + [
            {"handle": decision["question"]["id"], "status": "answered", "question": decision.get("title"),
             "asked_at": decision["opened_at"], "decided_at": decision["at"]}
            for decision in decided if subject_of(decision["question"]["id"]) is not None]

    async def refuse_unfetched(self) -> int:
        """Refuses answers that no caller fetched until their question's expiry, and closes the items.

        Without it such an item stays in the inbox as `unconfirmed`. Returns the number of refused answers.
        """
        refused = 0
        for decision in await self._decisions(state="sending"):
            handle, expires = decision["question"]["id"], decision.get("expires_at")
            if subject_of(handle) is None or expires is None or parse_timestamp(expires) > self._now():
                continue
            if self._bell.is_waited_for(decision["source_id"]):
                continue
            await self._refuse(handle, decision["id"], UNFETCHED)
            refused += 1
        return refused

    async def _refuse(self, handle: str, decision: str, reason: str) -> None:
        now = self._now()
        await self._client.send([events.refused(self._source, handle, decision, reason, now)], topic=events.QUESTIONS)
        await self._client.send([events.withdrawn(self._source, handle, now + 1)])

    async def _item(self, subject: str) -> Json | None:
        rows = await self._client.items(state="all", source=self._source, source_id=subject)
        return next((row for row in rows if row["source"] == self._source and row["source_id"] == subject), None)

    async def _decisions(self, *, state: str | None = None, source_id: str | None = None) -> list[Json]:
        """Returns decisions of this source, the newest first. attn's filter also finds those of sources below it."""
        found = await self._client.decisions(state=state, source=self._source, source_id=source_id)
        return [one for one in found if one["source"] == self._source]

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)

    def later(self, work: Awaitable[Any]) -> None:
        """Runs the work in the background; a failure is logged."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                log.warning("a report did not reach attn", error=f"{type(error).__name__}: {error}")

        task = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _is_over(standing: Standing) -> bool:
    """Whether the question ended, and no answer of it waits to be taken."""
    return standing.final and standing.decision is None


def _is_answered(item: Json) -> bool:
    decision = item.get("decision")
    return decision is not None and decision["state"] in ("made", "sending")
