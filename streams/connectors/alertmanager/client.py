"""HTTP client of Alertmanager's API, version 2, for one Alertmanager or the members of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson

from schemas.scalars import parse_timestamp
from streams.connectors.peer import PeerUnavailable, text_of

__all__ = ["AlertmanagerClient", "SilenceRejected", "Truth"]

_TIMEOUT = 10.0  # seconds of one request
_MAX_ANSWER_BYTES = 64 << 20
_MAX_REASON = 500  # characters
_REJECTED = (400, 413, 422)  # of a silence: a repeat gets the same answer


_Answer = TypeVar("_Answer")


class SilenceRejected(Exception):
    """Alertmanager does not accept a silence. The message is its reason."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What one Alertmanager knew at one moment. `at`, `up_since`: microseconds, by its own clock."""

    url: str
    at: int
    up_since: int
    alerts: list[dict[str, Any]]


class AlertmanagerClient:
    """Calls the members of a cluster. Reads one member, the last one that answered, and the next one if that fails.

    Every method raises PeerUnavailable if no member answers. `urls`: with the path prefix of `--web.route-prefix`, if
    there is one. `authorization`: value of the header, or None.
    """

    def __init__(self, urls: Sequence[str], authorization: str | None = None) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._first = 0
        self._session = aiohttp.ClientSession(
            headers={"authorization": authorization} if authorization else None, trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=_TIMEOUT))

    async def close(self) -> None:
        await self._session.close()

    async def truth(self) -> Truth:
        """Returns the alerts of a member: firing, silenced and inhibited, those of all receivers."""
        return await self._of_first(self._truth)

    async def _truth(self, url: str) -> Truth:
        status, _ = await self._request("GET", url, "status")
        alerts, at = await self._request("GET", url, "alerts")
        if not isinstance(alerts, list) or not isinstance(status, dict):
            raise PeerUnavailable(f"{url}: the answer is not that of Alertmanager's API v2")
        try:
            up_since = parse_timestamp(status["uptime"])
        except (KeyError, TypeError, ValueError):
            raise PeerUnavailable(f"{url}: the status has no uptime") from None
        return Truth(url, at, up_since, [alert for alert in alerts if isinstance(alert, dict)])

    async def silences(self) -> list[dict[str, Any]]:
        """Returns the silences of a member, expired ones included, as long as it keeps them (120 h by default)."""
        return await self._of_first(self._silences)

    async def silences_everywhere(self) -> list[dict[str, Any]]:
        """Returns the silences that any member knows, once each. Gossip between members may take seconds, so a silence
        that was made a moment ago may be missing on some of them."""
        answers = await asyncio.gather(*(self._silences(url) for url in self._urls), return_exceptions=True)
        found: dict[str, dict[str, Any]] = {}
        for answer in answers:
            if isinstance(answer, BaseException):
                continue
            for silence in answer:
                known = found.get(silence["id"])
                if known is None or known["updatedAt"] < silence["updatedAt"]:
                    found[silence["id"]] = silence
        if all(isinstance(answer, BaseException) for answer in answers):
            raise PeerUnavailable(text_of(answers[0]))  # type: ignore[arg-type]
        return list(found.values())

    async def _silences(self, url: str) -> list[dict[str, Any]]:
        silences, _ = await self._request("GET", url, "silences")
        if not isinstance(silences, list):
            raise PeerUnavailable(f"{url}: the answer is not that of Alertmanager's API v2")
        return silences

    async def create_silence(self, silence: dict[str, Any]) -> str:
        """Creates a silence and returns its id. Raises SilenceRejected. After any other error it may exist."""
        answer, _ = await self._request("POST", self._urls[self._first], "silences", silence)
        return str(answer["silenceID"])

    async def expire_silence(self, silence: str) -> None:
        await self._request("DELETE", self._urls[self._first], f"silence/{quote(silence, safe='')}")

    async def _of_first(self, call: Callable[[str], Awaitable[_Answer]]) -> _Answer:
        """Returns the answer of the first member that gives one; the next call begins with that member."""
        problems = []
        for step in range(len(self._urls)):
            index = (self._first + step) % len(self._urls)
            try:
                answer = await call(self._urls[index])
            except PeerUnavailable as error:
                problems.append(str(error))
            else:
                self._first = index
                return answer
        raise PeerUnavailable("; ".join(problems))

    async def _request(self, method: str, url: str, path: str, body: Any = None) -> tuple[Any, int]:
        """Returns the JSON of an answer with status 200, and the member's time (its header `Date`) in microseconds."""
        data = orjson.dumps(body) if body is not None else None
        headers = {"content-type": "application/json"} if body is not None else None
        try:
            async with self._session.request(
                method, f"{url}/api/v2/{path}", data=data, headers=headers, allow_redirects=False,
            ) as answer:
                content = await _read(answer)
                status, date = answer.status, answer.headers.get("date", "")
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = f"no answer within {_TIMEOUT:g} s" if isinstance(error, TimeoutError) else text_of(error)
            raise PeerUnavailable(f"{url}: {reason}") from None
        if status == 200:
            try:
                return (orjson.loads(content) if content else None), _time_of(date)
            except orjson.JSONDecodeError:
                raise PeerUnavailable(f"{url}: the answer to {path} is not JSON") from None
        if method == "POST" and status in _REJECTED:
            raise SilenceRejected(_reason(content) or f"status {status}")
        raise PeerUnavailable(f"{url}: {method} {path} is answered with status {status}: {_reason(content)}")


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise PeerUnavailable(f"the answer has more than {_MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(content)


def _reason(content: bytes) -> str:
    """Returns the text of an error: Alertmanager answers with a JSON string or an object with `message`."""
    text = content.decode(errors="replace")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = text
    if isinstance(value, dict):
        value = value.get("message") or text
    return " ".join(str(value).split())[:_MAX_REASON]


def _time_of(date: str) -> int:
    """Returns the time of a header `Date` in microseconds; the local time if there is none, as behind some proxies."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        moment = datetime.now(UTC)
    return int(moment.timestamp()) * 1_000_000
