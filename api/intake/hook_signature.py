"""Verifies the signature of a webhook: HMAC-SHA256 of the body, in hexadecimal, as GitHub and others send it. Pure."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256

__all__ = ["is_signature", "is_signed"]

_SIGNATURE = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})", re.ASCII)


def is_signature(text: str) -> bool:
    """Returns whether a header's value has the form of a signature, so that it is worth to read the body."""
    return _SIGNATURE.fullmatch(text.strip()) is not None


def is_signed(body: bytes, signature: str, secrets: Sequence[bytes]) -> bool:
    """Returns whether one of the secrets signed the body. Takes as long whatever the result: all are compared."""
    match = _SIGNATURE.fullmatch(signature.strip())
    if match is None:
        return False
    sent, valid = match[1].lower().encode(), False
    for secret in secrets:
        valid |= hmac.compare_digest(hmac.new(secret, body, sha256).hexdigest().encode(), sent)
    return valid
