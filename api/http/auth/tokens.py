"""Authenticates the caller by a JWT from the Authorization header or the session cookie (CONTRACT §4)."""

from __future__ import annotations

import re
import time
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jwt
from jwt.exceptions import InvalidSignatureError, PyJWTError

from api.contract.requests import SESSION_COOKIE
from api.http.auth.jwks import ALGORITHMS, JwksCache, download
from api.readmodel.access.credentials import Credential
from api.readmodel.readers import Reader
from schemas.scalars import LATEST, SECOND, is_valid_unicode
from schemas.settings import Settings
from schemas.sources import ROLES
from schemas.views import SessionRow, SourceKeyRow
from streams.core.domain.visibility import roles_of

__all__ = ["MAX_TOKEN_LENGTH", "Authenticator", "Caller", "Unauthorized", "UnknownWorkspace", "WorkspaceChoice"]

_MAX_CACHED_TOKENS = 4096  # verified tokens in the cache: the signature is not verified for every request
MAX_TOKEN_LENGTH = 8192  # characters of a token
# RFC 7515 section 3.1; some issuers pad the parts. Older versions of PyJWT skip invalid characters.
_TOKEN_PATTERN = re.compile(r"(?:[A-Za-z0-9_-]+={0,2}\.){2}[A-Za-z0-9_-]+={0,2}", re.ASCII)
_INFINITY = float("inf")
_MAX_SECONDS = LATEST // SECOND  # the largest timestamp; some issuers send milliseconds, or all nines


class Unauthorized(Exception):
    """The request has no valid token. `str(error)` is the reason; it never contains the token."""


class UnknownWorkspace(Unauthorized):
    """The request names a workspace that its session may not enter; it is like one that is not there."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Identity of an authenticated request: claims of its token. `expires`: seconds since the epoch.

    `key`: the key of a source, if the request has one instead of a token. Only routes that name `KeyOrCaller` get such
    a caller; its `reader` has no role. `session`: its row, if the request has a session of attn's own. `jti` and
    `issued_at` (`iat`): of a token.
    """

    role: str
    name: str | None
    expires: float
    reader: Reader
    key: SourceKeyRow | None = None
    session: SessionRow | None = None
    jti: str | None = None
    issued_at: float | None = None

    @property
    def credential(self) -> Credential:
        """By what the caller is known; streams end when it is taken away."""
        return Credential(
            self.workspace_id, self.user, self.role, self.session.id if self.session is not None else None,
            self.key.id if self.key is not None else None, self.jti, self.issued_at)

    @property
    def workspace_id(self) -> str:
        return self.reader.workspace_id

    @property
    def user(self) -> str:
        return self.reader.user


class WorkspaceChoice(NamedTuple):
    """Which of its workspaces a session enters: `named` by the request, else `remembered` by the browser."""

    named: str | None = None
    remembered: str | None = None


_NO_CHOICE = WorkspaceChoice()


class Sessions(Protocol):
    """What the authenticator needs of an edge (`api.http.auth.sessions.EdgeSessions`)."""

    def looks_like(self, text: str) -> bool: ...
    def caller(self, text: str, choice: WorkspaceChoice) -> Caller: ...
    def refusal(self, caller: Caller) -> str | None: ...


