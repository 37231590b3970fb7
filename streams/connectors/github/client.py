"""HTTP client of GitHub's REST API, for one base URL.

Requests go to `https://api.github.com`, or to the configured GitHub Enterprise Server, and nowhere else: paths are made
of the parts of a subject, URLs of payloads and answers are not used, and redirects are not followed.

GitHub limits requests. While a limit is exceeded, the client sends nothing: GitHub may ban who goes on (Best practices
for using the REST API).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson
from yarl import URL

from streams.connectors.peer import PeerUnavailable, text_of

__all__ = ["API_URL", "Authorizer", "GithubClient", "GithubError", "RateLimited", "Response", "checked_base_url"]

API_URL = "https://api.github.com"

_VERSION = "2022-11-28"
_SECONDS = 15.0  # of one request
_MAX_BODY = 32 << 20
_MAX_MESSAGE = 500  # characters
_PAGE, _MAX_PAGES = 100, 10  # GitHub returns at most 1000 results of a search
_MAX_CACHED = 500  # answers; each is kept until it is replaced or the oldest
_SECONDARY_SECONDS = 60.0  # GitHub: "wait for at least one minute"
_LONGEST_SECONDS = 3700.0  # the primary limit is per hour


class GithubError(Exception):
    """GitHub refuses a request: 4xx, or a redirect. A repeat gets the same answer. `status`: of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"GitHub answers {status}: {message}")
        self.status, self.message = status, message


class RateLimited(PeerUnavailable):
    """A rate limit is exceeded. `seconds`: until requests may be sent again."""

    def __init__(self, seconds: float, message: str) -> None:
        super().__init__(f"rate limit of GitHub exceeded, {seconds:.0f} s left: {message}")
        self.seconds = seconds


class Response(NamedTuple):
    """An answer. `body`: its JSON, or None. `now`: seconds, by GitHub's clock."""

    status: int
    body: Any
    headers: Mapping[str, str]
    now: float

    @property
    def message(self) -> str:
        """The reason that GitHub gives: `message`, and the entries of `errors`."""
        body = self.body if isinstance(self.body, dict) else {}
        errors = body.get("errors")
        parts = [body.get("message"), *(errors if isinstance(errors, list) else [errors])]
        texts = [str(part.get("message") or part.get("code") or "") if isinstance(part, dict) else str(part or "")
                 for part in parts]
        return " ".join("; ".join(filter(None, texts)).split())[:_MAX_MESSAGE] or "no reason given"


class Authorizer(Protocol):
    """Makes the header `Authorization` of requests about a repository."""

    async def header(self, github: GithubClient, repository: str) -> str: ...

    def forget(self, repository: str) -> bool:
        """Drops a token that GitHub refused. Returns whether the next one may differ."""


