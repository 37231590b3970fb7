"""HTTP requests that survive restarts of edges: retries with backoff, jitter and `Retry-After`; typed errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from attn_client import exact
from attn_client.clock import ServerClock
from attn_client.errors import EventRejected, Forbidden, RequestFailed, Unauthorized, Unavailable

__all__ = ["Connection", "Response", "pause", "retry_after"]

_FIRST, _LONGEST = 0.2, 20.0  # seconds between attempts; doubles after each failure
_MOST = 300.0  # seconds: a longer Retry-After is cut to this
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_ERRORS: Mapping[int, type[RequestFailed]] = {
    400: EventRejected, 413: EventRejected, 415: EventRejected, 422: EventRejected, 401: Unauthorized, 403: Forbidden,
}


def retry_after(value: str | None, clock: ServerClock) -> float | None:
    """Returns the seconds of a `Retry-After`, given as seconds or as an HTTP date. None if missing or invalid."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - clock.estimate()).total_seconds())
    except (TypeError, ValueError):
        return None


def pause(failures: int, requested: float | None = None) -> float:
    """Returns the seconds to wait after the n-th failure in a row: the larger of backoff and `requested`, with
    jitter."""
    own = min(_FIRST * 2.0 ** min(failures - 1, 16), _LONGEST)
    asked = min(requested or 0.0, _MOST)
    return max(own, asked) * (1 + 0.3 * random.random())  # noqa: S311


@dataclass(frozen=True)
class Response:
    """A response with a status below 400. `body`: the parsed JSON, None if the body is empty."""

    status: int
    body: Any
    etag: str | None


class Connection:
    """Requests with one key or token. `session`: an own aiohttp session, which the caller closes."""

    def __init__(self, url: str, key: str, session: aiohttp.ClientSession | None = None) -> None:
        self.url = url.rstrip("/")
        self.clock = ServerClock()
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": "attn-client"}
        self._session, self._own = session, session is None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    @property
    def headers(self) -> dict[str, str]:
        return dict(self._headers)

    async def close(self) -> None:
        if self._own and self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, path: str, *, params: Mapping[str, str] = {}, data: bytes | None = None,
        headers: Mapping[str, str] = {}, seconds: float = 20.0, patience: float | None = None,
    ) -> Response:
        """Sends a request until it is answered. Only idempotent requests may be sent this way.

        `seconds`: timeout of one attempt. `patience`: seconds after which Unavailable is raised; None: never. Raises
        EventRejected, Unauthorized, Forbidden or RequestFailed if attn refuses the request.
        """
        begun, failures = time.monotonic(), 0
        while True:
            requested: float | None = None
            try:
                async with self.session.request(
                    method, self.url + path, params=params, data=data, headers={**self._headers, **headers},
                    timeout=aiohttp.ClientTimeout(total=seconds), allow_redirects=False,
                ) as answer:
                    raw = await answer.read()
                    self.clock.observe(answer.headers.get("Date"))
                    if answer.status not in _TRANSIENT:
                        return self._response(method, path, answer, raw)
                    requested = retry_after(answer.headers.get("Retry-After"), self.clock)
                    failure = f"status {answer.status}: {raw[:200]!r}"
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                failure = f"{type(error).__name__}: {error}"
            failures += 1
            wait = pause(failures, requested)
            if patience is not None and time.monotonic() + wait - begun > patience:
                raise Unavailable(
                    f"{method} {path} failed {failures} times in {patience:g} s, last with {failure}; send it again")
            await asyncio.sleep(wait)

    def _response(self, method: str, path: str, answer: aiohttp.ClientResponse, raw: bytes) -> Response:
        try:
            body = exact.loads(raw) if raw else None
        except ValueError:
            body = None
        if answer.status < 300 or answer.status == 304:
            return Response(answer.status, body, answer.headers.get("ETag"))
        reason = body.get("error") if isinstance(body, dict) else None
        message = f"{method} {path} was refused with status {answer.status}: {reason or raw[:200]!r}"
        raise _ERRORS.get(answer.status, RequestFailed)(message, answer.status, body)
