"""HTTP client of the issuer (`ATTN_OIDC_ISSUER`): discovery, keys, code exchange, renewal, userinfo.

Each request has a limit of time and of bytes, and follows no redirect. The operator chooses the issuer; the URLs that
its discovery document names must be https, or plain http on loopback if the issuer is there.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

import structlog

from api.http.auth.jwks import JwksCache
from api.http.auth.oidc.errors import IssuerRefused, IssuerUnavailable
from api.http.auth.oidc.keys import read_issuer_keys

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Discovery", "Issuer", "Tokens"]

_SECONDS = 10.0  # for a whole request
_MAX_BYTES = 1 << 20
_REFRESH_SECONDS = 3600.0  # age of the discovery document above which it is fetched again
_RETRY_SECONDS = 3.0  # between two attempts: people who retry must not flood an issuer that is down
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL = ("userinfo_endpoint", "end_session_endpoint")
_OAUTH_SENTENCES = {
    "access_denied": "The service that you sign in with did not allow it, or you cancelled.",
    "invalid_grant": "This sign-in was used already, or took too long.",
}

_log = structlog.get_logger("attn.edge")


@dataclass(frozen=True, slots=True)
class Discovery:
    """The parts of the discovery document that attn uses. `sends_iss`: RFC 9207."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    sends_iss: bool
    secret_in_body: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """Answer of the token endpoint."""

    id_token: str | None = field(repr=False)
    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)


