"""Sign-in against a certified OpenID provider (npm oidc-provider) over HTTP (CONTRACT §9)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from structlog.testing import capture_logs
from support.edge.signed_in import Site, serve
from support.fold.fold_driver import event
from support.peers.oidc_provider import SECRET, Provider, oidc_provider, sign_in_at_provider

from ops.process.ports import free_port

pytestmark = pytest.mark.timeout(900)  # the first run installs the provider

ACCOUNTS: dict[str, dict[str, Any]] = {
    "ann": {"name": "Ann Lee", "email": "ann@example.com", "email_verified": True,
            "groups": ["attn/pay/admin", "attn/web/member", "staff"]},
    "bob": {"name": "Bob", "groups": ["attn/web/viewer"]},
    "eve": {"name": "Eve", "groups": ["staff"]},
}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def provider(port: int) -> Iterator[Provider]:
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}", keys=["ES256", "EdDSA", "PS256", "ES384"]) as running:
        yield running


@pytest.fixture
async def site(provider: Provider, port: int, tmp_path: Path) -> AsyncIterator[Site]:
    provider.set_accounts(ACCOUNTS)
    async with serve(provider, port, tmp_path, oidc_contact="Ask in <#access>.") as running:
        yield running


async def refused(site: Site, browser: Any, url: str, status: int, sentence: str) -> str:
    """Checks that a callback shows a page with the sentence and a retry, and opens no session. Returns the log."""
    with capture_logs() as logs:
        answer = await browser.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert sentence in answer.text
    assert 'href="/auth/login?return_to=' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not any(name.startswith(("attn_session", "attn_csrf")) for name in answer.cookies)
    assert (await site.me(browser)).status_code == 401
    (entry,) = [line for line in logs if line["event"] == "sign-in failed"]
    shown = str(logs) + answer.text
    for secret in (SECRET, *parse_qs(urlsplit(url).query).get("code", [])):
        assert secret not in shown
    return str(entry["cause"])


async def test_sign_in_opens_a_small_session_at_the_link(site: Site) -> None:
    browser = site.browser()
    assert (await browser.get(f"{site.base}/auth/methods")).json() == {"issuer": {"name": "127.0.0.1"}}
    answer = await site.sign_in(browser, "ann", "/#item=itm_1%20x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/#item=itm_1%20x")
    cookies = {cookie.split("=", 1)[0]: cookie for cookie in answer.headers.get_list("set-cookie")}
    assert len(cookies["attn_session"]) < 300
    assert "HttpOnly" in cookies["attn_session"]
    assert "SameSite=lax" in cookies["attn_session"]
    assert not [name for name in browser.cookies if name.startswith("attn_flow")]
    me = (await site.me(browser)).json()
    assert (me["user_id"], me["name"]) == ("ann", "Ann Lee")
    assert me["workspaces"] == [{"id": "ws_pay", "role": "ADMIN"}, {"id": "ws_web", "role": "MEMBER"}]


async def test_two_workspaces_and_a_switch(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    for ws, role in (("ws_web", "MEMBER"), ("ws_pay", "ADMIN")):
        chosen = (await site.me(browser, **{"x-attn-workspace": ws})).json()
        assert (chosen["workspace_id"], chosen["role"]) == (ws, role)
        browser.cookies.set("attn_workspace", ws, "127.0.0.1")  # the page stores the last workspace in this cookie
        assert (await site.me(browser)).json()["workspace_id"] == ws
    assert (await site.me(browser, **{"x-attn-workspace": "ws_other"})).status_code == 404


async def test_a_link_enters_the_workspace_of_its_item(site: Site) -> None:
    site.deciding.happen(event("message.posted", "w", ws="ws_web", title="T"))
    item = next(fact.item for fact in site.deciding.facts if fact.item)
    for target, expected in ((f"/#item={item}", "ws_web"), ("/#item=itm_other", "ws_pay"), ("/", "ws_pay")):
        browser = site.browser()
        await site.sign_in(browser, "ann", target)
        assert (await site.me(browser)).json()["workspace_id"] == expected


async def test_the_flow_is_hidden_from_the_browser_and_asks_for_s256(site: Site) -> None:
    browser = site.browser()
    answer = await browser.get(f"{site.base}/auth/login")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert len(asked["state"]) == len(asked["nonce"]) == len(asked["code_challenge"]) == 43
    (cookie,) = answer.headers.get_list("set-cookie")
    assert "HttpOnly; Max-Age=600; Path=/auth/callback; SameSite=lax" in cookie
    assert asked["state"] not in cookie
    assert asked["nonce"] not in cookie


async def test_a_cookie_that_the_browser_had_ends(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    before = browser.cookies["attn_session"]
    await site.sign_in(browser, "bob")
    assert (await site.me(browser)).json()["user_id"] in ("ann", "bob")
    other = site.browser()
    other.cookies.set("attn_session", before)
    assert (await site.me(other)).status_code == 401


async def test_an_account_without_a_workspace_sees_whom_to_ask(site: Site) -> None:
    browser = site.browser()
    url = await site.callback_url(browser, "eve", "/#item=1")
    cause = await refused(site, browser, url, 403, "Ask in &lt;#access&gt;.")
    assert "'eve'" in cause
    assert not [key for key in site.deciding.rows if key.startswith(b"s:")]


async def test_a_code_can_be_used_once(site: Site) -> None:
    browser = site.browser()
    url = await site.callback_url(browser, "ann")
    stolen = {cookie.name: cookie.value for cookie in browser.cookies.jar if cookie.name.startswith("attn_flow")}
    assert (await browser.get(url)).status_code == 303
    thief = site.browser()
    await refused(site, thief, url, 400, "used already")  # without the flow's cookie
    thief.cookies.update(stolen)
    assert "invalid_grant" in await refused(site, thief, url, 400, "used already")


async def test_a_wrong_state_is_refused(site: Site) -> None:
    browser = site.browser()
    for state in ("x" * 43, None):
        url, requests = await site.callback_url(browser, "ann"), site.provider.token_requests()
        await refused(site, browser, changed(url, state=state), 400, "began in another browser")
        assert site.provider.token_requests() == requests


async def test_the_answer_of_another_browser_is_refused(site: Site) -> None:
    """Otherwise an attacker could lure a user to the attacker's own callback, and sign the user in as the attacker."""
    url = await site.callback_url(site.browser(), "eve")
    await refused(site, site.browser(), url, 400, "began in another browser")


