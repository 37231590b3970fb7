"""Reads the issuer's keys for ID tokens and logout tokens: RS, PS and ES of 256, 384 and 512 bits, and Ed25519.

A key without `alg` verifies each algorithm of its type; a key with `alg` only that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from api.http.auth.jwks import MAX_KEYS, PublicKey, WeakKey, parse_uint, refuse_private, rsa_key

__all__ = ["ID_TOKEN_ALGORITHMS", "read_issuer_keys"]

_CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()), "P-384": ("ES384", ec.SECP384R1()), "P-521": ("ES512", ec.SECP521R1()),
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EDWARDS = ("EdDSA",)
ID_TOKEN_ALGORITHMS = frozenset({*_RSA, *(name for name, _ in _CURVES.values()), *_EDWARDS})


def read_issuer_keys(document: object) -> tuple[list[PublicKey], list[tuple[str | None, str]]]:
    """Returns one entry for each key and algorithm, and a (`kid`, reason) pair for each refused key. Entries for other
    uses are in neither list. Raises ValueError if the document is not a key set."""
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the document is not a JSON Web Key Set: it has no list of keys")
    keys: list[PublicKey] = []
    refused: list[tuple[str | None, str]] = []
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, Mapping) or not _may_verify(entry):
            continue
        kid = entry["kid"] if isinstance(entry.get("kid"), str) else None
        try:
            keys += _keys(entry, kid)
        except (ValueError, TypeError) as error:
            refused.append((kid, str(error)[:200]))
    return keys, refused


def _may_verify(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops")
    return (entry.get("use") in (None, "sig") and entry.get("alg") in (None, *ID_TOKEN_ALGORITHMS)
            and not (isinstance(operations, list) and "verify" not in operations))


def _keys(entry: Mapping[str, Any], kid: str | None) -> list[PublicKey]:
    kind, curve = entry.get("kty"), entry.get("crv")
    key: Any
    if kind == "RSA":
        algorithms: tuple[str, ...] = _RSA
        parameters, key = rsa_key(entry)
    elif kind == "EC" and curve in _CURVES:
        algorithm, ec_curve = _CURVES[curve]
        refuse_private(entry)
        parameters = parse_uint(entry, "x", ec_curve.key_size), parse_uint(entry, "y", ec_curve.key_size)
        algorithms, key = (algorithm,), ec.EllipticCurvePublicNumbers(*parameters, ec_curve).public_key()
    elif kind == "OKP" and curve == "Ed25519":
        refuse_private(entry)
        x = parse_uint(entry, "x", 256)
        algorithms, parameters = _EDWARDS, (x, 0)
        key = ed25519.Ed25519PublicKey.from_public_bytes(x.to_bytes(32, "big"))
    elif kind in ("EC", "OKP"):
        raise WeakKey(f"curve {str(curve)[:40]}: P-256, P-384, P-521 and Ed25519 are accepted")
    else:
        return []
    return [PublicKey(kid, name, parameters, key) for name in algorithms if entry.get("alg") in (None, name)]