def checked_base_url(text: str) -> str:
    """Returns a base URL without a slash at its end. Raises ValueError with the reason if it cannot be one.

    `http` is accepted for this machine only: the token is sent to the URL.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"{text!r} is not a URL such as {API_URL} or https://github.example.com/api/v3")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the URL of GitHub's API must have no user, query or fragment")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"{text!r} must be https: the token is sent to it")
    return text.rstrip("/")


class GithubClient:
    """Calls GitHub. Each method raises PeerUnavailable (RateLimited, if it is that) if the same request may succeed
    later, and GithubError if not."""

    def __init__(self, base_url: str, authorizer: Authorizer) -> None:
        self._base_url = checked_base_url(base_url)
        self._authorizer = authorizer
        self._session = aiohttp.ClientSession(
            trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=_SECONDS),
            headers={"accept": "application/vnd.github+json", "x-github-api-version": _VERSION, "user-agent": "attn"})
        self._cache: OrderedDict[str, tuple[str, Any]] = OrderedDict()  # path -> ETag, body
        self._closed_until = 0.0  # time.monotonic()

    async def close(self) -> None:
        await self._session.close()

    async def get(self, repository: str, path: str, query: Mapping[str, str] = {}) -> Any:
        """Returns the JSON of an answer. An answer that has not changed (304) does not count for the rate limit."""
        target = path + (f"?{urlencode(query)}" if query else "")
        known = self._cache.get(target)
        headers = {"if-none-match": known[0]} if known is not None else {}
        answer = await self._authorized("GET", repository, target, headers)
        if answer.status == 304 and known is not None:
            self._keep(target, *known)
            return known[1]
        if etag := answer.headers.get("etag"):
            self._keep(target, etag, answer.body)
        return answer.body

    def _keep(self, target: str, etag: str, body: Any) -> None:
        self._cache[target] = etag, body
        self._cache.move_to_end(target)
        if len(self._cache) > _MAX_CACHED:
            self._cache.popitem(last=False)

    async def get_all(self, repository: str, path: str, member: str, query: Mapping[str, str] = {}) -> list[Any]:
        """Returns the entries of all pages, at most 1000. `member`: the list in an answer; "": the answer is a list."""
        found: list[Any] = []
        for page in range(1, _MAX_PAGES + 1):
            body = await self.get(repository, path, {**query, "per_page": str(_PAGE), "page": str(page)})
            entries = body.get(member) if member and isinstance(body, dict) else body
            if not isinstance(entries, list):
                raise PeerUnavailable(f"the answer to {path} is not that of GitHub's API")
            found += entries
            if len(entries) < _PAGE:
                break
        return found

    async def post(self, repository: str, path: str, body: Any = None) -> Any:
        """Sends a write and returns the JSON of its answer. If no answer arrives, the write may have taken effect."""
        return (await self._authorized("POST", repository, path, {}, body)).body

    async def _authorized(
        self, method: str, repository: str, target: str, headers: Mapping[str, str], body: Any = None,
    ) -> Response:
        authorization = await self._authorizer.header(self, repository)
        answer = await self.send(method, target, {**headers, "authorization": authorization}, body)
        if answer.status == 401 and self._authorizer.forget(repository):
            authorization = await self._authorizer.header(self, repository)
            answer = await self.send(method, target, {**headers, "authorization": authorization}, body)
        return _checked(answer)

    async def send(self, method: str, target: str, headers: Mapping[str, str], body: Any = None) -> Response:
        """Sends one request with these headers. Raises PeerUnavailable without an answer, and at a rate limit."""
        left = self._closed_until - time.monotonic()
        if left > 0:
            raise RateLimited(left, "waiting")
        data = orjson.dumps(body) if body is not None else None
        more = {"content-type": "application/json"} if data is not None else {}
        try:
            async with self._session.request(
                method, URL(self._base_url + target, encoded=True), data=data, headers={**headers, **more},
                allow_redirects=False,
            ) as response:
                answer = Response(response.status, _json(await _read(response)), response.headers, _now(response))
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = f"no answer within {_SECONDS:g} s" if isinstance(error, asyncio.TimeoutError) else text_of(error)
            raise PeerUnavailable(f"{method} {target.partition('?')[0]}: {reason}") from None
        if (seconds := _limit_seconds(answer)) is not None:
            self._closed_until = time.monotonic() + seconds
            raise RateLimited(seconds, answer.message)
        return answer


def _checked(answer: Response) -> Response:
    """Returns an answer that is a success. Raises PeerUnavailable or GithubError for others."""
    if answer.status < 300 or answer.status == 304:
        return answer
    if answer.status == 401:  # an operator corrects this; nobody who decided can
        raise PeerUnavailable(f"GitHub refuses the credentials: {answer.message}")
    if answer.status >= 500:
        raise PeerUnavailable(f"GitHub answers {answer.status}: {answer.message}")
    if answer.status < 400:
        raise GithubError(answer.status, "the repository was moved or renamed; configure its new name")
    raise GithubError(answer.status, answer.message)


def _limit_seconds(answer: Response) -> float | None:
    """Returns the seconds until a limit ends; None if none is exceeded (Rate limits for the REST API)."""
    if answer.status not in (403, 429):
        return None
    after = answer.headers.get("retry-after", "")
    if after.isascii() and after.isdigit():
        return min(max(float(after), 1.0), _LONGEST_SECONDS)
    if answer.headers.get("x-ratelimit-remaining") == "0":
        reset = answer.headers.get("x-ratelimit-reset", "")
        seconds = float(reset) - answer.now if reset.isascii() and reset.isdigit() else _SECONDARY_SECONDS
        return min(max(seconds, 1.0), _LONGEST_SECONDS)
    limited = answer.status == 429 or "rate limit" in answer.message.lower()
    return _SECONDARY_SECONDS if limited else None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _MAX_BODY:
            raise PeerUnavailable(f"an answer of GitHub has more than {_MAX_BODY >> 20} MiB")
    return bytes(content)


def _json(content: bytes) -> Any:
    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return None  # an error page of a proxy


def _now(response: aiohttp.ClientResponse) -> float:
    """Returns GitHub's time, from the header `Date`; the local time without one."""
    try:
        return parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
