"""Maps the claims of an account to workspaces and roles (CONTRACT §9, `ATTN_OIDC_ROLES`). Pure.

A rule reads one claim by JMESPath, compares each of its values, and gives a role in a workspace. Of several roles in
one workspace the highest counts. `roles_file` reads the rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.scalars import is_valid_unicode
from schemas.sources import ROLES
from streams.connectors.mappings.expressions import EvaluationCost, Evaluator, Expression, ExpressionError

__all__ = ["Account", "AccountRefused", "Grant", "RoleMapping", "Rule", "Template", "map_account"]

MAX_GRANTS = 64  # workspaces of one account: the session has a row in each
MAX_VALUES = 5000  # values of one claim that are compared
_MAX_VALUE = 512  # characters; a longer value matches no rule
_MAX_USER = 512  # characters of the user's id, and of the name
_RANK: dict[str, int] = {role: rank for rank, role in enumerate(ROLES)}  # 0 is the highest
_OVERAGE = "_claim_names"  # OpenID Connect Core 5.6.2: claims that the issuer left out of the token


class AccountRefused(Exception):
    """The claims name no account that may sign in. `str(error)` is the reason for the operator."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in a workspace."""

    workspace: str
    role: str


@dataclass(frozen=True, slots=True)
class Template:
    """Fixed texts and names in turn, such as `attn/{workspace}/{role}`: texts at even places, names at odd ones.

    A name stands for one or more characters, up to the first place where the following text fits. So a match needs time
    in proportion to the value, and no backtracking. `*` is the name of a part that is not used.
    """

    parts: tuple[str, ...]

    def match(self, value: str) -> dict[str, str] | None:
        """Returns the parts of the value by name; None if it does not fit."""
        if not value.startswith(self.parts[0]):
            return None
        at, found = len(self.parts[0]), {}
        for number in range(1, len(self.parts), 2):
            following = self.parts[number + 1]
            last = number + 2 == len(self.parts)
            end = len(value) - len(following) if last else value.find(following, at + 1)
            if end <= at or (last and not value.endswith(following)):
                return None
            found[self.parts[number]] = value[at:end]
            at = end + len(following)
        return found if at == len(value) else None

    def fill(self, values: Mapping[str, str]) -> str:
        """Returns the text with the values of the names."""
        return "".join(values[part] if number % 2 else part for number, part in enumerate(self.parts))


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[rule]]`. Without a `claim` it holds for every account. `matches`: of which one must fit a value of the
    claim; empty: any value that is not false. `roles`: replaces a text that the value has by a role."""

    claim: Expression | None
    matches: tuple[Template, ...]
    when: Expression | None
    workspace: Template
    role: Template
    roles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RoleMapping:
    """A parsed mapping. `claims`: the claims that its expressions read, top-level ones and perhaps others."""

    rules: tuple[Rule, ...]
    user: Expression
    name: Expression
    require: Expression | None
    claims: frozenset[str]


@dataclass(frozen=True, slots=True)
class Account:
    """Who signs in, with the roles. `reasons`: the number of the rule (from 1) and the value behind each grant.
    `notes`: what the operator should know, such as groups that the issuer left out."""

    user: str
    name: str | None
    grants: tuple[Grant, ...]
    reasons: tuple[tuple[int, str | None], ...]
    notes: tuple[str, ...]


def map_account(mapping: RoleMapping, claims: Mapping[str, Any]) -> Account:
    """Returns the account of these claims, with its grants ordered by workspace, perhaps none.

    Raises AccountRefused if the claims name no user or fail `require`, and if an expression fails.
    """
    values = dict(claims)
    evaluator = Evaluator({}, EvaluationCost())
    try:
        if mapping.require is not None and not evaluator.is_true(mapping.require, values):
            raise AccountRefused("the account does not meet `require` of the roles file")
        user = evaluator.evaluate(mapping.user, values)
        name = evaluator.evaluate(mapping.name, values)
        held, notes = _grants(mapping, evaluator, values)
    except ExpressionError as error:
        raise AccountRefused(f"an expression of the roles file {error}") from None
    if not isinstance(user, str) or not user.strip() or len(user) > _MAX_USER or not is_valid_unicode(user):
        raise AccountRefused(f"`user` of the roles file gives no text of 1 to {_MAX_USER} characters")
    if not (isinstance(name, str) and name.strip() and len(name) <= _MAX_USER and is_valid_unicode(name)):
        name = None
    if _OVERAGE in values:
        notes.append(f"the issuer left claims out of the token ({_OVERAGE}): too many groups? Let it send roles, or "
                     "the groups of this application only")
    kept = sorted(held)[:MAX_GRANTS]
    if len(held) > len(kept):
        notes.append(f"{len(held)} workspaces: only the first {MAX_GRANTS} by name count")
    return Account(user, name, tuple(Grant(ws, held[ws][0]) for ws in kept), tuple(held[ws][1:] for ws in kept),
                   tuple(notes))


def _grants(
    mapping: RoleMapping, evaluator: Evaluator, claims: Mapping[str, Any],
) -> tuple[dict[str, tuple[str, int, str | None]], list[str]]:
    """Returns workspace -> (role, rule, value), and notes."""
    held: dict[str, tuple[str, int, str | None]] = {}
    notes: list[str] = []
    for number, rule in enumerate(mapping.rules, 1):
        if rule.when is not None and not evaluator.is_true(rule.when, claims):
            continue
        for value, found in _matches(rule, evaluator, claims):
            workspace, role = rule.workspace.fill(found), rule.role.fill(found)
            role = rule.roles.get(role, role).upper()
            if role not in _RANK or not workspace.strip() or not is_valid_unicode(workspace):
                notes.append(f"rule {number}: {value!r} gives no workspace or no role: {role[:40]!r}"[:200])
            elif workspace not in held or _RANK[role] < _RANK[held[workspace][0]]:
                held[workspace] = (role, number, value)
    return held, notes[:10]


def _matches(
    rule: Rule, evaluator: Evaluator, claims: Mapping[str, Any],
) -> Iterator[tuple[str | None, dict[str, str]]]:
    """Yields each value of the claim that fits the rule, with its named parts."""
    if rule.claim is None:
        yield None, {}
        return
    for value in _texts(evaluator.evaluate(rule.claim, claims)):
        if not rule.matches:
            if value != "false":
                yield value, {}
            continue
        for template in rule.matches:
            if (found := template.match(value)) is not None:
                yield value, found
                break


def _texts(value: object) -> Iterator[str]:
    """Yields the texts of a claim: of a text, number or boolean one; of a list, those of its entries. Objects and null
    have none. Numbers and booleans are written as JSON writes them."""
    for entry in value[:MAX_VALUES] if isinstance(value, list) else [value]:
        text = entry if isinstance(entry, str) else json.dumps(entry) if isinstance(entry, bool | int | float) else ""
        if 0 < len(text) <= _MAX_VALUE:
            yield text
