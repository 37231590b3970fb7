"""ID tokens and logout tokens: algorithms, claims, times, keys (Core 3.1.3.7, Back-Channel Logout 2.6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from api.http.auth.jwks import JwksCache
from api.http.auth.oidc.errors import TokenRefused
from api.http.auth.oidc.keys import ID_TOKEN_ALGORITHMS, read_issuer_keys
from api.http.auth.oidc.tokens import LEEWAY_SECONDS, MAX_TOKEN, TokenVerifier

NOW = 1_800_000_000.0
ISSUER, CLIENT = "https://login.example.com", "attn"
LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}

_RSA = rsa.generate_private_key(65537, 2048)
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(algorithm: str) -> Any:
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else _RSA


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    of = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else (
        OKPAlgorithm if isinstance(key, ed25519.Ed25519PrivateKey) else ECAlgorithm)
    return {**of.to_jwk(key.public_key(), as_dict=True), "kid": "k1", **more}  # type: ignore[attr-defined]


class Keys:
    """The issuer's current key set."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.entries, self.now, self.fetches = list(entries), 0.0, 0

    async def fetch(self) -> object:
        self.fetches += 1
        return {"keys": self.entries}

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(ISSUER, CLIENT, JwksCache(self.fetch, lambda: self.now, read_issuer_keys))


def claims(**more: Any) -> dict[str, Any]:
    all_claims = {"iss": ISSUER, "aud": CLIENT, "sub": "u1", "exp": NOW + 300, "iat": NOW, "nonce": "n", **more}
    return {name: value for name, value in all_claims.items() if value is not ...}


def signed(key: Any = _RSA, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, headers={"kid": "k1", **(headers or {})})


async def check(token: str, keys: Keys | None = None, **more: Any) -> dict[str, Any]:
    return await (keys or Keys(jwk(_RSA))).verifier().id_token(token, NOW, **{"nonce": "n", **more})


@pytest.mark.parametrize("algorithm", sorted(ID_TOKEN_ALGORITHMS))
@pytest.mark.parametrize("named", [True, False])
async def test_each_algorithm_verifies(algorithm: str, named: bool) -> None:
    key = private_key(algorithm)
    keys = Keys(jwk(key, **({"alg": algorithm} if named else {})))
    access = "access token"
    bits = algorithm[2:] if algorithm != "EdDSA" else "512"
    digest = hashlib.new(f"sha{bits}", access.encode()).digest()
    at_hash = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
    token = signed(key, algorithm, at_hash=at_hash)
    assert (await check(token, keys, access_token=access))["sub"] == "u1"
    with pytest.raises(TokenRefused, match="at_hash"):
        await check(token, keys, access_token="another")
    with pytest.raises(TokenRefused, match="signature"):
        await check(token[:-8] + ("AAAAAAAA" if token[-8:] != "AAAAAAAA" else "BBBBBBBB"), keys)


async def test_a_key_with_an_algorithm_verifies_no_other() -> None:
    with pytest.raises(TokenRefused, match="key is not known"):
        await check(signed(algorithm="PS256"), Keys(jwk(_RSA, alg="RS256")))


async def test_symmetric_and_missing_signatures_are_refused() -> None:
    public = _RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps({"alg": "HS256", "kid": "k1"}), json.dumps(claims())]
    text = b".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(public, text, "sha256")).rstrip(b"=")
    forged = f"{text.decode()}.{mac.decode()}"
    for token in (forged, jwt.encode(claims(), None, "none"), "", "a.b.c", "x" * (MAX_TOKEN + 1), "\ud800.b.c"):
        with pytest.raises(TokenRefused):
            await check(token)


@pytest.mark.parametrize(("changed", "problem"), [
    ({"iss": "https://login.example.com/"}, "iss"),
    ({"iss": ...}, "iss"),
    ({"aud": "other"}, "aud"),
    ({"aud": ["other"]}, "aud"),
    ({"aud": ...}, "aud"),
    ({"aud": [CLIENT, "other"]}, "azp: is missing"),
    ({"azp": "other"}, "azp"),
    ({"sub": ...}, "sub"),
    ({"sub": ""}, "sub"),
    ({"sub": "x" * 256}, "sub"),
    ({"sub": 7}, "sub"),
    ({"nonce": "other"}, "nonce"),
    ({"nonce": ...}, "nonce"),
    ({"nonce": ["n"]}, "nonce"),
    ({"exp": ...}, "exp"),
    ({"exp": "soon"}, "exp"),
    ({"exp": True}, "exp"),
    ({"exp": NOW - LEEWAY_SECONDS}, "exp"),
    ({"iat": ...}, "iat"),
    ({"iat": NOW + LEEWAY_SECONDS + 1}, "iat"),
    ({"iat": 1e300}, "iat"),
    ({"nbf": NOW + LEEWAY_SECONDS + 1}, "nbf"),
])
async def test_a_wrong_claim_is_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(TokenRefused, match=problem):
        await check(signed(**changed))


