"""Resume with another role (decision 0020): an edge that knows the role of a copy sends it no frames of another role.
No reader gets rows that the token does not allow. A client disconnects and resumes: with the same or another role, at
the same or another edge, with or without a restart between."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from support.clients.feed import Copy, frames
from support.edge.edge_with_fold import WS, Deciding, message
from support.edge.expected_view import Truth
from support.edge.random_rows import marker
from support.edge.sinks import Kept
from support.examples import law

from api.live.connections import LiveStream
from api.live.resume_roles import ResumeRoles
from api.readmodel.readers import Reader

ROLES = ("OWNER", "MEMBER", "VIEWER")


def reader(role: str) -> Reader:
    return Reader(WS, "ann", frozenset({role}))


class Client:
    """One copy of an inbox, and the id of its last frame. It has one connection at a time."""

    def __init__(self, attn: Deciding) -> None:
        self.attn, self.copy, self.outlet = attn, Copy(), Kept()
        self.last: int | None = None
        self.stream: LiveStream | None = None
        self.role, self.limit = "OWNER", 1000

    def connect(self, role: str, limit: int, edge: int) -> list[str]:
        """Resumes after the last frame in this role. Returns the names of the first events."""
        self.role, self.limit, self.outlet = role, limit, Kept()
        self.stream = self.attn.edges[edge].feed_hub.open(reader(role), limit, self.last, self.outlet)
        return self.read()

    def read(self) -> list[str]:
        raw, self.outlet.raw = self.outlet.raw, b""
        for shown in (None, *ROLES):
            assert shown in (None, self.role) or marker(WS, None, shown).encode() not in raw, (
                "a frame has a row that the role may not see")
        received = frames(raw)
        for frame in received:
            self.copy.apply(frame)
            self.last = frame[0]
        return [event for _, event, _ in received]

    def leave(self) -> None:
        if self.stream is not None:
            self.stream.on_disconnect()
            self.stream = None

    def check(self) -> None:
        self.read()
        assert self.copy.page == Truth(self.attn.rows, reader(self.role)).page(self.limit)


def post_message(attn: Deciding, number: int, role: str | None, priority: str = "normal") -> None:
    target = {"target_role": role} if role else {}
    attn.happen(message(f"m{number}", title=marker(WS, None, role), priority=priority, **target))


@law(60)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 1000]))
def test_a_reader_that_resumes_in_another_role_has_the_right_copy(seed: int, limit: int) -> None:
    pick = random.Random(seed)
    attn = Deciding()
    client = Client(attn)
    for number in range(12):
        post_message(attn, number, pick.choice((None, *ROLES)))
        if number % 2 == 0:
            client.leave()
            if pick.random() < 0.6:
                post_message(attn, pick.randrange(12), pick.choice((None, *ROLES)), pick.choice(("low", "urgent")))
            role = pick.choice((client.role, *ROLES))
            if pick.random() < 0.3:  # the response is lost
                attn.edges[0].feed_hub.open(reader(role), limit, client.last, Kept()).on_disconnect()
            client.connect(role, limit, 0)
        client.check()
    client.leave()


@law(60)
@given(st.integers(0, 2**32))
def test_the_same_role_resumes_exactly_on_any_edge_after_any_restart(seed: int) -> None:
    """The edge may have served other windows of this user, and other roles, in the meantime."""
    pick = random.Random(seed)
    attn = Deciding(edges=2)
    clients = [Client(attn) for _ in range(3)]
    for number, client in enumerate(clients):
        assert client.connect("OWNER", (1000, 3, 1)[number], number % 2) == ["snapshot"]
    for number in range(12):
        post_message(attn, number, pick.choice((None, *ROLES)), pick.choice(("low", "urgent")))
        for client in clients:
            client.check()
        client = pick.choice(clients)
        client.leave()
        if pick.random() < 0.3:
            for each in clients:
                each.leave()
            attn.restart()
        post_message(attn, 20 + number, pick.choice((None, "OWNER")))
        for each in clients:
            if each.stream is None:
                edge = pick.randrange(2)
                held = each.last is not None and attn.edges[edge].replica.missed_since(WS, each.last) is not None
                assert ("snapshot" in each.connect("OWNER", each.limit, edge)) is not held
    for client in clients:
        client.check()
        client.leave()


@law(60)
@given(st.integers(0, 2**32))
def test_no_reader_gets_rows_that_the_token_does_not_show(seed: int) -> None:
    """With any edge, role and cursor of any user: `read` checks every byte."""
    pick = random.Random(seed)
    attn = Deciding(edges=2)
    client = Client(attn)
    for number in range(12):
        post_message(attn, number, pick.choice((None, *ROLES)), pick.choice(("low", "urgent")))
        client.leave()
        if pick.random() < 0.2:
            attn.restart()
        client.copy, client.outlet = Copy(), Kept()
        client.stream = attn.edges[edge := pick.randrange(2)].feed_hub.open(
            reader(role := pick.choice(ROLES)), pick.choice((1, 3, 1000)), client.last, client.outlet)
        client.role = role
        raw = client.outlet.raw
        post_message(attn, 30 + number, pick.choice((None, *ROLES)))
        for shown in ROLES:
            assert shown == role or marker(WS, None, shown).encode() not in raw + client.outlet.raw
        client.last = attn.edges[edge].replica.cursor(WS)
    client.leave()


def test_a_reader_that_returns_to_a_role_gets_a_snapshot() -> None:
    attn = Deciding()
    client = Client(attn)
    post_message(attn, 0, "OWNER")
    for role in ("OWNER", "MEMBER", "OWNER", "MEMBER"):
        assert client.connect(role, 1000, 0) == ["snapshot"], role
        client.check()
        client.leave()
        post_message(attn, 1, "OWNER")
        post_message(attn, 2, "MEMBER")
    client.connect("MEMBER", 1000, 0)
    post_message(attn, 3, "MEMBER")
    client.check()
    client.leave()
    post_message(attn, 4, "MEMBER")
    assert client.connect("MEMBER", 1000, 0) == ["added"]
    client.check()


def test_a_new_feed_in_another_role_resumes_exactly() -> None:
    attn = Deciding()
    post_message(attn, 0, None)
    for role in (*ROLES, *ROLES):
        client = Client(attn)
        for _ in range(2):
            first = client.last is None
            assert ("snapshot" in client.connect(role, 1000, 0)) is first
            client.leave()


def test_concurrent_feeds_of_one_user_in_two_roles_resume_exactly() -> None:
    attn = Deciding(edges=2)
    post_message(attn, 0, None)
    clients = [Client(attn), Client(attn)]
    for _ in range(3):
        for edge in (0, 1, 1):
            for client, role in zip(clients, ROLES, strict=False):
                first = client.last is None
                assert ("snapshot" in client.connect(role, 1000, edge)) is first
            for client in clients:
                client.check()
            post_message(attn, 1, None)
            for client in clients:
                client.leave()


def test_the_number_of_remembered_users_is_bounded() -> None:
    known = ResumeRoles()
    for number in range(60_000):
        known.begin(Reader(WS, f"u{number}", frozenset({"OWNER"})), None)
    assert len(known._users) == 50_000
