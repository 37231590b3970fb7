"""What authenticated a request, and whether it is still valid: a session, the key of a source, or a bearer token.

An edge asks again when a row of the view changed that may take the credential away, so a stream ends on every edge as
soon as the edge has applied the change (CONTRACT §9). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from api.readmodel.access.sessions import AccessIndex
from schemas.scalars import SECOND

__all__ = ["Credential"]


@dataclass(frozen=True, slots=True)
class Credential:
    """The workspace and user of a request, and by what they are known: `session` and `role`, `key`, or else a bearer
    token with `jti` and `issued_at` (seconds since the epoch; None: the token does not say)."""

    workspace_id: str
    user: str
    role: str
    session: str | None = None
    key: str | None = None
    jti: str | None = None
    issued_at: float | None = None

    def refusal(self, index: AccessIndex, now: float) -> str | None:
        """Returns why the credential is no longer valid, None if it is. `now`: seconds since the epoch."""
        if self.session is not None:
            row = index.sessions.get(self.session, self.workspace_id)
            if row is None:
                return "the session has ended"
            if not index.sessions.is_alive(row, int(now * SECOND)):
                return "the session has expired"
            return "the role of the session has changed" if row.role != self.role else None
        if self.key is not None:
            key = index.source_keys.get(self.key)
            if key is None or key.ws != self.workspace_id:
                return "the key was revoked"
            return "the key has expired" if key.expires_at is not None and key.expires_at <= now * SECOND else None
        if index.revocations.covers(self.workspace_id, self.user, self.jti, self.issued_at):
            return "the token was revoked"
        return None
