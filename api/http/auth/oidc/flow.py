"""State of one sign-in, kept by the browser in an encrypted cookie until the issuer sends it back.

Each sign-in has a cookie of its own, so two tabs may sign in at once. The cookie is sent to the callback only. Its key
follows from the secrets of the settings, so each edge reads what another one wrote.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from urllib.parse import quote

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.settings import Settings

__all__ = ["CALLBACK_PATH", "FLOW_SECONDS", "Box", "Flow", "cookie_name", "new_flow", "safe_target"]

CALLBACK_PATH = "/auth/callback"
FLOW_SECONDS = 600
_NONCE_BYTES = 12
_MAX_TARGET = 1500  # characters; the cookie stays below 4096 bytes
# The page of attn is `/`. What follows is for the page, so a target never leads to another path or host.
_TARGET = re.compile(r"/(?:\?[^#\x00-\x20\x7f\\]*)?(?:#[^\x00-\x20\x7f\\]*)?")


class Flow(msgspec.Struct, frozen=True):
    """One sign-in. `started`: seconds since the epoch. `max_age`: seconds that the issuer's session may be old."""

    state: str
    nonce: str
    verifier: str
    started: float
    target: str = "/"
    max_age: int | None = None
    acr: str | None = None

    @property
    def challenge(self) -> str:
        """PKCE S256 (RFC 7636)."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")


def new_flow(now: float, target: str, max_age: int | None = None, acr: str | None = None) -> Flow:
    """Returns a flow with random state, nonce and verifier of 256 bits each."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return Flow(state, nonce, verifier, now, target, max_age, acr)


def safe_target(text: str | None) -> str:
    """Returns where the page goes after the sign-in: `/` with a query or fragment, else `/`."""
    if text is None or len(text) > _MAX_TARGET or _TARGET.fullmatch(text) is None:
        return "/"
    quoted = quote(text, safe="/?#[]@!$&'()*+,;=:~%-._")
    return quoted if len(quoted) <= _MAX_TARGET else "/"


def cookie_name(state: str) -> str:
    """Returns the name of the cookie of the flow with this state."""
    return "attn_flow_" + hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()[:16]


class Box:
    """Encrypts texts with AES-256-GCM. The key follows from ATTN_JWT_SECRET, else from ATTN_OIDC_CLIENT_SECRET."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError if the settings have neither secret."""
        secret = settings.jwt_secret or settings.oidc_client_secret
        if secret is None:
            raise ValueError("sign-in needs ATTN_OIDC_CLIENT_SECRET or ATTN_JWT_SECRET")
        self._cipher = AESGCM(hmac.digest(secret.get_secret_value().encode(), b"attn.oidc-box.1", hashlib.sha256))

    def seal(self, content: bytes, bound: str) -> str:
        """Returns base64url of nonce and ciphertext. `bound`: what the text belongs to, needed to open it."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, content, bound.encode())
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, sealed: str, bound: str) -> bytes | None:
        """Returns the content; None if it was changed, belongs to another thing, or has another key."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode() + b"=" * (-len(sealed) % 4))
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], bound.encode())
        except (InvalidTag, ValueError):
            return None

    def seal_flow(self, flow: Flow) -> str:
        """Returns the value of the flow's cookie."""
        return self.seal(msgspec.json.encode(flow), f"flow {cookie_name(flow.state)}")

    def open_flow(self, value: str, state: str, now: float) -> Flow | None:
        """Returns the flow of a cookie; None if it is not that of `state`, or older than FLOW_SECONDS."""
        content = self.open(value, f"flow {cookie_name(state)}")
        if content is None:
            return None
        try:
            flow = msgspec.json.decode(content, type=Flow)
        except msgspec.MsgspecError:
            return None
        same = hmac.compare_digest(flow.state.encode(), state.encode("utf-8", "replace"))
        return flow if same and -1 <= now - flow.started <= FLOW_SECONDS else None
