"""Law 6 while sessions and keys are created, changed and revoked: no reader gets invisible data on any channel.

Each example is a random series of events, sign-ins, role changes, ends of sessions, revoked keys and tokens. After each
step every credential reads its streams, and some of the lists on one edge. Each text names its target, so a leak is
visible in the bytes. A revoked credential reads nothing, and its streams have ended.
"""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st
from support.edge.edge_with_fold import WS, Deciding, message, waitpoint
from support.edge.edges import bearer
from support.edge.random_rows import marker
from support.edge.sessions import cookie_of, signed_in
from support.edge.sinks import Kept
from support.examples import law

from api.edge.services import Edge
from api.http.app import create_app
from api.http.auth.sessions import change_session, end_sessions
from api.http.auth.tokens import Caller
from api.live.connections import LiveStream
from api.live.notifications import Subscriber
from streams.core.domain.visibility import can_see

USERS, ROLES = ("ann", "bob"), ("OWNER", "MEMBER", "VIEWER")
PATHS = (
    "/org/me/inbox", "/inbox", "/api/v1/inbox", "/org/me/decisions", "/org/me/recent-drafts",
    "/org/me/inbox?dismissed=true",
)
STREAMS = ("feed", "cases", "case", "push")
ASK = {"options": [{"id": "yes", "does": "approve"}]}
YEARS = 10 * 365 * 86400


