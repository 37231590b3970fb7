"""Keys of the settings: those that seal reply tokens (AES-256-GCM) and those that sign receipts (Ed25519 seeds).

`ATTN_SEAL_KEYS` and `ATTN_RECEIPT_KEYS` list keys of 32 bytes in base64, separated by commas; the first one seals or
signs. Without a list the only key is derived from `ATTN_JWT_SECRET`: HMAC-SHA-256 of a label, one label per use. So the
keys of both uses differ, and neither gives the secret away.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode

from pydantic import SecretStr

from schemas.settings import Settings

__all__ = [
    "KEY_BYTES", "RECEIPT_LABEL", "SEAL_LABEL", "derived_key", "encode_key", "key_texts", "receipt_keys",
    "seal_keys",
]

KEY_BYTES = 32
SEAL_LABEL = b"attn.seal-key.1"
RECEIPT_LABEL = b"attn.receipt-key.1"
_BASE64 = re.compile(r"[A-Za-z0-9_-]{43}=?")


def seal_keys(settings: Settings) -> list[bytes]:
    """Returns the keys for `streams.core.sealing.Sealer`, empty if neither the setting nor a secret is given.

    Raises ValueError if the setting has an invalid key. The error names the setting and the key's number only.
    """
    return _keys("ATTN_SEAL_KEYS", settings.seal_keys, settings.jwt_secret, SEAL_LABEL)


def receipt_keys(settings: Settings) -> list[bytes]:
    """Returns the Ed25519 seeds that sign receipts; otherwise as `seal_keys`."""
    return _keys("ATTN_RECEIPT_KEYS", settings.receipt_keys, settings.jwt_secret, RECEIPT_LABEL)


def derived_key(secret: str, label: bytes) -> bytes:
    """Returns the key that stands for the list of this use, as long as the list is not given."""
    return hmac.digest(secret.encode(), label, hashlib.sha256)


def encode_key(key: bytes) -> str:
    """Returns the key as the settings list it."""
    return urlsafe_b64encode(key).decode().rstrip("=")


def key_texts(settings: Settings) -> list[str]:
    """Returns the texts that give a key away: hex, and base64 of both alphabets. An invalid list is one of them."""
    texts = []
    for read, listed in ((seal_keys, settings.seal_keys), (receipt_keys, settings.receipt_keys)):
        try:
            keys = read(settings)
        except ValueError:
            keys = []
        texts += [part.strip() for part in listed.get_secret_value().split(",")] if listed is not None else []
        texts += [form for key in keys for form in (key.hex(), encode_key(key), b64encode(key).decode().rstrip("="))]
    return list(dict.fromkeys(texts))


def _keys(setting: str, listed: SecretStr | None, secret: SecretStr | None, label: bytes) -> list[bytes]:
    if listed is not None:
        return _decode_list(setting, listed.get_secret_value())
    return [derived_key(secret.get_secret_value(), label)] if secret is not None else []


def _decode_list(setting: str, text: str) -> list[bytes]:
    """Returns the keys of a list in standard or URL-safe base64. Padding and spaces around the commas are optional."""
    keys = []
    for number, part in enumerate(text.split(","), start=1):
        entry = part.strip().replace("+", "-").replace("/", "_")
        if not _BASE64.fullmatch(entry):
            raise ValueError(
                f"{setting}: key {number} is not {KEY_BYTES} bytes in base64, which has 43 characters without padding; "
                f"`openssl rand -base64 {KEY_BYTES}` prints one")
        keys.append(urlsafe_b64decode(entry.rstrip("=") + "="))
    return keys
