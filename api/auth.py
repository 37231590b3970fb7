"""Who is asking: a JWT, from the header or the session cookie, checked (CONTRACT §4). Anything wrong with it is 401."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.request
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog
from jwt.exceptions import PyJWTError

from schemas.settings import Settings
from schemas.sources import ROLES
from streams.core.readers import Reader
from streams.core.visibility import roles_of

__all__ = ["COOKIE", "Authenticator", "Caller", "Keys", "Unauthorized"]

COOKIE = "attn_session"
# Seconds. Keys are asked for again after a while, at once for a key id that is new, but never more often than this.
_KEYS_LAST = 600.0
_KEYS_PAUSE = 10.0
_KEYS_TIMEOUT = 5.0
_REMEMBERED = 4096  # checked tokens, so that a signature is not computed for every request
_LONGEST = 8192  # characters of a token
_ASYMMETRIC = ("RS256", "ES256")

_log = structlog.get_logger("attn.edge")


class Unauthorized(Exception):
    """The caller is not known; `str(error)` says why without repeating the token."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`expires` is seconds since the epoch."""

    role: str
    name: str | None
    expires: float
    reader: Reader

    @property
    def ws(self) -> str:
        return self.reader.ws

    @property
    def user(self) -> str:
        return self.reader.user


class Keys:
    """The public keys of `ATTN_JWKS_URL`, kept for a while. `fetch` returns the document."""

    def __init__(self, fetch: Callable[[], Awaitable[Mapping[str, Any]]], clock: Callable[[], float]) -> None:
        self._fetch, self._clock = fetch, clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._asked = self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, key_id: str | None, algorithm: str) -> Any:
        """The key with this id, for this algorithm. Unauthorized: there is none."""
        if self._clock() - self._fetched > _KEYS_LAST or key_id not in self._keys:
            await self._refresh(key_id)
        key = self._keys.get(key_id)
        if key is None or key.algorithm_name != algorithm:
            raise Unauthorized("the token's key is not known")
        return key.key

    async def _refresh(self, key_id: str | None) -> None:
        async with self._lock:
            now = self._clock()
            fresh = now - self._fetched <= _KEYS_LAST and key_id in self._keys
            if fresh or now - self._asked < _KEYS_PAUSE:
                return
            self._asked = now
            try:
                document = await self._fetch()
                self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(dict(document)).keys}
                self._fetched = now
            except (OSError, ValueError, TypeError, AttributeError, PyJWTError) as error:
                # Those we have still hold; without any, every such token is refused until this works.
                _log.warning("keys could not be fetched", error=repr(error))


class Authenticator:
    """`clock`: seconds since the epoch."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
        self._visibility = settings.role_visibility
        self._clock = clock
        url = settings.jwks_url
        self._keys = Keys(fetch or (lambda: asyncio.to_thread(_download, url)), clock) if url else None
        self._known: OrderedDict[str, Caller] = OrderedDict()

    async def caller(self, authorization: str | None, cookie: str | None) -> Caller:
        """The caller of a request with this Authorization header and session cookie. Raises Unauthorized."""
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("Authorization must be a Bearer token")
            token = token.strip()
        elif cookie:
            token = cookie
        else:
            raise Unauthorized("a token is needed: Authorization: Bearer, or the session cookie")
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = await self._check(token)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if known.expires <= self._clock():
            self._known.pop(token, None)
            raise Unauthorized("the token has expired")
        return known

    async def _check(self, token: str) -> Caller:
        if not token or len(token) > _LONGEST:
            raise Unauthorized("not a token")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = await self._key(header)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # how long the operator's secret is, is the operator's choice
                # Times are checked against our own clock below.
                claims = jwt.decode(token, key, algorithms=[algorithm], options={
                    "verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False})
        except (PyJWTError, ValueError, TypeError) as error:
            raise Unauthorized("the token is not valid") from error
        return self._read(claims)

    async def _key(self, header: Mapping[str, Any]) -> tuple[str, Any]:
        """The algorithm decides whose key it is: a public key is never taken for a secret."""
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._secret is not None:
            return algorithm, self._secret
        if algorithm in _ASYMMETRIC and self._keys is not None:
            key_id = header.get("kid")
            return algorithm, await self._keys.get(key_id if isinstance(key_id, str) else None, algorithm)
        raise Unauthorized("the token's algorithm is not accepted")

    def _read(self, claims: Mapping[str, Any]) -> Caller:
        user, ws, role = (claims.get(name) for name in ("sub", "workspace_id", "role"))
        expires, name, begins = claims.get("exp"), claims.get("name"), claims.get("nbf", 0)
        for what, value in (("sub", user), ("workspace_id", ws), ("role", role)):
            if not isinstance(value, str) or not value.strip():
                raise Unauthorized(f"the token has no {what}")
        if role not in ROLES:
            raise Unauthorized(f"the token's role is not one of {', '.join(ROLES)}")
        for what, number in (("exp", expires), ("nbf", begins)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise Unauthorized(f"the token has no {what}")
        if begins > self._clock() + 60:  # clocks differ a little
            raise Unauthorized("the token is not valid yet")
        reader = Reader(ws, user, roles_of(role, self._visibility))  # type: ignore[arg-type]
        return Caller(role, name if isinstance(name, str) else None, float(expires), reader)  # type: ignore[arg-type]


def _download(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=_KEYS_TIMEOUT) as answer:  # noqa: S310 - the operator names it
        return json.load(answer)
