"""Checks ID tokens (OpenID Connect Core 3.1.3.7) and logout tokens (Back-Channel Logout 2.6) of the issuer.

The clocks of attn and the issuer may differ by LEEWAY_SECONDS. That is safe for an ID token: its nonce belongs to one
sign-in, and its code is used once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import jwt
from jwt.exceptions import InvalidSignatureError, PyJWTError

from api.http.auth.jwks import JwksCache
from api.http.auth.oidc.errors import TokenRefused
from api.http.auth.oidc.keys import ID_TOKEN_ALGORITHMS
from schemas.scalars import is_valid_unicode

__all__ = ["LEEWAY_SECONDS", "TokenVerifier"]

LEEWAY_SECONDS = 360.0
MAX_TOKEN = 128 << 10  # characters; tokens with many groups weigh tens of KB
_MAX_SUBJECT = 255  # characters, OpenID Connect Core 2
_AUTHENTICATION_SLACK = 60.0  # seconds between a sign-in at the issuer and its token
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_CLOCKS = "The clocks of attn and of the service that you sign in with differ by more than six minutes."


class TokenVerifier:
    """Verifies tokens of one issuer for one client."""

    def __init__(self, issuer: str, client_id: str, keys: JwksCache) -> None:
        self._issuer, self._client_id, self._keys = issuer, client_id, keys

    async def id_token(
        self, token: str, now: float, *, nonce: str | None, access_token: str | None = None,
        max_age: int | None = None,
    ) -> dict[str, Any]:
        """Returns the claims of an ID token. `nonce` None: a renewed token, which need not repeat the nonce.

        Raises TokenRefused.
        """
        header, claims = await self._verified(token)
        if str(header.get("typ", "")).lower() == "logout+jwt":
            raise TokenRefused("a logout token stands for the ID token")
        self._check_times(claims, now)
        _number(claims, "exp")
        if not isinstance(subject := claims.get("sub"), str) or not 0 < len(subject) <= _MAX_SUBJECT or (
                not is_valid_unicode(subject)):
            raise TokenRefused(f"sub: must be text of 1 to {_MAX_SUBJECT} characters")
        if nonce is not None and not _equal(claims.get("nonce"), nonce):
            raise TokenRefused("nonce: is not the one of this sign-in")
        expected = _half_hash(access_token, header) if access_token is not None else None
        if "at_hash" in claims and expected is not None and not _equal(claims["at_hash"], expected):
            raise TokenRefused("at_hash: is not that of the access token")
        if max_age is not None:
            elapsed = _number(claims, "iat") - _number(claims, "auth_time")
            if elapsed > max_age + _AUTHENTICATION_SLACK:
                raise TokenRefused(f"auth_time: the account signed in {elapsed:g} s ago, at most {max_age} s are asked")
        return claims

    async def logout_token(self, token: str, now: float) -> dict[str, Any]:
        """Returns the claims of a logout token: `sid`, `sub` or both. Raises TokenRefused."""
        header, claims = await self._verified(token)
        if str(header.get("typ", "")).lower() not in ("", "jwt", "logout+jwt"):
            raise TokenRefused("typ: is not that of a logout token")
        self._check_times(claims, now)
        events = claims.get("events")
        if not isinstance(events, Mapping) or not isinstance(events.get(_LOGOUT_EVENT), Mapping):
            raise TokenRefused("events: has no logout")
        if "nonce" in claims:
            raise TokenRefused("nonce: is not allowed in a logout token")
        if not isinstance(claims.get("jti"), str):
            raise TokenRefused("jti: is missing")
        named = [claims[name] for name in ("sid", "sub") if name in claims]
        if not named or not all(isinstance(one, str) and 0 < len(one) <= 1000 for one in named):
            raise TokenRefused("sid and sub: one of them is needed")
        if now - _number(claims, "iat") > 2 * LEEWAY_SECONDS:
            raise TokenRefused("iat: the logout token is too old")
        return claims

    async def _verified(self, token: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Returns header and claims after the checks that all tokens share: signature, `iss`, `aud`, `azp`."""
        if len(token) > MAX_TOKEN:
            raise TokenRefused(f"the token has {len(token)} characters; at most {MAX_TOKEN} are accepted")
        try:
            header = jwt.get_unverified_header(token)
            claims = await self._verify_signature(token, header)
        except (PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise TokenRefused(f"not a signed token: {type(error).__name__}") from None
        if claims.get("iss") != self._issuer:
            raise TokenRefused("iss: is not ATTN_OIDC_ISSUER")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._client_id not in audiences:
            raise TokenRefused("aud: is not ATTN_OIDC_CLIENT_ID")
        if "azp" in claims and claims["azp"] != self._client_id:
            raise TokenRefused("azp: is not ATTN_OIDC_CLIENT_ID")
        if len(audiences) > 1 and "azp" not in claims:
            raise TokenRefused("azp: is missing, and the token has several audiences")
        return header, claims

    async def _verify_signature(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ID_TOKEN_ALGORITHMS:
            raise TokenRefused(f"alg: {str(algorithm)[:20]!r} is not accepted")
        while True:
            generation, candidates = self._keys.generation, self._keys.candidates(kid, algorithm)
            for key in candidates:
                try:
                    return jwt.decode(token, key.key, algorithms=[algorithm], options=_UNCHECKED)
                except InvalidSignatureError:
                    continue
            if not await self._keys.refresh(generation):  # the issuer may have a new key
                raise TokenRefused("the signature is not valid" if candidates else "the token's key is not known")

    def _check_times(self, claims: Mapping[str, Any], now: float) -> None:
        issued = _number(claims, "iat")
        if issued > now + LEEWAY_SECONDS:
            raise TokenRefused(f"iat: {issued - now:.0f} s in the future", _CLOCKS)
        if "nbf" in claims and (begins := _number(claims, "nbf")) > now + LEEWAY_SECONDS:
            raise TokenRefused(f"nbf: {begins - now:.0f} s in the future", _CLOCKS)
        if "exp" in claims and (ends := _number(claims, "exp")) <= now - LEEWAY_SECONDS:
            raise TokenRefused(f"exp: {now - ends:.0f} s ago", _CLOCKS)


# `_verified` and `_check_times` check these with the clock and the leeway of this module.
_UNCHECKED: Any = {
    "verify_aud": False, "verify_iss": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False,
    "verify_sub": False, "verify_jti": False}


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise TokenRefused(f"{name}: is missing or not a time")
    return float(value)


def _equal(sent: object, expected: str) -> bool:
    return isinstance(sent, str) and hmac.compare_digest(sent.encode("utf-8", "replace"), expected.encode())


def _half_hash(text: str, header: Mapping[str, Any]) -> str:
    """Returns `at_hash`: the left half of the hash of the signature's algorithm; SHA-512 for Ed25519."""
    bits = str(header.get("alg"))[2:]
    digest = hashlib.new(f"sha{bits}" if bits in ("256", "384", "512") else "sha512", text.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).decode().rstrip("=")
