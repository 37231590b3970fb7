"""Reports the hour in which the key of a source was used: one entry of the log per edge, key and hour at most."""

from __future__ import annotations

from api.commands.command_log import CommandLog
from schemas.log import KeyUsed
from schemas.scalars import HOUR
from schemas.views import SourceKeyRow

__all__ = ["KeyUsage"]

_MAX_NOTED = 20_000  # keys; beyond, an hour may be reported once more, which changes nothing


class KeyUsage:
    """What this edge has reported. The view shows it as `last_used`."""

    def __init__(self, log: CommandLog) -> None:
        self._log = log
        self._noted: dict[str, int] = {}  # key -> the hour last reported, in microseconds

    def note(self, key: SourceKeyRow) -> None:
        """Notes a use of the key now. Does nothing if the view or this edge has this hour already."""
        now = self._log.now()
        hour = now - now % HOUR
        if hour <= max(key.last_used or 0, self._noted.get(key.id, 0)):
            return
        if len(self._noted) >= _MAX_NOTED:
            self._noted.clear()
        self._noted[key.id] = hour
        self._log.post(KeyUsed(ws=key.ws, id=f"use of key {key.id} {hour}", key=key.id, time=hour))
