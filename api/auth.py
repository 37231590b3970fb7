"""Who is asking: a JWT, from the header or the session cookie, checked (CONTRACT §4). Anything wrong with it is 401."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import jwt
import structlog
from jwt.exceptions import PyJWTError

from schemas.codec import LATEST, SECOND, is_text
from schemas.settings import Settings
from schemas.sources import ROLES
from streams.core.readers import Reader
from streams.core.visibility import roles_of

__all__ = ["COOKIE", "Authenticator", "Caller", "Keys", "Unauthorized"]

COOKIE = "attn_session"
# Seconds. Keys are asked for again after a while, at once for a key id that is new, but never more often than the
# pause: a flood of made-up key ids must not reach the issuer.
_KEYS_LAST = 600.0
_KEYS_PAUSE = 10.0
_KEYS_TIMEOUT = 5.0  # for each answer of the network; twice that for all of them
_KEYS_LARGEST = 1 << 20  # bytes of the document
_REMEMBERED = 4096  # checked tokens, so that a signature is not computed for every request
_LONGEST = 8192  # characters of a token
_ASYMMETRIC = ("RS256", "ES256")
_ENDLESS = float("inf")
_NEVER = LATEST // SECOND  # where times end; some issuers say milliseconds, or all nines

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
    """The public keys of `ATTN_JWKS_URL`, kept for a while, and for as long as the issuer is away. `fetch` returns the
    document. `generation` grows when they are others than before."""

    def __init__(self, fetch: Callable[[], Awaitable[Mapping[str, Any]]], clock: Callable[[], float]) -> None:
        self._fetch, self._clock = fetch, clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self.generation = 0
        self._asked = self._fetched = float("-inf")
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None

    async def get(self, key_id: str | None, algorithm: str) -> Any:
        """The key with this id, for this algorithm. Unauthorized: there is none."""
        if self._find(key_id, algorithm) is None:
            await self._refresh(key_id, algorithm)
        key = self._find(key_id, algorithm)
        if key is None:
            raise Unauthorized("the token's key is not known")
        return key.key

    def renew(self) -> None:
        """Sees to it that keys that were taken back don't hold for ever. Nobody waits for it."""
        now = self._clock()
        if self._keys and now - self._fetched > _KEYS_LAST and now - self._asked >= _KEYS_PAUSE and not self._renewal:
            self._renewal = asyncio.create_task(self._refresh(None, ""))
            self._renewal.add_done_callback(self._renewed)

    def _renewed(self, _: asyncio.Task[None]) -> None:
        self._renewal = None

    def _find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """A token without a key id is of the only key there is."""
        key = next(iter(self._keys.values())) if key_id is None and len(self._keys) == 1 else self._keys.get(key_id)
        return key if key is not None and key.algorithm_name == algorithm else None

    async def _refresh(self, key_id: str | None, algorithm: str) -> None:
        async with self._lock:
            now = self._clock()
            fresh = now - self._fetched <= _KEYS_LAST and self._find(key_id, algorithm) is not None
            if fresh or now - self._asked < _KEYS_PAUSE:
                return
            self._asked = now
            try:
                async with asyncio.timeout(2 * _KEYS_TIMEOUT):
                    found = await self._fetch()
                self._take(jwt.PyJWKSet.from_dict(dict(found)))
                self._fetched = now
            except (OSError, ValueError, TypeError, AttributeError, HTTPException, RecursionError, PyJWTError) as error:
                # Those we have still hold; without any, every such token is refused until this works.
                _log.warning("keys could not be fetched", error=repr(error))

    def _take(self, found: jwt.PyJWKSet) -> None:
        keys = {key.key_id: key for key in found.keys if key.public_key_use in (None, "sig")}
        before, now = ({name: key._jwk_data for name, key in some.items()} for some in (self._keys, keys))
        self.generation += before != now
        self._keys = keys


class Authenticator:
    """`clock`: seconds since the epoch."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._visibility = settings.role_visibility
        self._clock = clock
        url = settings.jwks_url
        self._keys = Keys(fetch or (lambda: asyncio.to_thread(_download, url)), clock) if url else None
        self._known: OrderedDict[str, Caller] = OrderedDict()
        self._generation = 0  # of the keys that the tokens known were checked with

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
        self._forget_if_keys_changed()
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = await self._check(token)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if known.expires <= self._clock():
            self._known.pop(token, None)
            raise Unauthorized("the token has expired")
        return known

    def _forget_if_keys_changed(self) -> None:
        if self._keys is not None:
            self._keys.renew()
            if self._keys.generation != self._generation:
                self._generation = self._keys.generation
                self._known.clear()

    async def _check(self, token: str) -> Caller:
        if not token or len(token) > _LONGEST:
            raise Unauthorized("not a token")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = await self._key(header)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # how long the operator's secret is, is the operator's choice
                # Times are checked against our own clock below.
                claims = jwt.decode(
                    token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, options={
                        "verify_aud": self._audience is not None, "verify_exp": False, "verify_nbf": False,
                        "verify_iat": False})
        except (PyJWTError, ValueError, TypeError, RecursionError) as error:
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
            if not is_text(value):
                raise Unauthorized(f"the token's {what} is not text")
        if role not in ROLES:
            raise Unauthorized(f"the token's role is not one of {', '.join(ROLES)}")
        for what, number in (("exp", expires), ("nbf", begins)):
            # Not `isfinite`: an int may be too large for a float.
            if isinstance(number, bool) or not isinstance(number, int | float) or not -_ENDLESS < number < _ENDLESS:
                raise Unauthorized(f"the token has no {what}")
        if begins > self._clock() + 60:  # clocks differ a little
            raise Unauthorized("the token is not valid yet")
        reader = Reader(ws, user, roles_of(role, self._visibility))  # type: ignore[arg-type]
        expires = min(max(expires, 0), _NEVER)  # type: ignore[type-var]
        return Caller(role, name if isinstance(name, str) and is_text(name) else None, float(expires), reader)  # type: ignore[arg-type]


class _Steady(urllib.request.HTTPRedirectHandler):
    """Goes where it is sent, but never from https to something that others can change on its way."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://") and not (req.type == "http" and newurl.startswith("http://")):
            raise urllib.error.URLError(f"sent on from {req.type} to {newurl.partition(':')[0]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str) -> Any:
    # The operator names it, and the setting takes http(s) alone.
    with urllib.request.build_opener(_Steady).open(url, timeout=_KEYS_TIMEOUT) as answer:
        document = answer.read(_KEYS_LARGEST + 1)
    if len(document) > _KEYS_LARGEST:
        raise ValueError(f"more than {_KEYS_LARGEST} bytes of keys")
    return json.loads(document)
