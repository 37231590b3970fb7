"""HTTP client of attn for connectors and `attn mcp`: sends events, reads decisions and items, waits for changes.

It uses the public routes with the key of a source (CONTRACT §8), so a connector runs wherever it reaches an edge. A
request that fails on the way, or with 429 or 5xx, is repeated: the edge counts an event of the same `source` and `id`
once. An edge that restarts therefore delays a request and loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from importlib import metadata
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp

from streams.runtime.backoff import Backoff

__all__ = ["AttnClient", "AttnRefused", "EventRejected", "ExactNumber"]

Event = Mapping[str, Any]
Document = dict[str, Any]

BATCH_EVENTS, BATCH_BYTES = 500, 1 << 20  # of one request; the edge accepts 1000 events and 4 MiB by default
PAGE = 500  # decisions of one request, the largest page
WAIT_SECONDS = 25
_REQUEST_SECONDS = 30.0  # of one attempt, beyond the wait
_FIRST_RETRY, _LAST_RETRY = 0.2, 30.0
_MAX_RETRY_AFTER = 60.0
_MAX_BODY = 64 << 20  # of an answer: 500 decisions of 64 KiB are 32 MiB
_BATCH = "application/cloudevents-batch+json"


class AttnRefused(Exception):
    """The edge refuses a request: 401 or 403 (the key), 404, or a fault of this client. A repeat would not help."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(f"attn answered {status}: {error}")
        self.status = status


class EventRejected(Exception):
    """attn rejected some of the sent events; the others are durable. `rejected`: (event, reason) of each."""

    def __init__(self, rejected: Sequence[tuple[Event, str]]) -> None:
        event, reason = rejected[0]
        others = f" and {len(rejected) - 1} more" if len(rejected) > 1 else ""
        super().__init__(f"attn rejected {event.get('type')} of {event.get('subject')!r}{others}: {reason}")
        self.rejected = list(rejected)