async def test_a_wrong_nonce_is_refused(site: Site) -> None:
    browser = site.browser()
    asked = changed(await site.begin(browser), nonce="n" * 43)
    url = await sign_in_at_provider(browser, asked, "ann")
    assert "nonce" in await refused(site, browser, url, 400, "is not valid")


async def test_a_wrong_code_challenge_is_refused(site: Site) -> None:
    browser = site.browser()
    asked = changed(await site.begin(browser), code_challenge="c" * 43)
    url = await sign_in_at_provider(browser, asked, "ann")
    assert "invalid_grant" in await refused(site, browser, url, 400, "used already, or took too long")


async def test_a_mix_up_of_issuers_is_refused_before_the_code_is_sent(site: Site) -> None:
    for iss in ("https://evil.example.com", None):
        browser = site.browser()
        url = await site.callback_url(browser, "ann")
        requests = site.provider.token_requests()
        assert "iss" in await refused(site, browser, changed(url, iss=iss), 400, "is not valid")
        assert site.provider.token_requests() == requests


async def test_repeated_and_long_parameters_are_refused(site: Site) -> None:
    browser = site.browser()
    url = await site.callback_url(browser, "ann")
    await refused(site, browser, url + "&code=other", 400, "did not work")
    await refused(site, browser, changed(url, code="c" * 5000), 400, "did not work")


async def test_a_person_who_cancels_gets_a_page(site: Site) -> None:
    browser = site.browser()
    url = await sign_in_at_provider(browser, await site.begin(browser, "/#item=7"), "ann", cancel=True)
    assert "access_denied" in await refused(site, browser, url, 400, "you cancelled")


@pytest.mark.parametrize("minutes", [-5, 5])
async def test_clocks_may_be_five_minutes_apart(site: Site, minutes: int) -> None:
    site.deciding.now += 60 * minutes
    assert (await site.sign_in(site.browser(), "ann")).status_code == 303


@pytest.mark.parametrize("minutes", [-10, 20])
async def test_clocks_further_apart_are_named(site: Site, minutes: int) -> None:
    site.deciding.now += 60 * minutes
    browser = site.browser()
    await refused(site, browser, await site.callback_url(browser, "ann"), 400, "clocks of attn")


async def test_rotated_keys_are_fetched(site: Site) -> None:
    assert (await site.sign_in(site.browser(), "ann")).status_code == 303
    site.provider.rotate_keys()
    site.deciding.now += 11
    assert (await site.sign_in(site.browser(), "ann")).status_code == 303


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "ES384", "EdDSA"])
async def test_the_algorithms_of_the_provider(port: int, tmp_path: Path, algorithm: str) -> None:
    client = {"id_token_signed_response_alg": algorithm}
    port = free_port()
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}", keys=[algorithm], client=client) as provider:
        async with serve(provider, port, tmp_path) as site:
            assert (await site.sign_in(site.browser(), "ann")).status_code == 303


