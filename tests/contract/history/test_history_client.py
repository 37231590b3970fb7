"""An edge answers 503 in bounded time while ClickHouse is down, slow or refuses a query. Other requests do not wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.edge.edge_with_fold import Deciding, waitpoint
from support.edge.edges import settings

from api.contract.errors import ApiError
from api.history import client as module
from api.history.client import HistoryClient
from api.readmodel.readers import Reader
from ops.process.ports import free_port

READER = Reader("ws", "ann", frozenset({"OWNER"}))
ROUTES = ("/org/me/activity?window=7d", "/cases/k/history", "/org/me/insights?window=7d")


class Server:
    """A server that accepts connections and sends `answer`, or nothing if `answer` is empty."""

    def __init__(self) -> None:
        self.port, self.answer, self.asked = 0, b"", 0
        self.tasks: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.tasks.add(asyncio.current_task())
        try:
            if self.answer:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
            else:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    result = Server()
    running = await asyncio.start_server(result.serve, "127.0.0.1", 0)
    result.port = running.sockets[0].getsockname()[1]
    try:
        yield result
    finally:
        running.close()
        await asyncio.wait_for(asyncio.gather(*(task for task in result.tasks if task is not None)), 60)


def client_of(port: int, **more: object) -> HistoryClient:
    return HistoryClient(settings(clickhouse_read_url=f"http://reader:secret@127.0.0.1:{port}/attn", **more))


async def refused(client: HistoryClient) -> ApiError:
    with pytest.raises(ApiError) as error:
        await client.query("SELECT 1", READER)
    assert error.value.status == 503
    assert int((error.value.headers or {})["retry-after"]) >= 1
    assert "secret" not in str(error.value)
    return error.value


async def test_a_missing_clickhouse_url_is_an_error_that_names_the_setting() -> None:
    assert "ATTN_CLICKHOUSE_READ_URL" in str(await refused(HistoryClient(settings())))


async def test_retries_of_a_dead_clickhouse_back_off() -> None:
    now = 0.0
    async with server() as broken:
        broken.answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        client = HistoryClient(settings(clickhouse_read_url=f"http://127.0.0.1:{broken.port}"), lambda: now)
        rests = []
        for _ in range(7):
            before = broken.asked
            error = await refused(client)
            assert broken.asked > before
            tried = broken.asked
            await refused(client)
            assert broken.asked == tried, "the client backs off after an error"
            rests.append(int((error.headers or {})["retry-after"]) - 1)
            now += rests[-1]
    assert rests == [1, 2, 4, 8, 16, 30, 30]


async def test_a_query_without_an_answer_times_out() -> None:
    async with server() as silent:
        client = client_of(silent.port, history_query_seconds=0.2)
        await refused(client)
        await client.close()


async def test_queries_beyond_the_queue_limit_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    async with server() as silent:
        client = client_of(silent.port, history_query_seconds=0.5, history_query_concurrency=1)
        waiting = [asyncio.create_task(refused(client)) for _ in range(4)]
        await asyncio.sleep(0)
        assert "too many" in str(await refused(client))
        assert "unavailable" in str((await asyncio.gather(*waiting))[-1])
        await client.close()


async def test_the_inbox_and_live_activity_work_while_clickhouse_is_down() -> None:
    attn = Deciding(clickhouse_read_url=f"http://reader:secret@127.0.0.1:{free_port()}/attn")
    attn.happen(waitpoint("w", case_id="k"))
    async with attn.client() as client:
        for path in ROUTES:
            answer = await client.get(path)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "secret" not in answer.text
        assert (await client.get("/org/me/inbox")).json()["counts"]["total"] == 1
        assert (await client.get("/org/me/activity?window=24h")).status_code == 200
    await attn.edges[0].history.close()


async def test_ninety_queries_of_one_user_are_rejected_while_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ClickHouse answers none of this user's queries meanwhile: queries of other users still get an answer."""
    gate = asyncio.Event()

    async def query(_: HistoryClient, __: str, parameters: dict[str, object]) -> list[object]:
        if parameters["ws"] == "loud":
            await gate.wait()
        return []

    monkeypatch.setattr(HistoryClient, "_query", query)
    attn = Deciding(clickhouse_read_url="http://reader:secret@127.0.0.1:1/attn")
    attn.happen(waitpoint("w", ws="loud"), waitpoint("w"))
    async with attn.client() as calm, attn.client("viewer", "VIEWER", ws="loud") as loud:
        flood = [asyncio.create_task(loud.get("/org/me/activity?window=90d")) for _ in range(90)]
        while sum(task.done() for task in flood) < 60:
            await asyncio.sleep(0)
        for path in (*ROUTES[:1], ROUTES[2]):
            assert (await calm.get(path)).status_code == 200, path
        gate.set()
        answers = await asyncio.gather(*flood)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 60
    assert all(int(answer.headers["retry-after"]) >= 1 and "error" in answer.json() for answer in refused)
    assert {answer.status_code for answer in answers} == {200, 429}
