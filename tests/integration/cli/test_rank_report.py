"""`attn rank-report` replays the records of attn.log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from support.fold.fold_driver import NOON, event
from support.processes.cli import attn

from ops.embedded.broker import EmbeddedBroker, binary
from schemas.log import Pack, SetState, encode_pack
from schemas.scalars import MINUTE
from schemas.settings import Settings
from schemas.topics import LOG, partition_of
from streams.core.domain.keys import item_id
from streams.kafka import topics


@pytest.mark.broker
@pytest.mark.skipif(binary() is None, reason="noida-db is not installed")
async def test_the_report_replays_the_log_with_commands_of_users(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    try:
        settings = Settings(kafka=broker.bootstrap, log_partitions=2, _env_file=None)
        await topics.ensure_topics(settings)
        item = item_id("ws", "message", "m")
        packs = [
            Pack(NOON, [event("message.posted", "m", 0, title="T", priority="low")]),
            Pack(NOON + 10 * MINUTE, [event("escalation.opened", "e", 10, title="T", priority="high")]),
            Pack(NOON + 20 * MINUTE, [SetState(
                ws="ws", id="c", user="ann", roles=("OWNER",), time=NOON + 20 * MINUTE, edge="e", items=[item],
                state="resolved")]),
        ]
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        for pack in [encode_pack(packs[0]), b"what the fold skips", *map(encode_pack, packs[1:])]:
            await producer.send_and_wait(LOG, pack, b"ws", partition=partition_of("ws", 2))
        await producer.stop()
        policy = tmp_path / "policy.toml"
        policy.write_text('[kinds.message]\npriority = "urgent"')
        done = attn("rank-report", "--policy", str(policy), "--json", "--kafka", broker.bootstrap, cwd=tmp_path)
    finally:
        await broker.stop()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["events"], report["all"]["stays"], report["all"]["still_open"]) == (3, 2, 1)
    kinds = report["kinds"]
    assert kinds["message"]["listed_seconds"]["p50"] == 20 * 60
    assert kinds["message"]["today"]["place"]["p50"] == 1.5
    assert kinds["message"]["policy"]["place"]["p50"] == 1