class Sink(Kept):
    """Keeps the bytes of a stream. A frame after the end fails the test."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def write(self, piece: Any) -> None:
        assert not self.ended, "the edge sent a frame after the end of the stream"
        super().write(piece)

    def end(self) -> None:
        self.ended = True

    abort = end


@dataclass
class Holder:
    """A credential, its current role, and its streams. `role` is None after it was revoked."""

    user: str
    role: str | None
    headers: dict[str, str]
    source: str | None = None  # source of a key
    session: str | None = None
    sinks: list[tuple[Edge, LiveStream | None, Sink]] = field(default_factory=list)
    pushes: list[tuple[Edge, Subscriber, list[bool]]] = field(default_factory=list)

    def may_see(self, target: str) -> bool:
        ws, user, role = target[1:-1].split("/")
        if self.role is None or ws != WS:
            return False
        if self.source is not None:
            return True  # the source checks this text itself
        return can_see(None if user == "-" else user, None if role == "-" else role, self.user, frozenset({self.role}))


class Play:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.attn = Deciding(edges=2, max_sessions=3)
        self.apps = [create_app(edge) for edge in self.attn.edges]
        self.holders: list[Holder] = []
        self.made = 0

    def client(self, edge: int, headers: dict[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.apps[edge], raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    async def step(self) -> None:
        actions = [self.happen] * 5 + [self.sign_in] * 3 + [
            self.change, self.end, self.end_all, self.key, self.revoke_key, self.token, self.revoke_token, self.wait]
        await self.random.choice(actions)()

    async def happen(self) -> None:
        self.made += 1
        user, role = self.random.choice((None, *USERS)), self.random.choice((None, *ROLES))
        kind, ws = self.random.choice((message, waitpoint)), self.random.choice((WS, WS, WS, "other"))
        source = self.random.choice(("/a", "/b"))
        entry = kind(f"x{self.random.randrange(6)}", ws=ws, minutes=self.made / 60, case_id="case", target_user_id=user,
                     target_role=role, title=f"{marker(ws, user, role)} {{{source}}}", body_md=f"{{{source}}}",
                     **({"ask": ASK} if self.random.random() < 0.5 else {}))
        entry.source = source
        self.attn.happen(entry)

    async def sign_in(self) -> None:
        user, role = self.random.choice(USERS), self.random.choice(ROLES)
        opened = await signed_in(self.attn, user, role, edge=self.random.randrange(2))
        sessions = [holder for holder in self.holders
                    if holder.session and holder.user == user and holder.role is not None]
        if len(sessions) == 3:  # the oldest session ends
            sessions[0].role = None
        await self.join(Holder(user, role, cookie_of(opened), session=opened.id))

    async def token(self) -> None:
        user, role = self.random.choice(USERS), self.random.choice(ROLES)
        self.made += 1
        self.attn.now += 2  # an earlier revocation does not cover a token that is issued later
        await self.join(Holder(user, role, bearer(
            user, role, ws=WS, seconds=YEARS, jti=f"t{self.made}", iat=self.attn.now - 1)))

    async def revoke_token(self) -> None:
        tokens = [holder for holder in self.holders
                  if holder.session is None and holder.source is None and holder.role is not None]
        if tokens:
            victim = self.random.choice(tokens)
            async with self.client(0, bearer("root", "OWNER", ws=WS, seconds=YEARS)) as client:
                answer = await client.post("/org/tokens/revoke", json={"sub": victim.user})
                assert answer.status_code == 200, answer.text
            for holder in tokens:
                holder.role = None if holder.user == victim.user else holder.role

    async def key(self) -> None:
        source = self.random.choice(("/a", "/b"))
        async with self.client(0, bearer("root", "OWNER", ws=WS, seconds=YEARS)) as client:
            made = (await client.post("/org/me/keys", json={
                "name": "k", "topics": ["waitpoints", "messages"], "source": source})).json()
        self.holders.append(Holder(made["key"]["id"], "KEY", {"authorization": f"Bearer {made['secret']}"}, source))

    async def revoke_key(self) -> None:
        keys = [holder for holder in self.holders if holder.source is not None and holder.role is not None]
        if keys:
            victim = self.random.choice(keys)
            async with self.client(1, bearer("root", "ADMIN", ws=WS, seconds=YEARS)) as client:
                assert (await client.delete(f"/org/me/keys/{victim.user}")).status_code == 200
            victim.role = None

    def session(self) -> Holder | None:
        alive = [holder for holder in self.holders if holder.session is not None and holder.role is not None]
        return self.random.choice(alive) if alive else None

    async def change(self) -> None:
        holder = self.session()
        if holder is not None:
            role = self.random.choice(ROLES)
            await change_session(self.attn.edges[0], holder.session or "", WS, role=role)
            if role != holder.role:
                self.check_ended(holder)  # the next resume checks the role again
                holder.role = role
                await self.open(holder)

    async def end(self) -> None:
        holder = self.session()
        if holder is not None:
            await end_sessions(self.attn.edges[0], session=holder.session, reason="test")
            holder.role = None

    async def end_all(self) -> None:
        user = self.random.choice(USERS)
        async with self.client(1, bearer("root", "ADMIN", ws=WS, seconds=YEARS)) as client:
            assert (await client.delete(f"/org/users/{user}/sessions")).status_code == 200
        for holder in self.holders:
            if holder.session is not None and holder.user == user:
                holder.role = None

    async def wait(self) -> None:
        self.attn.tick(60)

    async def join(self, holder: Holder) -> None:
        self.holders.append(holder)
        await self.open(holder)

    async def open(self, holder: Holder) -> None:
        """Opens each kind of stream on each edge, as the routes do."""
        for number, edge in enumerate(self.attn.edges):
            caller = await self.caller(number, holder)
            await edge.workspace(caller.reader)
            for kind in STREAMS:
                if kind == "push":
                    subscriber, ended = Subscriber(caller.reader), []
                    edge.notifications.subscribe(subscriber)
                    edge.access_watch.add(caller.credential, self.stop(edge, subscriber, ended))
                    holder.pushes.append((edge, subscriber, ended))
                    continue
                sink = Sink()
                stream = (edge.feed_hub.open(caller.reader, 500, None, sink) if kind == "feed" else
                          edge.case_events.open(caller.reader, "case" if kind == "case" else None, None, sink))
                edge.access_watch.add(caller.credential, self.close(sink, stream))
                holder.sinks.append((edge, stream, sink))

    def close(self, sink: Sink, stream: LiveStream) -> Any:
        def end() -> None:
            sink.end()
            stream.on_disconnect()
        return end

    def stop(self, edge: Edge, subscriber: Subscriber, ended: list[bool]) -> Any:
        def end() -> None:
            ended.append(True)
            edge.notifications.unsubscribe(subscriber)
        return end

    async def caller(self, number: int, holder: Holder) -> Caller:
        auth = self.apps[number].state.auth
        if "authorization" in holder.headers:
            return await auth.caller(holder.headers["authorization"])  # type: ignore[no-any-return]
        cookie = holder.headers["cookie"].partition("=")[2].partition(";")[0]
        return await auth.caller(None, [cookie])  # type: ignore[no-any-return]

    def check_ended(self, holder: Holder) -> None:
        assert all(sink.ended for _, _, sink in holder.sinks)
        assert all(ended == [True] for _, _, ended in holder.pushes)
        holder.sinks.clear()
        holder.pushes.clear()

    async def check(self) -> None:
        for holder in self.holders:
            number = self.random.randrange(2)
            async with self.client(number, holder.headers) as client:
                for path in self.random.sample(PATHS, 2):
                    self.check_answer(holder, path, await client.get(path))
            if holder.role is None:
                self.check_ended(holder)
            for _, _, sink in holder.sinks:
                assert not sink.ended
                self.check_text(holder, sink.raw.decode())
                sink.raw = b""

    def check_answer(self, holder: Holder, path: str, answer: httpx.Response) -> None:
        if holder.role is None:
            assert (answer.status_code, "<" in answer.text) == (401, False), f"{path}: {answer.text}"
        elif holder.source is not None and path not in ("/api/v1/inbox", "/org/me/decisions"):
            assert (answer.status_code, "<" in answer.text) == (403, False), path
        else:
            assert answer.status_code == 200, answer.text
            self.check_text(holder, answer.text)

    def check_text(self, holder: Holder, text: str) -> None:
        for target in re.findall(r"<[^<>]*/[^<>]*/[^<>]*>", text):
            assert holder.may_see(target), f"{holder.user} as {holder.role} got {target}"
        if holder.source is not None:
            assert set(re.findall(r"\{(/\w)\}", text)) <= {holder.source}


@law(8)
@given(st.integers(0, 2**32), st.integers(5, 20))
def test_law_6_over_sessions_keys_and_roles(seed: int, steps: int) -> None:
    async def play() -> None:
        game = Play(seed)
        await game.sign_in()
        for _ in range(steps):
            await game.step()
            await game.check()

    asyncio.run(play())
