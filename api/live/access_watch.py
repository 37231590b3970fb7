"""Ends streams, sockets and long polls whose credential was taken away: a session, a key, a token (CONTRACT §9).

Each registers with its credential. The edge checks those of a user again after a row of access changed, and all of them
every few seconds, because a session or a key may also expire. A change reaches each edge with the view, so streams end
within a second of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from api.readmodel.access.credentials import Credential
from api.readmodel.access.sessions import AccessIndex

__all__ = ["AccessWatch"]

_SWEEP_SECONDS = 5.0
_STEP = 1000  # entries that are checked before the event loop runs other tasks

End = Callable[[], None]


class AccessWatch:
    """Open connections of one edge, by workspace and user. `clock` returns seconds since the epoch; `note_use` reports
    that a session is in use, because a page that only holds a stream open must not lose its session."""

    def __init__(
        self, index: AccessIndex, clock: Callable[[], float], note_use: Callable[[Credential], None],
    ) -> None:
        self._index, self._clock, self._note_use = index, clock, note_use
        self._open: dict[tuple[str, str], dict[End, Credential]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def add(self, credential: Credential, end: End) -> End:
        """Registers a connection. `end` is called, once, when the credential is no longer valid; at once if it is not
        valid now. Returns the function that removes the connection."""
        name = (credential.workspace_id, credential.user)

        def remove() -> None:
            entries = self._open.get(name)
            if entries is not None and entries.pop(end, None) is not None and not entries:
                del self._open[name]

        if self.refusal(credential) is not None:
            end()
        else:
            self._open.setdefault(name, {})[end] = credential
        return remove

    def refusal(self, credential: Credential) -> str | None:
        """Returns why the credential is no longer valid, None if it is."""
        return credential.refusal(self._index, self._clock())

    def check_changed(self) -> None:
        """Ends the connections whose credential was taken away by the rows applied since the last call."""
        for ws, user in self._index.pop_changed():
            names = [(ws, user)] if user is not None else [name for name in self._open if name[0] == ws]
            for name in names:
                self._end_invalid(self._open.get(name, {}).items())

    def _end_invalid(self, entries: Iterable[tuple[End, Credential]]) -> None:
        for end, credential in list(entries):
            if self.refusal(credential) is not None:
                self._forget(end, credential)
                end()

    def _forget(self, end: End, credential: Credential) -> None:
        name = (credential.workspace_id, credential.user)
        entries = self._open.get(name)
        if entries is not None:
            entries.pop(end, None)
            if not entries:
                del self._open[name]

    async def sweep(self) -> None:
        """Ends the connections whose credential has expired, and notes the use of the others."""
        entries = [entry for of_user in self._open.values() for entry in of_user.items()]
        for begin in range(0, len(entries), _STEP):
            part = entries[begin:begin + _STEP]
            self._end_invalid(part)
            for _, credential in part:
                if credential.session is not None:
                    self._note_use(credential)
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await self.sweep()
