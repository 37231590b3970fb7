"""Who may see what. The one predicate: list, count, write, bulk, feed and push all ask here (law 6, C3)."""

from __future__ import annotations

from typing import Literal

from schemas.sources import ROLES

__all__ = ["CAN_SEE_SQL", "Targets", "can_see", "roles_of"]

Targets = tuple[str | None, str | None]  # a user and a role; neither: the whole workspace

# `can_see` as ClickHouse reads it, where no target is an empty text. Parameters: `user`, a String, and `roles`, an
# Array(String). A test holds the two against each other.
CAN_SEE_SQL = (
    "((target_user_id = '' AND target_role = '')"
    " OR (target_user_id != '' AND target_user_id = {user:String})"
    " OR (target_role != '' AND target_role IN {roles:Array(String)}))"
)


def can_see(target_user_id: str | None, target_role: str | None, user: str, roles: frozenset[str]) -> bool:
    """Within one workspace: no target, or this user, or one of the roles the user acts as. Crossing workspaces is
    impossible before this is asked: every index is kept per workspace."""
    if target_user_id is None and target_role is None:
        return True
    return target_user_id == user or (target_role is not None and target_role in roles)


def roles_of(role: str, rule: Literal["exact", "at-least"]) -> frozenset[str]:
    """The roles a holder of `role` acts as: their own, or with `at-least` also every lower one."""
    if rule == "exact" or role not in ROLES:
        return frozenset({role})
    return frozenset(ROLES[ROLES.index(role):])
