"""Session cookies, CSRF and `/me` (CONTRACT §4, A2)."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from support.edge.edge_with_fold import Deciding, message
from support.edge.edges import token

from api.http.auth.cookies import csrf_of
from streams.core.domain.keys import item_id

M = item_id("ws", "message", "m")
URL = f"/api/v1/inbox/{M}"
READ = {"state": "read"}


def attn(**more: object) -> Deciding:
    deciding = Deciding(**more)
    deciding.happen(message("m"))
    return deciding


def signed(**more: object) -> str:
    return token("ann", "OWNER", ws="ws", seconds=10 * 365 * 86400, **more)


async def test_a_token_becomes_cookies_that_are_deleted_at_sign_out() -> None:
    async with attn().client(headers={}) as client:
        answer = await client.post("/auth/session", json={"token": signed(name="Ann")})
        assert answer.status_code == 200
        identity = answer.json()
        assert {name: identity[name] for name in ("user_id", "name", "workspace_id", "role")} == {
            "user_id": "ann", "name": "Ann", "workspace_id": "ws", "role": "OWNER"}
        assert (await client.get("/org/me")).json() == identity
        assert (await client.get("/org/me/inbox")).status_code == 200
        ended = await client.delete("/auth/session", headers={"x-csrf-token": client.cookies["attn_csrf"]})
        assert ended.status_code == 204
        assert (await client.get("/org/me")).status_code == 401


async def test_cookies_are_http_only_and_secure_except_on_loopback() -> None:
    for url, secure in (("http://127.0.0.1:8080", False), ("http://localhost", False), ("http://attn.example", True)):
        async with attn().client(headers={}) as client:
            answer = await client.post(f"{url}/auth/session", json={"token": signed()})
            cookies = {name: cookie for line in answer.headers.get_list("set-cookie")
                       for name, cookie in SimpleCookie(line).items()}
            session, csrf = cookies["attn_session"], cookies["attn_csrf"]
            assert (bool(session["httponly"]), bool(csrf["httponly"])) == (True, False)
            assert {cookie["samesite"] for cookie in (session, csrf)} == {"lax"}
            assert {bool(cookie["secure"]) for cookie in (session, csrf)} == {secure}
            assert int(session["max-age"]) > 0


async def test_a2_a_write_with_the_cookie_needs_the_header() -> None:
    async with attn().client(headers={}) as client:
        await client.post("/auth/session", json={"token": signed()})
        csrf = client.cookies["attn_csrf"]
        for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": "guess"}, {"x-csrf-token": csrf + "x"}):
            answer = await client.patch(URL, json=READ, headers=headers)
            assert answer.status_code == 403, headers
            assert "X-CSRF-Token" in answer.json()["error"]
            assert (await client.delete("/auth/session", headers=headers)).status_code == 403
        assert (await client.patch(URL, json=READ, headers={"x-csrf-token": csrf})).status_code == 200
        del client.cookies["attn_csrf"]
        assert (await client.patch(URL, json=READ, headers={"x-csrf-token": ""})).status_code == 403
        assert (await client.patch(URL, json=READ, headers={"authorization": f"Bearer {signed()}"})).status_code == 200


async def test_an_invalid_token_creates_no_session() -> None:
    async with attn().client(headers={}) as client:
        for body, status in (({"token": "x"}, 401), ({"token": ""}, 400), ({}, 400), ({"token": signed(), "x": 1}, 400),
                             ({"token": f" {signed()}\n"}, 401), ({"token": "é" * 4000}, 413),
                             ({"token": token(seconds=-10**9)}, 401)):
            answer = await client.post("/auth/session", json=body)
            assert answer.status_code == status, body
            assert answer.json()["error"]
            assert "set-cookie" not in answer.headers
        half = await client.post(
            "/auth/session", content=b'{"token":"\\ud800"}', headers={"content-type": "application/json"})
        assert half.status_code == 400
        assert (await client.get("/org/me")).status_code == 401
        assert (await client.patch(URL, json=READ)).status_code in (401, 403)


def of_size(size: int) -> str:
    """Returns a token of this many bytes."""
    for name in range(size):
        encoded = signed(name="n" * (size * 3 // 4 - 400) + "n" * name)
        if len(encoded) >= size:
            return encoded
    raise AssertionError


async def test_a_token_that_no_cookie_can_hold_is_refused_with_its_size() -> None:
    async with attn().client(headers={}) as client:
        large = of_size(7000)
        for encoded in (large, "x" * 9000):
            refused = await client.post("/auth/session", json={"token": encoded})
            assert refused.status_code == 413
            assert (refused.json()["size"], refused.json()["limit"]) == (len(encoded), 3968)
            assert f"the token has {len(encoded)} bytes, and a browser keeps at most 3968" in refused.json()["error"]
            assert "set-cookie" not in refused.headers
        assert (await client.get("/org/me", headers={"authorization": f"Bearer {large}"})).status_code == 200
        longer = await client.get("/org/me", headers={"authorization": "Bearer " + "x" * 9000})
        assert longer.json()["error"] == "the token has 9000 characters: at most 8192 are accepted"


async def test_the_largest_token_makes_cookies_that_browsers_keep() -> None:
    async with attn(session_over_http=True).client(headers={}) as client:
        answer = await client.post("/auth/session", json={"token": of_size(3960)}, headers={"origin": "https://attn.test"})
        assert answer.status_code == 200
        assert max(map(len, answer.headers.get_list("set-cookie"))) <= 4096, "attributes included (RFC 6265 6.1)"


@pytest.mark.parametrize(("origin", "host", "allowed", "status", "secure"), [
    ("http://attn.lan:8080", "attn.lan:8080", False, 400, None),
    ("http://192.168.1.5", "192.168.1.5", False, 400, None),
    ("http://attn.lan:8080", "attn.lan:8080", True, 200, False), ("https://attn.lan", "attn.lan", False, 200, True),
    ("https://attn.lan", "attn.lan", True, 200, True),
    ("http://attn.lan", "127.0.0.1:8080", False, 400, None),  # the proxy does not forward the Host header
    ("https://attn.lan", "127.0.0.1:8080", False, 200, True),
    ("http://localhost:8080", "localhost:8080", False, 200, False),
    ("http://[::1]:8080", "[::1]:8080", False, 200, False), ("http://a.localhost", "a.localhost", False, 200, False),
    ("https://localhost", "localhost", False, 200, True), ("null", "attn.lan", False, 200, True),
    (None, "attn.lan", False, 200, True), (None, "127.0.0.1", False, 200, False),
    ("http://[", "attn.lan", False, 200, True),
    ("ftp://attn.lan", "attn.lan", False, 200, True), ("http://[", "[", False, 200, True),
    ("http://127.0.0.1.attn.lan", "127.0.0.1", False, 400, None),
])
async def test_a_page_of_plain_http_signs_in_where_the_browser_would_keep_the_cookie(
    origin: str | None, host: str, allowed: bool, status: int, secure: bool | None,
) -> None:
    """The Origin header has the page's scheme. The request's own scheme may differ, because TLS may end at a proxy."""
    async with attn(session_over_http=allowed).client(headers={}) as client:
        headers = {"host": host} | ({"origin": origin} if origin else {})
        answer = await client.post("/auth/session", json={"token": signed()}, headers=headers)
        assert answer.status_code == status
        for line in answer.headers.get_list("set-cookie"):
            assert ("Secure" in line) == secure
        if status == 400:
            error = answer.json()["error"]
            assert "plain http" in error
            assert "https" in error
            assert "ATTN_SESSION_OVER_HTTP" in error
            assert "set-cookie" not in answer.headers


async def test_a_neighbours_cookies_of_our_names_change_nothing() -> None:
    """A host under the same parent domain can set cookies of any name for its siblings."""
    me = signed()
    forged = signed()[:-6] + "AAAAAA"
    good, evil = f"attn_session={me}; attn_csrf={csrf_of(me)}", f"attn_session={forged}; attn_csrf={csrf_of(forged)}"
    async with attn().client(headers={}) as client:
        for cookies in (
            f"{evil}; {good}", f"{good}; {evil}", f"attn_session=; {good}; attn_session=x", f'attn_csrf="x"; {good}',
            "; ".join(f"attn_session=a.b.{number}" for number in range(15)) + f"; {good}",
        ):
            headers = {"cookie": cookies}
            answer_of_me = await client.get("/org/me", headers=headers)
            assert answer_of_me.json()["user_id"] == "ann", cookies
            assert answer_of_me.headers["x-csrf-token"] == csrf_of(me)
            done = await client.patch(URL, json=READ, headers={**headers, "x-csrf-token": csrf_of(me)})
            assert done.status_code == 200
            for wrong in ("", csrf_of(forged), "x", "y"):
                answer = await client.patch(URL, json=READ, headers={**headers, "x-csrf-token": wrong})
                assert answer.status_code == 403, (cookies, wrong)
            ended = await client.delete("/auth/session", headers={**headers, "x-csrf-token": csrf_of(me)})
            assert ended.status_code == 204


async def test_a_write_passes_if_cookie_and_csrf_header_have_the_same_value() -> None:
    """attn need not have made the value: sessions of an earlier version have a random one."""
    async with attn().client(headers={}) as client:
        headers = {"cookie": f"attn_session={signed()}; attn_csrf=random", "x-csrf-token": "random"}
        assert (await client.patch(URL, json=READ, headers=headers)).status_code == 200
        assert "x-csrf-token" not in (await client.get("/org/me", headers=headers)).headers


async def test_session_cookies_of_two_different_users_are_401() -> None:
    """With a sibling domain's session cookie, a page would show the items of the wrong user."""
    other = token("eve", "OWNER", ws="ws", seconds=10 * 365 * 86400)
    again = signed(name="Ann")
    async with attn().client(headers={}) as client:
        for cookies in (f"attn_session={other}; attn_session={signed()}",
                        f"attn_session={signed()}; attn_session={other}"):
            refused = await client.get("/org/me", headers={"cookie": cookies})
            assert refused.status_code == 401
            assert "different callers" in refused.json()["error"]
        both = await client.get("/org/me", headers={"cookie": f"attn_session={again}; attn_session={signed()}"})
        assert both.json()["user_id"] == "ann"


