"""The Cookie and Authorization headers: parsed in linear time for any bytes, and no invalid value is accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection
from support.edge.edges import Fed, token

from api.http.app import create_app
from api.http.auth.cookies import MAX_COOKIE_VALUES, SeparateCookiesMiddleware, cookie_values, csrf_of

GOOD = token("ann", seconds=10**6)
Headers = list[tuple[bytes, bytes]]


def values(*headers: bytes, name: str = "a") -> list[str]:
    """Returns the cookie values that the app behind the middleware reads."""
    seen: list[list[str]] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        assert not any(key == b"cookie" for key, _ in scope["headers"])
        assert HTTPConnection(scope).cookies == {}
        seen.append(cookie_values(HTTPConnection(scope), name))

    scope = {"type": "http", "headers": [(b"cookie", header) for header in headers]}
    asyncio.run(SeparateCookiesMiddleware(app)(scope, None, None))  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(("headers", "expected"), [
    ([b"a=1"], ["1"]), ([b"a=1; a=2"], ["1", "2"]), ([b"a=2", b"b=3; a=1"], ["2", "1"]), ([b"a=1; a=1"], ["1"]),
    ([b'a="1"; a=""; a="'], ["1", '"']), ([b"a=; a; =a; ; ;;", b""], []), ([b" a = 1 ;b=2"], ["1"]),
    ([b"a=1=2; A=3"], ["1=2"]), ([b"aa=1; ba=2; a =3"], ["3"]), ([b"a=\xff\x00"], ["\xff\x00"]), ([], []),
    ([b";".join(b"a=%d" % number for number in range(99))], [str(number) for number in range(MAX_COOKIE_VALUES)]),
])
def test_every_value_of_a_cookie_name_is_returned(headers: list[bytes], expected: list[str]) -> None:
    assert values(*headers) == expected


class RawClient:
    """Sends requests to an edge over ASGI, because httpx refuses some header bytes."""

    def __init__(self) -> None:
        self.app = create_app(Fed().edge)
        self.loop = asyncio.new_event_loop()

    def __call__(self, headers: Headers, method: str = "GET", path: str = "/org/me", body: bytes = b"") -> int:
        return self.loop.run_until_complete(self._ask(headers, method, path, body))

    async def _ask(self, headers: Headers, method: str, path: str, body: bytes) -> int:
        status: list[int] = []

        async def receive():  # type: ignore[no-untyped-def]
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):  # type: ignore[no-untyped-def]
            if message["type"] == "http.response.start":
                status.append(message["status"])

        await self.app({
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "scheme": "http", "headers": headers, "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80)}, receive, send)
        return status[0]


@pytest.fixture(scope="module")
def ask() -> Iterator[RawClient]:
    client = RawClient()
    yield client
    client.loop.close()


# A request's head has at most 64 KiB (api.http.protocol.header_limits).
SIZE = 60_000
LONG = {
    "escapes in quotes": b'a="' + b'\\"' * (SIZE // 2) + b'"', "octal escapes": b'a="' + b"\\101" * (SIZE // 4) + b'"',
    "many cookies": b"; ".join(b"c%d=%d" % (number, number) for number in range(SIZE // 12)),
    "many of ours": b"; ".join(b"attn_session=%d.a.b" % number for number in range(SIZE // 22)),
    "many tokens": b"; ".join(b"attn_session=%d%s" % (number % 10, GOOD.encode()[1:]) for number in range(200)),
    "semicolons": b";" * SIZE, "equals": b"=" * SIZE, "quotes": b'a="' * (SIZE // 3),
    "spaces": b"a=" + b" " * SIZE + b"b",
    "bytes": b"\xff" * SIZE, "dots": b"attn_session=" + b"." * SIZE,
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize(
    "header", [b"cookie", b"authorization", b"x-csrf-token", b"origin", b"content-type", b"accept", b"if-match"])
def test_a_long_header_takes_no_more_time_than_its_length(ask: RawClient, header: bytes, name: str) -> None:
    """A header of 60 KB blocked the edge for 5.6 s, without a token (CVE-2024-7592). The test measures the CPU time of
    this thread, so other processes do not count."""
    value = b"Bearer " * (header == b"authorization") + LONG[name]
    for method, path in (("GET", "/org/me"), ("POST", "/auth/session")):
        begun = time.thread_time()
        assert ask([(header, value), (b"host", b"127.0.0.1")], method, path, b"{}") < HTTPStatus.INTERNAL_SERVER_ERROR
        assert time.thread_time() - begun < 0.5


def mutated(draw: st.DrawFn) -> str:
    """Returns a valid token with one change that makes it a different text."""
    at = draw(st.integers(0, len(GOOD)))
    cut = draw(st.integers(0, 3))
    put = draw(st.text("AZaz09-_.=+/! \t\"é\x00", max_size=3))
    return GOOD[:at] + put + GOOD[at + cut:]


texts = st.binary(max_size=60) | st.composite(mutated)().map(lambda text: text.encode("latin-1")) | st.sampled_from([
    GOOD.encode(), b"", b"x", b'"', b"..", csrf_of(GOOD).encode()])
pairs = st.tuples(st.sampled_from([b"attn_session", b"attn_csrf", b"", b"other", b'"attn_session"']), texts)
cookies = st.lists(pairs, max_size=6).map(lambda found: b"; ".join(b"=".join(pair) for pair in found)) | texts
schemes = st.sampled_from([b"", b"Bearer ", b"bearer\t", b"Basic ", b"Bearer  "])


@given(st.lists(cookies, max_size=3), st.none() | texts, schemes)
@example([], b"%s, %s" % (GOOD.encode(), GOOD.encode()), b"Bearer ")
@given_settings(max_examples=300, deadline=None)
def test_no_header_is_an_error_of_the_server_and_only_a_valid_token_is_accepted(
    ask: RawClient, sent: list[bytes], bearer: bytes | None, scheme: bytes,
) -> None:
    headers = [(b"cookie", raw) for raw in sent] + ([] if bearer is None else [(b"authorization", scheme + bearer)])
    status = ask(headers)
    assert status in (200, 401)
    if bearer is not None:
        good = scheme.lower() in (b"bearer ", b"bearer  ") and bearer.strip(b" \t") == GOOD.encode()
    else:
        good = any(
            name.strip(b" \t") == b"attn_session" and value.strip(b" \t") in (GOOD.encode(), b'"%s"' % GOOD.encode())
            for raw in sent for name, _, value in (part.partition(b"=") for part in raw.split(b";")))
    assert (status == 200) == good


@given(st.lists(cookies, max_size=3), st.none() | texts, st.none() | texts)
@given_settings(max_examples=200, deadline=None)
def test_a_write_needs_the_value_of_its_session(
    ask: RawClient, sent: list[bytes], csrf: bytes | None, origin: bytes | None,
) -> None:
    """A write is refused if its header equals no cookie `attn_csrf`, with any other cookies."""
    headers = [(b"cookie", b"attn_session=" + GOOD.encode()), (b"content-type", b"application/json")]
    headers += [(b"cookie", cookie) for cookie in sent]
    headers += [] if csrf is None else [(b"x-csrf-token", csrf)]
    headers += [] if origin is None else [(b"origin", origin), (b"host", origin)]
    status = ask(headers, "PATCH", "/api/v1/inbox/none", b'{"state":"read"}')
    assert status in (401, 403, 404)
    kept = [value for cookie in sent for name, _, value in (part.partition(b"=") for part in cookie.split(b";"))
            if name.strip(b" \t") == b"attn_csrf"]
    if status == 404:
        assert csrf
        assert any(csrf in value for value in kept)
        assert len(set(kept)) == 1 or csrf.decode("latin-1") == csrf_of(GOOD)
    assert ask(headers, "DELETE", "/auth/session") in (204, 403)
    assert ask(headers, "POST", "/auth/session", b'{"token":"%s"}' % GOOD.encode()) in (200, 400)
