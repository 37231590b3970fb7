"""A single delivery attempt to a receiver that misbehaves is bounded in time and bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import socket
import ssl
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.delivery.receiver import Post, answer, receiver

from streams.delivery.endpoints import Endpoint
from streams.delivery.http.client import HttpClient

BODY = b'{"data":{"reply":{"token":"t0p-secret-token"}}}'


def endpoint(url: str, **fields: object) -> Endpoint:
    given = {"hmac_keys": (b"k" * 24,), "timeout": 2.0, "allow_private": True} | fields
    return Endpoint("there", url, **given)  # type: ignore[arg-type]


async def test_the_request() -> None:
    async with receiver() as server:
        to = endpoint(f"{server.url}?a=%2Fb", headers=(("Authorization", "Bearer x"), ("ACCEPT", "text/x")))
        result = await HttpClient().post(to, "dec_1", BODY)
        assert (result.kind, result.cause) == ("accepted", "2xx")
        assert server.posts[0].headers["accept"] == "text/x"
        assert server.posts[0].raw_names.count("accept") == 1
        post, = server.posts
        assert post.path in ("/decisions?a=%2Fb", "/decisions?a=/b")
        assert post.body == BODY
        assert post.headers["host"] == f"127.0.0.1:{server.port}"
        assert post.headers["authorization"] == "Bearer x"
        assert post.headers["webhook-id"] == "dec_1"
        assert abs(time.time() - int(post.headers["webhook-timestamp"])) < 60
        assert post.headers["accept-encoding"] == "identity"
        assert post.headers["user-agent"].startswith("attn/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with receiver() as other, receiver(lambda _: answer(status, location=other.url)) as server:
        result = await HttpClient().post(endpoint(server.url), "dec_1", BODY)
        assert (result.kind, result.cause) == ("failed", "redirect")
        assert len(server.posts) == 1
        assert other.posts == []


async def test_a_private_address_is_refused_before_a_connection() -> None:
    async with receiver() as server:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
            to = endpoint(f"http://{host}:{server.port}/", allow_private=False)
            result = await HttpClient().post(to, "dec_1", BODY)
            assert result.kind == "failed"
            assert result.cause in ("address", "dns")
        assert server.open_now == server.most_open == 0


async def test_the_checked_address_is_the_one_connected_to() -> None:
    """The client resolves the name once and connects to the checked address. DNS rebinding needs a second lookup."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answers(host: str, port: int, *args: object, **kwargs: object) -> object:
        if host != "rebinding.example":
            return real(host, port, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, type=socket.SOCK_STREAM)

    async with receiver() as server:
        with patch("socket.getaddrinfo", answers):
            to = endpoint(f"http://rebinding.example:{server.port}/x")
            assert (await HttpClient().post(to, "dec_1", BODY)).kind == "accepted"
        assert asked == ["rebinding.example"]
        assert server.posts[0].headers["host"] == f"rebinding.example:{server.port}"


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as server, receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await HttpClient().post(endpoint(server.url), "dec_1", BODY)).kind == "accepted"
        assert proxy.posts == []


Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def _until_closed(writer: asyncio.StreamWriter, piece: bytes, pause: float = 0.0) -> None:
    while not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Write:
    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await _until_closed(writer, piece, pause)
    return write


