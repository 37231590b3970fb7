"""Clients after the death of a broker: errors that they retry, and short waits of empty fetches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka.records import broker_loss

broker_loss.install()


class Connection(AIOKafkaConnection):
    async def _do_version_lookup(self) -> None:
        self._versions = {MetadataRequest.API_KEY: (0, 1)}


@asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    """Yields a connection to a server that never answers."""
    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    connection = Connection("127.0.0.1", server.sockets[0].getsockname()[1])
    await connection.connect()
    try:
        yield connection
    finally:
        connection.close()
        server.close()


def test_a_request_on_a_transport_that_uvloop_has_closed_is_an_error_of_kafka() -> None:
    async def request() -> None:
        async with connected() as connection:
            reasons: list[CloseReason] = []
            connection._on_close_cb = lambda _, reason: reasons.append(reason)
            reader, writer = connection._reader, connection._writer
            reader.at_eof = lambda: False  # aiokafka has not noticed the end yet
            connection._read_task.cancel()
            writer.transport.abort()
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="closed"):
                writer.write(b"x")
            assert connection.connected()
            with pytest.raises(KafkaConnectionError, match="is closed"):
                connection.send(MetadataRequest([]))
            assert reasons == [CloseReason.CONNECTION_BROKEN]
            assert not connection.connected()

    uvloop.run(asyncio.wait_for(request(), 60))


async def test_an_empty_fetch_waits_for_a_short_time_after_a_failed_connection(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    fetch = Fetcher._proc_fetch_request

    async def noted(self: Fetcher, assignment: object, node: int, request: object) -> bool:
        waits.append(request._max_wait_ms)  # type: ignore[attr-defined]
        return bool(await fetch(self, assignment, node, request))

    async def next_wait() -> int:
        before = len(waits)
        async with asyncio.timeout(60):
            while len(waits) == before:
                await asyncio.sleep(0.01)
        return waits[-1]

    monkeypatch.setattr(Fetcher, "_proc_fetch_request", noted)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic("losses", 1, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=700)
    await consumer.start()
    try:
        consumer.assign([TopicPartition("losses", 0)])
        assert await next_wait() == 700
        monkeypatch.setattr(broker_loss, "_SECONDS", 3600.0)
        assert await consumer._client._get_conn(4711) is None  # a broker that the metadata lack
        await next_wait()  # its request may be from before
        assert await next_wait() == broker_loss.SHORT_WAIT_MS
        monkeypatch.setattr(broker_loss, "_SECONDS", 0.0)
        await next_wait()
        assert await next_wait() == 700
    finally:
        await consumer.stop()
