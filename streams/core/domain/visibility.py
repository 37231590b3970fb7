"""Access predicate: which user may see a row. Lists, counts, writes, feeds and pushes all use it (law 6, C3)."""

from __future__ import annotations

from typing import Literal

from schemas.sources import ROLES

__all__ = ["CAN_SEE_SQL", "Targets", "can_see", "roles_of"]

Targets = tuple[str | None, str | None]  # a user and a role; both None: the whole workspace

# `can_see` in SQL for ClickHouse, where an empty string is no target. Parameters: `user` String, `roles` Array(String).
# A test compares the two.
CAN_SEE_SQL = (
    "((target_user_id = '' AND target_role = '')"
    " OR (target_user_id != '' AND target_user_id = {user:String})"
    " OR (target_role != '' AND target_role IN {roles:Array(String)}))"
)


def can_see(target_user_id: str | None, target_role: str | None, user: str, roles: frozenset[str]) -> bool:
    """Returns whether the user may see a row of their workspace: no target, this user, or one of `roles`.

    The caller has selected the workspace before: every index is kept per workspace.
    """
    if target_user_id is None and target_role is None:
        return True
    return target_user_id == user or (target_role is not None and target_role in roles)


def roles_of(role: str, rule: Literal["exact", "at-least"]) -> frozenset[str]:
    """Returns the roles that a holder of `role` acts as: that role; with `at-least` also every lower one."""
    if rule == "exact" or role not in ROLES:
        return frozenset({role})
    return frozenset(ROLES[ROLES.index(role):])