class ExactNumber(float):
    """A number with a fraction or an exponent. `text` has the digits that a person or a source wrote."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> ExactNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number


class _Answer(NamedTuple):
    status: int
    etag: str
    body: Any


class AttnClient:
    """A client of one attn. Use it as an asynchronous context manager.

    `url`: of an edge or its load balancer. `key`: of a source; it is sent as a bearer and appears in no error or log.
    `attempts`: how often a request is tried before the error of the last attempt is raised; None: without a limit.
    """

    def __init__(self, url: str, key: str, attempts: int | None = None) -> None:
        self._url, self._key, self._attempts = url.rstrip("/"), key, attempts
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"AttnClient({self._url!r})"

    async def __aenter__(self) -> AttnClient:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None), headers={
                "authorization": f"Bearer {self._key}", "user-agent": f"attn/{metadata.version('attn')}"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, events: Iterable[Event], topic: str | None = None) -> int:
        """Sends events and returns their number once all are durable. `topic`: of reports of decisions.

        Raises EventRejected if attn rejected some of them; the others are durable then.
        """
        query = {"topic": topic} if topic is not None else {}
        count, rejected = 0, []
        for batch in _batches(events):
            count += len(batch)
            rejected += await self._send_batch(batch, query)
        if rejected:
            raise EventRejected(rejected)
        return count

    async def _send_batch(self, batch: list[tuple[Event, bytes]], query: Mapping[str, str]) -> list[tuple[Event, str]]:
        body = b"[" + b",".join(raw for _, raw in batch) + b"]"
        answer = await self._request("POST", "/events", query, {"content-type": _BATCH}, body)
        rejected = answer.body.get("rejected") if isinstance(answer.body, dict) else None
        if rejected is None:
            if answer.status == 413 and len(batch) > 1:  # this attn has smaller limits
                half = len(batch) // 2
                return await self._send_batch(batch[:half], query) + await self._send_batch(batch[half:], query)
            if answer.status == 413:
                return [(batch[0][0], _error_of(answer.body))]
            raise AttnRefused(answer.status, _error_of(answer.body))
        return [(batch[one["index"]][0], str(one["error"])) for one in rejected]

    async def decisions(
        self, *, state: str | None = None, source: str | None = None, source_id: str | None = None,
    ) -> list[Document]:
        """Returns all decisions that the key reads, the latest first; filtered by `state`, `source` or `source_id`.

        An entry has the fields of `api.contract.responses.decisions.DecisionEntry`.
        """
        query = _query(state=state, source=source, source_id=source_id)
        return await self._all_pages(query, await self._get("/org/me/decisions", query))

    async def watch_decisions(
        self, *, state: str | None = None, source: str | None = None, source_id: str | None = None,
    ) -> AsyncIterator[list[Document]]:
        """Yields all these decisions now, and again each time one of the newest 500 changed. Never ends by itself."""
        query = _query(state=state, source=source, source_id=source_id)
        etag = ""
        while True:
            headers = {"if-none-match": etag, "prefer": f"wait={WAIT_SECONDS}"} if etag else {}
            began = asyncio.get_running_loop().time()
            answer = await self._get("/org/me/decisions", query, headers)
            if answer.status == 304:
                # An edge that stops answers at once.
                if asyncio.get_running_loop().time() - began < 1:
                    await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                continue
            etag = answer.etag
            yield await self._all_pages(query, answer)

    async def items(
        self, *, state: str = "all", source: str | None = None, source_id: str | None = None,
    ) -> list[Document]:
        """Returns the newest 500 items of which the key's source asked the question, in Crewship's dialect."""
        answer = await self._get("/api/v1/inbox", _query(state=state, source=source, source_id=source_id))
        return list(answer.body["rows"])

    async def item(self, item: str) -> Document | None:
        """Returns one item, None if the key reads none with this id."""
        answer = await self._request("GET", f"/api/v1/inbox/{item}", {}, {})
        if answer.status == 404:
            return None
        return dict(_checked(answer).body)

    async def _all_pages(self, query: dict[str, str], answer: _Answer) -> list[Document]:
        found = list(answer.body["decisions"])
        while (token := answer.body.get("next")) is not None:
            answer = await self._get("/org/me/decisions", query | {"next": token})
            found += answer.body["decisions"]
        return found

    async def _get(self, path: str, query: dict[str, str], headers: Mapping[str, str] = {}) -> _Answer:
        return _checked(await self._request("GET", path, query, headers))

    async def _request(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes | None = None,
    ) -> _Answer:
        """Returns an answer that is neither 429 nor 5xx. Repeats the request until then.

        Raises the error of the last attempt: aiohttp.ClientError, OSError, TimeoutError, or AttnRefused.
        """
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        attempt = 0
        while True:
            attempt += 1
            last = self._attempts is not None and attempt >= self._attempts
            pause = 0.0
            try:
                answer, pause = await self._attempt(method, path, query, headers, body)
                if answer.status != 429 and answer.status < 500:
                    return answer
                if last:
                    raise AttnRefused(answer.status, _error_of(answer.body))
            except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
                if last:
                    raise
            await asyncio.sleep(max(pause, backoff.next()))

    async def _attempt(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes | None,
    ) -> tuple[_Answer, float]:
        """Returns an answer and the seconds of its Retry-After."""
        assert self._session is not None, "use it as an asynchronous context manager"
        seconds = _REQUEST_SECONDS + (WAIT_SECONDS if "prefer" in headers else 0)
        async with asyncio.timeout(seconds), self._session.request(
            method, self._url + path, params=query, headers=headers, data=body, allow_redirects=False,
        ) as response:
            text = await response.content.read(0) if response.status == 304 else await _read(response)
            after = response.headers.get("retry-after", "")
            pause = min(float(after), _MAX_RETRY_AFTER) if after.isascii() and after.isdigit() else 0.0
            return _Answer(response.status, response.headers.get("etag", ""), _document(text)), pause


async def _read(response: aiohttp.ClientResponse) -> bytes:
    text = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        text += chunk
        if len(text) > _MAX_BODY:
            raise aiohttp.ClientPayloadError(f"an answer of more than {_MAX_BODY} bytes")
    return bytes(text)


def _document(text: bytes) -> Any:
    """Returns the JSON of a body, None if it is no JSON, as the error page of a proxy is not."""
    try:
        return json.loads(text, parse_float=ExactNumber) if text else None  # integers keep all digits
    except ValueError:
        return None


def _checked(answer: _Answer) -> _Answer:
    """Returns a successful answer with a JSON object, or 304. Raises AttnRefused for others."""
    if answer.status == 304 or (answer.status < 300 and isinstance(answer.body, dict)):
        return answer
    raise AttnRefused(answer.status, _error_of(answer.body))


def _error_of(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error or "without a reason; is the URL that of an edge of attn?")[:1000]


def _query(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None} | {"limit": str(PAGE)}


def _batches(events: Iterable[Event]) -> Iterable[list[tuple[Event, bytes]]]:
    batch: list[tuple[Event, bytes]] = []
    size = 0
    for event in events:
        raw = json.dumps(event, separators=(",", ":")).encode()
        if batch and (len(batch) == BATCH_EVENTS or size + len(raw) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((event, raw))
        size += len(raw)
    if batch:
        yield batch