HANGS = {
    "no answer": endless(b"", b"", 0.05),
    "one byte of the status line at a time": endless(b"HTTP/1.1 ", b"2", 0.1),
    "one header at a time": endless(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", 0.1),
    "interim answers": endless(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"name: value of a header\r\n" * 100),
    "one endless header": endless(b"HTTP/1.1 200 OK\r\nname: ", b"x" * 10_000),
    "an endless reason": endless(b"HTTP/1.1 200 ", b"x" * 10_000),
}


@pytest.mark.parametrize("write", HANGS.values(), ids=HANGS)
async def test_an_answer_without_end_fails_in_time(write: Write) -> None:
    async with receiver(lambda _: write) as server:
        started = time.monotonic()
        tracemalloc.start()
        result = await HttpClient().post(endpoint(server.url, timeout=0.5), "dec_1", BODY)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result.kind == "failed"
    assert result.cause in ("timeout", "protocol", "connect")
    assert time.monotonic() - started < 20
    assert used < 8 << 20


@pytest.mark.parametrize("status", [200, 202, 302, 500])
async def test_a_status_is_enough_where_the_body_has_no_end(status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    async with receiver(lambda _: endless(head, b"1\r\nx\r\n", 0.01)) as server:
        result = await HttpClient().post(endpoint(server.url, timeout=30.0), "dec_1", BODY)
    assert result.reason in ("", f"HTTP {status}", f"HTTP {status}: attn follows no redirects")
    assert result.kind == ("accepted" if status < 300 else "failed")


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["fast", "slow"])
async def test_a_refusal_with_an_endless_body_is_a_refusal(pause: float) -> None:
    head = b"HTTP/1.1 409 X\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
    piece = b"1000\r\n" + b"y" * 4096 + b"\r\n"
    async with receiver(lambda _: endless(head, piece, pause)) as server:
        tracemalloc.start()
        result = await HttpClient().post(endpoint(server.url), "dec_1", BODY)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (result.kind, result.cause) == ("refused", "409")
    assert result.reason.startswith("yyy")
    assert used < 8 << 20


async def test_a_compressed_refusal_is_not_decompressed() -> None:
    bomb = gzip.compress(b'{"error": "' + b"z" * (64 << 20) + b'"}')
    async with receiver(
        lambda _: answer(410, bomb, content_type="application/json", content_encoding="gzip"),
    ) as server:
        tracemalloc.start()
        result = await HttpClient().post(endpoint(server.url), "dec_1", BODY)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (result.kind, result.reason) == ("refused", "HTTP 410")
    assert used < 8 << 20


@pytest.mark.parametrize(("raw", "cause"), [
    (b"", "connect"), (b"hello\r\n\r\n", "protocol"), (b"HTTP/1.1 abc X\r\n\r\n", "protocol"),
    (b"HTTP/1.1 200", "connect"), (b"\x16\x03\x01\x00", "protocol"), (b"HTTP/9.9 200 OK\r\n\r\n", "protocol"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "protocol"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "protocol"),
])
async def test_broken_http_is_a_failure(raw: bytes, cause: str) -> None:
    async with receiver(lambda _: raw) as server:
        result = await HttpClient().post(endpoint(server.url), "dec_1", BODY)
    assert result.kind == "failed"
    assert result.cause in (cause, "protocol", "connect")


async def test_any_bytes_are_an_answer_or_a_failure() -> None:
    """Randomly changed answers give one result each and no exception. Without a 2xx status none is accepted."""
    rng = random.Random(53)
    valid = answer(409, '{"error": "no"}', content_type="application/json", retry_after="5")
    valid_ok = answer(200, "ok").replace(b"content-length: 2", b"transfer-encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n"
    sent: list[bytes] = []

    def choose(_: Post) -> bytes:
        raw = bytearray(rng.choice((valid, valid_ok)))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(raw))
            piece = rng.choice((b"", b"\x00", b"\r\n", b": ", b"9" * 30, rng.randbytes(3), bytes(raw[:at])))
            raw[at:at + rng.randrange(4)] = piece
        sent.append(bytes(raw))
        return sent[-1]

    async with receiver(choose) as server:
        for _ in range(100):
            result = await HttpClient().post(endpoint(server.url, timeout=0.4), "dec_1", BODY)
            assert result.kind in ("accepted", "refused", "failed")
            assert len(result.reason) <= 500
            if result.kind == "accepted":
                assert re.match(rb"\s*HTTP/\d\.\d\s+2\d\d", sent[-1]), sent[-1]


async def test_a_closed_port_and_an_unknown_name() -> None:
    async with receiver() as server:
        port = server.port
    result = await HttpClient().post(endpoint(f"http://127.0.0.1:{port}/"), "dec_1", BODY)
    assert (result.kind, result.cause) == ("failed", "connect")
    assert "127.0.0.1" not in result.reason
    with patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "Name or service not known")):
        result = await HttpClient().post(endpoint("http://internal.example/"), "dec_1", BODY)
    assert (result.kind, result.cause) == ("failed", "dns")
    assert "internal" not in result.reason


async def test_a_receiver_that_repeats_the_request_reveals_no_secret() -> None:
    def repeat(post: Post) -> bytes:
        return answer(422, json.dumps({"error": json.dumps(post.headers) + post.body.decode()}))

    async with receiver(repeat) as server:
        to = endpoint(server.url, headers=(("Authorization", "Bearer h1dden-value"),))
        result = await HttpClient().post(to, "dec_1", BODY, ("Bearer h1dden-value", "h1dden-value", "t0p-secret-token"))
    assert result.kind == "refused"
    assert "h1dden" not in result.reason
    assert "t0p" not in result.reason
    assert "(removed)" in result.reason


def certificate(directory: Path, name: str) -> Path:
    """Writes a self-signed certificate for `name` and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    signed = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256()))
    path = directory / f"{name}.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


async def test_tls_checks_the_name_of_the_url_not_the_address(tmp_path: Path) -> None:
    path, names = certificate(tmp_path, "receiver.example"), []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    context.sni_callback = lambda _, name, __: names.append(name)
    real = socket.getaddrinfo

    def answers(host: str, port: int, *args: object, **kwargs: object) -> object:
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    async with receiver(tls=context) as server:
        with patch("socket.getaddrinfo", answers):
            result = await HttpClient().post(endpoint(f"https://receiver.example:{server.port}/"), "dec_1", BODY)
            assert (result.kind, result.cause) == ("failed", "tls")  # the certificate is self-signed
            trusting = HttpClient()
            trusting._tls.load_verify_locations(path)
            result = await trusting.post(endpoint(f"https://other.example:{server.port}/"), "dec_1", BODY)
            assert (result.kind, result.cause) == ("failed", "tls")
            assert server.posts == []
            result = await trusting.post(endpoint(f"https://receiver.example:{server.port}/"), "dec_1", BODY)
    assert result.kind == "accepted"
    assert names == ["receiver.example", "other.example", "receiver.example"]
    assert server.posts[0].headers["host"] == f"receiver.example:{server.port}"
