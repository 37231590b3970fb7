"""Damages a view on a broker, and runs the check and the repair of `attn rebuild`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from support import events
from support.kafka import pipeline
from support.kafka.pipeline import Stack, caught_up, eventually, send, worker

from schemas.settings import Settings
from schemas.topics import VIEWS
from schemas.views import decode_row, encode_row, position_key
from streams.core.config import FoldConfig
from streams.kafka import producer, topics
from streams.rebuild.comparison import Comparison
from streams.rebuild.rebuild import PartitionRebuild, RebuildBase, read_view

WORKSPACES = ("ws_01", "ws_02")  # in partition 1 and 0, of two
LINES = events.generate(77, 300, workspaces=WORKSPACES, subjects=6)


def env_of(settings: Settings) -> dict[str, str]:
    return {
        "ATTN_KAFKA": settings.kafka, "ATTN_LOG_PARTITIONS": str(settings.log_partitions), "ATTN_DATA_DIR": "none",
        **{f"ATTN_TARGET_{name.upper()}": f"PT{us // 10**6}S" for name, us in settings.priority_targets.items()},
    }


def with_targets(settings: Settings, days: int) -> Settings:
    """Returns settings with other priority targets. Most rows of the view differ with these settings."""
    return settings.model_copy(update={f"target_{name}": timedelta(days=days) for name in settings.priority_targets})


async def check(settings: Settings, base: RebuildBase | None = None) -> dict[int, Any]:
    """Returns, for each partition with differences, their counts by type of row."""
    rules = FoldConfig.from_settings(settings)
    reports = [
        await PartitionRebuild(settings, number, rules, base).check() for number in range(settings.log_partitions)]
    return {report.partition: {name: dict(count) for name, count in report.differing.items()}
            for report in reports if report.differing}


async def rebuild(settings: Settings) -> int:
    """Rebuilds all partitions. Returns the number of records written."""
    rules = FoldConfig.from_settings(settings)
    return sum([
        (await PartitionRebuild(settings, number, rules).run()).written for number in range(settings.log_partitions)])


@contextlib.asynccontextmanager
async def folded(stack: Stack) -> AsyncIterator[Settings]:
    """Yields the settings of a broker with a view that a worker has written. The worker has stopped."""
    async with stack(log_partitions=2) as settings:
        await topics.ensure_topics(settings)
        await send(settings, LINES)
        async with worker(settings):
            await eventually(lambda: caught_up(settings, len(LINES)), "all events are folded")
        yield settings


async def corrupt(settings: Settings, partition: int, seed: int = 1) -> dict[str, dict[str, int]]:
    """Writes a batch of wrong rows, as another writer might. Returns the expected differences."""
    rng = random.Random(seed)
    view = await read_view(settings, partition)
    assert view.position is not None
    lost, *other = rng.sample(sorted(key for key in view.rows if key[:2] == b"i:"), 4)
    seen = rng.choice(sorted(key for key in view.rows if key[:2] == b"e:"))
    wrong: list[tuple[bytes, bytes | None]] = [(lost, None), (seen, None)]
    for key in other:
        row: Any = decode_row(key, view.rows[key])
        row.data.title, row.state = "Send me money", "unread"
        wrong.append((key, encode_row(row)))
    made_up = b"made-up-%d" % partition
    wrong.append((b"i:" + made_up, encode_row(row).replace(row.id.encode(), made_up)))
    view.position.shift += 1
    out = producer.idempotent_producer(settings, "wrong")
    await out.start()
    await producer.write_rows(out, VIEWS, partition, [*wrong, (position_key(partition), encode_row(view.position))])
    await out.stop()
    return {"item": {"missing": 1, "extra": 1, "other": 3}, "seen": {"missing": 1}}


def differences(one: pipeline.Seen, two: pipeline.Seen, partition: int) -> dict[str, Any]:
    compared = Comparison(one.rows[partition], two.rows[partition], False)
    compared.update_all()
    return compared.count_by_type()


def same(one: dict[bytes, bytes], two: dict[bytes, bytes]) -> bool:
    compared = Comparison(one, two, False)
    compared.update_all()
    return not compared.count_by_type()


def of_later(number: int) -> list[events.Line]:
    """Returns events that follow those of `LINES`, with other ids."""
    lines = events.generate(78, number, workspaces=WORKSPACES, subjects=40)
    for line in lines:
        line["value"]["id"] = "later-" + line["value"]["id"]
    return lines
