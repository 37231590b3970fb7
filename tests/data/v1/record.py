"""Records what attn of version 1 leaves in Kafka: run with the code of that version, it writes the files beside it.

    git worktree add ../attn-v1 750cc9f
    PYTHONPATH=../attn-v1:../attn-v1/tests python tests/data/v1/record.py

A broker, a worker that is killed and started again on the way, an edge with feeds that follow, source events of every
type, commands in the log. At last the worker is killed for good, some events are in the log but not folded, and some in
their topics but not in the log. Everything is from seeds but the clock: each run gives other times.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from streams.packs import Packer
from support import events, pipeline
from support.running import edge
from support.sse import Client

from schemas.log import Dismiss, Pack, Restore, SetPreferences, SetState, Widget, encode_pack
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS, FACTS, LOG, SOURCE_TYPES, TOPIC_OF_TYPE, VIEWS, partition_of
from schemas.views import ItemRow, decode_row
from streams import topics
from streams.core.normalise import normalise

HERE = Path(__file__).parent
WORKSPACES = ("ws_01", "ws_02", "ws_04")
COMMANDED = "ws_commands"
RUNS = ("run.failed",) * 4 + SOURCE_TYPES["run-failures"]
GROUPS = ("attn-ingest", "attn-fold")
# Nothing of the recording may be forgotten because of the day on which it is read.
SETTINGS = {
    "log_partitions": 3, "source_partitions": 2, "retention_days": 20_000, "dedupe_days": 20_000,
    "activity_window_hours": 480_000,
}
READERS = [("ann", "OWNER", "ws_01", 5), ("bob", "MEMBER", "ws_02", 500), ("zoe", "VIEWER", "ws_04", 40),
           ("cy", "MANAGER", COMMANDED, 500)]


def lines() -> list[dict[str, Any]]:
    """Source events of all types, runs in such numbers that some become incidents; each its own id."""
    others = [name for topic, names in SOURCE_TYPES.items() for name in names if topic != "run-failures"]
    found = events.generate(750, 420, types=others, subjects=8, workspaces=WORKSPACES)
    runs = events.generate(751, 80, types=RUNS, subjects=20, workspaces=WORKSPACES)
    for line in runs:
        line["value"]["id"] = "run-" + line["value"]["id"]
    mixed = [*found, *runs]
    random.Random(752).shuffle(mixed)
    return mixed


def asked() -> list[dict[str, Any]]:
    """Messages and a run for people to act on, in a workspace that the reference model is not asked about."""
    return [
        {"topic": TOPIC_OF_TYPE[kind], "key": COMMANDED, "value": {
            "specversion": "1.0", "id": f"asked-{number}", "source": "/asked", "type": kind, "subject": f"s_{number}",
            "time": "2026-05-20T08:14:22Z", "workspaceid": COMMANDED, "data": {"title": f"Größe {number}"},
        }} for number, kind in enumerate(["message.posted"] * 5 + ["run.failed"] * 2 + ["waitpoint.created"])
    ]


def commands(items: dict[str, str], at: int) -> list[Any]:
    """`items`: subject -> id. What people do: some of it refused."""
    def said(number: int) -> dict[str, Any]:
        return {"ws": COMMANDED, "id": f"c-{number}", "time": at, "user": "cy", "roles": ("MANAGER",), "edge": "1"}

    return [
        SetState(**said(1), items=(items["s_0"],), state="read"),
        SetState(**said(2), items=(items["s_1"], items["s_2"]), state="resolved", resolved_action="done", bulk=True),
        SetState(**said(3), items=(items["s_7"],), state="resolved"),  # its source manages it
        Dismiss(**said(4), item=items["s_3"]), Dismiss(**said(5), item=items["s_4"], until=at + 10**15),
        Dismiss(**said(6), item=items["s_5"]), Restore(**said(7), item=items["s_5"]),
        Dismiss(**said(8), item="ibx_none", if_rev=3),
        SetPreferences(**said(9), pinned_clusters=["prod-eu"], widgets=[Widget("activity", False)]),
    ]


async def ask(settings: Settings) -> None:
    """The commands, as one pack of the log."""
    seen = await pipeline.look(settings)
    rows = [decode_row(key, raw) for rows in seen.rows.values() for key, raw in rows.items() if key[:2] == b"i:"]
    items = {row.source_id: row.id for row in rows if isinstance(row, ItemRow) and row.ws == COMMANDED}
    at = 1_780_000_000_000_000
    await write(settings, partition_of(COMMANDED, settings.log_partitions), encode_pack(Pack(at, commands(items, at))))


async def write(settings: Settings, partition: int, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as out:
        await out.send_and_wait(LOG, value, partition=partition)


async def leave_unfolded(settings: Settings, found: list[dict[str, Any]]) -> None:
    """Packs in the log that nobody folds: an ingest that died before it could commit."""
    packer = Packer(settings.log_partitions)
    for line in found:
        packer.add(normalise(line["topic"], json.dumps(line["value"]).encode()))
    for partition, _, value in packer.take(1_790_000_000_000_000):
        await write(settings, partition, value)


async def folded(settings: Settings, number: int) -> None:
    await pipeline.eventually(lambda: pipeline.caught_up(settings, number), "all folded", 120)


async def record(settings: Settings) -> None:
    sent, later = lines(), []
    cut = len(sent) * 7 // 10
    sent, later = sent[:cut], sent[cut:]
    rest = len(sent) - 40
    async with edge(settings, heartbeat_seconds=0.5) as base, contextlib.AsyncExitStack() as stack:
        feeds = [Client(base, who=reader[:3], params={"limit": reader[3]}) for reader in READERS]
        for feed in feeds:
            stack.push_async_callback(feed.close)
        first = pipeline.spawn(settings)
        await pipeline.send(settings, [*asked(), *sent[:150]])
        await folded(settings, 158)
        await ask(settings)
        await pipeline.send(settings, [*sent[150:200], ("messages", b"not an event"), ("plans", b"\xc3\xa4")])
        pipeline.kill(first)
        second = pipeline.spawn(settings)
        await folded(settings, 210)
        for start in range(200, rest, 15):  # many batches, so that the feeds have many frames
            await pipeline.send(settings, sent[start:min(start + 15, rest)])
            await asyncio.sleep(0.2)
        await folded(settings, rest + 10)
        await asyncio.sleep(3)  # commits
        pipeline.kill(second)
        frames = [{"reader": reader, "frames": [one for one in feed.frames if one[1] != "heartbeat"]}
                  for reader, feed in zip(READERS, feeds, strict=True)]
    await leave_unfolded(settings, sent[rest:rest + 20])
    await pipeline.send(settings, sent[rest:])
    save("feeds.json.gz", [frames])
    save("sources.jsonl.gz", [{"sent": True, **line} for line in sent] + [{"sent": False, **line} for line in later])
    save("topics.jsonl.gz", await everything(settings))
    state = {"settings": SETTINGS, "committed": await committed(settings)}
    (HERE / "state.json").write_text(json.dumps(state, indent=1) + "\n")


async def everything(settings: Settings) -> list[dict[str, Any]]:
    found = []
    for topic in (*SOURCE_TYPES, LOG, VIEWS, FACTS, DEAD_LETTERS):
        for partition, records in sorted((await pipeline.read(settings, topic)).items()):
            assert [record.offset for record in records] == list(range(len(records)))
            found += [
                {"topic": topic, "partition": partition, "key": text(one.key), "value": text(one.value),
                 "headers": [[name, text(value)] for name, value in one.headers]} for one in records
            ]
    return found


def text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()


async def committed(settings: Settings) -> dict[str, dict[str, dict[int, int]]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await admin.start()
    found: dict[str, dict[str, dict[int, int]]] = {}
    for group in GROUPS:
        places = found[group] = {}
        for place, at in sorted((await admin.list_consumer_group_offsets(group)).items()):
            if at.offset >= 0:
                places.setdefault(place.topic, {})[place.partition] = at.offset
    await admin.close()
    return found


def save(name: str, found: list[Any]) -> None:
    with (HERE / name).open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for one in found:
            file.write(json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


async def main() -> None:
    home = Path(topics.__file__).parents[1]
    assert home != HERE.parents[2], "this is to be run with the code of version 1: see above"
    with tempfile.TemporaryDirectory() as place:
        async with pipeline.stack(Path(place), **SETTINGS) as settings:
            await topics.ensure(settings)
            await record(settings)
    sys.stdout.write("".join(f"{path.name}: {path.stat().st_size} bytes\n" for path in sorted(HERE.glob("*.*z"))))


if __name__ == "__main__":
    asyncio.run(main())
