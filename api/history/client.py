"""ClickHouse, as an edge asks it: a few queries at once, each for a few seconds, and none at all while it is away.

What is answered from here is 503 meanwhile; the inbox and the feeds never ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import clickhouse_connect
import structlog
from clickhouse_connect.driver.exceptions import Error

from api import metrics
from api.contract.errors import ApiError
from api.history.fair_slots import FairSlots, NoFreeSlot
from api.readmodel.readers import Reader
from schemas.settings import DATABASE, Settings
from streams.core.domain.visibility import CAN_SEE_SQL

__all__ = ["HistoryClient", "Row"]

Row = tuple[Any, ...]

_CONNECT_SECONDS = 3.0
# Beyond that many waiting, nobody would be answered in time. A page asks up to seven questions at once.
_MOST_WAITING, _MOST_OF_A_USER = 64, 16
# Seconds after which somebody tries again whether it is back; doubles with every failure.
_FIRST_REST, _LONGEST_REST = 1.0, 30.0

_log = structlog.get_logger("attn.edge")


class HistoryClient:
    """`clock`: seconds, only ever forward."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = settings.clickhouse_query_url
        self._name = f"attn-edge-{settings.instance}"
        self._seconds = settings.history_query_seconds
        self._slots = FairSlots(settings.history_query_concurrency, _MOST_WAITING, _MOST_OF_A_USER)
        self._clock = clock
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._failures = 0
        self._again = 0.0

    async def ask(self, sql: str, reader: Reader, **parameters: Any) -> Sequence[Row]:
        """The rows. `$SEES` in the query is the predicate of who may see what; parameters `ws`, `user` and `roles` are
        the reader's. Raises Problem 503 if ClickHouse is away, busy, or has no such tables yet; Problem 429 if this
        user has too many questions running and waiting."""
        if not self._url:
            raise ApiError(
                503, "this edge knows no ClickHouse to ask (ATTN_CLICKHOUSE_READ_URL)", {"retry-after": "60"})
        given = parameters | {"ws": reader.ws, "user": reader.user, "roles": sorted(reader.roles)}
        try:
            async with self._slots.taken(reader.ws, reader.user):
                return await self._query(sql.replace("$SEES", CAN_SEE_SQL), given)
        except NoFreeSlot as busy:
            metrics.ARCHIVE_REFUSED.labels("user" if busy.own else "all").inc()
            if busy.own:
                raise ApiError(429, f"too many history queries at once: at most {_MOST_OF_A_USER} of one user",
                              {"retry-after": "2"}, limit=_MOST_OF_A_USER) from None
            raise ApiError(503, "too many concurrent history queries", {"retry-after": "2"}) from None

    async def ask_all(
        self, reader: Reader, *questions: tuple[str, dict[str, Any]]
    ) -> list[Sequence[Row]]:
        """The answers to several at once. Raises Problem 503 or 429 if one of them has none."""
        found = await asyncio.gather(
            *(self.ask(sql, reader, **given) for sql, given in questions), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return found  # type: ignore[return-value]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _query(self, sql: str, parameters: dict[str, Any]) -> Sequence[Row]:
        if (rest := self._again - self._clock()) > 0:  # it went away while this one waited
            raise _away(rest)
        try:
            async with asyncio.timeout(self._seconds):
                with metrics.ARCHIVE_SECONDS.time():
                    found = await (await self._connected()).query(sql, parameters)
        except Exception as error:  # the transport has many of its own, and none is the caller's fault
            raise self._failed(error) from error
        self._failures = 0
        return found.result_rows  # type: ignore[no-any-return]

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                url = urlsplit(self._url)
                self._client = await clickhouse_connect.get_async_client(
                    interface=url.scheme, dsn=urlunsplit(url._replace(path="")),
                    database=unquote(url.path.strip("/")) or DATABASE, connect_timeout=_CONNECT_SECONDS,
                    send_receive_timeout=self._seconds, query_retries=0, autogenerate_session_id=False,
                    form_encode_query_params=True, client_name=self._name,
                    # A case is read from the projection that has its order (docs/analytics.md).
                    settings={"max_execution_time": self._seconds, "optimize_read_in_order": 0},
                )
            return self._client

    def _failed(self, error: Exception) -> ApiError:
        metrics.ARCHIVE_FAILURES.inc()
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        if isinstance(error, Error) and error.code is not None:  # it is there, but could not answer this
            _log.warning("ClickHouse did not answer a question", error=reason)
            return ApiError(503, "the history can't answer this now", {"retry-after": "5"})
        if (rest := self._again - self._clock()) > 0:  # others who asked at the same time have found out already
            return _away(rest)
        rest = min(_FIRST_REST * 2**self._failures, _LONGEST_REST)
        self._failures = min(self._failures + 1, 10)
        self._again = self._clock() + rest
        _log.warning("ClickHouse can't be reached", error=reason, again_in=rest)
        return _away(rest)


def _away(rest: float) -> ApiError:
    return ApiError(503, "the history is away", {"retry-after": str(int(rest) + 1)})
