"""Reports the hour in which a session was used: one entry of the log per edge, session, workspace and hour at most."""

from __future__ import annotations

from api.commands.command_log import CommandLog
from api.readmodel.access.credentials import Credential
from api.readmodel.access.sessions import Sessions
from schemas.log import SessionUsed
from schemas.scalars import HOUR
from schemas.views import SessionRow

__all__ = ["SessionUsage"]


class SessionUsage:
    """Notes uses for the view, and at once for this edge."""

    def __init__(self, log: CommandLog, sessions: Sessions) -> None:
        self._log, self._sessions = log, sessions

    def note(self, row: SessionRow) -> None:
        """Notes a use of the session now. Does nothing if the view or this edge has this hour already."""
        now = self._log.now()
        hour = now - now % HOUR
        if hour <= self._sessions.last_use(row):
            return
        self._sessions.note_use(row, hour)
        self._log.post(SessionUsed(ws=row.ws, id=f"use of session {row.id} {hour}", session=row.id, time=hour))

    def note_credential(self, credential: Credential) -> None:
        """Notes a use of the session of an open connection."""
        if credential.session is not None:
            row = self._sessions.get(credential.session, credential.workspace_id)
            if row is not None and self._sessions.is_alive(row, self._log.now()):
                self.note(row)
