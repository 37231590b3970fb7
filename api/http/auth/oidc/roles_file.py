"""Reads the roles file (`ATTN_OIDC_ROLES`): TOML with the rules of `roles`.

    [account]                       # optional
    user = "sub"                    # the user's id in attn, JMESPath
    name = "name"                   # the name that others see
    require = "email_verified"      # who fails it cannot sign in

    [[rule]]
    claim = "groups"                # JMESPath; a text or a list of texts
    equals = ["attn-admins"]        # or prefix = "attn-", or match = "attn/{workspace}/{role}"
    when = "department == 'it'"     # optional, one more condition
    workspace = "ws_01"             # may have the named parts of `match`
    role = "ADMIN"
    roles = { lead = "MANAGER" }    # optional, replaces texts of the claim by roles

A rule without `claim` holds for every account.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from api.http.auth.oidc.roles import RoleMapping, Rule, Template
from schemas.sources import ROLES
from streams.connectors.mappings.expressions import Expression, ExpressionError, compile_expression

__all__ = ["RolesFileError", "load_roles", "parse_roles"]

MAX_FILE_BYTES = 256 << 10
_MAX_RULES = 500
_MAX_TEXT = 512
_MAX_NAMES = 4  # named parts of a template
_KEYS = frozenset({"claim", "equals", "prefix", "match", "when", "workspace", "role", "roles"})
_PART = re.compile(r"\{([A-Za-z_]{1,40})\}|\*")
_ACCOUNT = {"user": "sub", "name": "name", "require": None}


class RolesFileError(Exception):
    """A roles file cannot be used. `str(error)` names the place in the file and the problem."""


def load_roles(path: Path) -> RoleMapping:
    """Returns the mapping of a file. Raises RolesFileError, also if the file cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        return parse_roles(content.decode())
    except OSError as error:
        raise RolesFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RolesFileError(f"{path}: is not UTF-8") from None
    except RolesFileError as error:
        raise RolesFileError(f"{path}: {error}") from None


def parse_roles(text: str) -> RoleMapping:
    """Returns the mapping of a file's text. Raises RolesFileError."""
    if len(text.encode(errors="replace")) > MAX_FILE_BYTES:
        raise RolesFileError(f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RolesFileError(f"not TOML: {error}") from None
    _refuse_unknown(content, {"account", "rule"}, "")
    rules = content.get("rule")
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, dict) for rule in rules):
        raise RolesFileError("rule: at least one [[rule]] is needed")
    if len(rules) > _MAX_RULES:
        raise RolesFileError(f"rule: {len(rules)} rules; at most {_MAX_RULES} are accepted")
    account = content.get("account", {})
    if not isinstance(account, dict):
        raise RolesFileError("account: must be a table")
    _refuse_unknown(account, set(_ACCOUNT), "account.")
    of_account = {name: _expression({**_ACCOUNT, **account}, name, "account") for name in _ACCOUNT}
    parsed = tuple(_rule(rule, f"rule.{number}") for number, rule in enumerate(rules, 1))
    read = [*of_account.values(), *(rule.claim for rule in parsed), *(rule.when for rule in parsed)]
    user, name = of_account["user"], of_account["name"]
    assert user is not None
    assert name is not None
    claims = frozenset(name for one in read if one is not None for name in _fields(one.parsed))
    return RoleMapping(parsed, user, name, of_account["require"], claims)


def _rule(rule: dict[str, Any], place: str) -> Rule:
    _refuse_unknown(rule, _KEYS, f"{place}.")
    kinds = [name for name in ("equals", "prefix", "match") if name in rule]
    if len(kinds) > 1:
        raise RolesFileError(f"{place}: {kinds[0]} and {kinds[1]}: one of them is expected")
    if kinds and "claim" not in rule:
        raise RolesFileError(f"{place}.claim: is missing; {kinds[0]} compares its values")
    matches = tuple(_matches(rule, kinds[0], place)) if kinds else ()
    names = set.intersection(*(set(one.parts[1::2]) for one in matches)) - {"*"} if matches else set()
    workspace, role = (_filled(rule, name, names, place) for name in ("workspace", "role"))
    roles = rule.get("roles", {})
    if not isinstance(roles, dict) or not all(value in ROLES for value in roles.values()):
        raise RolesFileError(f"{place}.roles: must be a table of texts to roles, which are {', '.join(ROLES)}")
    if len(role.parts) == 1 and role.parts[0] not in ROLES:
        raise RolesFileError(f"{place}.role: {role.parts[0][:40]!r} is not one of {', '.join(ROLES)}")
    return Rule(_expression(rule, "claim", place), matches, _expression(rule, "when", place), workspace, role, roles)


