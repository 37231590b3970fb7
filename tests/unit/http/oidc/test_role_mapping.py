"""Roles file: claims and groups become workspaces and roles (CONTRACT §9)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from api.http.auth.oidc.roles import MAX_GRANTS, AccountRefused, Grant, Template, map_account
from api.http.auth.oidc.roles_file import MAX_FILE_BYTES, RolesFileError, load_roles, parse_roles
from ops.cli.commands.access.role_mapping import app
from schemas.sources import ROLES


def grants(text: str, **claims: Any) -> list[tuple[str, str]]:
    account = map_account(parse_roles(text), {"sub": "u1", **claims})
    return [(grant.workspace, grant.role) for grant in account.grants]


def rule(**keys: Any) -> str:
    shown = {"workspace": "ws", "role": "MEMBER", **keys}
    return "[[rule]]\n" + "\n".join(f"{name} = {toml(value)}" for name, value in shown.items()) + "\n"


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(member)}" for name, member in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize(("claim", "value", "holds"), [
    ("groups", ["x", "eng"], True),
    ("groups", "eng", True),
    ("groups", ["ENG", "engineers", " eng"], False),
    ("groups", None, False),
    ("groups", {"eng": True}, False),
    ("groups", [["eng"]], False),
    ("groups", [], False),
    ("realm_access.roles", ["eng"], False),  # the test's claim is `groups`, so this path has no value
])
def test_equals_compares_each_value_exactly(claim: str, value: object, holds: bool) -> None:
    assert bool(grants(rule(claim=claim, equals="eng"), groups=value)) is holds


@pytest.mark.parametrize(("path", "claims"), [
    ("realm_access.roles", {"realm_access": {"roles": ["eng"]}}),  # Keycloak
    ('resource_access."attn-web".roles', {"resource_access": {"attn-web": {"roles": ["eng"]}}}),
    ('"https://example.com/roles"', {"https://example.com/roles": ["eng"]}),  # Auth0
    ("memberships[].team", {"memberships": [{"team": "ops"}, {"team": "eng"}]}),
    ("wids || roles", {"roles": ["eng"]}),  # Entra ID
])
def test_claims_are_read_by_path(path: str, claims: dict[str, Any]) -> None:
    assert grants(rule(claim=path, equals="eng"), **claims) == [("ws", "MEMBER")]


def test_numbers_and_booleans_are_compared_as_json_writes_them() -> None:
    assert grants(rule(claim="staff", equals=True), staff=True)
    assert not grants(rule(claim="staff", equals=True), staff="True")
    assert grants(rule(claim="level", equals=[3, 4]), level=4)


def test_a_claim_without_a_comparison_holds_unless_it_is_false_or_missing() -> None:
    text = rule(claim="staff")
    assert [bool(grants(text, staff=value)) for value in (True, "yes", 1, False, None, [], "")] == [
        True, True, True, False, False, False, False]


def test_a_rule_without_a_claim_holds_for_every_account() -> None:
    assert grants(rule(role="VIEWER")) == [("ws", "VIEWER")]


def test_when_adds_a_condition() -> None:
    text = rule(claim="groups", equals="eng", when="department == 'it' && mfa")
    assert grants(text, groups=["eng"], department="it", mfa=True)
    assert not grants(text, groups=["eng"], department="it")
    assert not grants(text, groups=["eng"], department="hr", mfa=True)


@given(st.permutations(ROLES))
def test_the_highest_role_of_a_workspace_counts_in_any_order(roles: list[str]) -> None:
    for kept in range(1, len(roles) + 1):
        text = "".join(rule(role=role) for role in roles[:kept])
        assert grants(text) == [("ws", min(roles[:kept], key=ROLES.index))]


def test_names_of_a_match_fill_workspace_and_role() -> None:
    text = rule(claim="groups", match="attn/{team}/{level}", workspace="ws_{team}", role="{level}",
                roles={"lead": "MANAGER"})
    assert grants(text, groups=["attn/pay/lead", "attn/web/viewer", "attn/pay/member", "other/web/owner"]) == [
        ("ws_pay", "MANAGER"), ("ws_web", "VIEWER")]


def test_a_role_that_does_not_exist_gives_nothing_and_a_note() -> None:
    text = rule(claim="groups", match="attn/{team}/{level}", workspace="{team}", role="{level}")
    account = map_account(parse_roles(text), {"sub": "u", "groups": ["attn/pay/root"]})
    assert account.grants == ()
    assert "'attn/pay/root'" in account.notes[0]


def test_prefix_fits_only_what_is_longer() -> None:
    text = rule(claim="groups", prefix="eng-")
    assert [bool(grants(text, groups=[value])) for value in ("eng-web", "eng-", "eng", "xeng-web")] == [
        True, False, False, False]


_LITERALS = st.text("ab/-", max_size=3)


_BETWEEN = st.lists(st.text("ab/-", min_size=1, max_size=2), max_size=3)


@given(_LITERALS, _BETWEEN, _LITERALS, st.text("ab/-", max_size=14))
def test_a_match_is_that_of_the_shortest_regular_expression(
    first: str, between: list[str], last: str, value: str,
) -> None:
    literals = [first, *between, last]
    parts = [literals[0]]
    for number, literal in enumerate(literals[1:]):
        parts += [f"n{number}", literal]
    pattern = re.escape(literals[0]) + "".join(
        f"(?P<n{number}>.+?){re.escape(literal)}" for number, literal in enumerate(literals[1:]))
    expected = re.fullmatch(pattern, value, re.DOTALL)
    assert Template(tuple(parts)).match(value) == (expected.groupdict() if expected else None)


def test_user_and_name_may_come_from_other_claims() -> None:
    text = '[account]\nuser = "email"\nname = "preferred_username"\nrequire = "email_verified"\n' + rule()
    account = map_account(parse_roles(text), {
        "sub": "1", "email": "a@example.com", "preferred_username": "ann", "email_verified": True})
    assert (account.user, account.name) == ("a@example.com", "ann")
    for claims in ({"email": "a@example.com"}, {"email": "a@example.com", "email_verified": False},
                   {"email_verified": True}, {"email": 7, "email_verified": True},
                   {"email": "\ud800", "email_verified": True}, {"email": "x" * 513, "email_verified": True}):
        with pytest.raises(AccountRefused):
            map_account(parse_roles(text), {"sub": "1", **claims})


def test_a_session_has_a_bounded_number_of_workspaces() -> None:
    text = rule(claim="groups", match="g/{ws}", workspace="{ws}")
    account = map_account(parse_roles(text), {"sub": "u", "groups": [f"g/{n:05}" for n in range(4000)]})
    assert [grant.workspace for grant in account.grants] == [f"{n:05}" for n in range(MAX_GRANTS)]
    assert "only the first" in account.notes[0]


def test_groups_that_the_issuer_left_out_are_noted() -> None:
    claims = {"sub": "u", "_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}}
    assert "left claims out" in map_account(parse_roles(rule(claim="groups", equals="g")), claims).notes[0]


@pytest.mark.timeout(60)
def test_a_match_does_not_backtrack() -> None:
    text = rule(claim="groups", match="a{w}b{x}b{y}b{z}c")
    assert grants(text, groups=["a" + "b" * 500] * 500) == []  # a regular expression would try 500 ** 3 for each value


def test_an_expression_that_costs_too_much_refuses_the_account() -> None:
    with pytest.raises(AccountRefused, match="costs too much"):
        grants(rule(claim="groups" + ".[@, @]" * 60, equals="x"), groups={"a": "b"})


_ACCOUNT = "[account]\n"


@pytest.mark.parametrize(("text", "problem"), [
    ("", "rule: at least one"),
    ("rule = 1", "rule: at least one"),
    ("=", "not TOML"),
    ("x = 1\n" + rule(), "x: is not known"),
    (_ACCOUNT + "id = 'x'\n" + rule(), "account.id: is not known"),
    (_ACCOUNT + "user = 'a['\n" + rule(), "account.user: is not JMESPath"),
    (_ACCOUNT + "user = ''\n" + rule(), "account.user: must be text"),
    (rule(group="x"), "rule.1.group: is not known"),
    (rule(equals="x"), "rule.1.claim: is missing"),
    (rule(claim="g", equals="x", prefix="y"), "equals and prefix"),
    (rule(claim="g", equals=[]), "rule.1.equals: must have 1"),
    (rule(claim="g", equals=[[]]), "rule.1.equals: must be text"),
    (rule() + rule(role="BOSS"), "rule.2.role: 'BOSS' is not one of"),
    (rule(role="member"), "rule.1.role: 'member' is not one of"),
    (rule(workspace=" "), "rule.1.workspace: must be text"),
    ("[[rule]]\nrole = 'VIEWER'", "rule.1.workspace: is missing"),
    (rule(workspace="{team}"), "{team} is no part"),
    (rule(claim="g", match=["a/{team}", "b"], workspace="{team}"), "{team} is no part"),
    (rule(claim="g", match="{a}{b}"), "without a text between"),
    (rule(claim="g", match="{a}/{a}"), "stands twice"),
    (rule(claim="g", match="{a}/{b"), "a brace"),
    (rule(claim="g", match="{a}/{b}/{c}/{d}/{e}"), "more than 4"),
    (rule(claim="g", roles={"x": "BOSS"}), "rule.1.roles"),
    (rule(claim="g()", equals="x"), "g(), which does not exist"),
    (rule() * 501, "501 rules"),
    ("#" * (MAX_FILE_BYTES + 1), "larger than"),
], ids=lambda value: value[:40].replace("\n", " "))
def test_a_file_that_cannot_be_used_is_named_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(RolesFileError, match=re.escape(problem)):
        parse_roles(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RolesFileError, match="No such file"):
        load_roles(tmp_path / "roles.toml")
    (tmp_path / "roles.toml").write_bytes(b"\xff")
    with pytest.raises(RolesFileError, match="UTF-8"):
        load_roles(tmp_path / "roles.toml")


def test_claims_that_the_rules_read_are_known() -> None:
    mapping = parse_roles(rule(claim="realm_access.roles", equals="x", when="mfa"))
    assert {"sub", "name", "realm_access", "mfa"} <= mapping.claims


def test_roles_try_prints_each_grant_with_its_rule(tmp_path: Path) -> None:
    roles = tmp_path / "roles.toml"
    roles.write_text(rule(claim="groups", equals="eng", role="ADMIN") + rule(workspace="all", role="VIEWER"))
    claims = tmp_path / "claims.json"
    claims.write_text(json.dumps({"sub": "u1", "name": "Ann\x1b[2J", "groups": ["eng"]}))
    result = CliRunner().invoke(app, ["try", str(claims), "--roles", str(roles)])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "user u1 (Ann?[2J)", "all  VIEWER  by rule 2, which holds for every account", "ws  ADMIN  by rule 1, 'eng'"]
    shown = json.loads(CliRunner().invoke(app, ["try", str(claims), "--roles", str(roles), "--json"]).stdout)
    assert [Grant(grant["workspace"], grant["role"]) for grant in shown["grants"]] == [
        Grant("all", "VIEWER"), Grant("ws", "ADMIN")]


def test_roles_try_names_the_administrator_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_OIDC_CONTACT", "Ask the desk")
    roles = tmp_path / "roles.toml"
    roles.write_text(rule(claim="groups", equals="eng"))
    result = CliRunner().invoke(app, ["try", "-", "--roles", str(roles)], input='{"sub": "u1"}')
    assert result.exit_code == 3
    assert "Ask the desk" in result.stderr
