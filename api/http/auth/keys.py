"""Authenticates the key of a source (CONTRACT §8): `Authorization: Bearer attn_...`, or as a password (RFC 7617).

The edge compares the SHA-256 of the sent key with that of the row, which its replica holds, so it refuses a revoked key
as soon as it has applied the change. An expired key is refused by the edge's clock.
"""

from __future__ import annotations

import base64
import binascii
import hmac

from api.contract.errors import NotReady
from api.edge.services import Edge
from api.http.auth.tokens import Caller, Unauthorized
from api.readmodel.readers import Reader
from schemas.scalars import SECOND
from schemas.views import SourceKeyRow
from streams.runtime.source_keys import key_digest, key_id_of, looks_like_key

__all__ = ["basic_password", "bearer_key", "caller_of_key"]

_NEVER = float("inf")


def bearer_key(authorization: str) -> str | None:
    """Returns the key of the Authorization header; None if the header has a token or another scheme."""
    scheme, _, text = authorization.partition(" ")
    text = text.strip(" \t")
    return text if scheme.lower() == "bearer" and looks_like_key(text) else None


def basic_password(authorization: str) -> str | None:
    """Returns the password of an Authorization header with the scheme Basic, "" if it is malformed; None for another
    scheme. Alertmanager and Grafana send their keys so; the user name is of no importance."""
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(text.strip(" \t"), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def caller_of_key(edge: Edge, text: str) -> Caller:
    """Returns the caller that has this key, and notes its use.

    Raises Unauthorized if the key is unknown, revoked or expired, and NotReady if the view has not caught up yet.
    """
    key_id = key_id_of(text)
    if key_id is None:
        raise Unauthorized("not a key: attn_ and 66 more characters are expected, of which the last 6 are a checksum")
    if not edge.ready:
        raise NotReady
    row = edge.replica.source_keys.get(key_id)
    if row is None or not hmac.compare_digest(row.digest, key_digest(text)):
        raise Unauthorized("the key is not known, or was revoked")
    if row.expires_at is not None and row.expires_at <= edge.clock() * SECOND:
        raise Unauthorized("the key has expired")
    edge.key_usage.note(row)
    return _caller(row)


def _caller(row: SourceKeyRow) -> Caller:
    expires = row.expires_at / SECOND if row.expires_at is not None else _NEVER
    return Caller("KEY", row.name, expires, Reader(row.ws, f"key:{row.id}", frozenset()), row)
