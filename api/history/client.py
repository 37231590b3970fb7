"""ClickHouse client of the edge: limits concurrent queries, limits the time of each, and stops asking while ClickHouse
is unavailable (circuit breaker).

Routes that need ClickHouse respond 503 while the circuit is open. The inbox and the feeds never query ClickHouse.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import structlog

from api import metrics
from api.contract.errors import ApiError
from api.history.fair_slots import FairSlots, NoFreeSlot
from api.readmodel.readers import Reader
from schemas.scalars import split_database_url
from schemas.settings import DATABASE, Settings
from streams.core.domain.visibility import CAN_SEE_SQL

__all__ = ["HistoryClient", "Row"]

Row = tuple[Any, ...]

_CONNECT_SECONDS = 3.0
_MAX_WAITING = 64  # queries; more would not be answered in time
_MAX_PER_USER = 16  # running and waiting queries; a page of the dashboard sends up to ten
# Seconds for which the circuit stays open. Doubles with each failed retry.
_INITIAL_DELAY, _MAX_DELAY = 1.0, 30.0

_log = structlog.get_logger("attn.edge")


class HistoryClient:
    """Queries ClickHouse for readers. `clock` is a monotonic clock in seconds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = settings.clickhouse_query_url
        self._name = f"attn-edge-{settings.instance}"
        self._seconds = settings.history_query_seconds
        self._slots = FairSlots(settings.history_query_concurrency, _MAX_WAITING, _MAX_PER_USER)
        self._clock = clock
        self._connecting = asyncio.Lock()
        self._client: Any = None
        self._failures = 0
        self._retry_at = 0.0  # the circuit is open until then

    async def query(self, sql: str, reader: Reader, **parameters: Any) -> Sequence[Row]:
        """Returns the rows. `$SEES` in the query is replaced by the access predicate of the reader. Parameters `ws`,
        `user` and `roles` are the reader's.

        Raises ApiError 503 if ClickHouse is unavailable, busy, or fails the query. Raises ApiError 429 if the user has
        16 queries running or waiting.
        """
        if not self._url:
            raise ApiError(
                503, "no ClickHouse is configured for this edge: set ATTN_CLICKHOUSE_READ_URL", {"retry-after": "60"})
        parameters |= {"ws": reader.workspace_id, "user": reader.user, "roles": sorted(reader.roles)}
        try:
            async with self._slots.acquire(reader.workspace_id, reader.user):
                return await self._query(sql.replace("$SEES", CAN_SEE_SQL), parameters)
        except NoFreeSlot as busy:
            metrics.ARCHIVE_REFUSED.labels("user" if busy.own else "all").inc()
            if busy.own:
                raise ApiError(429, f"too many concurrent history queries: at most {_MAX_PER_USER} of one user",
                               {"retry-after": "2"}, limit=_MAX_PER_USER) from None
            raise ApiError(503, "too many concurrent history queries", {"retry-after": "2"}) from None

    async def query_all(self, reader: Reader, *queries: tuple[str, dict[str, Any]]) -> list[Sequence[Row]]:
        """Runs queries (SQL, parameters) concurrently and returns the rows of each. Raises as `query` does, after all
        have ended."""
        results = await asyncio.gather(
            *(self.query(sql, reader, **parameters) for sql, parameters in queries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results  # type: ignore[return-value]  # no exception is left among them

    async def import_driver(self) -> None:
        """Imports clickhouse-connect in a thread, because it takes 0.15 s of CPU. Does nothing if no URL is configured.

        An edge is not ready before the import ends. Raises ImportError if a module is missing.
        """
        if self._url:
            for module in ("clickhouse_connect.driver.asyncclient", "aiohttp"):
                await asyncio.to_thread(importlib.import_module, module)

    async def close(self) -> None:
        """Closes the connections. A later query opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _query(self, sql: str, parameters: dict[str, Any]) -> Sequence[Row]:
        if (remaining := self._retry_at - self._clock()) > 0:  # the circuit opened while this query waited for a slot
            raise _unavailable(remaining)
        try:
            async with asyncio.timeout(self._seconds):
                with metrics.ARCHIVE_SECONDS.time():
                    result = await (await self._connected()).query(sql, parameters)
        except Exception as error:  # the transport raises many types, and the caller causes none of them
            raise self._record_failure(error) from error
        self._failures = 0
        return result.result_rows  # type: ignore[no-any-return]  # clickhouse-connect has no types

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                await self.import_driver()
                import clickhouse_connect

                dsn, database = split_database_url(self._url, DATABASE)
                self._client = await clickhouse_connect.get_async_client(
                    interface=urlsplit(dsn).scheme, dsn=dsn, database=database, connect_timeout=_CONNECT_SECONDS,
                    send_receive_timeout=self._seconds, query_retries=0, autogenerate_session_id=False,
                    form_encode_query_params=True, client_name=self._name,
                    # ClickHouse then reads a case from the projection with its order (docs/analytics.md).
                    settings={"max_execution_time": self._seconds, "optimize_read_in_order": 0},
                )
            return self._client

    def _record_failure(self, error: Exception) -> ApiError:
        """Opens the circuit unless ClickHouse itself reported the error. Returns the error to respond with."""
        from clickhouse_connect.driver.exceptions import Error  # imported by `import_driver`

        metrics.ARCHIVE_FAILURES.inc()
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        if isinstance(error, Error) and error.code is not None:
            _log.warning("ClickHouse query failed", error=reason)
            return ApiError(503, "the history query failed", {"retry-after": "5"})
        if (remaining := self._retry_at - self._clock()) > 0:  # a concurrent query has opened the circuit already
            return _unavailable(remaining)
        delay = min(_INITIAL_DELAY * 2**self._failures, _MAX_DELAY)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = self._clock() + delay
        _log.warning("ClickHouse is unavailable", error=reason, again_in=delay)
        return _unavailable(delay)


def _unavailable(delay: float) -> ApiError:
    return ApiError(503, "the history is unavailable", {"retry-after": str(int(delay) + 1)})