class Issuer:
    """The issuer of this installation. `clock` returns seconds. Discovery and keys are cached, and stay valid while the
    issuer is unreachable."""

    def __init__(self, url: str, client_id: str, secret: str | None, clock: Callable[[], float]) -> None:
        """Raises ValueError if `url` cannot be an issuer."""
        self.url, self.client_id, self._secret, self._clock = url, client_id, secret, clock
        self._loopback = _is_loopback(url)
        if not self._allowed(url):
            raise ValueError(f"ATTN_OIDC_ISSUER: {url[:200]!r} is not an https URL (http only on loopback)")
        self.keys = JwksCache(self._fetch_keys, clock, read_issuer_keys)
        self._discovery: Discovery | None = None
        self._fetched = self._attempted = float("-inf")
        self._error: IssuerUnavailable | None = None
        self._lock = asyncio.Lock()

    async def discover(self) -> Discovery:
        """Returns the discovery document. Raises IssuerUnavailable if there was never one."""
        if self._discovery is not None and 0 <= self._clock() - self._fetched < _REFRESH_SECONDS:
            return self._discovery
        async with self._lock:
            if not 0 <= self._clock() - self._attempted < _RETRY_SECONDS:
                self._attempted = self._clock()
                try:
                    self._discovery, self._error = await self._discover(), None
                    self._fetched = self._clock()
                except IssuerUnavailable as error:
                    self._error = error
                    _log.warning("discovery of the issuer failed", error=str(error),
                                 cached=self._discovery is not None)
        if self._discovery is None:
            raise IssuerUnavailable(str(self._error) if self._error is not None else "not discovered yet")
        return self._discovery

    async def _discover(self) -> Discovery:
        url = self.url.rstrip("/") + "/.well-known/openid-configuration"
        status, document = await self._request("GET", url)
        if status != 200:
            raise IssuerUnavailable(f"{url} answered with status {status}")
        if document.get("issuer") != self.url:
            raise IssuerUnavailable(f"the discovery document names the issuer {str(document.get('issuer'))[:200]!r}, "
                                    f"ATTN_OIDC_ISSUER is {self.url!r}")
        urls = {name: self._endpoint(document, name) for name in (*_ENDPOINTS, *_OPTIONAL)}
        methods = document.get("token_endpoint_auth_methods_supported")
        return Discovery(
            **urls,  # type: ignore[arg-type]
            sends_iss=document.get("authorization_response_iss_parameter_supported") is True,
            secret_in_body=isinstance(methods, list) and "client_secret_basic" not in methods
            and "client_secret_post" in methods)

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str | None:
        url = document.get(name)
        if url is None and name in _OPTIONAL:
            return None
        if not isinstance(url, str) or not self._allowed(url):
            raise IssuerUnavailable(f"{name} of the discovery document is missing or not an https URL")
        return url

    def _allowed(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        secure = parts.scheme == "https" or (parts.scheme == "http" and self._loopback and _is_loopback(url))
        return secure and bool(parts.hostname) and parts.username is None and not parts.fragment

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Exchanges an authorization code. Raises IssuerRefused or IssuerUnavailable."""
        return await self._token_request({
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier})

    async def renew(self, refresh_token: str) -> Tokens:
        """Uses a refresh token. Raises IssuerRefused if the issuer does not accept it any more, else
        IssuerUnavailable."""
        return await self._token_request({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """Returns the claims of the userinfo endpoint, empty if there is none. Raises IssuerUnavailable, also if they
        are another account's."""
        endpoint = (await self.discover()).userinfo_endpoint
        if endpoint is None:
            return {}
        status, claims = await self._request("GET", endpoint, {"authorization": f"Bearer {access_token}"})
        if status != 200:
            raise IssuerUnavailable(f"userinfo answered with status {status}")
        if claims.get("sub") != subject:
            raise IssuerUnavailable("userinfo is about another account than the ID token")
        return claims

    async def _token_request(self, fields: dict[str, str]) -> Tokens:
        discovery = await self.discover()
        headers = {}
        if self._secret is None:
            fields = {**fields, "client_id": self.client_id}
        elif discovery.secret_in_body:
            fields = {**fields, "client_id": self.client_id, "client_secret": self._secret}
        else:  # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self._secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        status, answer = await self._request("POST", discovery.token_endpoint, headers, urlencode(fields))
        if status == 200:
            return Tokens(*(_text(answer, name) for name in ("id_token", "access_token", "refresh_token")))
        code = str(answer.get("error", ""))[:100]
        if 400 <= status < 500 and status != 429 and code:
            raise IssuerRefused(code, f"the token endpoint answered {status} {code}: "
                                      f"{str(answer.get('error_description', ''))[:200]}", _OAUTH_SENTENCES.get(code))
        raise IssuerUnavailable(f"the token endpoint answered with status {status}")

    async def _fetch_keys(self) -> object:
        status, document = await self._request("GET", (await self.discover()).jwks_uri)
        if status != 200:
            raise ValueError(f"the issuer answered with status {status}, not 200")
        return document

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str] = {}, body: str | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Returns status and JSON object of an answer; an empty object if an error's body is no JSON object. Raises
        IssuerUnavailable."""
        import aiohttp  # imported here, as in api.http.auth.jwks

        sent = {"user-agent": f"attn/{metadata.version('attn')}", "accept": "application/json",
                "accept-encoding": "identity", **headers}
        if body is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
        where = f"{method} {url.partition('?')[0][:200]}"
        try:
            async with (
                asyncio.timeout(_SECONDS),
                aiohttp.ClientSession(auto_decompress=False, trust_env=True, cookie_jar=aiohttp.DummyCookieJar())
                as session,
                session.request(method, url, headers=sent, data=body, allow_redirects=False) as response,
            ):
                return response.status, _object(await _bounded(response), response.status)
        except TimeoutError:
            raise IssuerUnavailable(f"{where}: no answer within {_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise IssuerUnavailable(f"{where}: {type(error).__name__}: {_plain(error)}") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ValueError(f"the answer has the encoding {encoding[:40]}, which was not asked for")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
    return bytes(content)


def _object(content: bytes, status: int) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    if status == 200:
        raise ValueError("the answer is not a JSON object")
    return {}


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return value if isinstance(value, str) and value else None


def _plain(error: Exception) -> str:
    """Returns the text of an error on one line, without the query of a URL."""
    return " ".join(str(error).split())[:200] if isinstance(error, OSError | ValueError) else ""


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
