"""The signed form of a receipt: a JWS (RFC 7515, general JSON serialisation) with one Ed25519 signature (RFC 8037).

    {"payload": "BASE64URL", "signatures": [{"protected": "BASE64URL", "signature": "BASE64URL"}]}

The signature covers the texts `protected` and `payload` as they are, so a verifier needs no canonical JSON. `kid` is
the thumbprint of the key (RFC 7638). Equal payload and key give equal bytes, because Ed25519 has no random part.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from streams.core.canonical_json import canonical_json

__all__ = [
    "RECEIPT_TYPE", "InvalidReceipt", "ReceiptSigner", "UnknownKey", "VerifiedReceipt", "key_id", "public_key",
    "read_key_set", "verify_receipt",
]

# `typ` of the protected header. It keeps a signature for another purpose from being accepted as a receipt.
RECEIPT_TYPE = "attn-decision-receipt+jws"
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_KEY_BYTES = 32


class InvalidReceipt(Exception):
    """The document is no receipt, or its signature does not fit. `str(error)` gives the reason."""


class UnknownKey(InvalidReceipt):
    """None of the given keys has the `kid` of the receipt: nothing is known about the signature."""


class VerifiedReceipt(NamedTuple):
    """`payload`: the signed bytes. `key`: thumbprint of the key that signed them."""

    payload: bytes
    key: str


class ReceiptSigner:
    """Signs with the first of `seeds`. `jwks` publishes the public keys of all seeds, and the `retired` public keys."""

    def __init__(self, seeds: Sequence[bytes], retired: Sequence[bytes] = ()) -> None:
        public = [*map(public_key, seeds), *retired]
        self._key = Ed25519PrivateKey.from_private_bytes(seeds[0]) if seeds else None
        self._protected = _encode(canonical_json(
            {"alg": "EdDSA", "kid": key_id(public[0]), "typ": RECEIPT_TYPE})) if seeds else ""
        self.keys = {key_id(key): key for key in public}
        self.jwks = canonical_json({"keys": [
            {"alg": "EdDSA", "crv": "Ed25519", "kid": name, "kty": "OKP", "use": "sig", "x": _encode(key)}
            for name, key in self.keys.items()
        ]})

    @property
    def can_sign(self) -> bool:
        """Whether a private key is configured."""
        return self._key is not None

    def sign(self, payload: bytes) -> bytes:
        """Returns the receipt. Raises ValueError if no private key is configured."""
        if self._key is None:
            raise ValueError("no private key for receipts is configured")
        text = _encode(payload)
        signature = _encode(self._key.sign(f"{self._protected}.{text}".encode()))
        return canonical_json(
            {"payload": text, "signatures": [{"protected": self._protected, "signature": signature}]})


def public_key(seed: bytes) -> bytes:
    """Returns the Ed25519 public key of a seed, 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """Returns the thumbprint of a public key (RFC 7638): SHA-256 of its required members, base64url."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _encode(public)}
    return _encode(hashlib.sha256(canonical_json(members)).digest())


def read_key_set(text: bytes) -> dict[str, bytes]:
    """Returns the Ed25519 keys of a JWK set (RFC 7517), thumbprint -> public key; keys of other types are ignored.

    Raises ValueError if the text is no JWK set.
    """
    document = _read_json(text)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("is no JWK set: a JSON object with a list `keys` is expected")
    found = {}
    for entry in entries:
        if not isinstance(entry, dict) or (entry.get("kty"), entry.get("crv")) != ("OKP", "Ed25519"):
            continue
        key = _decode("x", entry.get("x"))
        if len(key) != _KEY_BYTES:
            raise ValueError(f"an Ed25519 key has {len(key)} bytes instead of {_KEY_BYTES}")
        found[key_id(key)] = key
    return found


def verify_receipt(document: bytes, keys: Mapping[str, bytes]) -> VerifiedReceipt:
    """Returns the payload of a receipt whose signature is valid. `keys`: thumbprint -> public key.

    Accepts only what `ReceiptSigner` writes, whatever white space is around it: no member more, no second spelling of
    a base64 text. Raises InvalidReceipt, and UnknownKey if `keys` does not have the key.
    """
    try:
        receipt = _members(_read_json(document), "the receipt", ("payload", "signatures"))
        signatures = receipt["signatures"]
        if not isinstance(signatures, list) or len(signatures) != 1:
            raise ValueError("`signatures` must have one entry")
        entry = _members(signatures[0], "the entry of `signatures`", ("protected", "signature"))
        payload, signature = _decode("payload", receipt["payload"]), _decode("signature", entry["signature"])
        protected = _read_json(_decode("protected", entry["protected"]))
        header = _members(protected, "`protected`", ("alg", "kid", "typ"))
        if (header["alg"], header["typ"]) != ("EdDSA", RECEIPT_TYPE):
            raise ValueError(f"`protected` must have alg EdDSA and typ {RECEIPT_TYPE}")
    except (ValueError, RecursionError) as error:
        raise InvalidReceipt(f"the document is no receipt of attn: {error}") from None
    kid = header["kid"]
    public = keys.get(kid) if isinstance(kid, str) else None
    if public is None:
        raise UnknownKey(f"the key {str(kid)[:100]} of the receipt is not among the {len(keys)} given keys")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            signature, f"{entry['protected']}.{receipt['payload']}".encode())
    except (InvalidSignature, ValueError):
        raise InvalidReceipt("the signature does not fit: the receipt was changed, or another key signed it") from None
    return VerifiedReceipt(payload, kid)


def _members(value: Any, name: str, expected: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(expected):
        raise ValueError(f"{name} must be an object with the members {', '.join(expected)}")
    return value


def _read_json(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeats)


def _without_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) < len(members):
        raise ValueError("a JSON object repeats a name")
    return value


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(name: str, text: Any) -> bytes:
    """Returns the bytes of base64url without padding. Raises ValueError for any other spelling of the same bytes."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise ValueError(f"`{name}` is no base64url without padding")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        raise ValueError(f"`{name}` is no canonical base64url")
    return data
