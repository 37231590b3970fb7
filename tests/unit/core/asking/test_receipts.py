"""The signed form of receipts: any change is detected, a standard JOSE library verifies it, keys rotate and retire."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from streams.core.receipts import (
    RECEIPT_TYPE,
    InvalidReceipt,
    ReceiptSigner,
    UnknownKey,
    key_id,
    public_key,
    read_key_set,
    verify_receipt,
)

SEED, OLD = bytes(range(32)), b"o" * 32
SIGNER = ReceiptSigner([SEED, OLD])
PAYLOAD = json.dumps({"decision": {"option": "approve", "args": {"n": 1}, "no": [True, None, 1.5]}}).encode()
RECEIPT = SIGNER.sign(PAYLOAD)

seeds = st.binary(min_size=32, max_size=32)
values: Any = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Returns the paths of all values in a JSON value, the value itself included."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        yield from places(inner, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@given(seeds, st.binary(max_size=200))
def test_a_signed_payload_is_read_back_and_equal_input_gives_equal_bytes(seed: bytes, payload: bytes) -> None:
    signer = ReceiptSigner([seed])
    receipt = signer.sign(payload)
    assert receipt == ReceiptSigner([seed]).sign(payload)
    assert verify_receipt(receipt, read_key_set(signer.jwks)) == (payload, key_id(public_key(seed)))
    again = json.dumps(json.loads(receipt), indent=3).encode()  # white space is not signed
    assert verify_receipt(again, signer.keys).payload == payload


@given(st.data())
def test_any_changed_value_of_the_document_is_detected(data: st.DataObject) -> None:
    document = json.loads(RECEIPT)
    path = data.draw(st.sampled_from(list(places(document))))
    new = data.draw(values)
    changed = json.dumps(replaced(document, path, new)).encode()
    if json.loads(changed) != document:
        with pytest.raises(InvalidReceipt):
            verify_receipt(changed, SIGNER.keys)


@given(st.data())
def test_any_changed_value_of_the_payload_or_the_header_is_detected(data: st.DataObject) -> None:
    document = json.loads(RECEIPT)
    path: tuple[Any, ...] = data.draw(st.sampled_from([("payload",), ("signatures", 0, "protected")]))
    text = document["payload"] if path == ("payload",) else document["signatures"][0]["protected"]
    value = json.loads(decode(text))
    inner = data.draw(st.sampled_from(list(places(value))))
    changed = json.dumps(replaced(value, inner, data.draw(values))).encode()
    if changed != decode(text):
        with pytest.raises(InvalidReceipt):
            verify_receipt(json.dumps(replaced(document, path, encode(changed))).encode(), SIGNER.keys)


def test_any_changed_byte_is_detected() -> None:
    """The bits of base64 that carry no data are checked too; lenient decoders ignore them."""
    undetected = []
    for at in range(len(RECEIPT)):
        for byte in {RECEIPT[at] ^ 1, RECEIPT[at] ^ 32, ord("A"), ord("="), ord(" ")} - {RECEIPT[at]}:
            changed = RECEIPT[:at] + bytes([byte]) + RECEIPT[at + 1:]
            try:
                verify_receipt(changed, SIGNER.keys)
            except InvalidReceipt:
                continue
            undetected.append((at, byte))
    assert not undetected


@pytest.mark.parametrize("change", [
    lambda text: text.replace(b'{"payload"', b'{"payload":"x","payload"'),
    lambda text: text.replace(b'{"payload"', b'{"note":"x","payload"'),
    lambda text: text.replace(b'[{"protected"', b'[{"header":{},"protected"'),
    lambda text: text.replace(b"}]", b"},{}]"),
    lambda text: text[:-1],
    lambda text: text + b"{}",
    lambda text: b"[" * 100_000,
    lambda text: b"\xff" + text,
    lambda text: b"null",
])
def test_members_that_are_not_signed_and_other_documents_are_refused(change: Any) -> None:
    with pytest.raises(InvalidReceipt, match="is no receipt of attn"):
        verify_receipt(change(RECEIPT), SIGNER.keys)


def signed(header: dict[str, Any], seed: bytes = SEED) -> bytes:
    """Returns a document with a valid signature and this header."""
    protected, payload = encode(json.dumps(header).encode()), encode(PAYLOAD)
    signature = encode(Ed25519PrivateKey.from_private_bytes(seed).sign(f"{protected}.{payload}".encode()))
    return json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}).encode()


def test_only_the_type_and_the_algorithm_of_receipts_are_accepted() -> None:
    good = {"alg": "EdDSA", "kid": key_id(public_key(SEED)), "typ": RECEIPT_TYPE}
    assert verify_receipt(signed(good), SIGNER.keys).payload == PAYLOAD
    for other in ({"alg": "none"}, {"alg": "HS256"}, {"typ": "JWT"}, {"crit": ["x"]}, {"jwk": {}}):
        with pytest.raises(InvalidReceipt, match="is no receipt of attn"):
            verify_receipt(signed(good | other), SIGNER.keys)
    with pytest.raises(InvalidReceipt, match="does not fit"):  # the old key under the id of the new one
        verify_receipt(signed(good, OLD), SIGNER.keys)
    for kid in (None, 7, "x", [1]):
        with pytest.raises(UnknownKey):
            verify_receipt(signed(good | {"kid": kid}), SIGNER.keys)


def test_a_general_jose_library_verifies_a_receipt() -> None:
    document = json.loads(RECEIPT)
    (entry,) = document["signatures"]
    compact = ".".join((entry["protected"], document["payload"], entry["signature"]))
    key = next(key for key in jwt.PyJWKSet.from_json(SIGNER.jwks.decode()).keys
               if key.key_id == jwt.get_unverified_header(compact)["kid"])
    assert jwt.PyJWS().decode(compact, key.key, algorithms=["EdDSA"]) == PAYLOAD
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.PyJWS().decode(compact[:-9] + "AAAAAAAAA", key.key, algorithms=["EdDSA"])


def test_kid_is_the_thumbprint_of_rfc_7638_with_the_example_of_rfc_8037() -> None:
    public = decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert key_id(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    for key in json.loads(SIGNER.jwks)["keys"]:
        members = json.dumps({name: key[name] for name in ("crv", "kty", "x")}, separators=(",", ":"))
        assert key["kid"] == encode(hashlib.sha256(members.encode()).digest())


def test_a_rotated_and_then_destroyed_key_still_verifies_its_receipts() -> None:
    before = ReceiptSigner([OLD])
    old = before.sign(PAYLOAD)
    rotated, retired = ReceiptSigner([SEED, OLD]), ReceiptSigner([SEED], [public_key(OLD)])
    assert rotated.jwks == retired.jwks
    for signer in (rotated, retired):
        keys = read_key_set(signer.jwks)
        assert verify_receipt(old, keys).key == key_id(public_key(OLD))
        assert verify_receipt(signer.sign(PAYLOAD), keys).key == key_id(public_key(SEED))
    with pytest.raises(UnknownKey):
        verify_receipt(rotated.sign(PAYLOAD), before.keys)


def test_without_a_private_key_nothing_is_signed_and_public_keys_are_published() -> None:
    assert json.loads(ReceiptSigner([]).jwks) == {"keys": []}
    only = ReceiptSigner([], [public_key(OLD)])
    assert not only.can_sign
    assert list(read_key_set(only.jwks)) == [key_id(public_key(OLD))]
    with pytest.raises(ValueError, match="no private key"):
        only.sign(PAYLOAD)


def test_key_sets_of_others_are_read_by_thumbprint() -> None:
    x = encode(public_key(SEED))
    keys = [{"kty": "RSA", "n": "x"}, {"kty": "OKP", "crv": "X25519", "x": x},
            {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "another name", "extra": 1}]
    assert read_key_set(json.dumps({"keys": keys}).encode()) == {key_id(public_key(SEED)): public_key(SEED)}
    for wrong in (b"", b"[]", b"{}", b'{"keys":{}}', json.dumps({"keys": [{**keys[2], "x": x[:-2]}]}).encode(),
                  json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519"}]}).encode()):
        with pytest.raises(ValueError):
            read_key_set(wrong)
