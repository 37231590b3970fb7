"""Signatures, checked by `standardwebhooks` (v1) and by `cryptography` (v1a)."""

from __future__ import annotations

import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from streams.delivery.endpoints import Endpoint, parse_endpoints
from streams.delivery.signing import public_keys, signature_headers, webhook_id

KEYS = st.binary(min_size=16, max_size=64)
SEEDS = st.binary(min_size=32, max_size=32)
IDS = st.from_regex(r"dec_[0-9a-f]{32}(_[a-z]{1,10})?", fullmatch=True)


def endpoint_with(*secrets: str) -> Endpoint:
    listed = ", ".join(f'"{secret}"' for secret in secrets)
    return parse_endpoints(f'[[endpoint]]\nname = "a"\nurl = "https://a.example/"\nsecrets = [{listed}]\n')["a"]


def secret_of(prefix: str, raw: bytes) -> str:
    return prefix + base64.b64encode(raw).decode()


def test_the_vector_of_the_specification() -> None:
    endpoint = endpoint_with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature_headers(
        endpoint, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(st.lists(KEYS, min_size=1, max_size=5), st.lists(SEEDS, max_size=3), IDS, st.text().map(str.encode))
def test_each_key_verifies_by_an_independent_library(
    keys: list[bytes], seeds: list[bytes], message: str, body: bytes
) -> None:
    """During a rotation a receiver may know only one of the two keys."""
    hmacs, asymmetric = [secret_of("whsec_", key) for key in keys], [secret_of("whsk_", seed) for seed in seeds]
    endpoint = endpoint_with(*asymmetric, *hmacs)
    now = int(time.time())
    headers = signature_headers(endpoint, message, now, body)
    assert headers == signature_headers(endpoint, message, now, body)
    assert len(headers["webhook-signature"].split(" ")) == len(keys) + len(seeds)
    for secret in hmacs:
        Webhook(secret).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body + b" ", headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers | {"webhook-id": message + "0"}, json_parse=False)
    signed = f"{message}.{now}.".encode() + body
    signatures = [part[4:] for part in headers["webhook-signature"].split(" ") if part.startswith("v1a,")]
    for public, signature in zip(public_keys(endpoint), signatures, strict=True):
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
        key.verify(base64.b64decode(signature), signed)
        with pytest.raises(InvalidSignature):
            key.verify(base64.b64decode(signature), signed + b" ")


def test_another_secret_does_not_verify() -> None:
    headers = signature_headers(endpoint_with(secret_of("whsec_", b"a" * 32)), "dec_1", int(time.time()), b"{}")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of("whsec_", b"b" * 32)).verify(b"{}", headers)


@pytest.mark.parametrize("verb", ["made", "taken_back", "expired"])
def test_ids_of_messages(verb: str) -> None:
    """An id with a dot would make the signed text ambiguous; the specification forbids it."""
    name = webhook_id("dec_0a", verb)
    assert name == ("dec_0a" if verb == "made" else f"dec_0a_{verb}")
    assert "." not in name