class Authenticator:
    """Verifies tokens by the secret `ATTN_JWT_SECRET` (HS256) or the keys of `ATTN_JWKS_URL` (RS256, ES256), and caches
    verified tokens.

    `clock` returns seconds since the epoch. `fetch` returns the JWKS document; the default downloads it.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.time,
        fetch: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret is not None else None
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._visibility = settings.role_visibility
        self._clock = clock
        url = settings.jwks_url
        self._keys = JwksCache(fetch or (lambda: download(url)), clock) if url else None
        self._verified_tokens: OrderedDict[str, Caller] = OrderedDict()
        self._generation = 0  # of the keys that verified the cached tokens
        self._sessions: Sessions | None = None

    def attach(self, sessions: Sessions) -> None:
        """Accepts the sessions of an edge, and refuses the tokens that it knows as revoked."""
        self._sessions = sessions

    async def caller(
        self, authorization: str | None, cookies: Sequence[str] = (), choice: WorkspaceChoice = _NO_CHOICE,
    ) -> Caller:
        """Returns the caller by the Authorization header, or without one, by the values of the session cookie.

        Raises Unauthorized if no token is valid, or if the cookies belong to different callers.
        """
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("Authorization must be a Bearer token")
            return await self._caller_of(token.strip(" \t"), choice)
        callers = list((await self.sessions(cookies, choice)).values())
        if len({(one.reader.workspace_id, one.reader.user, one.role) for one in callers}) > 1:
            # Another host of the parent domain set one of them, and either may be the user's own.
            raise Unauthorized(f"the browser sent {SESSION_COOKIE} cookies of different callers: "
                               "delete the cookies of this host and of its parent domains, then sign in again")
        return max(callers, key=lambda one: one.expires)

    async def sessions(
        self, cookies: Sequence[str], choice: WorkspaceChoice = _NO_CHOICE,
    ) -> dict[str, Caller]:
        """Returns the valid values of the session cookie (at least one) with their callers. Raises Unauthorized with
        the reason of the first value if none is valid."""
        callers: dict[str, Caller] = {}
        reason: Unauthorized | None = None
        for token in cookies:
            try:
                callers[token] = await self._caller_of(token, choice)
            except Unauthorized as error:
                reason = reason or error
        if not callers:
            raise reason or Unauthorized("a token is needed: Authorization: Bearer, or the session cookie")
        return callers

    async def _caller_of(self, text: str, choice: WorkspaceChoice) -> Caller:
        """Returns the caller of a session or of a token that is not revoked."""
        if self._sessions is None:
            return await self._caller_of_token(text)
        if self._sessions.looks_like(text):
            return self._sessions.caller(text, choice)
        caller = await self._caller_of_token(text)
        if (reason := self._sessions.refusal(caller)) is not None:
            raise Unauthorized(reason)
        return caller

    async def _caller_of_token(self, token: str) -> Caller:
        self._drop_tokens_of_old_keys()
        caller = self._verified_tokens.get(token)
        if caller is None:
            caller = self._verified_tokens[token] = await self._verify_token(token)
            if len(self._verified_tokens) > _MAX_CACHED_TOKENS:
                self._verified_tokens.popitem(last=False)
        if caller.expires <= self._clock():
            self._verified_tokens.pop(token, None)
            raise Unauthorized("the token has expired")
        return caller

    def _drop_tokens_of_old_keys(self) -> None:
        if self._keys is not None:
            self._keys.refresh_in_background()
            if self._keys.generation != self._generation:
                self._generation = self._keys.generation
                self._verified_tokens.clear()

    async def _verify_token(self, token: str) -> Caller:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthorized(f"the token has {len(token)} characters: at most {MAX_TOKEN_LENGTH} are accepted")
        if _TOKEN_PATTERN.fullmatch(token) is None:
            raise Unauthorized("not a token: three parts of base64url, joined by dots, are expected")
        try:
            claims = await self._verified_claims(token, jwt.get_unverified_header(token))
        except (PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized("the token is not valid") from error
        return self._caller_of_claims(claims)

    async def _verified_claims(self, token: str, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the verified claims. The algorithm of the header selects secret or public keys: a public key is never
        used as a secret. Raises Unauthorized or PyJWTError."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._secret is not None:
            return self._decode(token, self._secret, algorithm)
        if algorithm not in ALGORITHMS or self._keys is None:
            raise Unauthorized("the token's algorithm is not accepted")
        while True:
            generation, candidates = self._keys.generation, self._keys.candidates(kid, algorithm)
            for key in candidates:
                try:
                    return self._decode(token, key.key, algorithm)
                except InvalidSignatureError:
                    continue
            # The issuer may have a new key, with a new `kid`, the same `kid`, or none.
            if not await self._keys.refresh(generation):
                raise Unauthorized("the token is not valid" if candidates else "the token's key is not known")

    def _decode(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyJWT warns about short secrets; the operator chooses the length
            # `_caller_of_claims` checks the times against the clock of this class.
            return jwt.decode(
                token, key, algorithms=[algorithm], audience=self._audience, issuer=self._issuer, options={
                    "verify_aud": self._audience is not None, "verify_exp": False, "verify_nbf": False,
                    "verify_iat": False})

    def _caller_of_claims(self, claims: Mapping[str, Any]) -> Caller:
        user, ws, role = (claims.get(name) for name in ("sub", "workspace_id", "role"))
        expires, name, begins = claims.get("exp"), claims.get("name"), claims.get("nbf", 0)
        for what, value in (("sub", user), ("workspace_id", ws), ("role", role)):
            if not isinstance(value, str) or not value.strip():
                raise Unauthorized(f"the token has no {what}")
            if not is_valid_unicode(value):
                raise Unauthorized(f"the token's {what} is not text")
        if role not in ROLES:
            raise Unauthorized(f"the token's role is not one of {', '.join(ROLES)}")
        for what, number in (("exp", expires), ("nbf", begins)):
            # Not `isfinite`: an int may be too large for a float.
            if isinstance(number, bool) or not isinstance(number, int | float) or not -_INFINITY < number < _INFINITY:
                raise Unauthorized(f"the token has no {what}")
        if begins > self._clock() + 60:  # 60 s of clock skew are allowed
            raise Unauthorized("the token is not valid yet")
        reader = Reader(ws, user, roles_of(role, self._visibility))  # type: ignore[arg-type]
        expires = float(min(max(expires, 0), _MAX_SECONDS))  # type: ignore[type-var,arg-type]
        jti, issued = claims.get("jti"), claims.get("iat")
        if isinstance(issued, bool) or not isinstance(issued, int | float) or not -_INFINITY < issued < _INFINITY:
            issued = None
        text = name if isinstance(name, str) and is_valid_unicode(name) else None
        known = jti if isinstance(jti, str) else None
        return Caller(str(role), text, expires, reader, jti=known, issued_at=issued)
