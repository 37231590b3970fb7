"""Response models of receipts and of the keys that sign them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.contract.responses.base import ResponseModel


class ReceiptSignature(ResponseModel):
    """A signature of RFC 7515. `protected`: base64url of `{"alg":"EdDSA","kid","typ"}`."""

    protected: str
    signature: str = Field(description="base64url of the Ed25519 signature over `protected`, a dot, and `payload`")


class Receipt(ResponseModel):
    """The receipt of a decision: a JWS in the general JSON serialisation (RFC 7515)."""

    payload: str = Field(description="base64url of canonical JSON: the question, the decision, the actors, the fence")
    signatures: list[ReceiptSignature]


class PublicKey(ResponseModel):
    """An Ed25519 public key (RFC 8037). `kid`: its thumbprint (RFC 7638)."""

    alg: Literal["EdDSA"]
    crv: Literal["Ed25519"]
    kid: str
    kty: Literal["OKP"]
    use: Literal["sig"]
    x: str = Field(description="base64url of the 32 bytes of the key")


class KeySet(ResponseModel):
    """A JWK set (RFC 7517). The first key signs; the others verify older receipts."""

    keys: list[PublicKey]
