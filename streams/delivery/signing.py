"""Signatures of Standard Webhooks 1.0: `v1` (HMAC-SHA256) and `v1a` (ed25519). No I/O.

The signed text is `id.timestamp.body`. Every key of the endpoint signs: while keys are rotated, a receiver accepts the
message with the old key and with the new one.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

from streams.delivery.endpoints import Endpoint

__all__ = ["public_keys", "signature_headers", "webhook_id"]


def webhook_id(decision: str, verb: str) -> str:
    """Returns the id of a message, which is the same in every repeat of it.

    `decision.made` has the decision's id (CONTRACT §7), other verbs an id of their own such as `dec_…_taken_back`.
    Standard Webhooks forbids a dot in it, because a dot separates it from the timestamp in the signed text.
    """
    return decision if verb == "made" else f"{decision}_{verb}"


def signature_headers(endpoint: Endpoint, webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Returns `webhook-id`, `webhook-timestamp` and `webhook-signature`. `timestamp_s`: seconds since the epoch.

    The same arguments give the same headers: both algorithms are deterministic.
    """
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    signatures = [f"v1,{_base64(hmac.digest(key, signed, hashlib.sha256))}" for key in endpoint.hmac_keys]
    signatures += [f"v1a,{_base64(key.sign(signed))}" for key in endpoint.ed25519_keys]
    return {
        "webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s), "webhook-signature": " ".join(signatures)}


def public_keys(endpoint: Endpoint) -> list[str]:
    """Returns the public keys that verify the endpoint's `v1a` signatures, as `whpk_` and base64."""
    return [f"whpk_{_base64(key.public_key().public_bytes_raw())}" for key in endpoint.ed25519_keys]


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()
