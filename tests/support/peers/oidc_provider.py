"""A certified OpenID provider (npm `oidc-provider`) on loopback, and a client that signs in there as a browser."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from support.peers.environments import npm_environment

__all__ = ["CLIENT", "PACKAGE", "SECRET", "Provider", "oidc_provider", "sign_in_at_provider"]

PACKAGE = "oidc-provider@9.13.3"
CLIENT = "attn web"
SECRET = "s+cr%t:&/=~x y"  # RFC 6749 2.3.1: form-encoded before it is base64-encoded
_SCRIPT = Path(__file__).with_name("oidc_provider.mjs")


class Provider:
    """A running provider. Accounts: id -> claims."""

    def __init__(self, process: subprocess.Popen[str], issuer: str) -> None:
        self._process, self.issuer = process, issuer

    def _test(self, path: str, body: object = None) -> dict[str, Any]:
        answer = httpx.post(f"{self.issuer}/test/{path}", json=body, timeout=30)
        return dict(answer.raise_for_status().json())

    def set_accounts(self, accounts: Mapping[str, Mapping[str, Any]]) -> None:
        self._test("accounts", accounts)

    def rotate_keys(self) -> None:
        """Replaces all keys; sessions and grants stay."""
        self._test("rotate")

    def set_code_seconds(self, seconds: int) -> None:
        """Sets the lifetime of later authorization codes; it is 600 s at the start."""
        self._test("code-seconds", seconds)

    def token_requests(self) -> int:
        return int(self._test("count")["tokenRequests"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def oidc_provider(
    accounts: Mapping[str, Mapping[str, Any]], base: str, **more: Any,
) -> Iterator[Provider]:
    """Runs a provider that has attn at `base` as its client. `more`: configuration keys, and `client` fields."""
    modules = npm_environment("oidc-provider", [PACKAGE])
    client = {
        "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [f"{base}/auth/callback"],
        "grant_types": ["authorization_code", "refresh_token"], "post_logout_redirect_uris": [f"{base}/"],
        "backchannel_logout_uri": f"{base}/auth/backchannel-logout", "backchannel_logout_session_required": True,
        **more.pop("client", {})}
    process = subprocess.Popen(["node", str(_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"modules": str(modules), "clients": [client], "accounts": accounts, **more}))
        process.stdin.close()
        line = process.stdout.readline()
        assert line, "the provider has not started"
        yield Provider(process, json.loads(line)["issuer"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def sign_in_at_provider(
    browser: httpx.AsyncClient, url: str, user: str, cancel: bool = False,
) -> str:
    """Follows an authorization URL as a browser, fills the provider's forms, and returns the URL of the callback.
    `browser` keeps the provider's cookies."""
    answer = await browser.get(url)
    for _ in range(20):
        if answer.is_redirect:
            url = urljoin(str(answer.url), answer.headers["location"])
            if "/auth/callback" in url or "/auth/backchannel" in url:
                return url
            answer = await browser.get(url)
            continue
        assert answer.status_code == 200, answer.text
        if cancel and (abort := re.search(r'href="([^"]*/abort)"', answer.text)):
            answer = await browser.get(urljoin(str(answer.url), abort[1]))
            continue
        action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
        assert action is not None, answer.text
        hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', answer.text)
        fields = {**dict(hidden), **({"login": user, "password": "x"} if 'name="login"' in answer.text else {})}
        answer = await browser.post(urljoin(str(answer.url), action[1]), data=fields)
    raise AssertionError("too many redirects of the provider")
