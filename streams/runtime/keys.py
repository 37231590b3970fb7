"""Keys of the settings: those that seal reply tokens and refresh tokens (AES-256-GCM), and those that sign receipts
(Ed25519 seeds).

`ATTN_SEAL_KEYS`, `ATTN_SESSION_KEYS` and `ATTN_RECEIPT_KEYS` list keys of 32 bytes in base64, separated by commas; the
first one seals or signs. An entry of `ATTN_RECEIPT_KEYS` that begins with `pub:` is a public key: it keeps receipts
verifiable whose private key was destroyed. Without a list the only key is derived from `ATTN_JWT_SECRET`: HMAC-SHA-256
of a label, one label per use. So the keys of all uses differ, and none gives the secret away.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from pydantic import SecretStr

from schemas.settings import Settings

__all__ = [
    "KEY_BYTES", "PUBLIC_PREFIX", "RECEIPT_LABEL", "SEAL_LABEL", "derived_key", "encode_key", "key_texts",
    "receipt_key_list", "receipt_keys", "retired_receipt_keys", "seal_keys", "session_keys",
]

KEY_BYTES = 32
PUBLIC_PREFIX = "pub:"
SEAL_LABEL = b"attn.seal-key.1"
RECEIPT_LABEL = b"attn.receipt-key.1"
SESSION_LABEL = b"attn.session-key.1"
_BASE64 = re.compile(r"[A-Za-z0-9_-]{43}=?")


def seal_keys(settings: Settings) -> list[bytes]:
    """Returns the keys for `streams.core.sealing.Sealer`, empty if neither the setting nor a secret is given.

    Raises ValueError if the setting has an invalid key. The error names the setting and the key's number only.
    """
    return _keys("ATTN_SEAL_KEYS", settings.seal_keys, settings.jwt_secret, SEAL_LABEL)


def session_keys(settings: Settings) -> list[bytes]:
    """Returns the keys with which edges seal the refresh tokens of sessions; otherwise as `seal_keys`."""
    return _keys("ATTN_SESSION_KEYS", settings.session_keys, settings.jwt_secret, SESSION_LABEL)


def receipt_keys(settings: Settings) -> list[bytes]:
    """Returns the Ed25519 seeds that sign receipts; otherwise as `seal_keys`."""
    return _keys("ATTN_RECEIPT_KEYS", settings.receipt_keys, settings.jwt_secret, RECEIPT_LABEL, PUBLIC_PREFIX)


def retired_receipt_keys(settings: Settings) -> list[bytes]:
    """Returns the Ed25519 public keys that `ATTN_RECEIPT_KEYS` lists. Raises what `seal_keys` raises."""
    listed = settings.receipt_keys.get_secret_value() if settings.receipt_keys is not None else ""
    entries = [part.strip() for part in listed.split(",")]
    return _decode_list("ATTN_RECEIPT_KEYS", [
        entry.removeprefix(PUBLIC_PREFIX).strip() for entry in entries if entry.startswith(PUBLIC_PREFIX)])


def receipt_key_list(settings: Settings) -> str:
    """Returns the value of `ATTN_RECEIPT_KEYS` for a process that may not have the secret; "" if there is no key."""
    public = [PUBLIC_PREFIX + encode_key(key) for key in retired_receipt_keys(settings)]
    return ",".join([*map(encode_key, receipt_keys(settings)), *public])


def derived_key(secret: str, label: bytes) -> bytes:
    """Returns the key that stands for the list of this use, as long as the list is not given."""
    return hmac.digest(secret.encode(), label, hashlib.sha256)


def encode_key(key: bytes) -> str:
    """Returns the key as the settings list it."""
    return urlsafe_b64encode(key).decode().rstrip("=")


def key_texts(settings: Settings) -> list[str]:
    """Returns the texts that give a key away: hex, and base64 of both alphabets. An invalid list is one of them."""
    texts = []
    for read, listed in (
        (seal_keys, settings.seal_keys), (receipt_keys, settings.receipt_keys), (session_keys, settings.session_keys),
    ):
        try:
            keys = read(settings)
        except ValueError:
            keys = []
        texts += [part.strip() for part in listed.get_secret_value().split(",")] if listed is not None else []
        texts += [form for key in keys for form in (key.hex(), encode_key(key), b64encode(key).decode().rstrip("="))]
    return list(dict.fromkeys(texts))


def _keys(
    setting: str, listed: SecretStr | None, secret: SecretStr | None, label: bytes, public_prefix: str = "",
) -> list[bytes]:
    """Returns the keys of a list, or the derived key; no public keys. `public_prefix`: "" if the list has none."""
    if listed is not None:
        entries = [part.strip() for part in listed.get_secret_value().split(",")]
        keys = _decode_list(setting, [entry.removeprefix(public_prefix).strip() for entry in entries])
        return [key for key, entry in zip(keys, entries, strict=True)
                if not public_prefix or not entry.startswith(public_prefix)]
    return [derived_key(secret.get_secret_value(), label)] if secret is not None else []


def _decode_list(setting: str, entries: Sequence[str]) -> list[bytes]:
    """Returns the keys of entries in standard or URL-safe base64, with or without padding."""
    keys = []
    for number, part in enumerate(entries, start=1):
        entry = part.replace("+", "-").replace("/", "_")
        if not _BASE64.fullmatch(entry):
            raise ValueError(
                f"{setting}: key {number} is not {KEY_BYTES} bytes in base64, which has 43 characters without padding; "
                f"`openssl rand -base64 {KEY_BYTES}` prints one")
        keys.append(urlsafe_b64decode(entry.rstrip("=") + "="))
    return keys
