"""The fold of sessions, sign-in links and revoked tokens (CONTRACT §9)."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.fold.fold_driver import NOON, Folding

from schemas.facts import Fact, Outcome
from schemas.log import ChangeSession, CreateLink, EndSessions, OpenSession, RevokeTokens, SessionUsed
from schemas.scalars import DAY, HOUR, MINUTE
from schemas.views import LinkRow, RevocationCountRow, RevocationRow, SessionRow, UserSessionsRow
from streams.core.domain.keys import session_key
from streams.core.fold.access import token_handlers

_serial = 0


def fields(user: str = "ann", role: str = "MEMBER", ws: str = "ws", minutes: float = 0) -> dict[str, Any]:
    global _serial
    _serial += 1
    return {"ws": ws, "id": f"c{_serial}", "time": NOON + int(minutes * MINUTE), "user": user, "roles": (role,)}


def opening(session: str = "s1", user: str = "ann", minutes: float = 0, ws: str = "ws", **more: Any) -> OpenSession:
    given_fields: dict[str, Any] = {
        "digest": f"digest of {session}", "role": "MEMBER", "via": "oidc", "expires_at": NOON + 30 * DAY,
        "idle": 3 * DAY, "limit": 20, **more}
    return OpenSession(**fields(user, ws=ws, minutes=minutes), session=session, **given_fields)


def outcomes(fold: Folding) -> list[int]:
    return [fact.status for fact in fold.facts if isinstance(fact, Outcome)]


def facts(fold: Folding) -> list[tuple[str, str, str | None]]:
    return [(fact.type, fact.subject, fact.reason) for fact in fold.facts if isinstance(fact, Fact)]


def test_a_session_is_opened_and_ended_by_its_user() -> None:
    fold = Folding()
    fold.pack(opening(device="Firefox on Linux", address="192.0.2.1", name="Ann"))
    row = fold.all(SessionRow)[0]
    assert (row.id, row.user, row.role, row.digest) == ("s1", "ann", "MEMBER", "digest of s1")
    fold.pack(EndSessions(**fields(), session="s1", reason="signed out"))
    assert outcomes(fold) == [201, 200]
    assert facts(fold) == [("session.opened", "s1", "oidc"), ("session.ended", "s1", "signed out")]
    assert (fold.all(SessionRow), fold.all(UserSessionsRow)) == ([], [])
    opened = next(fact for fact in fold.facts if isinstance(fact, Fact))
    assert (opened.title, opened.actor, opened.target_user_id) == ("Firefox on Linux (192.0.2.1)", "ann", "ann")


def test_the_same_session_has_a_row_in_each_of_its_workspaces() -> None:
    fold = Folding()
    fold.pack(opening(ws="one"), opening(ws="two", role="OWNER"))
    assert {(row.ws, row.role) for row in fold.all(SessionRow)} == {("one", "MEMBER"), ("two", "OWNER")}
    assert session_key("one", "s1") != session_key("two", "s1")
    fold.pack(EndSessions(**fields(ws="one"), session="s1"))
    assert [row.ws for row in fold.all(SessionRow)] == ["two"]


def test_sessions_of_others_are_invisible_to_a_member() -> None:
    fold = Folding()
    fold.pack(opening(), opening("s2", "bob"))
    fold.pack(EndSessions(**fields("bob"), session="s1"), EndSessions(**fields("bob"), of_user="ann"),
              EndSessions(**fields("eve", "OWNER", ws="other"), session="s1"))
    assert outcomes(fold) == [201, 201, 404, 403, 404]
    assert len(fold.all(SessionRow)) == 2
    fold.pack(EndSessions(**fields("root", "ADMIN"), of_user="ann"))
    assert [row.user for row in fold.all(SessionRow)] == ["bob"]


def test_all_sessions_of_a_user_end_except_the_one_that_is_kept() -> None:
    fold = Folding()
    fold.pack(*(opening(f"s{number}", minutes=number) for number in range(4)))
    fold.pack(EndSessions(**fields(), of_user="ann", keep="s2"))
    assert [row.id for row in fold.all(SessionRow)] == ["s2"]
    assert fold.all(UserSessionsRow)[0].sessions == ["s2"]


def test_the_oldest_session_ends_above_the_limit() -> None:
    fold = Folding()
    for number in range(4):
        fold.pack(opening(f"s{number}", limit=3))
    assert {row.id for row in fold.all(SessionRow)} == {"s1", "s2", "s3"}
    assert ("session.ended", "s0", "limit") in facts(fold)


def test_an_unused_session_ends_and_a_used_one_stays() -> None:
    fold = Folding()
    fold.pack(opening(), opening("s2"))
    for day in range(1, 4):
        fold.pack(SessionUsed("ws", f"use {day}", "s2", NOON + day * DAY), clock=day * 1440)
    fold.pack(clock=3 * 1440 + 61)
    assert [row.id for row in fold.all(SessionRow)] == ["s2"]
    assert facts(fold)[-1] == ("session.ended", "s1", "expired")
    fold.pack(SessionUsed("ws", "late", "s1", NOON + 3 * DAY), SessionUsed("ws", "old", "s2", NOON), clock=4400)
    assert [(row.id, row.used_at) for row in fold.all(SessionRow)] == [("s2", NOON + 3 * DAY)]


def test_a_session_ends_after_its_absolute_lifetime_despite_use() -> None:
    fold = Folding()
    fold.pack(opening(expires_at=NOON + 2 * HOUR))
    fold.pack(SessionUsed("ws", "use", "s1", NOON + HOUR), clock=60)
    fold.pack(clock=119)
    assert fold.all(SessionRow)
    fold.pack(clock=120)
    assert not fold.all(SessionRow)


def test_a_changed_role_is_a_fact_and_other_changes_are_not() -> None:
    fold = Folding()
    fold.pack(opening())
    fold.pack(ChangeSession(**fields(), session="s1", refresh="sealed", auth_time=NOON),
              ChangeSession(**fields(), session="s1", role="ADMIN"), ChangeSession(**fields(), session="gone"))
    row = fold.all(SessionRow)[0]
    assert (row.role, row.refresh, row.auth_time) == ("ADMIN", "sealed", NOON)
    assert [fact for fact in facts(fold) if fact[0] == "role.changed"] == [("role.changed", "s1", "was MEMBER")]
    assert outcomes(fold) == [201, 200, 200, 404]


def link(name: str = "l1", minutes: float = 10, role: str = "OWNER") -> CreateLink:
    return CreateLink(
        **fields("attn up", role), link=name, digest="d", of_user="me", role="OWNER",
        expires_at=NOON + int(minutes * MINUTE))


def test_a_link_is_used_up_by_the_first_of_two_requests() -> None:
    fold = Folding()
    fold.pack(link())
    fold.pack(opening("first", "me", link="l1", role="OWNER"), opening("second", "me", link="l1", role="OWNER"))
    assert outcomes(fold) == [201, 201, 410]
    assert [row.id for row in fold.all(SessionRow)] == ["first"]
    assert not fold.all(LinkRow)


def test_a_link_opens_no_session_of_another_user_role_or_time() -> None:
    fold = Folding()
    fold.pack(link(), link("other", role="MEMBER"))
    fold.pack(opening("a", "eve", link="l1", role="OWNER"), opening("b", "me", link="l1", role="ADMIN"),
              opening("c", "me", link="l1", role="OWNER", ws="two"), opening("d", "me", link="other", role="OWNER"))
    assert outcomes(fold) == [201, 403, 410, 410, 410, 410]
    fold.pack(opening("e", "me", link="l1", role="OWNER"), clock=10)
    assert outcomes(fold)[-1] == 410
    assert (fold.all(SessionRow), fold.all(LinkRow)) == ([], [])


def revoking(role: str = "OWNER", **more: Any) -> RevokeTokens:
    return RevokeTokens(**fields("root", role), **more)


def test_revocations_are_counted_extended_and_dropped() -> None:
    fold = Folding()
    fold.pack(revoking(jti="t1", until=NOON + HOUR), revoking(of_user="ann"), revoking(of_user="ann", before=NOON - 5),
              revoking("MEMBER", jti="t2"))
    assert outcomes(fold) == [200, 200, 200, 403]
    rows = {(row.jti, row.user, row.before) for row in fold.all(RevocationRow)}
    assert rows == {("t1", None, None), (None, "ann", NOON)}
    assert fold.all(RevocationCountRow)[0].count == 2
    fold.pack(revoking(jti="t1"), clock=30)  # a revocation without an end stays
    fold.pack(clock=90)
    assert len(fold.all(RevocationRow)) == 2
    fold.pack(revoking(jti="t3", until=NOON + 3 * HOUR), clock=100)
    fold.pack(clock=180)
    assert (len(fold.all(RevocationRow)), fold.all(RevocationCountRow)[0].count) == (2, 2)


def test_revocations_of_a_workspace_are_limited(monkeypatch: Any) -> None:
    monkeypatch.setattr(token_handlers, "MAX_REVOCATIONS", 2)
    fold = Folding()
    fold.pack(*(revoking(jti=f"t{number}", until=NOON + HOUR) for number in range(3)), revoking(jti="t1"))
    assert outcomes(fold) == [200, 200, 409, 200]


@given(st.lists(st.tuples(
    st.sampled_from(["open", "end", "all", "use", "role", "wait"]), st.sampled_from(["ann", "bob"]),
    st.integers(0, 3)), max_size=25))
def test_the_rows_of_a_user_name_exactly_their_sessions(steps: list[tuple[str, str, int]]) -> None:
    """A restart at each step changes nothing: the fold has no state outside its rows."""
    fold, clock = Folding(), 0.0
    for made, (step, user, number) in enumerate(steps):
        if step == "open":
            fold.pack(opening(f"{user}{number}", user, minutes=clock, limit=3, idle=DAY), clock=clock)
        elif step == "end":
            fold.pack(EndSessions(**fields(user), session=f"{user}{number}"), clock=clock)
        elif step == "all":
            fold.pack(EndSessions(**fields(user), of_user=user, keep=f"{user}{number}"), clock=clock)
        elif step == "use":
            used = NOON + int(clock * MINUTE) // HOUR * HOUR
            fold.pack(SessionUsed("ws", f"u{made}", f"{user}{number}", used), clock=clock)
        elif step == "role":
            fold.pack(ChangeSession(**fields(user), session=f"{user}{number}", role="ADMIN"), clock=clock)
        else:
            clock += 500
            fold.pack(clock=clock)
        fold.restart()
        sessions = {row.id for row in fold.all(SessionRow)}
        named = [session for row in fold.all(UserSessionsRow) for session in row.sessions]
        assert sorted(named) == sorted(sessions)
        assert all(len(row.sessions) <= 3 for row in fold.all(UserSessionsRow))
        opened = [fact[1] for fact in facts(fold) if fact[0] == "session.opened"]
        ended = [fact[1] for fact in facts(fold) if fact[0] == "session.ended"]
        assert sorted([*ended, *sessions]) == sorted(opened)


def test_a_row_of_a_session_does_not_have_its_secret() -> None:
    """The row has the digest of the command, and no field that could hold the session's secret text."""
    fold = Folding()
    fold.pack(opening())
    shown = msgspec.to_builtins(fold.all(SessionRow)[0])
    assert {name for name, value in shown.items() if value and isinstance(value, str)} == {
        "id", "ws", "user", "role", "digest", "via"}
