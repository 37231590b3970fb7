"""Tokens signed with keys of an issuer (ATTN_JWKS_URL): cache, rotation and revocation of keys, algorithm confusion."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs
from support.edge.edges import settings, token

from api.http.auth import jwks
from api.http.auth.tokens import Authenticator, Unauthorized

RSA = rsa.generate_private_key(65537, 2048)
EC, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """Signs tokens with its keys and publishes them; counts the requests for them. `now` is the clock of issuer and
    edge."""

    def __init__(self, **keys: Key) -> None:
        self.now = 1_000_000.0
        self.asked = 0
        self.keys: dict[str | None, Key] = {**keys}
        self.broken: Exception | None = None
        self.auth = Authenticator(settings(jwks_url="https://issuer.test/keys"), lambda: self.now, self.fetch)

    def document(self) -> dict[str, Any]:
        published = []
        for name, key in self.keys.items():
            algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
            published.append({**algorithm.to_jwk(key.public_key(), as_dict=True), **({"kid": name} if name else {})})
        return {"keys": published}

    async def fetch(self) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        return self.document()

    def token(self, key_id: str | None, key: Key | None = None, algorithm: str = "", **more: Any) -> str:
        key = key or self.keys[key_id]
        claims = {"sub": "ann", "role": "OWNER", "workspace_id": "w1", "exp": self.now + 86_400, **more}
        algorithm = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm, headers={"kid": key_id} if key_id else None)

    async def accepts(self, encoded: str) -> bool:
        try:
            return (await self.auth.caller(f"Bearer {encoded}")).user == "ann"
        except Unauthorized:
            return False

    async def renewed(self) -> None:
        """Waits until the refresh in the background has ended."""
        while self.auth._keys._refresh_task is not None:  # type: ignore[union-attr]
            await asyncio.sleep(0)


async def test_both_algorithms_are_accepted_and_keys_are_cached() -> None:
    issuer = Issuer(one=RSA, two=EC)
    assert await issuer.accepts(issuer.token("one"))
    assert await issuer.accepts(issuer.token("two"))
    assert issuer.asked == 1
    asks = [issuer.accepts(issuer.token("two", name=str(number))) for number in range(50)]
    assert all(await asyncio.gather(*asks))
    assert issuer.asked == 1


async def test_concurrent_requests_share_one_fetch_of_the_keys() -> None:
    issuer = Issuer(one=EC)
    assert all(await asyncio.gather(*(issuer.accepts(issuer.token("one", name=str(number))) for number in range(20))))
    assert issuer.asked == 1


async def test_an_unknown_kid_fetches_the_key_set_at_most_once_per_interval() -> None:
    issuer = Issuer(one=EC)
    assert await issuer.accepts(issuer.token("one"))
    for number in range(100):
        assert not await issuer.accepts(issuer.token(f"made-up-{number}", EC))
    assert issuer.asked == 1, "the last fetch is less than 10 s ago"
    issuer.now += 11
    issuer.keys["new"] = RSA
    for number in range(100):
        assert not await issuer.accepts(issuer.token(f"made-up-{number}", EC))
    assert await issuer.accepts(issuer.token("new"))
    assert issuer.asked == 2
    issuer.now += 11
    assert await issuer.accepts(issuer.token("one", name="again"))
    assert issuer.asked == 2, "a known key needs no fetch"


async def test_a_withdrawn_key_is_accepted_for_at_most_ten_minutes() -> None:
    issuer = Issuer(old=EC, new=RSA)
    old, new = issuer.token("old"), issuer.token("new")
    assert await issuer.accepts(old)
    del issuer.keys["old"]
    issuer.now += 599
    assert await issuer.accepts(old)
    issuer.now += 2
    await issuer.accepts(new)
    await issuer.renewed()
    assert not await issuer.accepts(old), "a token that was accepted before is rejected too"
    assert await issuer.accepts(new)
    assert issuer.asked == 2


async def test_a_key_that_was_replaced_under_its_id() -> None:
    issuer = Issuer(one=EC)
    before = issuer.token("one")
    assert await issuer.accepts(before)
    issuer.keys["one"] = RSA
    issuer.now += 601
    await issuer.accepts(before)
    await issuer.renewed()
    assert not await issuer.accepts(before)
    assert await issuer.accepts(issuer.token("one"))


@pytest.mark.parametrize("trouble", [OSError("no route"), TimeoutError(), ValueError("not JSON"), TypeError("a list")])
async def test_cached_keys_are_used_while_the_issuer_is_down(trouble: Exception) -> None:
    issuer = Issuer(one=EC)
    assert await issuer.accepts(issuer.token("one"))
    issuer.broken = trouble
    with capture_logs() as logs:
        for _ in range(3):
            issuer.now += 601
            assert await issuer.accepts(issuer.token("one", name=str(issuer.now)))
            await issuer.renewed()
    assert [line["event"] for line in logs] == ["keys could not be fetched"] * 3
    issuer.broken, issuer.keys = None, {"two": RSA}
    issuer.now += 601
    assert await issuer.accepts(issuer.token("two")), "the issuer is asked again after the outage"


async def test_without_keys_tokens_are_rejected_and_the_issuer_is_asked_once() -> None:
    issuer = Issuer(one=EC)
    issuer.broken = OSError("no route")
    with capture_logs():
        for _ in range(20):
            assert not await issuer.accepts(issuer.token("one"))
    assert issuer.asked == 1
    issuer.broken = None
    issuer.now += 11
    assert await issuer.accepts(issuer.token("one"))


async def test_a_token_without_a_key_id_is_of_any_key_that_fits_its_algorithm() -> None:
    issuer = Issuer(one=EC)
    assert await issuer.accepts(issuer.token(None, EC))
    issuer.keys |= {"two": RSA, "three": OTHER}
    issuer.now += 601
    await issuer.accepts(issuer.token(None, EC))
    await issuer.renewed()
    for key in (EC, RSA, OTHER):
        assert await issuer.accepts(issuer.token(None, key))
    assert not await issuer.accepts(issuer.token(None, ec.generate_private_key(ec.SECP256R1())))


async def test_keys_without_a_key_id_are_tried_and_may_rotate() -> None:
    issuer = Issuer()
    issuer.keys = {None: EC}
    assert await issuer.accepts(issuer.token(None))
    assert await issuer.accepts(issuer.token("named", EC)), "a key without an id verifies a token with any key id"
    issuer.keys = {None: OTHER}
    assert not await issuer.accepts(issuer.token(None)), "the last fetch is less than 10 s ago"
    issuer.now += 11
    assert await issuer.accepts(issuer.token(None))
    assert not await issuer.accepts(issuer.token(None, EC))
    assert issuer.asked == 2


async def test_a_key_that_was_replaced_under_its_id_is_fetched_with_its_first_token() -> None:
    issuer = Issuer(one=EC)
    old = issuer.token("one")
    assert await issuer.accepts(old)
    issuer.keys["one"] = OTHER
    issuer.now += 11
    assert await issuer.accepts(issuer.token("one"))
    assert not await issuer.accepts(old)
    assert issuer.asked == 2


async def test_a_clock_that_was_set_back_does_not_keep_old_keys() -> None:
    issuer = Issuer(one=EC)
    assert await issuer.accepts(issuer.token("one"))
    issuer.now -= 500_000
    issuer.keys = {"two": OTHER}
    assert await issuer.accepts(issuer.token("two"))


def forged(issuer: Issuer) -> dict[str, str]:
    """Returns tokens that are unsigned, or signed with a public key as the secret."""
    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    public = issuer.keys["rsa"].public_key()
    claims = part(json.dumps({"sub": "ann", "role": "OWNER", "workspace_id": "w1", "exp": issuer.now + 60}).encode())
    tokens = {}
    for name, secret in (
        ("pem", public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ("der", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        ("jwk", json.dumps(issuer.document()["keys"][0]).encode()), ("empty", b""),
    ):
        for algorithm in ("HS256", "RS256", "none"):
            head = part(json.dumps({"alg": algorithm, "kid": "rsa", "typ": "JWT"}).encode())
            signature = hmac.digest(secret, head + b"." + claims, "sha256")
            tokens[f"{name} {algorithm}"] = b".".join((head, claims, part(signature))).decode()
    for algorithm in ("none", "None", "", "HS256"):
        head = part(json.dumps({"alg": algorithm, "kid": "rsa"}).encode())
        tokens[f"unsigned {algorithm}"] = f"{head.decode()}.{claims.decode()}."
    return tokens


@pytest.mark.parametrize("secret", [None, "a secret of some length, which nobody who forges knows"])
async def test_no_algorithm_is_mistaken_for_another(secret: str | None) -> None:
    issuer = Issuer(rsa=RSA, ec=EC)
    issuer.auth = Authenticator(
        settings(jwks_url="https://issuer.test/keys", jwt_secret=secret), lambda: issuer.now, issuer.fetch)
    for name, encoded in forged(issuer).items():
        assert not await issuer.accepts(encoded), name
    for name, key, algorithm in (
        ("rsa", EC, "ES256"), ("ec", RSA, "RS256"), ("rsa", RSA, "RS512"), ("rsa", RSA, "PS256"),
        ("ec", ec.generate_private_key(ec.SECP384R1()), "ES384"),
        ("ec", ec.generate_private_key(ec.SECP256R1()), "ES256"),
        ("rsa", rsa.generate_private_key(65537, 2048), "RS256"),
    ):
        assert not await issuer.accepts(issuer.token(name, key, algorithm)), (name, algorithm)
    assert await issuer.accepts(issuer.token("rsa")), "a valid token is accepted"


async def test_a_key_for_encryption_does_not_verify_tokens() -> None:
    issuer = Issuer(one=EC)
    plain = issuer.document
    issuer.document = lambda: {"keys": [{**key, "use": "enc"} for key in plain()["keys"]]}  # type: ignore[method-assign]
    assert not await issuer.accepts(issuer.token("one"))


@pytest.mark.parametrize("claims", [
    {"sub": None}, {"workspace_id": None}, {"role": None}, {"exp": None}, {"exp": 1.0}, {"role": "BOSS"}, {"sub": ""},
    {"workspace_id": " "}, {"exp": "soon"}, {"nbf": 9e9},
])
async def test_a_good_signature_under_bad_claims_is_no_token(claims: dict[str, Any]) -> None:
    issuer = Issuer(one=EC)
    assert not await issuer.accepts(issuer.token("one", **claims))


async def test_a_token_by_secret_needs_a_secret() -> None:
    issuer = Issuer(one=EC)
    issuer.auth = Authenticator(
        settings(jwt_secret=None, jwks_url="https://issuer.test/keys"), lambda: issuer.now, issuer.fetch)
    assert not await issuer.accepts(token(seconds=10**9))


@pytest.mark.parametrize(("claims", "good"), [
    ({"aud": "attn", "iss": "https://id.test"}, True), ({"aud": ["billing", "attn"], "iss": "https://id.test"}, True),
    ({"aud": "billing", "iss": "https://id.test"}, False), ({"iss": "https://id.test"}, False),
    ({"aud": "attn", "iss": "https://other.test"}, False), ({"aud": "attn"}, False), ({}, False),
    ({"aud": 7, "iss": "https://id.test"}, False), ({"aud": [], "iss": "https://id.test"}, False),
])
async def test_a_token_for_another_audience_is_rejected(claims: dict[str, Any], good: bool) -> None:
    """One issuer signs for several services: ATTN_JWT_AUDIENCE and ATTN_JWT_ISSUER select the tokens of attn."""
    issuer = Issuer(one=EC)
    assert await issuer.accepts(issuer.token("one", **claims)), "without these settings any audience is accepted"
    issuer.auth = Authenticator(settings(
        jwks_url="https://issuer.test/keys", jwt_audience="attn", jwt_issuer="https://id.test",
    ), lambda: issuer.now, issuer.fetch)
    assert await issuer.accepts(issuer.token("one", **claims)) == good


async def test_an_issuer_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "_FETCH_TIMEOUT", 0.01)
    issuer = Issuer(one=EC)

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    issuer.auth = Authenticator(settings(jwks_url="https://issuer.test/keys"), lambda: issuer.now, never)
    with capture_logs() as logs:
        assert not await issuer.accepts(issuer.token("one"))
    assert logs[0]["event"] == "keys could not be fetched"
