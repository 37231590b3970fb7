"""Random sign-ins, roles, keys and revocations through the real fold, and models of the queries about them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from support.fold.fold_driver import NOON, Folding

from schemas.facts import Fact
from schemas.log import ChangeSession, Command, CreateKey, CreateLink, EndSessions, OpenSession, RevokeKey, RevokeTokens
from schemas.scalars import DAY, MINUTE
from schemas.views import SessionRow, SourceKeyRow
from streams.runtime.secret_texts import ENTROPY_BYTES, KEYS, LINKS, SESSIONS

__all__ = ["TRAIL_MODELS", "USERS", "AccessHistory"]

USERS = ("ann", "bob", '=HYPERLINK("http://x";1)', "@sum", "+1", "-dee", "Jörg\n=1", "a;=1+1", "\u2028x\x9b")
ROLES = ("OWNER", "ADMIN", "MEMBER", "VIEWER")


class AccessHistory:
    """Random access events, folded by the real fold. `facts`: in the order of the log. `secrets`: texts, digests and
    sealed refresh tokens; no fact may contain one."""

    def __init__(
        self, seed: int, packs: int, workspaces: tuple[str, ...], begin: int = NOON, hours: float = 60,
    ) -> None:
        self._random = random.Random(seed)
        self._seed, self._serial = seed, 0
        self._folding = Folding()
        self.secrets: list[str] = []
        shift = begin - NOON
        for number in range(packs):
            minutes = hours * 60 * number // packs  # whole minutes: many facts of several packs have one time
            commands = [self._command(self._random.choice(workspaces), minutes)
                        for _ in range(self._random.randrange(1, 6))]
            self._folding.pack(*commands, clock=minutes)
        self.facts = [fact for fact in self._folding.facts if isinstance(fact, Fact) and not fact.derived]
        for fact in self.facts:
            fact.time, fact.at = fact.time + shift, fact.at + shift

    def _command(self, ws: str, minutes: float) -> Command:
        self._serial += 1
        rng, now = self._random, NOON + int(minutes * MINUTE)
        user = rng.choice(USERS)
        fields: dict[str, Any] = {
            "ws": ws, "id": f"c{self._seed}-{self._serial}", "time": now, "user": user,
            "roles": (rng.choice(("OWNER", "ADMIN", "MEMBER")),)}
        sessions = [row for row in self._folding.all(SessionRow) if row.ws == ws]
        keys = [row for row in self._folding.all(SourceKeyRow) if row.ws == ws]
        choice = rng.randrange(10)
        if choice < 4 or not sessions:
            made = self._secret(SESSIONS)
            refresh = f"sealed-{rng.getrandbits(64):x}"
            self.secrets.append(refresh)
            return OpenSession(
                **fields, session=made.id, digest=made.digest, role=rng.choice(ROLES), via=rng.choice(("oidc", "link")),
                expires_at=now + 30 * DAY, idle=rng.choice((30 * MINUTE, DAY)), limit=3, name=user,
                device=rng.choice(("Firefox on Linux", "=cmd|' /C calc'!A0", "")),
                address=rng.choice(("192.0.2.1", "2001:db8::7", "")), refresh=refresh)
        session = rng.choice(sessions)
        if choice == 4:
            return EndSessions(**fields, session=session.id, reason="revoked by an administrator")
        if choice == 5:
            return EndSessions(**fields, of_user=session.user, reason="signed out")
        if choice == 6:
            return ChangeSession(**fields, session=session.id, role=rng.choice(ROLES))
        if choice == 7:
            return RevokeTokens(**fields, **rng.choice(({"jti": f"j{self._serial}"}, {"of_user": rng.choice(USERS)})))
        if choice == 8:
            made = self._secret(LINKS)
            return CreateLink(**fields, link=made.id, digest=made.digest, of_user=rng.choice(USERS),
                              role=rng.choice(ROLES), expires_at=now + 10 * MINUTE)
        if keys and rng.random() < 0.4:
            return RevokeKey(**fields, key=rng.choice(keys).id)
        made = self._secret(KEYS)
        return CreateKey(**fields, key=made.id, digest=made.digest, name=rng.choice(("deploy", "-1+1", "=1")),
                         topics=("plans",), source=rng.choice((None, "/ci")))

    def _secret(self, kind: Any) -> Any:
        made = kind.new(self._random.randbytes(ENTROPY_BYTES))
        self.secrets += [made.text, made.text.rpartition("_")[2], made.digest]
        return made


def _when(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def _address(title: str | None) -> str:
    return title.rpartition("(")[2].removesuffix(")") if title is not None and title.endswith(")") else ""


def _counted(facts: list[Fact], key: Callable[[Fact], tuple[str, ...]]) -> list[Any]:
    """Returns rows of (key, number, newest time), the most frequent first."""
    counts = Counter(map(key, facts))
    newest: dict[tuple[str, ...], int] = {}
    for fact in facts:
        newest[key(fact)] = max(fact.time, newest.get(key(fact), 0))
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], *[part.encode() for part in pair[0]]))
    return [(*one, count, _when(newest[one])) for one, count in ordered][:100]


def _newest(facts: list[Fact], row: Callable[[Fact], tuple[Any, ...]]) -> list[Any]:
    ordered = sorted(facts, key=lambda fact: (-fact.time, fact.event_id.encode()))
    return [(_when(fact.time), *row(fact)) for fact in ordered[:100]]


def _of(asked: Any, *types: str) -> list[Fact]:
    return [fact for fact in asked.within if fact.type in types]


# Title of a query in docs/analytics.md -> its rows, computed from facts (an object with `within`).
TRAIL_MODELS: dict[str, Callable[[Any], list[Any]]] = {
    "Who signs in, and from where": lambda asked: _counted(
        _of(asked, "session.opened"), lambda fact: (fact.actor or "", _address(fact.title), fact.reason or "")),
    "Whose sessions ended, and by whom": lambda asked: _counted(
        _of(asked, "session.ended"), lambda fact: (fact.target_user_id or "", fact.actor or "", fact.reason or "")),
    "Roles that changed": lambda asked: _newest(_of(asked, "role.changed"), lambda fact: (
        fact.target_user_id, (fact.reason or "").removeprefix("was "), fact.role, fact.actor)),
    "Keys, sign-in links and revoked tokens": lambda asked: _newest(
        _of(asked, "key.created", "key.revoked", "link.created", "tokens.revoked"),
        lambda fact: (fact.type, fact.actor, fact.subject, fact.title or "", fact.reason or "")),
    "Votes, newest first": lambda asked: _newest(_of(asked, "vote.cast"), lambda fact: (
        fact.actor, fact.role, fact.option, fact.does, fact.kind, fact.title, fact.decision, fact.viewed)),
}
