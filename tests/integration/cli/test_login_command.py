"""`attn login` and `attn logout` as processes, against two edges over HTTP (CONTRACT §9)."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from support.edge.edge_with_fold import Deciding
from support.edge.edges import serving
from support.edge.sessions import cookie_of, signed_in
from support.processes.cli import COMMAND, attn, clean_env

from api.http.auth.sessions import OpenedSession, end_sessions

pytestmark = pytest.mark.timeout(180)


class Site(NamedTuple):
    deciding: Deciding
    urls: list[str]
    opened: OpenedSession
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "attn" / "session.json"

    @property
    def env(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.folder)}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(attn, *arguments, cwd=self.folder, env=self.env)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    deciding = Deciding(edges=2)
    async with serving(deciding.edges[0]) as first, serving(deciding.edges[1]) as second:
        yield Site(deciding, [first, second], await signed_in(deciding, "ann", "MANAGER"), tmp_path)


@asynccontextmanager
async def logging_in(site: Site) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """Runs `attn login` at the first edge. Yields the process, the sealed request and the code that it shows."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "login", "--attn", site.urls[0], cwd=site.folder, env=clean_env(site.env),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    shown = ""
    try:
        while (code := re.search(r"code there: ([A-Z]{4}-[A-Z]{4})\n", shown)) is None:
            line = (await process.stdout.readline()).decode()
            assert line, shown
            shown += line
        address = re.search(rf"^  {site.urls[0]}/#device=(\S+)$", shown, re.M)
        assert address is not None, shown
        yield process, address[1], code[1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def answer(site: Site, sealed: str, code: str, allow: bool = True) -> None:
    """Answers the request on the page of the second edge, as the user of the browser session."""
    body: dict[str, Any] = {"request": sealed, "allow": allow, "user_code": code}
    async with httpx.AsyncClient(base_url=site.urls[1], headers=cookie_of(site.opened), trust_env=False) as client:
        assert (await client.post("/auth/device/answer", json=body)).status_code == 200


async def sign_in(site: Site) -> str:
    async with logging_in(site) as (process, sealed, code):
        await answer(site, sealed, code)
        out, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b""), (out, errors)
        assert b"signed in as ann, MANAGER in ws" in out
        session = json.loads(site.file.read_bytes())["session"]
        assert session.encode() not in out
    return str(session)


async def test_a_terminal_signs_in_and_out(site: Site) -> None:
    assert (await site.run("login", "--status"))[0] == 1
    session = await sign_in(site)
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(site.file.parent.stat().st_mode) == 0o700
    code, out, _ = await site.run("login", "--status")
    assert (code, out.startswith(f"{site.urls[0]}: ann, MANAGER in ws, until ")) == (0, True)
    assert (await site.run("login", "--token"))[:2] == (0, session + "\n")
    assert len(site.deciding.edges[1].replica.access.sessions) == 2
    assert (await site.run("logout"))[:2] == (0, f"signed out of {site.urls[0]}\n")
    assert not site.file.exists()
    assert len(site.deciding.edges[1].replica.access.sessions) == 1
    assert (await site.run("logout"))[:2] == (0, "not signed in\n")


async def test_another_sign_in_ends_the_first_session(site: Site) -> None:
    first = await sign_in(site)
    site.deciding.now += 1
    assert await sign_in(site) != first
    assert len(site.deciding.edges[1].replica.access.sessions) == 2  # browser, second sign-in


async def test_a_refused_terminal_gets_no_session(site: Site) -> None:
    async with logging_in(site) as (process, sealed, code):
        await answer(site, sealed, code, allow=False)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"attn: the sign-in was refused on the page\n")
    assert not site.file.exists()


async def test_a_session_that_has_ended_or_that_others_can_read(site: Site) -> None:
    await sign_in(site)
    site.file.chmod(0o644)
    code, _, errors = await site.run("login", "--status")
    assert (code, "other users can read" in errors) == (1, True)
    site.file.chmod(0o600)
    await end_sessions(site.deciding.edges[0], session=site.opened.id, reason="signed out")
    code, _, errors = await site.run("login", "--status")
    assert (code, "has ended: run `attn login` again" in errors) == (1, True)
    assert (await site.run("logout"))[0] == 0


async def test_an_address_that_is_not_attn(site: Site) -> None:
    for url, status, error in (("http://127.0.0.1:9", 1, "does not answer"), ("ftp://x", 2, "ATTN_URL")):
        code, _, errors = await site.run("login", "--attn", url)
        assert (code, errors.count("\n"), error in errors) == (status, 1, True), errors
    assert not site.file.exists()