def _matches(rule: dict[str, Any], kind: str, place: str) -> list[Template]:
    texts = rule[kind] if isinstance(rule[kind], list) else [rule[kind]]
    if not texts or len(texts) > _MAX_RULES:
        raise RolesFileError(f"{place}.{kind}: must have 1 to {_MAX_RULES} texts")
    templates = []
    for text in texts:
        plain = str(text).lower() if isinstance(text, bool) else str(text) if isinstance(text, int) else text
        _check_text(plain, f"{place}.{kind}")
        if kind == "match":
            templates.append(_template(plain, f"{place}.{kind}"))
        else:
            templates.append(Template((plain,) if kind == "equals" else (plain, "*", "")))
    return templates


def _filled(rule: dict[str, Any], name: str, names: set[str], place: str) -> Template:
    """Returns the template of workspace or role, whose names must be parts of each `match`."""
    template = _template(_text(rule, name, f"{place}."), f"{place}.{name}", star=False)
    if missing := sorted(set(template.parts[1::2]) - names):
        raise RolesFileError(f"{place}.{name}: {{{missing[0]}}} is no part of each `match`")
    return template


def _template(text: str, place: str, star: bool = True) -> Template:
    parts: list[str] = []
    at = 0
    for found in _PART.finditer(text):
        if found[0] == "*" and not star:
            continue
        parts += [text[at:found.start()], found[1] or "*"]
        at = found.end()
    parts.append(text[at:])
    if any("{" in part or "}" in part for part in parts[::2]):
        raise RolesFileError(f"{place}: a brace that begins or ends no {{name}}")
    if len(parts) > 2 * _MAX_NAMES + 1:
        raise RolesFileError(f"{place}: more than {_MAX_NAMES} named parts")
    if star and "" in parts[2:-1:2]:
        raise RolesFileError(f"{place}: two named parts without a text between them")
    named = [name for name in parts[1::2] if name != "*"]
    if star and len(named) != len(set(named)):
        raise RolesFileError(f"{place}: a name stands twice")
    return Template(tuple(parts))


def _expression(table: dict[str, Any], name: str, place: str) -> Expression | None:
    if table.get(name) is None:
        return None
    text = _text(table, name, f"{place}.", limit=2000)
    try:
        return compile_expression(text)
    except ExpressionError as error:
        raise RolesFileError(f"{place}.{name}: {error}; a claim with other characters than letters, digits and _ is "
                             "written in double quotes inside the text, such as '\"https://example.com/roles\"'"
                             ) from None


def _text(table: dict[str, Any], name: str, place: str, limit: int = _MAX_TEXT) -> str:
    if name not in table:
        raise RolesFileError(f"{place}{name}: is missing")
    _check_text(table[name], f"{place}{name}", limit)
    return str(table[name])


def _check_text(text: object, place: str, limit: int = _MAX_TEXT) -> None:
    if not isinstance(text, str) or not text.strip() or len(text) > limit:
        raise RolesFileError(f"{place}: must be text of 1 to {limit} characters")


def _refuse_unknown(table: dict[str, Any], known: frozenset[str] | set[str], place: str) -> None:
    if unknown := sorted(table.keys() - known):
        raise RolesFileError(f"{place}{unknown[0][:100]}: is not known; expected: {', '.join(sorted(known))}")


def _fields(node: dict[str, Any]) -> set[str]:
    """Returns the names of fields in an expression: among them are all top-level claims that it reads."""
    names, stack = set(), [node]
    while stack:
        node = stack.pop()
        if node["type"] == "field":
            names.add(node["value"])
        stack.extend(child for child in node["children"] if isinstance(child, dict))
    return names
