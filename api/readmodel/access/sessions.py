"""What an edge knows of access: sessions, sign-in links, revoked bearer tokens and the keys of sources. Pure.

The index keeps the decoded rows only. It is no part of a workspace: feeds neither show these rows nor resume over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from api.readmodel.access.source_keys import SourceKeys
from schemas.scalars import HOUR, SECOND
from schemas.views import LinkRow, RevocationRow, SessionRow, decode_row

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["ACCESS_PREFIXES", "AccessIndex", "Revocations", "Sessions"]

ACCESS_PREFIXES = frozenset({b"s:", b"r:", b"l:"})


class Sessions:
    """The sessions of all workspaces of the replica."""

    def __init__(self) -> None:
        self._rows: dict[bytes, SessionRow] = {}
        self._by_id: dict[str, tuple[SessionRow, ...]] = {}
        self._by_user: dict[tuple[str, str], tuple[str, ...]] = {}  # workspace, user -> ids
        self._by_issuer: dict[tuple[str, str], tuple[str, ...]] = {}  # issuer, sid or sub -> ids
        self._used: dict[tuple[str, str], int] = {}  # id, workspace -> newest use on this edge (µs)

    def __len__(self) -> int:
        return len(self._rows)

    def apply(self, key: bytes, row: SessionRow | None) -> SessionRow | None:
        """Stores a row, or deletes it. Returns the row before, if there was one."""
        known = self._rows.pop(key, None)
        if known is not None:
            self._remove(known)
        if row is not None:
            self._rows[key] = row
            self._add(row)
        elif known is not None:
            self._used.pop((known.id, known.ws), None)
        return known

    def _add(self, row: SessionRow) -> None:
        self._by_id[row.id] = (*self._by_id.get(row.id, ()), row)
        self._by_user[row.ws, row.user] = (*self._by_user.get((row.ws, row.user), ()), row.id)
        for name in _issuer_names(row):
            self._by_issuer[name] = (*self._by_issuer.get(name, ()), row.id)

    def _remove(self, row: SessionRow) -> None:
        _set(self._by_id, row.id, tuple(one for one in self._by_id[row.id] if one.ws != row.ws))
        user = (row.ws, row.user)
        _set(self._by_user, user, tuple(one for one in self._by_user[user] if one != row.id))
        for name in _issuer_names(row):
            ids = list(self._by_issuer[name])
            ids.remove(row.id)  # once: the session may have a row in another workspace
            _set(self._by_issuer, name, tuple(ids))

    def of(self, session: str) -> tuple[SessionRow, ...]:
        """Returns the rows of a session: one for each workspace that it may enter."""
        return self._by_id.get(session, ())

    def get(self, session: str, ws: str) -> SessionRow | None:
        """Returns the row of a session in one workspace."""
        return next((row for row in self.of(session) if row.ws == ws), None)

    def of_user(self, ws: str, user: str) -> list[SessionRow]:
        """Returns the sessions of a user in a workspace, the newest first."""
        rows = [row for one in self._by_user.get((ws, user), ()) if (row := self.get(one, ws)) is not None]
        return sorted(rows, key=lambda row: (-row.created_at, row.id))

    def of_workspace(self, ws: str) -> list[SessionRow]:
        """Returns all sessions of a workspace, the newest first."""
        rows = (row for row in self._rows.values() if row.ws == ws)
        return sorted(rows, key=lambda row: (-row.created_at, row.id))

    def of_issuer(self, issuer: str, sid: str | None = None, subject: str | None = None) -> list[SessionRow]:
        """Returns the rows of the sessions that an issuer names by its `sid` or, without one, by `sub`."""
        name = (issuer, f"sid {sid}") if sid is not None else (issuer, f"sub {subject}")
        return [row for one in dict.fromkeys(self._by_issuer.get(name, ())) for row in self.of(one)]

    def with_refresh_token(self, issuer: str) -> list[SessionRow]:
        """Returns the rows of an issuer's sessions that have a refresh token."""
        return [row for row in self._rows.values() if row.refresh is not None and row.issuer == issuer]

    def last_use(self, row: SessionRow) -> int:
        """Returns the begin of the newest hour of use that the row or this edge knows, in microseconds."""
        return max(row.used_at, self._used.get((row.id, row.ws), 0))

    def note_use(self, row: SessionRow, hour: int) -> None:
        """Notes a use on this edge before the view shows it."""
        self._used[row.id, row.ws] = hour

    def is_alive(self, row: SessionRow, now: int) -> bool:
        """Returns whether the session is valid at `now` (µs), by its absolute end and its last use."""
        return now < self.end_of(row)

    def end_of(self, row: SessionRow) -> int:
        """Returns the time at which the session ends without further use, in microseconds."""
        return min(row.expires_at, self.last_use(row) + HOUR + row.idle)


