"""Text of the keys with which sources send events over HTTP, and what a key may do (CONTRACT §8). Pure.

    attn_ + id (16 characters) + _ + secret (43 characters) + checksum (6 characters), all in base62

The checksum is the CRC-32 of what precedes it: a secret scanner recognises a key without asking attn, and attn refuses
a mistyped key without a search. The secret has 256 random bits, so a plain SHA-256 of the text is enough to store: no
dictionary helps to guess it (ops/decisions/0056).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

__all__ = ["ENTROPY_BYTES", "PREFIX", "NewKey", "covers_source", "key_digest", "key_id_of", "looks_like_key", "new_key"]

PREFIX = "attn_"
ENTROPY_BYTES = 12 + 32  # of the id and of the secret

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECKSUM = 16, 43, 6  # characters: 62**43 exceeds 2**256, 62**6 exceeds 2**32
_KEY = re.compile(rf"attn_([0-9A-Za-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})", re.ASCII)


class NewKey(NamedTuple):
    """A key that was just made. `text` is shown once; `digest` is stored."""

    id: str
    text: str
    digest: str


def new_key(entropy: bytes) -> NewKey:
    """Returns the key of ENTROPY_BYTES random bytes. Raises ValueError if their number differs."""
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key needs {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    key_id = _base62(int.from_bytes(entropy[:12]) % 62**_ID, _ID)
    text = f"{PREFIX}{key_id}_{_base62(int.from_bytes(entropy[12:]), _SECRET)}"
    text += _checksum(text)
    return NewKey(key_id, text, key_digest(text))


def looks_like_key(text: str) -> bool:
    """Returns whether the text is meant as a key, valid or not."""
    return text.startswith(PREFIX)


def key_id_of(text: str) -> str | None:
    """Returns the id of a key; None if the text is no key or its checksum is wrong."""
    match = _KEY.fullmatch(text)
    return match[1] if match is not None and _checksum(text[:-_CHECKSUM]) == match[3] else None


def key_digest(text: str) -> str:
    """Returns the SHA-256 of a key's text in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def covers_source(scope: str | None, source: str) -> bool:
    """Returns whether a key with this scope may send events of `source`: the scope itself, or one below it
    (`/pipelines` covers `/pipelines/deploy`, not `/pipelines2`). None covers every source."""
    return scope is None or source == scope or source.startswith(scope if scope.endswith("/") else scope + "/")


def _checksum(text: str) -> str:
    return _base62(crc32(text.encode()), _CHECKSUM)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
