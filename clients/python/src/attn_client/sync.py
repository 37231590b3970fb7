"""The synchronous client: the same calls, from any thread. One event loop in a thread of its own does the work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, TypeVar

from attn_client.client import PATIENCE, AsyncAttn
from attn_client.questions import Action, Answer, Kind, Option, Question

__all__ = ["Attn"]

_T = TypeVar("_T")


class Attn:
    """A source that asks people by attn; see `AsyncAttn`. Threads may share it.

        with Attn(url, key, source="/agents/mailer") as attn:
            answer = attn.ask("Send the mail?", subject="mail-17")
    """

    def __init__(
        self, url: str, key: str, *, source: str, run: str | None = None, patience: float = PATIENCE,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="attn-client", daemon=True)
        self._thread.start()
        self._attn = AsyncAttn(url, key, source=source, run=run, patience=patience)

    def __enter__(self) -> Attn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the poll, the connections and the thread. Questions stay in attn."""
        if self._loop.is_closed():
            return
        self._call(self._attn.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(
        self, title: str | Question, *, body: str | None = None, options: Sequence[Option | str] | None = None,
        form: Mapping[str, Any] | None = None, action: Action | None = None, subject: str | None = None,
        kind: Kind = "waitpoint", priority: Literal["low", "normal", "high", "urgent"] | None = None,
        to_user: str | None = None, to_role: str | None = None, deciders: Mapping[str, Any] | None = None,
        quorum: int | None = None, expires: timedelta | datetime | None = None, on_expiry: str | None = None,
        data: Mapping[str, Any] | None = None, confirm: bool = True, timeout: float | None = None,
    ) -> Answer:
        """Asks a question and returns the answer; see `AsyncAttn.ask`. Raises TimeoutError after `timeout` seconds."""
        return self._call(self._attn.ask(
            title, body=body, options=options, form=form, action=action, subject=subject, kind=kind, priority=priority,
            to_user=to_user, to_role=to_role, deciders=deciders, quorum=quorum, expires=expires, on_expiry=on_expiry,
            data=data, confirm=confirm, timeout=timeout))

    def ask_many(
        self, asked: Sequence[Question], *, batch: str | None = None, confirm: bool = True,
        timeout: float | None = None,
    ) -> list[Answer]:
        """Asks several questions at once; see `AsyncAttn.ask_many`."""
        return self._call(self._attn.ask_many(asked, batch=batch, confirm=confirm, timeout=timeout))

    def submit(self, question: Question) -> Answer | None:
        """Asks without waiting; see `AsyncAttn.submit`."""
        return self._call(self._attn.submit(question))

    @contextlib.contextmanager
    def asking(self, title: str | Question, **fields: Any) -> Iterator[Answer]:
        """Asks, and reports what became of the answer when the block ends; see `AsyncAttn.asking`."""
        answer = self.ask(title, **{**fields, "confirm": False})
        try:
            yield answer
        except Exception as error:
            self.refused(answer, f"{type(error).__name__}: {error}")
            raise
        self.applied(answer)

    def applied(self, answer: Answer) -> None:
        """Reports to attn that the answer took effect."""
        self._call(self._attn.applied(answer))

    def refused(self, answer: Answer, reason: str) -> None:
        """Reports to attn that the answer could not take effect, and why."""
        self._call(self._attn.refused(answer, reason))

    def notify(
        self, title: str, *, body: str | None = None, subject: str | None = None,
        priority: Literal["low", "normal", "high", "urgent"] | None = None, to_user: str | None = None,
        to_role: str | None = None, data: Mapping[str, Any] | None = None,
    ) -> str:
        """Sends a message that asks for nothing; see `AsyncAttn.notify`. Returns its subject."""
        return self._call(self._attn.notify(
            title, body=body, subject=subject, priority=priority, to_user=to_user, to_role=to_role, data=data))

    def withdraw(self, subject: str, *, kind: Kind | Literal["message"] = "waitpoint") -> bool:
        """Withdraws an open question or a message. Returns whether there was one."""
        return self._call(self._attn.withdraw(subject, kind=kind))

    def decisions(self, *, state: str | None = None, subject: str | None = None) -> list[dict[str, Any]]:
        """Returns the decisions of this source, newest first."""
        async def collect() -> list[dict[str, Any]]:
            return [entry async for entry in self._attn.decisions(state=state, subject=subject)]

        return self._call(collect())

    def items(self, *, state: str = "active", subject: str | None = None) -> list[dict[str, Any]]:
        """Returns the items of this source that ask."""
        return self._call(self._attn.items(state=state, subject=subject))

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl+C: the question stays, the wait ends
            future.cancel()
            raise
