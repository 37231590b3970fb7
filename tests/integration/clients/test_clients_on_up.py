"""Clients against `attn up`: the edge gets SIGKILL while a question waits, and while a client follows the feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from support.clients.people import People, until
from support.connect.desk import Desk
from support.processes.up import Up

from attn_client import AsyncAttn, Feed, Unauthorized
from ops.embedded.broker import binary

SOURCE = "/agents/test"

pytestmark = [
    pytest.mark.timeout(300), pytest.mark.slow,
    pytest.mark.skipif(binary() is None, reason="noida-db is not installed (pip install 'attn[embedded]')"),
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"), env={"ATTN_UNDO_SECONDS": "0", "ATTN_HEARTBEAT_SECONDS": "2"})
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def people(up: Up) -> People:
    desk = Desk(up, "ws_01")
    return People(up.url, lambda user: desk.headers(user)["authorization"].removeprefix("Bearer "))


@pytest_asyncio.fixture
async def attn(people: People) -> AsyncIterator[AsyncAttn]:
    async with AsyncAttn(people.url, people.create_key(SOURCE), source=SOURCE) as client:
        yield client


async def test_an_edge_is_killed_while_a_question_waits(up: Up, attn: AsyncAttn, people: People) -> None:
    asked = asyncio.create_task(attn.ask("Still there?", subject="kill-1"))
    await people.question("kill-1")
    for round in range(2):
        before = up.kill("edge")
        late = asyncio.create_task(attn.ask("Asked while it is down?", subject=f"kill-2-{round}"))
        notice = asyncio.create_task(attn.notify("Sent while it is down", subject=f"kill-3-{round}"))
        await asyncio.to_thread(up.wait_restarted, "edge", before)
        await notice
        await people.answer(f"kill-2-{round}", "approve")
        assert (await late).approved
    assert not asked.done()
    await people.answer("kill-1", "approve")
    assert (await asked).confirmed


async def test_the_feed_resumes_after_the_edge_was_killed(up: Up, attn: AsyncAttn, people: People) -> None:
    limit, events = 50, []
    changed = asyncio.Condition()

    async def follow(feed: Feed) -> None:
        async for frame in feed:
            events.append(frame.event)
            async with changed:
                changed.notify_all()

    async def is_same() -> bool:
        """Returns whether the copy equals the response of the edge at the same cursor."""
        page = await people.get(f"/org/me/inbox?limit={limit}")
        return bool(page and feed.inbox.cursor and page["items"] == list(feed.inbox.items)
                    and page["counts"] == feed.inbox.counts)

    async with Feed(people.url, people.token("ann"), limit=limit) as feed:
        following = asyncio.create_task(follow(feed))
        await attn.notify("first", subject="feed-1")
        await people.question("feed-1")
        await until(is_same, "the copy equals the inbox")
        before = up.kill("edge")
        await asyncio.to_thread(up.wait_restarted, "edge", before)
        for n in range(5):
            await attn.notify(f"later {n}", subject=f"feed-2-{n}")
        await attn.withdraw("feed-1", kind="message")
        for n in range(5):
            await people.question(f"feed-2-{n}")
        await until(is_same, "the copy equals the inbox again")
        assert events.count("snapshot") == 1, "the client did not resume its feed"
        assert "removed" in events
        following.cancel()
    async with Feed(people.url, people.token("ann"), limit=limit, inbox=feed.inbox) as resumed:
        await attn.notify("after", subject="feed-3")
        async for frame in resumed:
            assert frame.event != "snapshot"
            if any(item["source_id"] == "feed-3" for item in resumed.inbox.items):
                break
    async with Feed(people.url, "no token") as refused:
        with pytest.raises(Unauthorized):
            async for _ in refused:
                pass