async def test_an_expired_code_and_an_issuer_that_is_down(tmp_path: Path) -> None:
    port = free_port()
    with oidc_provider(ACCOUNTS, f"http://127.0.0.1:{port}", claimsInToken=True) as provider:
        async with serve(provider, port, tmp_path) as site:
            browser = site.browser()
            provider.set_code_seconds(1)
            url = await site.callback_url(browser, "ann")
            provider.set_code_seconds(600)
            await asyncio.sleep(2.2)  # the provider counts in whole seconds
            assert "invalid_grant" in await refused(site, browser, url, 400, "took too long")
            url = await site.callback_url(browser, "ann")
            signed_in = site.browser()
            assert (await site.sign_in(signed_in, "bob")).status_code == 303
            provider.stop()
            await refused(site, browser, url, 503, "does not answer")
            assert (await site.me(signed_in)).status_code == 200
        async with serve(provider, port, tmp_path) as site:  # a new edge without the issuer's document
            await refused(site, site.browser(), f"{site.base}/auth/login?return_to=%2F%23item%3D1", 503,
                          "does not answer")


async def test_groups_of_megabytes_leave_the_cookie_small(tmp_path: Path) -> None:
    port, many = free_port(), [f"team-{number:05}" for number in range(3000)]
    accounts = {"ann": {"groups": [*many, "attn/pay/owner"]}}
    with oidc_provider(accounts, f"http://127.0.0.1:{port}", claimsInToken=True) as provider:
        async with serve(provider, port, tmp_path) as site:
            answer = await site.sign_in(site.browser(), "ann")
            assert answer.status_code == 303
            assert max(map(len, answer.headers.get_list("set-cookie"))) < 300


async def test_a_changed_roles_file_counts_without_a_restart(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.http.auth.oidc.sign_in._RELOAD_SECONDS", 0.0)
    roles = tmp_path / "roles.toml"
    roles.write_text('[[rule]]\nworkspace = "ws_all"\nrole = "VIEWER"\n')
    browser = site.browser()
    await site.sign_in(browser, "eve")
    assert (await site.me(browser)).json()["workspaces"] == [{"id": "ws_all", "role": "VIEWER"}]
    roles.write_text("broken")
    assert (await site.sign_in(site.browser(), "eve")).status_code == 303


async def test_signing_out_here_signs_out_at_the_issuer(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    assert (await browser.post(f"{site.base}/auth/logout")).status_code == 403  # without the CSRF value
    session = browser.cookies["attn_session"]
    answer = await browser.post(f"{site.base}/auth/logout", headers={"x-csrf-token": browser.cookies["attn_csrf"]})
    url = answer.json()["logout_url"]
    assert url.startswith(site.provider.issuer)
    browser.cookies.set("attn_session", session)
    assert (await site.me(browser)).status_code == 401
    page = await browser.get(url)
    assert "logout" in page.text
    asked = await browser.get(await site.begin(browser))
    assert asked.is_redirect


async def test_a_logout_at_the_issuer_ends_the_session_here(site: Site) -> None:
    browser, other = site.browser(), site.browser()
    await site.sign_in(browser, "ann")
    await site.sign_in(other, "ann")
    page = await browser.get(f"{site.provider.issuer}/session/end")
    fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.text))
    await browser.post(f"{site.provider.issuer}/session/end/confirm", data={**fields, "logout": "yes"})
    async with asyncio.timeout(60):
        while (await site.me(browser)).status_code != 401:
            await asyncio.sleep(0.05)
    assert (await site.me(other)).status_code == 200  # this browser has another session at the issuer


@pytest.mark.parametrize("body", [
    "", "logout_token=", "logout_token=a.b.c", "logout_token=a&logout_token=b", "x=" + "y" * 300_000, "\xff"])
async def test_an_invalid_logout_token_is_refused(site: Site, body: str) -> None:
    answer = await site.browser().post(
        f"{site.base}/auth/backchannel-logout", content=body.encode("latin-1"),
        headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the logout token is not valid"})


async def test_the_front_channel_ends_the_session_of_its_sid(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    (row,) = {row.id: row for row in site.deciding.edges[0].replica.access.sessions.of_workspace("ws_pay")}.values()
    frame = site.browser()
    path = f"{site.base}/auth/frontchannel-logout?"
    assert (await frame.get(path + urlencode({"iss": "https://x", "sid": row.issuer_sid}))).status_code == 400
    assert (await site.me(browser)).status_code == 200
    answer = await frame.get(path + urlencode({"iss": site.provider.issuer, "sid": row.issuer_sid}))
    assert answer.status_code == 200
    assert f"frame-ancestors {site.provider.issuer}" in answer.headers["content-security-policy"]
    assert (await site.me(browser)).status_code == 401


def changed(url: str, **change: str | None) -> str:
    """Returns the URL with other parameters; None removes one."""
    parts = urlsplit(url)
    fields = {name: values[0] for name, values in parse_qs(parts.query).items()}
    kept = {name: value for name, value in {**fields, **change}.items() if value is not None}
    return parts._replace(query=urlencode(kept)).geturl()
