"""Edges renew sessions with the provider's refresh tokens. One edge renews a session; a disabled account loses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.edge.signed_in import Site, serve
from support.peers.oidc_provider import Provider, oidc_provider

from api.http.auth.oidc.renewal import CLAIM_SECONDS, Renewal
from ops.process.ports import free_port

pytestmark = pytest.mark.timeout(900)  # the first run installs the provider

RENEW = 900
ANN = {"name": "Ann", "groups": ["attn/pay/admin", "attn/web/member"]}


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def provider(port: int) -> Iterator[Provider]:
    with oidc_provider({"ann": ANN}, f"http://127.0.0.1:{port}", refresh=True, tokenSeconds=86400) as running:
        yield running


@pytest.fixture
async def site(provider: Provider, port: int, tmp_path: Path) -> AsyncIterator[Site]:
    async with serve(provider, port, tmp_path, edges=3) as running:
        yield running


async def sweep(site: Site) -> list[int]:
    """Runs the renewal of all edges concurrently. Returns the number of sessions that each edge claimed."""
    return list(await asyncio.gather(*(
        Renewal(edge, app.state.sign_in).sweep()
        for edge, app in zip(site.deciding.edges, site.apps, strict=True))))


async def workspaces(site: Site, browser: Any) -> list[tuple[str, str]]:
    return [(entry["id"], entry["role"]) for entry in (await site.me(browser)).json()["workspaces"]]


async def test_one_of_three_edges_renews_each_time(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    before = site.provider.token_requests()
    assert await sweep(site) == [0, 0, 0]
    for number in range(1, 4):
        site.deciding.tick(RENEW + 1)
        assert sum(await sweep(site)) == 1
        assert await sweep(site) == [0, 0, 0]
        assert site.provider.token_requests() == before + number
        assert (await site.me(browser)).status_code == 200


async def test_the_refresh_token_is_in_no_row_and_no_record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in = site.apps[0].state.sign_in
    tokens: list[Any] = []
    exchange = sign_in.issuer.exchange

    async def kept(*args: Any) -> Any:
        tokens.append(await exchange(*args))
        return tokens[-1]

    monkeypatch.setattr(sign_in.issuer, "exchange", kept)
    await site.sign_in(site.browser(), "ann")
    written = b"".join([*site.deciding.rows.values(), *site.deciding.log]) + repr(site.deciding.facts).encode()
    for secret in (tokens[0].refresh_token, tokens[0].access_token, tokens[0].id_token):
        assert secret.encode() not in written
        assert secret not in repr(tokens)


async def test_a_disabled_account_loses_its_session_at_the_next_renewal(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    site.provider.set_accounts({})
    site.deciding.tick(RENEW + 1)
    assert sum(await sweep(site)) == 1
    assert (await site.me(browser)).status_code == 401
    assert not [key for key in site.deciding.rows if key.startswith(b"s:")]


async def test_an_account_without_a_workspace_loses_its_session(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    site.provider.set_accounts({"ann": {**ANN, "groups": []}})
    site.deciding.tick(RENEW + 1)
    await sweep(site)
    assert (await site.me(browser)).status_code == 401


@pytest.mark.parametrize("groups", [
    ["attn/pay/viewer", "attn/web/member"],  # a lower role
    ["attn/web/member"],  # without the first workspace
    ["attn/zoo/owner"],  # other workspaces only
    ["attn/aaa/member", "attn/pay/admin", "attn/web/owner"],  # a new first workspace
])
async def test_roles_follow_the_groups_and_the_session_stays_renewable(site: Site, groups: list[str]) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    expected = sorted((f"ws_{group.split('/')[1]}", group.split("/")[2].upper()) for group in groups)
    site.provider.set_accounts({"ann": {**ANN, "groups": groups}})
    for _ in range(3):
        site.deciding.tick(RENEW + 1)
        assert sum(await sweep(site)) == 1
        assert await workspaces(site, browser) == expected


async def test_an_issuer_that_is_down_ends_no_session(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    site.provider.stop()
    for _ in range(3):
        site.deciding.tick(RENEW + CLAIM_SECONDS)
        assert sum(await sweep(site)) == 1
        assert await sweep(site) == [0, 0, 0]  # no edge retries before the claim has expired
        assert (await site.me(browser)).status_code == 200


async def test_an_id_token_that_cannot_be_checked_ends_no_session(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    before = await workspaces(site, browser)
    monkeypatch.setattr("api.http.auth.oidc.tokens.MAX_TOKEN", 10)
    site.deciding.tick(RENEW + 1)
    assert sum(await sweep(site)) == 1
    assert await workspaces(site, browser) == before
    monkeypatch.undo()
    site.provider.set_accounts({})
    site.deciding.tick(RENEW + 1)
    assert sum(await sweep(site)) == 1
    assert (await site.me(browser)).status_code == 401


async def test_another_edge_renews_the_session_of_a_stopped_edge(
    site: Site, monkeypatch: pytest.MonkeyPatch,
) -> None:
    browser = site.browser()
    await site.sign_in(browser, "ann")
    site.deciding.tick(RENEW + 1)

    async def stops(*_: Any) -> None:
        raise asyncio.CancelledError

    stopping = Renewal(site.deciding.edges[1], site.apps[1].state.sign_in)
    monkeypatch.setattr(stopping, "_renew", stops)
    with pytest.raises(asyncio.CancelledError):
        await stopping.sweep()
    assert await sweep(site) == [0, 0, 0]
    site.deciding.tick(CLAIM_SECONDS + 1)
    assert sum(await sweep(site)) == 1
    assert (await site.me(browser)).status_code == 200