async def test_signing_out_deletes_the_cookies_of_parent_domains_too() -> None:
    async with attn().client(headers={}) as client:
        for host, domains in (
            ("a.team.attn.example", {"", "a.team.attn.example", "team.attn.example", "attn.example"}),
            ("a.b.c.d.e.f", {"", "a.b.c.d.e.f", "b.c.d.e.f", "c.d.e.f", "d.e.f"}), ("attn.lan:8080", {"", "attn.lan"}),
            ("127.0.0.1:8080", {""}), ("[::1]:8080", {""}), ("localhost", {""}), ("", {""}), ("a b.c", {""}),
        ):
            answer = await client.delete("/auth/session", headers={"host": host})
            assert answer.status_code == 204
            lines = answer.headers.get_list("set-cookie")
            assert {SimpleCookie(line)[name]["domain"] for line in lines for name in SimpleCookie(line)} == domains
            assert len(lines) == 2 * len(domains)
            assert all("Max-Age=0" in line and "Path=/" in line for line in lines)


async def test_two_authorization_headers_are_rejected() -> None:
    async with attn().client(headers={}) as client:
        headers = [("authorization", f"Bearer {signed()}"), ("authorization", f"Bearer {signed()}")]
        answer = await client.get("/org/me", headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (401, "2 Authorization headers: one is expected")
