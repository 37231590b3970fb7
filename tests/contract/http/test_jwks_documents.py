"""Key sets of real issuers (ATTN_JWKS_URL): unusual HTTP responses, unusual documents, and keys made by other tools."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import shutil
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from structlog.testing import capture_logs
from support.edge.edges import Fed, settings

from api.http.auth import jwks
from api.http.auth.jwks import read_keys, redirect_target
from api.http.auth.tokens import Authenticator, Unauthorized

NOW = 1_000_000.0
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
RSA_JWK = RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True)
EC_JWK = ECAlgorithm.to_jwk(EC.public_key(), as_dict=True)
Handler = Callable[[str, dict[str, str]], Awaitable[bytes]]


def published(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str | None = "k", now: float = NOW, **more: Any) -> str:
    claims = {"sub": "ann", "role": "OWNER", "workspace_id": "w1", "exp": now + 3600, **more}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about keys that are too short
        return jwt.encode(claims, key, algorithm, headers=None if kid is None else {"kid": kid})


async def accepted(document: object, *tokens: str) -> list[bool]:
    async def fetch() -> object:
        return document

    auth = Authenticator(settings(jwks_url="https://issuer.test/keys"), lambda: NOW, fetch)
    results = []
    for encoded in tokens:
        try:
            await auth.caller(f"Bearer {encoded}")
        except Unauthorized:
            results.append(False)
        else:
            results.append(True)
    return results


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("others", [
    [{**RSA_JWK, "kid": "k", "alg": "PS256"}], [{**RSA_JWK, "kid": "k", "use": "enc"}],
    [{**RSA_JWK, "kid": "k", "alg": "RSA-OAEP", "use": "enc"}, {**RSA_JWK, "kid": "k", "alg": "RS512"}],
    [{**RSA_JWK, "kid": "k", "key_ops": ["encrypt"]}], [{**EC_JWK, "kid": "k"}],
    [{**RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True), "kid": "k"}],
    [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "k"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "k"},
     {"kty": "ML-DSA", "kid": "k"}, {}, 7, None, [], "k", {"kty": ["RSA"]},
     {"kty": "RSA", "alg": ["RS256"], "kid": "k"}],
    [{"kty": "RSA", "kid": "k"}, {"kty": "RSA", "kid": "k", "n": 7, "e": "AQAB"}, {**RSA_JWK, "n": "é!", "kid": "k"},
     {"kty": "EC", "crv": "P-256", "kid": "k", "x": "AA", "y": "AA"}],
])
async def test_a_key_is_selected_among_several_keys_with_the_same_kid(
    others: list[Any], order: int,
) -> None:
    """Issuers often publish one key per algorithm, and add keys of other types beside it."""
    good = {**RSA_JWK, "kid": "k", "alg": "RS256", "use": "sig", "x5c": ["MIIC"], "x5t": "AA", "note": {"a": 1}}
    document = published(*[good, *others][::order])
    tokens = signed(), signed(kid=None), signed(algorithm="PS256"), signed(algorithm="RS512")
    assert await accepted(document, *tokens) == [True, True, False, False]


@pytest.mark.parametrize("entry", [
    RSA_JWK, {**RSA_JWK, "kid": None}, {**RSA_JWK, "kid": "k", "alg": None, "use": None, "key_ops": None},
    {**RSA_JWK, "kid": "k", "key_ops": ["verify"]}, {**RSA_JWK, "n": RSA_JWK["n"] + "=="},
    {**RSA_JWK, "n": base64.b64encode(b"\0" + base64.urlsafe_b64decode(RSA_JWK["n"] + "==")).decode()},
])
async def test_a_key_without_optional_fields_or_in_another_notation_is_accepted(entry: dict[str, Any]) -> None:
    assert await accepted(published(entry), signed()) == [True]


async def test_an_ec_coordinate_may_lack_its_leading_zeros() -> None:
    """RFC 7518 requires 32 bytes. Tools that write a plain integer drop a zero byte in one key of 128."""
    while (key := ec.generate_private_key(ec.SECP256R1())).public_key().public_numbers().x >> 248:
        pass
    x = base64.urlsafe_b64encode(key.public_key().public_numbers().x.to_bytes(31, "big")).decode().rstrip("=")
    entry = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "x": x}
    assert await accepted(published(entry), signed(key, "ES256")) == [True]


WEAK_RSA = rsa.generate_private_key(65537, 1024)
P384 = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(("entry", "reason"), [
    (RSAAlgorithm.to_jwk(WEAK_RSA.public_key(), as_dict=True), "RSA key of 1024 bits: at least 2048 are required"),
    ({**RSA_JWK, "e": "AQ"}, "RSA exponent 1: an odd number of 3 or more is required"),
    ({**RSA_JWK, "e": "Ag"}, "RSA exponent 2: an odd number of 3 or more is required"),
    ({**RSA_JWK, "e": "A" * 200}, "e is longer than 64 bits"),
    ({**RSA_JWK, "n": "_" * 9000}, "n is longer than 16384 bits"),
    ({**RSA_JWK, "d": "AQAB"}, "its private part is published, so anyone can sign with it"),
    ({"kty": "RSA", "n": RSA_JWK["n"]}, "it has no e"),
    (ECAlgorithm.to_jwk(P384.public_key(), as_dict=True), "curve P-384: ES256 requires P-256"),
    ({**EC_JWK, "crv": "P-192"}, "curve P-192: ES256 requires P-256"),
    ({**EC_JWK, "crv": "secp256k1"}, "curve secp256k1: ES256 requires P-256"),
    ({**EC_JWK, "y": EC_JWK["x"]}, ""),
])
async def test_a_weak_or_invalid_key_is_rejected_with_a_reason_and_the_others_are_kept(
    entry: dict[str, Any], reason: str,
) -> None:
    good = {**EC_JWK, "kid": "good"}
    with capture_logs() as logs:
        results = await accepted(
            published({**entry, "kid": "weak"}, good), signed(WEAK_RSA, kid="weak"), signed(RSA, kid="weak"),
            signed(EC, "ES256", kid="good"), signed(WEAK_RSA, kid=None))
    assert results == [False, False, True, False]
    assert [(line["event"], line["kid"]) for line in logs] == [("a key of the issuer is refused", "weak")]
    assert logs[0]["reason"].startswith(reason)


async def test_an_empty_key_set_revokes_all_tokens_with_a_log_line() -> None:
    with capture_logs() as logs:
        assert await accepted(published(), signed()) == [False]
    assert logs[0]["event"].startswith("the issuer publishes no key that attn accepts")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["RSA", "EC", "P-256", "AQAB", "sig"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["keys", "kty", "kid", "n", "e", "x", "y", "crv", "alg", "use", "key_ops", "d"]), inner, max_size=8),
    max_leaves=12))
@given_settings(max_examples=80, deadline=None)
def test_any_json_beside_a_key_leaves_it_usable(odd: Any) -> None:
    keys, refused = read_keys(published(odd, EC_JWK, odd))
    assert [key.algorithm for key in keys] == ["ES256"]
    assert len(refused) in (0, 2)
    if not isinstance(odd, dict) or not isinstance(odd.get("keys"), list):
        with pytest.raises(ValueError, match="not a JSON Web Key Set"):
            read_keys(odd)


def test_a_set_of_very_many_keys_costs_a_bounded_time() -> None:
    assert len(read_keys(published(*[EC_JWK] * 5000))[0]) == 256


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("kind", ["rsa", "ec"])
async def test_keys_and_signatures_of_openssl(kind: str, tmp_path: Path) -> None:
    """OpenSSL makes the keys and signatures, and the library under test only verifies them."""
    def openssl(*args: str, text: bytes = b"") -> bytes:
        return subprocess.run(["openssl", *args], input=text, capture_output=True, check=True, cwd=tmp_path).stdout

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    option = "rsa_keygen_bits:2048" if kind == "rsa" else "ec_paramgen_curve:P-256"
    openssl("genpkey", "-algorithm", kind.upper(), "-pkeyopt", option, "-out", "key.pem")
    public = load_pem_public_key(openssl("pkey", "-in", "key.pem", "-pubout"))
    algorithm: Any = RSAAlgorithm if kind == "rsa" else ECAlgorithm
    head = part(json.dumps({"alg": "RS256" if kind == "rsa" else "ES256", "kid": "o"}).encode())
    claims = part(json.dumps({"sub": "ann", "role": "OWNER", "workspace_id": "w", "exp": NOW + 60}).encode())
    signature = openssl("dgst", "-sha256", "-sign", "key.pem", text=f"{head}.{claims}".encode())
    if kind == "ec":
        signature = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))
    document = published({**algorithm.to_jwk(public, as_dict=True), "kid": "o"})
    tokens = [f"{head}.{claims}.{part(each)}" for each in (signature, signature[::-1])]
    assert await accepted(document, *tokens) == [True, False]


NODE_KEYS = """
const { generateKeyPairSync, sign } = require("node:crypto");
const part = (what) => Buffer.from(what).toString("base64url");
const claims = part(JSON.stringify({ sub: "ann", role: "OWNER", workspace_id: "w", exp: %d }));
const kinds = [["RS256", "rsa", { modulusLength: 2048 }], ["ES256", "ec", { namedCurve: "P-256" }]];
const made = kinds.map(([alg, kind, how]) => {
  const { publicKey, privateKey } = generateKeyPairSync(kind, how);
  const input = `${part(JSON.stringify({ alg, kid: kind }))}.${claims}`;
  const signature = sign("sha256", Buffer.from(input), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return { jwk: { ...publicKey.export({ format: "jwk" }), kid: kind }, token: `${input}.${part(signature)}` };
});
console.log(JSON.stringify(made));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_key_sets_and_tokens_of_node() -> None:
    run = subprocess.run(["node", "-e", NODE_KEYS % (NOW + 60)], capture_output=True, check=True)
    made = json.loads(run.stdout)
    assert await accepted(published(*[pair["jwk"] for pair in made]), *[pair["token"] for pair in made]) == [True, True]


class Issuer:
    """An HTTP server on a socket. `answer` maps path and headers to the raw response; `asked` keeps the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Handler = self.good
        self.body = json.dumps(published({**RSA_JWK, "kid": "k"})).encode()

    @staticmethod
    def response(status: int, body: bytes = b"", *fields: str) -> bytes:
        head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *fields, "", ""]
        return "\r\n".join(head).encode() + body

    async def good(self, path: str, headers: dict[str, str]) -> bytes:
        return self.response(200, self.body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self.asked.append((first.split()[1], headers))
            writer.write(await self.answer(first.split()[1], headers))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the edge closed the connection
        finally:
            writer.close()


@asynccontextmanager
async def running_issuer() -> AsyncIterator[tuple[Issuer, str]]:
    """Starts an issuer. Yields it with the URL of its keys."""
    issuer = Issuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    try:
        yield issuer, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    finally:
        server.close()
        await server.wait_closed()


async def test_an_issuer_that_refuses_pythons_clients_answers_attn() -> None:
    async with running_issuer() as (issuer, url):
        async def guarded(path: str, headers: dict[str, str]) -> bytes:
            agent = headers.get("user-agent", "").lower()
            if not agent or "accept" not in headers or any(name in agent for name in ("python", "urllib", "aiohttp")):
                return issuer.response(403, b"blocked")
            return await issuer.good(path, headers)

        issuer.answer = guarded
        fed = Fed(jwks_url=url)
        async with fed.client() as client:
            client.headers["authorization"] = "Bearer " + signed(now=fed.edge.clock())
            assert (await client.get("/org/me")).status_code == 200
        (_, headers), = issuer.asked
        assert headers["user-agent"].startswith("attn/0.")
        assert "application/json" in headers["accept"]


@cache
def cases() -> dict[str, tuple[Handler, int]]:
    """Returns (response of the issuer, status of a request with a token) by name."""
    issuer = Issuer()
    response, body = issuer.response, issuer.body

    def always(raw: bytes) -> Handler:
        async def answer(*_: Any) -> bytes:
            return raw
        return answer

    def moved(*steps: str, status: int = 302) -> Handler:
        """Redirects with `status` through each step, then returns the keys."""
        left = list(steps)

        async def answer(*_: Any) -> bytes:
            return response(status, b"moved", f"location: {left.pop(0)}") if left else response(200, body)
        return answer

    packed = gzip.compress(body)
    bomb = gzip.compress(b"[" + b" " * (20 << 20))
    noise = gzip.compress(os.urandom(2 << 20), 1)
    assert len(bomb) < 1 << 20 < len(noise)
    return {
        "plain": (always(response(200, body)), 200),
        "byte order mark": (always(response(200, b"\xef\xbb\xbf" + body)), 200),
        "type text/plain": (always(response(200, body, "content-type: text/plain; charset=iso-8859-1")), 200),
        "gzip": (always(response(200, packed, "content-encoding: gzip")), 200),
        "two members of gzip": (always(response(
            200, gzip.compress(body[:9]) + gzip.compress(body[9:]), "content-encoding: x-gzip")), 200),
        "gzip cut short": (always(response(200, packed[:-9], "content-encoding: gzip")), 401),
        "no gzip": (always(response(200, body, "content-encoding: gzip")), 401),
        "br": (always(response(200, body, "content-encoding: br")), 401),
        "small and unpacks to much": (always(response(200, bomb, "content-encoding: gzip")), 401),
        "too large when packed": (always(response(200, noise, "content-encoding: gzip")), 401),
        "chunked": (always(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
                           + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)), 200),
        "until it closes": (always(b"HTTP/1.0 200 OK\r\n\r\n" + body), 200),
        "cut short": (always(response(200, body)[:-9]), 401),
        "too large": (always(response(200, body + b" " * (1 << 20))), 401),
        "too long a header": (always(response(200, body, "x: " + "y" * 100_000)), 401),
        "nested": (always(response(200, b'{"keys":' + b"[" * 100_000)), 401),
        "a number of 5000 digits": (always(response(200, b'{"keys":[' + b"9" * 5000 + b"]}")), 401),
        "html": (always(response(200, b"<html>")), 401), "a list": (always(response(200, b"[]")), 401),
        "nothing": (always(b""), 401), "no http": (always(b"SSH-2.0-x\r\n"), 401),
        "500": (always(response(500, body)), 401),
        "204": (always(response(204)), 401), "304": (always(response(304)), 401),
        "moved": (moved("/a", "b?c=d", "/e"), 200), "moved for good": (moved("/a", status=308), 200),
        "moved 303": (moved("/a", status=303), 200), "moved nowhere": (always(response(302, b"")), 401),
        "moved in a circle": (moved(*["/keys"] * 9), 401), "moved to a file": (moved("file:///etc/hostname"), 401),
        "moved to ftp": (moved("ftp://127.0.0.1/keys"), 401), "moved to no url": (moved("http://[x"), 401),
        "moved to data": (moved("data:,{}"), 401),
    }


@pytest.mark.parametrize("name", cases())
async def test_an_answer_of_the_issuer(name: str) -> None:
    answer, status = cases()[name]
    async with running_issuer() as (issuer, url):
        issuer.answer = answer
        auth = Authenticator(settings(jwks_url=url), lambda: NOW)
        with capture_logs() as logs, nullcontext() if status == 200 else pytest.raises(Unauthorized):
            await auth.caller("Bearer " + signed())
        assert [line["event"] for line in logs] == ([] if status == 200 else ["keys could not be fetched"])
        assert len(issuer.asked) <= 6


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"])
async def test_a_key_set_that_arrives_too_slowly_times_out_and_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, begins: bytes,
) -> None:
    """Single bytes arrive within the read timeout, the whole response does not."""
    monkeypatch.setattr(jwks, "_FETCH_TIMEOUT", 0.2)
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begins)
            while not reader.at_eof():
                writer.write(b" " if begins else b"\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            ended.set()
            writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        auth = Authenticator(settings(jwks_url=url), lambda: NOW)
        with capture_logs() as logs, pytest.raises(Unauthorized):
            await auth.caller("Bearer " + signed())
        assert logs[0]["error"].startswith("TimeoutError")
        await asyncio.wait_for(ended.wait(), 10)


def test_a_redirect_never_leads_from_https_to_plain_http() -> None:
    assert redirect_target("https://id.test/keys", "new?a=%2F") == "https://id.test/new?a=%2F"
    assert redirect_target("http://id.test/keys", "https://id.test/keys") == "https://id.test/keys"
    with pytest.raises(ValueError, match="redirected from https to http: refused"):
        redirect_target("https://id.test/keys", "http://id.test/keys")
