"""Two edges on one broker: a write on one appears on the other, and a reader may switch edges at any frame."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import bearer, until
from support.kafka.pipeline import Stack, eventually, send, worker

from schemas.settings import Settings
from streams.kafka import topics

WHO = ("ann", "OWNER", "ws_two")


def opened(number: int, **data: Any) -> dict[str, Any]:
    """Returns an event of a failed run, which users may resolve. Its time grows with `number`."""
    at = (datetime.now(UTC) - timedelta(minutes=30) + timedelta(seconds=number)).isoformat()
    return {"topic": "run-failures", "key": None, "value": {
        "specversion": "1.0", "id": f"e{number}", "source": "/test", "type": "run.failed", "subject": f"run_{number}",
        "time": at, "workspaceid": WHO[2], "data": {
            "title": f"Run {number}", "pipeline": f"p{number}", "step": "build", "cluster": "c1", **data}}}


async def page(base: str) -> dict[str, Any]:
    async with httpx.AsyncClient(headers=bearer(*WHO)) as http:
        answer = await http.get(base + "/org/me/inbox?limit=500")
        answer.raise_for_status()
        return dict(answer.json())


async def write(base: str, method: str, path: str, **more: Any) -> Any:
    async with httpx.AsyncClient(headers=bearer(*WHO), timeout=30) as http:
        answer = await http.request(method, base + path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def running(stack: AsyncExitStack, settings: Settings, edges: int) -> list[str]:
    await stack.enter_async_context(worker(settings))
    return [await stack.enter_async_context(edge(settings, write_seconds=30)) for _ in range(edges)]


async def items_on(bases: list[str], count: int) -> list[dict[str, Any]]:
    """Waits until every edge lists `count` items. Returns the items of the first edge."""
    for base in bases:
        async def there(base: str = base) -> bool:
            return len((await page(base))["items"]) == count

        await eventually(there, f"{base} lists {count} items")
    return list((await page(bases[0]))["items"])


async def followed(reader: Client, copy: Copy, at: int, wanted: dict[str, Any]) -> None:
    """Applies the frames from index `at` on to the copy. Fails unless the copy then equals the page `wanted`."""
    await until(lambda: any(frame[0] >= wanted["cursor"] for frame in reader.frames[at:]), 60)
    for frame in reader.frames[at:]:
        copy.apply(frame)
    assert {name: copy.page[name] for name in ("items", "counts")} == {
        name: wanted[name] for name in ("items", "counts")}


async def test_a_write_on_one_edge_reaches_streams_of_the_other_and_readers_may_switch(stack: Stack) -> None:
    async with stack() as settings, AsyncExitStack() as running_parts:
        await topics.ensure_topics(settings)
        here, there = await running(running_parts, settings, 2)
        await send(settings, [opened(number) for number in range(6)])
        ids = [item["id"] for item in await items_on([here, there], 6)]

        reader, copy = Client(there, who=WHO), Copy()
        await reader.get(1)
        await write(here, "POST", f"/org/me/inbox/{ids[0]}/dismiss")
        await write(here, "PATCH", f"/api/v1/inbox/{ids[1]}", json={"state": "read"})
        done = await write(here, "POST", "/api/v1/inbox/bulk", json={
            "ids": [ids[2], ids[3], "ibx_nothing"], "state": "resolved", "resolved_action": "retried"})
        assert (done["updated"], done["not_found"]) == (2, 1)
        mine = await page(here)  # the edge that took the writes shows them without a delay
        assert {item["id"] for item in mine["items"]} == {ids[1], ids[4], ids[5]}
        await followed(reader, copy, 0, mine)
        assert [(data["id"], data["reason"]) for _, name, data in reader.frames if name == "removed"] == [
            (ids[0], "dismissed"), *((item, "resolved") for item in sorted(
                ids[2:4], key=[data["id"] for _, name, data in reader.frames if name == "removed"].index))]

        # The reader resumes on the other edge and gets exactly the frames that it missed.
        last = reader.frames[-1][0]
        await reader.close()
        await write(there, "DELETE", f"/org/me/inbox/{ids[0]}/dismiss")
        await write(there, "PATCH", f"/api/v1/inbox/{ids[4]}", json={"state": "resolved"})
        resumed = Client(here, who=WHO, headers={"last-event-id": str(last)})
        await followed(resumed, copy, 0, await page(there))
        assert "snapshot" not in {name for _, name, _ in resumed.frames}
        assert {data["item"]["id"] for _, name, data in resumed.frames if name == "added"} == {ids[0]}
        await resumed.close()


async def test_a_snooze_ends_on_every_edge_once_also_after_a_restart(stack: Stack) -> None:
    async with stack() as settings:
        await topics.ensure_topics(settings)
        async with AsyncExitStack() as first:
            begun = time.monotonic()
            bases = await running(first, settings, 2)
            await send(settings, [opened(number) for number in range(2)])
            item = (await items_on(bases, 2))[0]["id"]
            # The snooze lasts at least twice as long as the setup took: both edges must show the list without the item.
            until_when = datetime.now(UTC) + timedelta(seconds=max(8, 2 * (time.monotonic() - begun)))
            await write(bases[0], "POST", f"/org/me/inbox/{item}/dismiss",
                        json={"dismissed_until": until_when.isoformat()})
            readers = [Client(base, who=WHO) for base in bases]
            cursors = [(await reader.get(1))[0][0] for reader in readers]
            assert [len(reader.frames[0][2]["items"]) for reader in readers] == [1, 1]
            for reader in readers:
                await reader.close()
        async with AsyncExitStack() as second:  # a new worker and new edges: they know only the topics
            bases = await running(second, settings, 2)
            readers = [Client(base, who=WHO, headers={"last-event-id": str(cursor)})
                       for base, cursor in zip(bases, cursors, strict=True)]
            for reader in readers:
                await until(lambda reader=reader: any(
                    name == "added" and data["item"]["id"] == item for _, name, data in reader.frames), 180)
            assert datetime.now(UTC) >= until_when - timedelta(seconds=1)
            await items_on(bases, 2)
            await asyncio.sleep(0.5)  # a second `added` frame would arrive within this time
            assert [[name for _, name, _ in reader.frames] for reader in readers] == [["added"], ["added"]]
            for reader in readers:
                await reader.close()
