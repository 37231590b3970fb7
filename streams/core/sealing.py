"""Seals the reply token of an ask with AES-256-GCM, so that no topic, view, file or log holds it in the clear.

The worker seals a token when it reads the event, and opens it only for the record on `decisions`. The sealed text is
bound to its question (associated data): copied to another item it does not open. The nonce is the HMAC of question and
token. The same event therefore has the same sealed text in each replay, and a nonce repeats only for equal input.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "SealError", "Sealer"]

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = "s1"


class SealError(Exception):
    """A sealed token does not open: its key is not configured, or it belongs to another question."""


class Sealer:
    """Seals with the first key, opens with any: put a new key first, remove the old one when no question uses it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Raises ValueError if there is no key, or one is not of KEY_BYTES bytes."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"sealing needs keys of {KEY_BYTES} bytes")
        self._first = _key_id(keys[0])
        self._keys = {_key_id(key): (_derive(key, b"encrypt"), _derive(key, b"nonce")) for key in keys}

    def seal(self, token: str, question: Sequence[str]) -> str:
        """Returns `s1.KEY_ID.BASE64URL`. `question`: its workspace, source, subject and ask id."""
        encrypt, derive = self._keys[self._first]
        bound, text = _bound(question), token.encode()
        nonce = hmac.digest(derive, _framed([bound, text]), hashlib.sha256)[:_NONCE_BYTES]
        sealed = nonce + AESGCM(encrypt).encrypt(nonce, text, bound)
        return f"{_VERSION}.{self._first}.{urlsafe_b64encode(sealed).rstrip(b'=').decode()}"

    def open(self, sealed: str, question: Sequence[str]) -> str:
        """Returns the token. Raises SealError if no key opens it for this question."""
        version, _, rest = sealed.partition(".")
        key_id, _, encoded = rest.partition(".")
        if version != _VERSION or key_id not in self._keys:
            raise SealError(f"no configured key opens this token (key id {key_id[:16]!r})")
        try:
            raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            text = AESGCM(self._keys[key_id][0]).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound(question))
        except (InvalidTag, ValueError) as error:
            raise SealError("the token was changed, or belongs to another question") from error
        return text.decode()


def _key_id(key: bytes) -> str:
    """Eight hex digits that name a key and say nothing of it."""
    return _derive(key, b"id")[:4].hex()


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"attn reply token " + purpose, hashlib.sha256)


def _bound(question: Sequence[str]) -> bytes:
    return _framed([part.encode() for part in question])


def _framed(parts: Sequence[bytes]) -> bytes:
    """One text of several, each behind its length: no two lists of parts share it."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
