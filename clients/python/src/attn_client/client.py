"""The asynchronous client: ask, notify, withdraw, decisions, items."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal

import aiohttp

from attn_client import questions
from attn_client.errors import Unavailable
from attn_client.http import Connection
from attn_client.questions import Action, Answer, Kind, Option, Question
from attn_client.waiting import Watch, newest_time, send

__all__ = ["AsyncAttn"]

BEHIND = timedelta(seconds=2)  # the estimate of another process that sent a message may be later by this
PATIENCE = 60.0  # seconds that calls which wait for no person retry

log = logging.getLogger("attn_client")


class AsyncAttn:
    """A source that asks people by attn.

    `url`: address of attn. `key`: `attn_...`, made with `attn key create`. `source`: the CloudEvents source of the
    questions, such as `/agents/mailer`; it must be covered by the key. `run`: name of the run or job; questions without
    a subject are the same question only within one run. `patience`: seconds that calls retry which wait for no person.
    `session`: an own aiohttp session; the caller closes it.

        async with AsyncAttn(url, key, source="/agents/mailer") as attn:
            answer = await attn.ask("Send the mail?", subject="mail-17")
    """

    def __init__(
        self, url: str, key: str, *, source: str, run: str | None = None, patience: float = PATIENCE,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self.source, self.run, self.patience = source, run, patience
        self._connection = Connection(url, key, session)
        self._watch = Watch(self._connection, source, run)

    async def __aenter__(self) -> AsyncAttn:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the poll and the connections. Questions stay in attn."""
        await self._watch.close()
        await self._connection.close()

    async def ask(
        self, title: str | Question, *, body: str | None = None, options: Sequence[Option | str] | None = None,
        form: Mapping[str, Any] | None = None, action: Action | None = None, subject: str | None = None,
        kind: Kind = "waitpoint", priority: Literal["low", "normal", "high", "urgent"] | None = None,
        to_user: str | None = None, to_role: str | None = None, deciders: Mapping[str, Any] | None = None,
        quorum: int | None = None, expires: timedelta | datetime | None = None, on_expiry: str | None = None,
        data: Mapping[str, Any] | None = None, confirm: bool = True, timeout: float | None = None,
    ) -> Answer:
        """Asks a question, waits until a person has answered it and can no longer take the answer back, and returns
        the answer. The arguments are the fields of `Question`.

        The same subject and content asked again, by this or another process, continues the same question. With
        `confirm` the client tells attn that the answer took effect, before it returns. Without, call `applied` or
        `refused`: until then attn shows that it waits for the source.

        Raises asyncio.TimeoutError after `timeout` seconds (the question stays), Expired, Withdrawn, Replaced,
        EventRejected, Unauthorized or Forbidden. While attn is not reachable, the call waits.
        """
        question = title if isinstance(title, Question) else Question(
            title, body, options, form, action, subject, kind, priority, to_user, to_role, deciders, quorum, expires,
            on_expiry, None, True, data or {})
        [answer] = await asyncio.wait_for(self._watch.ask([question]), timeout)
        return await self._handed_over(answer) if confirm else answer

    async def ask_many(
        self, asked: Sequence[Question], *, batch: str | None = None, confirm: bool = True,
        timeout: float | None = None,
    ) -> list[Answer]:
        """Asks several questions at once and returns their answers in the same order, when all are answered.

        With `batch` attn publishes the answers together: no answer goes out before the last one. Raises as `ask` does,
        for the first question that gets no answer; the others stay.
        """
        some = [replace(question, batch=batch) if batch is not None else question for question in asked]
        answers = await asyncio.wait_for(self._watch.ask(some), timeout)
        return [await self._handed_over(answer) for answer in answers] if confirm else answers

    async def submit(self, question: Question) -> Answer | None:
        """Asks a question without waiting. Returns its answer, not confirmed, if a person has answered it already.

        For processes that end while a person thinks: call it again later, with the same question. Raises Expired,
        EventRejected, Unauthorized or Forbidden.
        """
        return await self._watch.submit(question)

    @contextlib.asynccontextmanager
    async def asking(self, title: str | Question, **fields: Any) -> AsyncIterator[Answer]:
        """Asks like `ask`, and reports what became of the answer when the block ends.

        A block that ends normally confirms the answer. An exception refuses it: the item returns to the people with
        the text of the exception as the reason, and the exception propagates. A process that is killed within the
        block gets the same answer when it asks again; `answer.decision` is the key for an idempotent effect.

            async with attn.asking("Deploy?", subject="deploy-17") as answer:
                if answer.approved:
                    await deploy()
        """
        answer = await self.ask(title, **{**fields, "confirm": False})
        try:
            yield answer
        except Exception as error:
            await self.refused(answer, f"{type(error).__name__}: {error}")
            raise
        await self.applied(answer)

    async def applied(self, answer: Answer) -> None:
        """Reports to attn that the answer took effect. A repeat changes nothing."""
        await self._report(answer, None)

    async def refused(self, answer: Answer, reason: str) -> None:
        """Reports to attn that the answer could not take effect. The item returns to the people, with the reason."""
        await self._report(answer, reason)

    async def notify(
        self, title: str, *, body: str | None = None, subject: str | None = None,
        priority: Literal["low", "normal", "high", "urgent"] | None = None, to_user: str | None = None,
        to_role: str | None = None, data: Mapping[str, Any] | None = None,
    ) -> str:
        """Sends a message that asks for nothing. Returns its subject, with which it can be withdrawn.

        The same subject and content again changes nothing. Without a subject each call is a new message.
        """
        named = subject if subject is not None else f"msg_{uuid.uuid4().hex}"
        fields = {"priority": priority, "target_user_id": to_user, "target_role": to_role}
        event = questions.notify_event(
            self.source, title, body, named, await self._now(),
            {**(data or {}), **{name: value for name, value in fields.items() if value is not None}})
        await send(self._connection, [event], "messages", self.patience)
        return named

    async def withdraw(self, subject: str, *, kind: Kind | Literal["message"] = "waitpoint") -> bool:
        """Withdraws an open question. Returns whether there was one. A message is withdrawn whether it is there or not:
        attn does not show it to a key.

        A question that a person decided already is closed as well; whoever waits for it gets the answer.
        """
        if kind == "message":
            at = await self._now(self._connection.clock.estimate() + BEHIND)
            event = questions.unpost_event(self.source, subject, at, uuid.uuid4().hex)
            await send(self._connection, [event], "messages", self.patience)
            return True
        item = await self._watch.item(kind, subject, self.patience)
        if item is None or item["state"] == "resolved":
            return False
        event = questions.close_event(self.source, kind, subject, item, await self._now(newest_time(item)))
        await send(self._connection, [event], questions.KINDS[kind][0], self.patience)
        return True

    async def decisions(self, *, state: str | None = None, subject: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yields the decisions of this source and those below it, newest first: entries of `GET /org/me/decisions`."""
        params = {"source": self.source, **({"state": state} if state else {}),
                  **({"source_id": subject} if subject is not None else {})}
        while True:
            body = (await self._connection.request(
                "GET", "/org/me/decisions", params=params, patience=self.patience)).body
            for entry in body["decisions"]:
                yield entry
            if not (after := body.get("next")):
                return
            params["next"] = after

    async def items(self, *, state: str = "active", subject: str | None = None) -> list[dict[str, Any]]:
        """Returns the items of this source and those below it that ask: at most 500, most recently opened first."""
        params = {"source": self.source, "state": state, "limit": "500",
                  **({"source_id": subject} if subject is not None else {})}
        answer = await self._connection.request("GET", "/api/v1/inbox", params=params, patience=self.patience)
        rows: list[dict[str, Any]] = answer.body["rows"]
        return rows

    async def _now(self, after: datetime | None = None) -> datetime:
        """Returns the server's time. Asks for it once: `Date` of any response shows it."""
        if not self._connection.clock.known:
            await self._connection.request("GET", "/healthz", patience=self.patience)
        return self._connection.clock.now(after)

    async def _handed_over(self, answer: Answer) -> Answer:
        """Confirms an answer. An attn that is not reachable does not hold the answer back: it stays unconfirmed."""
        if answer.confirmed:
            return answer
        try:
            await self.applied(answer)
        except Unavailable as error:
            log.warning("the answer %s is not confirmed: %s", answer.decision, error)
            return answer
        return replace(answer, confirmed=True)

    async def _report(self, answer: Answer, reason: str | None) -> None:
        if answer.confirmed:
            return
        event = questions.report_event(self.source, answer, await self._now(), reason)
        await send(self._connection, [event], questions.KINDS[answer.kind][0], self.patience)
