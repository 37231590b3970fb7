"""The live feed of a user's inbox: server-sent events, folded, with reconnects and exact resume on any edge."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import aiohttp

from attn_client import exact
from attn_client.errors import Forbidden, RequestFailed, Unauthorized
from attn_client.fold import EMPTY, Frame, Inbox, apply
from attn_client.http import Connection, pause, retry_after

__all__ = ["Feed", "FrameParser"]

HEARTBEAT = 15.0  # seconds, if the response does not name its interval
SILENT_BEATS = 3  # heartbeats without a byte: the connection is dead
_BLANK = re.compile(rb"\r?\n\r?\n")


class FrameParser:
    """Parses the bytes of an event stream, in chunks of any size."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._last = b""  # the end of the previous chunk: the end of a frame may lie in both

    def feed(self, chunk: bytes) -> list[Frame]:
        """Returns the frames that end in this chunk. Linear in the size of a frame."""
        seam = self._last + chunk
        self._parts.append(chunk)
        self._last = seam[-3:]
        if not _BLANK.search(seam):
            return []
        *blocks, rest = _BLANK.split(b"".join(self._parts))
        self._parts, self._last = [rest], rest[-3:]
        return [frame for block in blocks if (frame := _parse(block)) is not None]


def _parse(block: bytes) -> Frame | None:
    """Parses the lines of one frame. None if it has neither data nor `retry`."""
    fields: dict[str, str] = {}
    for line in re.split(r"\r?\n", block.decode("utf-8", "replace")):
        name, colon, value = line.partition(":")
        if not name or not colon:
            continue
        value = value[1:] if value.startswith(" ") else value
        fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
    retry = fields.get("retry", "")
    seconds = int(retry) / 1000 if retry.isascii() and retry.isdigit() else None
    if "data" not in fields and seconds is None:
        return None
    data = exact.loads(fields["data"]) if fields.get("data") else None
    return Frame(fields.get("event", "message"), data, fields.get("id"), seconds)


class Feed:
    """The inbox of the user of a token, kept up to date.

    `limit`: the window, the first N items of the ranked list. `inbox`: a kept copy from which the feed resumes; it must
    have been folded with the same limit.

        async with Feed(url, token) as feed:
            async for frame in feed:
                show(feed.inbox.items)

    The feed reconnects with backoff and `Last-Event-ID` whenever the connection breaks or is silent for three
    heartbeats. It yields the frames that changed the inbox or its cursor. Raises Unauthorized if the token expired,
    and RequestFailed if attn refuses the request.
    """

    def __init__(
        self, url: str, token: str, *, limit: int = 500, inbox: Inbox = EMPTY,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self.inbox, self.limit = inbox, limit
        self._connection = Connection(url, token, session)

    async def __aenter__(self) -> Feed:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        failures, requested = 0, None
        while True:
            try:
                async with self._open() as answer:
                    if answer.status == 200:
                        async for frame in self._frames(answer):
                            requested, failures = frame.retry if frame.retry is not None else requested, 0
                            before = self.inbox
                            self.inbox = apply(before, frame)
                            if self.inbox is not before:
                                yield frame
                    else:
                        requested = await self._refused(answer)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
                pass
            failures += 1
            await asyncio.sleep(max(0.5, pause(failures, requested)))

    def _open(self) -> Any:
        headers = {**self._connection.headers, "Accept": "text/event-stream"}
        if self.inbox.cursor is not None:
            headers["Last-Event-ID"] = self.inbox.cursor
        return self._connection.session.get(
            f"{self._connection.url}/org/me/feed", params={"limit": str(self.limit)}, headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=None), allow_redirects=False)

    async def _frames(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Frame]:
        """Yields the frames of a connection until it ends. Raises TimeoutError if it is silent."""
        self._connection.clock.observe(answer.headers.get("Date"))
        try:
            beat = float(answer.headers.get("attn-heartbeat", HEARTBEAT))
        except ValueError:
            beat = HEARTBEAT
        parser = FrameParser()
        while chunk := await asyncio.wait_for(answer.content.readany(), SILENT_BEATS * beat):
            for frame in parser.feed(chunk):
                yield frame

    async def _refused(self, answer: aiohttp.ClientResponse) -> float | None:
        """Returns the seconds that attn asks to wait. Raises if a repeat does not help."""
        text = (await answer.text())[:200]
        if answer.status == 429 or answer.status >= 500:
            return retry_after(answer.headers.get("Retry-After"), self._connection.clock)
        message = f"GET /org/me/feed was refused with status {answer.status}: {text}"
        errors = {401: Unauthorized, 403: Forbidden}
        raise errors.get(answer.status, RequestFailed)(message, answer.status)
