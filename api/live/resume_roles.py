"""Remembers for which roles the cursors of a user were issued. Pure.

`Last-Event-ID` names the position of a client's copy of the inbox, but not the roles for which the copy was built.
After a change of roles, the frames of the new roles do not fit the copy. Such a feed starts with a snapshot
(ops/decisions/0020). Frames are always rendered for the roles of the current token. A wrong decision here could leave a
copy out of date; it could not show an item to a user who may not see it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from api.readmodel.readers import Reader

__all__ = ["ResumeRoles"]

# Users that are remembered, the most recent ones. Each takes about 300 bytes.
_MAX_USERS = 50_000

_Roles = frozenset[str]


@dataclass(frozen=True, slots=True)
class _EndedFeed:
    """An ended feed: its cursors from `first` to `last`, and its opening and end as numbers of one sequence."""

    roles: _Roles
    first: int
    last: int
    opened_at: int
    ended_at: int

    def has(self, cursor: int) -> bool:
        return self.first <= cursor <= self.last


@dataclass(slots=True)
class _User:
    """Feeds of one user. `over`: by roles, the feed that ended last.

    `refused`: roles and cursor of a resume that was answered with a snapshot. The snapshot may not have arrived, so the
    same cursor is refused again.
    """

    open: int = 0
    over: dict[_Roles, _EndedFeed] = field(default_factory=dict)
    refused: tuple[_Roles, int] | None = None


class ResumeRoles:
    """Roles of the feeds of one edge. For feeds that it does not know, the edge allows to resume."""

    def __init__(self) -> None:
        self._users: OrderedDict[tuple[str, str], _User] = OrderedDict()
        self._turn = 0

    def allows_resume(self, reader: Reader, cursor: int) -> bool:
        """Returns whether a copy at `cursor` may have been built for the reader's roles.

        Returns False if the user's last feed had other roles and had this cursor. Exceptions: another feed of the user
        is open, or a feed with these roles had the cursor too and ended after the last feed had opened.
        """
        user = self._users.get((reader.workspace_id, reader.user))
        if user is None:
            return True
        if user.refused == (reader.roles, cursor):
            return False
        if user.open or not user.over:
            return True
        latest = max(user.over.values(), key=lambda over: over.ended_at)
        if latest.roles == reader.roles or not latest.has(cursor):
            return True
        same_roles = user.over.get(reader.roles)
        return same_roles is not None and same_roles.has(cursor) and same_roles.ended_at > latest.opened_at

    def begin(self, reader: Reader, refused: int | None) -> int:
        """Records that a feed opens. Returns its number, an argument of `end`. `refused`: the refused cursor."""
        key = (reader.workspace_id, reader.user)
        user = self._users.setdefault(key, _User())
        self._users.move_to_end(key)
        user.open += 1
        if refused is not None:
            user.refused = (reader.roles, refused)
        if len(self._users) > _MAX_USERS:
            self._users.popitem(last=False)
        self._turn += 1
        return self._turn

    def end(self, reader: Reader, began: int, first: int, last: int) -> None:
        """Records that a feed with the cursors from `first` to `last` ended. `began`: its number."""
        user = self._users.get((reader.workspace_id, reader.user))
        if user is not None:
            self._turn += 1
            user.open = max(user.open - 1, 0)
            user.over[reader.roles] = _EndedFeed(reader.roles, first, last, began, self._turn)
