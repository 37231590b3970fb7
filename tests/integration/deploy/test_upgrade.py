"""The current code on Kafka data of version 1 and of a newer version (docs/operations.md, Upgrades)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from support.clients.feed import Copy
from support.clients.sse import Client
from support.edge.edge_on_broker import edge
from support.edge.edges import SECRET, bearer, until
from support.edge.expected_view import Truth
from support.fold.pipeline_driver import assert_equal
from support.kafka import brokers, pipeline
from support.kafka.pipeline import Stack, caught_up, check, eventually, look, send, worker
from support.model import Model
from support.model import Reader as ModelReader
from support.processes.cli import COMMAND, clean_env
from support.processes.version1_data import version1_state, write_version1_data

from api.readmodel.readers import Reader
from schemas.settings import Settings
from schemas.topics import FACTS, LOG, VIEWS
from schemas.versions import UnsupportedVersion
from schemas.views import ItemRow, decode_row, encode_row, position_key
from streams.core.domain import items
from streams.kafka import topics
from streams.runtime.task_supervisor import WorkerFailed

pytestmark = pytest.mark.timeout(180)

MODELLED = {"ws_01": 1, "ws_02": 0, "ws_04": 2}  # workspace -> its partition; compared with the reference model
READERS = [ModelReader(user, role) for user in ("ann", "bob", "zoe") for role in ("OWNER", "MANAGER", "MEMBER")]


def rows_of(seen: pipeline.Seen) -> dict[bytes, bytes]:
    """Returns the rows of all partitions, without position rows and other rows of no workspace."""
    return {key: raw for rows in seen.rows.values() for key, raw in rows.items() if key[:2] in (
        b"i:", b"m:", b"d:", b"p:", b"a:")}


def page_of(rows: dict[bytes, bytes], feed: dict[str, Any]) -> dict[str, Any]:
    """Returns the page that the reader of this feed must see."""
    user, role, ws, limit = feed["reader"]
    page = Truth(rows, Reader(ws, user, frozenset({role}))).page(limit)
    page["activity"].pop("window")
    return page


def copy_of(frames: Sequence[Any]) -> dict[str, Any]:
    """Returns the page that a client builds from these frames."""
    copy = Copy()
    for cursor, event, data in frames:
        copy.apply((cursor, event, data))
    page = copy.page
    page["activity"] = {name: value for name, value in page["activity"].items() if name != "window"}
    return page


async def resumed(base: str, feed: dict[str, Any], seen: int) -> tuple[list[Any], Client]:
    """Resumes a feed of version 1 after its first `seen` frames. Returns these frames and the client on the new edge.
    """
    user, role, ws, limit = feed["reader"]
    had = feed["frames"][:seen]
    return had, Client(base, who=(user, role, ws), params={"limit": limit},
                       headers={"last-event-id": str(had[-1][0])})


async def test_the_current_code_continues_from_data_of_version_1(stack: Stack) -> None:
    """Cursors of version 1 resume on a new edge. A new worker folds the events that version 1 left and later ones. The
    view equals the reference model and one fold of the whole log."""
    data = version1_state()
    async with stack(**data.settings) as settings:
        await topics.ensure_topics(settings)
        await write_version1_data(settings)
        before = rows_of(await look(settings))
        async with edge(settings) as base:
            following = []
            for feed in data.feeds:
                for seen in {1, len(feed["frames"]) // 2, len(feed["frames"]) - 1, len(feed["frames"])}:
                    had, client = await resumed(base, feed, seen)
                    await until(lambda had=had, client=client, feed=feed:
                                copy_of([*had, *client.frames]) == page_of(before, feed))
                    assert "snapshot" not in [event for _, event, _ in client.frames], "the feed did not resume"
                    following.append((feed, had, client))
            async with worker(settings):
                await send(settings, data.later)
                # `sent` has neither the 8 events of the workspace ws_commands nor the 2 dead letters.
                sources = len(data.sent) + len(data.later) + 8 + 2
                seen = await eventually(lambda: quiet(settings, sources), "all events folded, no timer due", 60)
            check(seen, settings, older=True)
            compare_with_model(seen)
            after = rows_of(seen)
            for feed, had, client in following:
                await until(lambda had=had, client=client, feed=feed:
                            copy_of([*had, *client.frames]) == page_of(after, feed), 20)
                assert [event for _, event, _ in client.frames].count("snapshot") == 0
                await client.close()
        # An edge that no longer has the changes since these cursors starts their feeds with a snapshot.
        async with edge(settings, resume_hours=0.0001) as base:
            for feed in data.feeds:
                _, client = await resumed(base, feed, len(feed["frames"]))
                await until(lambda client=client, feed=feed:
                            bool(client.frames) and copy_of(client.frames) == page_of(after, feed))
                assert [event for _, event, _ in client.frames] == ["snapshot"]
                await client.close()


async def quiet(settings: Settings, sources: int) -> pipeline.Seen | None:
    """Returns all records once every event is folded and no timer is due; None before."""
    seen = await caught_up(settings, sources)
    now = time.time_ns() // 1000
    due = seen and [key for rows in seen.rows.values() for key, raw in rows.items()
                    if key[:1] != b"~" and (getattr(decode_row(key, raw), "wake", None) or now + 1) <= now]
    return seen if seen and not due else None


def compare_with_model(seen: pipeline.Seen) -> None:
    data = version1_state()
    model = Model([*data.sent, *data.later])
    for ws, partition in MODELLED.items():
        rows = dict(seen.rows[partition])
        position = decode_row(b"~:", rows[position_key(partition)])
        rows[position_key(0)] = rows[position_key(partition)]  # the comparison reads the clock from partition 0
        _rank_messages_anew(rows, position.clock)  # type: ignore[union-attr]
        assert_equal(rows, model.at(position.clock)[ws], ws, READERS)  # type: ignore[union-attr]


def _rank_messages_anew(rows: dict[bytes, bytes], clock: int) -> None:
    """Ranks messages by the current rule: they have no due time. A message row of version 1 keeps its due time until it
    changes, or until `attn rebuild`."""
    for key, raw in list(rows.items()):
        if key[:2] == b"i:":
            row = decode_row(key, raw)
            assert isinstance(row, ItemRow)
            if row.kind == "message":
                items.derive_rank(row, clock, version1_state().rules)
                rows[key] = encode_row(row)


# --- records of a newer attn ---

NEWER_PACK = (LOG, None, b'{"at":1780000000000000,"entries":[{"t":"what nobody knows yet"}],"v":9}')
NEWER_VIEW = (VIEWS, position_key(0), b'{"next":1,"clock":0,"shift":0,"part":0,"incarnation":0,"v":9,"more":[]}')
NEWER_FACT = (FACTS, b"ws_01", b'{"t":"fact","ws":"ws_01","pos":1,"index":0,"event_id":"e","time":1,"v":9}')


async def put(settings: Settings, topic: str, key: bytes | None, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as out:
        await out.send_and_wait(topic, value, key=key, partition=0)


async def test_a_worker_stops_at_a_newer_pack_and_leaves_it_where_it_is(stack: Stack) -> None:
    data = version1_state()
    async with stack(**data.settings) as settings:
        await topics.ensure_topics(settings)
        await write_version1_data(settings)
        await put(settings, *NEWER_PACK)
        for _ in range(2):  # the worker stops at the same record after a restart
            with pytest.raises(WorkerFailed, match=r"a pack of attn\.log has version 9.* upgrade this process"):
                async with asyncio.timeout(40), worker(settings) as task:
                    await task
        seen = await look(settings)
        offset = len(data.topics[LOG][0])
        assert seen.log[0][offset].value == NEWER_PACK[2]
        assert pipeline.position(seen.rows[0], 0).next <= offset
        assert len(seen.letters) == 2, "the worker has written dead letters; version 1 left two"


@brokers.EMBEDDED_ONLY  # the reaction to a record does not depend on the broker
@pytest.mark.parametrize(("role", "newer"), [
    ("worker", NEWER_VIEW), ("edge", NEWER_VIEW), ("edge", NEWER_FACT), ("history", NEWER_FACT),
], ids=["worker", "edge", "edge-fact", "history"])
async def test_a_role_refuses_records_of_a_newer_version(
    stack: Stack, tmp_path: Path, role: str, newer: tuple[str, bytes, bytes]
) -> None:
    """The role exits at its start and logs the reason in one line. It writes neither dead letters nor log records."""
    async with stack(log_partitions=1) as settings:
        await topics.ensure_topics(settings)
        await put(settings, *newer)
        env = clean_env({
            "ATTN_KAFKA": settings.kafka, "ATTN_LOG_PARTITIONS": "1", "ATTN_PORT": "0", "ATTN_JWT_SECRET": SECRET,
            "ATTN_DATA_DIR": str(tmp_path / "data"), "ATTN_LOG_FORMAT": "json", "ATTN_SOURCE_PARTITIONS": "2",
        })
        (tmp_path / "data").mkdir()
        process = subprocess.Popen([*COMMAND, role], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            _, errors = await asyncio.to_thread(process.communicate, None, 60)
        finally:
            process.kill()
        assert process.returncode == 1, errors.decode()
        lines = map(json.loads, errors.decode().splitlines())
        refused = [line for line in lines if line["event"] == "incompatible version"]
        assert len(refused) == 1, errors.decode()
        assert "has version 9" in refused[0]["reason"]
        assert "upgrade this process" in refused[0]["reason"]
        seen = await look(settings)
        assert not seen.letters
        assert not seen.log[0]


async def test_an_edge_stops_serving_when_a_newer_batch_comes(stack: Stack) -> None:
    data = version1_state()
    async with stack(**data.settings) as settings:
        await topics.ensure_topics(settings)
        await write_version1_data(settings)

        async def served() -> None:
            async with edge(settings) as base, httpx.AsyncClient() as client:
                assert (await client.get(base + "/org/me/inbox", headers=bearer(ws="ws_01"))).status_code == 200
                await put(settings, VIEWS, b"i:x", b'{"id":"x","ws":"ws_01","kind":"omen","source_id":"s","new":1}')
                await put(settings, *NEWER_VIEW)
                with contextlib.suppress(httpx.TransportError):
                    async with asyncio.timeout(20):
                        while (answer := await client.get(base + "/readyz")).status_code == 200:
                            assert "omen" not in (await client.get(
                                base + "/org/me/inbox", headers=bearer(ws="ws_01"))).text
                            await asyncio.sleep(0.05)
                    assert answer.status_code == 503

        with pytest.raises(UnsupportedVersion):
            await served()