@pytest.mark.parametrize("minutes", [-5, 5])
async def test_clocks_may_differ_by_five_minutes(minutes: int) -> None:
    issued = NOW + 60 * minutes
    assert await check(signed(iat=issued, nbf=issued, exp=issued + 10))


async def test_several_audiences_need_azp() -> None:
    assert await check(signed(aud=[CLIENT, "other"], azp=CLIENT))


async def test_max_age_counts_by_the_clock_of_the_issuer() -> None:
    assert await check(signed(auth_time=NOW - 50), max_age=60)
    for wrong in ({"auth_time": NOW - 200}, {}):
        with pytest.raises(TokenRefused, match="auth_time"):
            await check(signed(**wrong), max_age=60)


async def test_rotated_keys_are_fetched_and_a_flood_of_unknown_ones_is_not() -> None:
    keys, new = Keys(jwk(_RSA)), private_key("ES256")
    verifier = keys.verifier()
    assert await verifier.id_token(signed(), NOW, nonce="n")
    keys.entries, keys.now = [jwk(new, kid="k2")], 20.0
    assert await verifier.id_token(signed(new, "ES256", {"kid": "k2"}), NOW, nonce="n")
    fetched = keys.fetches
    for number in range(50):
        with pytest.raises(TokenRefused):
            await verifier.id_token(signed(headers={"kid": f"x{number}"}), NOW, nonce="n")
    assert keys.fetches <= fetched + 1


@pytest.mark.parametrize(("entry", "refused"), [
    (jwk(rsa.generate_private_key(65537, 1024)), True),
    (jwk(ec.generate_private_key(ec.SECP256K1())) | {"crv": "secp256k1"}, True),
    ({**jwk(_RSA), "d": "AQ"}, True),
    ({**jwk(_RSA), "use": "enc"}, False),
    ({**jwk(_RSA), "key_ops": ["encrypt"]}, False),
    ({**jwk(_RSA), "alg": "RSA-OAEP"}, False),
    ({"kty": "oct", "k": "AAAA"}, False),
    ({"kty": "OKP", "crv": "X25519", "x": "AAAA"}, True),
    ("text", False),
])
def test_keys_for_other_uses_and_weak_keys_verify_nothing(entry: Any, refused: bool) -> None:
    keys, reasons = read_issuer_keys({"keys": [entry]})
    assert (keys, bool(reasons)) == ([], refused)


async def test_a_logout_token_names_the_session_or_the_account() -> None:
    verifier = Keys(jwk(_RSA)).verifier()
    token = signed(headers={"typ": "logout+jwt"}, nonce=..., events=LOGOUT, jti="j", sid="s1")
    assert (await verifier.logout_token(token, NOW))["sid"] == "s1"
    with pytest.raises(TokenRefused, match="logout token"):
        await verifier.id_token(token, NOW, nonce=None)


@pytest.mark.parametrize(("changed", "problem"), [
    ({"events": ...}, "events"),
    ({"events": {"other": {}}}, "events"),
    ({"events": []}, "events"),
    ({"nonce": "n"}, "nonce"),
    ({"jti": ...}, "jti"),
    ({"sub": ...}, "sid and sub"),
    ({"sid": 7}, "sid and sub"),
    ({"iat": NOW - 2 * LEEWAY_SECONDS - 1}, "too old"),
    ({"aud": "other"}, "aud"),
    ({"iss": "https://evil.example.com"}, "iss"),
    ({"exp": NOW - 1000}, "exp"),
])
async def test_a_wrong_logout_token_is_refused(changed: dict[str, Any], problem: str) -> None:
    fields = {"nonce": ..., "events": LOGOUT, "jti": "j", **changed}
    with pytest.raises(TokenRefused, match=problem):
        await Keys(jwk(_RSA)).verifier().logout_token(signed(**fields), NOW)


async def test_an_id_token_is_no_logout_token() -> None:
    with pytest.raises(TokenRefused, match="events"):
        await Keys(jwk(_RSA)).verifier().logout_token(signed(nonce=...), NOW)
