"""Texts of the secrets that attn hands out: keys of sources, sessions, sign-in links, codes of terminals. Pure
(CONTRACT §8, §9).

    prefix + id (16 characters) + _ + secret (43 characters) + checksum (6 characters), all in base62

The checksum is the CRC-32 of what precedes it: a secret scanner recognises a text without asking attn, and attn refuses
a mistyped one without a search. The secret has 256 random bits, so a plain SHA-256 of the text is enough to store: no
dictionary helps to guess it (ops/decisions/0056).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import NamedTuple
from zlib import crc32

__all__ = ["ENTROPY_BYTES", "KEYS", "LINKS", "SESSIONS", "TERMINALS", "NewSecret", "SecretFormat", "secret_digest"]

ENTROPY_BYTES = 12 + 32  # of the id and of the secret

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECKSUM = 16, 43, 6  # characters: 62**43 exceeds 2**256, 62**6 exceeds 2**32


class NewSecret(NamedTuple):
    """A secret that was just made. `text` is shown once; `digest` is stored."""

    id: str
    text: str
    digest: str


class SecretFormat:
    """One kind of secret, by the prefix of its text."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._pattern = re.compile(
            rf"{prefix}([0-9A-Za-z]{{{_ID}}})_([0-9A-Za-z]{{{_SECRET}}})([0-9A-Za-z]{{{_CHECKSUM}}})", re.ASCII)

    def new(self, entropy: bytes) -> NewSecret:
        """Returns the secret of ENTROPY_BYTES random bytes. Raises ValueError if their number differs."""
        if len(entropy) != ENTROPY_BYTES:
            raise ValueError(f"a secret needs {ENTROPY_BYTES} random bytes, not {len(entropy)}")
        secret_id = _base62(int.from_bytes(entropy[:12]) % 62**_ID, _ID)
        text = f"{self.prefix}{secret_id}_{_base62(int.from_bytes(entropy[12:]), _SECRET)}"
        text += _checksum(text)
        return NewSecret(secret_id, text, secret_digest(text))

    def looks_like(self, text: str) -> bool:
        """Returns whether the text is meant as a secret of this kind, valid or not."""
        return text.startswith(self.prefix)

    def id_of(self, text: str) -> str | None:
        """Returns the id of a secret; None if the text is none of this kind or its checksum is wrong."""
        match = self._pattern.fullmatch(text)
        return match[1] if match is not None and _checksum(text[:-_CHECKSUM]) == match[3] else None


def secret_digest(text: str) -> str:
    """Returns the SHA-256 of a secret's text in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _base62(crc32(text.encode()), _CHECKSUM)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


KEYS, SESSIONS, LINKS = SecretFormat("attn_"), SecretFormat("attns_"), SecretFormat("attnl_")
TERMINALS = SecretFormat("attnd_")