def _issuer_names(row: SessionRow) -> Iterator[tuple[str, str]]:
    if row.issuer is not None:
        if row.issuer_sid is not None:
            yield row.issuer, f"sid {row.issuer_sid}"
        if row.subject is not None:
            yield row.issuer, f"sub {row.subject}"


def _set(table: dict[K, tuple[V, ...]], key: K, values: tuple[V, ...]) -> None:
    if values:
        table[key] = values
    else:
        table.pop(key, None)


class Revocations:
    """The revoked bearer tokens of all workspaces of the replica."""

    def __init__(self) -> None:
        self._rows: dict[bytes, RevocationRow] = {}
        self._tokens: set[tuple[str, str]] = set()  # workspace, jti
        self._users: dict[tuple[str, str], int] = {}  # workspace, user -> issued before (µs)

    def apply(self, key: bytes, row: RevocationRow | None) -> None:
        known = self._rows.pop(key, None)
        if known is not None and known.jti is not None:
            self._tokens.discard((known.ws, known.jti))
        elif known is not None:
            self._users.pop((known.ws, known.user or ""), None)
        if row is not None:
            self._rows[key] = row
            if row.jti is not None:
                self._tokens.add((row.ws, row.jti))
            else:
                self._users[row.ws, row.user or ""] = row.before or 0

    def of_workspace(self, ws: str) -> list[RevocationRow]:
        """Returns the revocations of a workspace, the newest first."""
        return sorted((row for row in self._rows.values() if row.ws == ws), key=lambda row: (-row.at, row.jti or ""))

    def covers(self, ws: str, user: str, jti: str | None, issued_at: float | None) -> bool:
        """Returns whether a token is revoked. One that does not say when it was issued counts as issued before."""
        if jti is not None and (ws, jti) in self._tokens:
            return True
        before = self._users.get((ws, user))
        return before is not None and (issued_at is None or issued_at * SECOND < before)


class AccessIndex:
    """Rows of access. `changed`: workspace and user of each credential that a row may have taken away since the last
    `pop_changed`; user None: all of the workspace."""

    def __init__(self) -> None:
        self.source_keys = SourceKeys()
        self.sessions = Sessions()
        self.revocations = Revocations()
        self.links: dict[str, LinkRow] = {}
        self._changed: dict[tuple[str, str | None], None] = {}

    def apply(self, key: bytes, raw: bytes | None) -> bool:
        """Applies one row of the view; None deletes it. Returns whether no workspace keeps it."""
        if key[:2] == b"x:":
            known = self.source_keys.get(key[2:].decode())
            self.source_keys.apply(key, raw)
            if known is not None:
                self._changed[known.ws, f"key:{known.id}"] = None
            return False
        if key[:2] not in ACCESS_PREFIXES:
            return False
        row = decode_row(key, raw) if raw is not None else None
        if key[:2] == b"s:":
            before = self.sessions.apply(key, row if isinstance(row, SessionRow) else None)
            if before is not None and (not isinstance(row, SessionRow) or row.role != before.role
                                       or row.expires_at != before.expires_at):
                self._changed[before.ws, before.user] = None
        elif key[:2] == b"r:":
            self.revocations.apply(key, row if isinstance(row, RevocationRow) else None)
            if isinstance(row, RevocationRow):
                self._changed[row.ws, row.user] = None
        elif isinstance(row, LinkRow):
            self.links[row.id] = row
        else:
            self.links.pop(key[2:].decode(), None)
        return True

    def pop_changed(self) -> list[tuple[str, str | None]]:
        """Returns and removes the changed credentials."""
        changed, self._changed = list(self._changed), {}
        return changed
