"""To which role a user's last feed was given. Pure.

`Last-Event-ID` says of which state a reader's copy of the inbox is, not as whom it was made. Whoever comes back from a
feed in another role has a copy that the frames of the new role don't fit: they begin with a snapshot
(ops/decisions/0020). Frames are always made for the role of the token that is shown, so a copy that is not right is all
that is at stake, never what somebody may not see.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from api.readmodel.readers import Reader

__all__ = ["ResumeRoles"]

# Users that are remembered, the latest: some 300 bytes each.
_MAX_USERS = 50_000

_Roles = frozenset[str]


@dataclass(frozen=True, slots=True)
class _EndedFeed:
    """A feed that is over: the cursors it had, and when it was, in feeds begun and ended."""

    roles: _Roles
    first: int
    last: int
    opened_at: int
    ended_at: int

    def has(self, cursor: int) -> bool:
        return self.first <= cursor <= self.last


@dataclass(slots=True)
class _User:
    """`over`: of each role the feed that ended last. `refused`: roles in which a copy was replaced, and its cursor: the
    snapshot may have been lost on its way."""

    open: int = 0
    over: dict[_Roles, _EndedFeed] = field(default_factory=dict)
    refused: tuple[_Roles, int] | None = None


class ResumeRoles:
    """What one edge knows, of its own feeds; where it can't know, a feed goes on from where it was."""

    def __init__(self) -> None:
        self._users: OrderedDict[tuple[str, str], _User] = OrderedDict()
        self._turn = 0

    def allows_resume(self, reader: Reader, cursor: int) -> bool:
        """Whether a copy at `cursor` may be the reader's in these roles. Not, where the user's last feed was of other
        roles and had that cursor: unless one in these roles, which went on beside it, had it too, or one is open."""
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
        mine = user.over.get(reader.roles)
        return mine is not None and mine.has(cursor) and mine.ended_at > latest.opened_at

    def begin(self, reader: Reader, refused: int | None) -> int:
        """A feed begins, to be named when it ends. `refused`: the cursor that did not fit."""
        who = (reader.workspace_id, reader.user)
        user = self._users.setdefault(who, _User())
        self._users.move_to_end(who)
        user.open += 1
        if refused is not None:
            user.refused = (reader.roles, refused)
        if len(self._users) > _MAX_USERS:
            self._users.popitem(last=False)
        self._turn += 1
        return self._turn

    def end(self, reader: Reader, began: int, first: int, last: int) -> None:
        """A feed is over that had the cursors from `first` to `last`."""
        user = self._users.get((reader.workspace_id, reader.user))
        if user is not None:
            self._turn += 1
            user.open = max(user.open - 1, 0)
            user.over[reader.roles] = _EndedFeed(reader.roles, first, last, began, self._turn)
