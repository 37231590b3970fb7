"""Random facts, and a model of the rows that ClickHouse must return for them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from support.processes import fork_server
from support.processes.fork_server import Forked

from schemas.facts import Fact, encode_fact
from schemas.settings import Settings
from schemas.topics import FACTS, partition_of
from streams.history.clickhouse import client

ROOT = Path(__file__).parents[3]
HOUR = 3600 * 1_000_000
BEGIN = 1_750_000_000_000_000
TYPES = (
    ("plan.proposed", "plan_approval", False), ("plan.approved", "plan_approval", True),
    ("session.completed", "session_waiting", True), ("run.failed", "failed_run", False),
)


class Feeder:
    """Generates random facts as a fold writes them. Positions increase, and repeats follow 1 % of the facts."""

    def __init__(self, partitions: int, seed: int = 1) -> None:
        self.partitions = partitions
        self.random = random.Random(seed)
        self.positions = [0] * partitions
        self.by_partition: list[list[Fact]] = [[] for _ in range(partitions)]
        self.count = 0

    def fact(self, **fields: Any) -> Fact:
        """Returns a new fact. Later calls may repeat it."""
        ws = f"ws_{self.random.randrange(6)}"
        partition = partition_of(ws, self.partitions)
        self.positions[partition] += self.random.randrange(1, 3)
        kind = self.random.choice(TYPES)
        self.count += 1
        fact = Fact(**{
            "ws": ws, "pos": self.positions[partition], "index": 0, "event_id": f"/src/é evt-{self.count}",
            "time": BEGIN + self.random.randrange(20 * HOUR), "at": BEGIN + self.count, "type": kind[0],
            "subject": f"s{self.count}", "item": f"ibx_{self.count}", "kind": kind[1], "priority": "high",
            "title": "Review “it”", "seconds_open": float(self.random.randrange(1000)) if kind[2] else None,
            "actor": f"user_{self.random.randrange(9)}" if kind[2] else None, "cluster": f"prod-{self.count % 2}",
            "opened": not kind[2], "case_id": f"case_{self.count % 5}", **fields,
        })
        self.by_partition[partition].append(fact)
        return fact

    def some(self, count: int, repeats: bool = True) -> list[Fact]:
        """Returns `count` new facts and, with `repeats`, repeats of earlier facts among them."""
        facts = []
        for _ in range(count):
            facts.append(fact := self.fact())
            if repeats and self.random.random() < 0.01:
                facts += self.by_partition[partition_of(fact.ws, self.partitions)][-self.random.randrange(1, 30):]
        return facts

    def jump(self) -> None:
        """Raises all positions by 2^24, as the fold does after a log truncation."""
        self.positions = [position + (1 << 24) for position in self.positions]

    def again(self, facts: Iterable[Fact]) -> list[Fact]:
        """Returns the same events at new positions, as a fold writes them after it lost its state."""
        moved = []
        for fact in facts:
            partition = partition_of(fact.ws, self.partitions)
            self.positions[partition] += 1
            moved.append(Fact(**{name: getattr(fact, name) for name in fact.__struct_fields__} | {
                "pos": self.positions[partition],
            }))
        return moved

    @property
    def all(self) -> list[Fact]:
        """Returns all new facts by partition, without repeats."""
        return [fact for facts in self.by_partition for fact in facts]


async def send(producer: AIOKafkaProducer, facts: Iterable[Fact], partitions: int) -> None:
    """Sends facts in order within a partition. Returns when all are acknowledged."""
    sent = [
        await producer.send(FACTS, encode_fact(fact), fact.ws.encode(), partition=partition_of(fact.ws, partitions))
        for fact in facts
    ]
    for future in sent:
        await future


def expected(facts: Sequence[Fact]) -> dict[str, Any]:
    """Returns the result that `ask` must have for these facts."""
    hours: Counter[tuple[str, int, str, str]] = Counter()
    closed: Counter[tuple[str, int, str, str]] = Counter()
    for fact in facts:
        key = (fact.ws, fact.time // HOUR * 3600, fact.type, fact.kind or "")
        hours[key] += 1
        closed[key] += fact.seconds_open is not None
    items: dict[tuple[str, int, str, str], list[int]] = {}
    for fact in facts:
        if fact.item:
            key = (fact.ws, fact.time // HOUR * 3600, fact.kind or "", fact.cluster or "")
            counts = items.setdefault(key, [0, 0, 0])
            for index, count in enumerate((1, fact.opened, fact.seconds_open is not None)):
                counts[index] += count
    return {
        "items": sorted([*key, *counts, counts[1] - counts[2]] for key, counts in items.items()),
        "events": sorted([fact.ws, fact.event_id] for fact in facts),
        "cases": sorted([fact.ws, fact.case_id, fact.time, fact.event_id] for fact in facts if fact.case_id),
        "hours": sorted([*key, count, closed[key]] for key, count in hours.items()),
        "seconds": sum(fact.seconds_open or 0 for fact in facts),
    }


QUERIES = {
    "events": "SELECT workspace_id, event_id FROM attn.activity ORDER BY ALL",
    "cases": "SELECT workspace_id, case_id, toUnixTimestamp64Micro(occurred_at), event_id FROM attn.activity "
             "WHERE case_id != '' ORDER BY workspace_id, case_id, occurred_at, event_id",
    "hours": "SELECT workspace_id, toUnixTimestamp64Second(hour), type, kind, sum(facts), sum(closed) "
             "FROM attn.activity_hourly GROUP BY ALL ORDER BY ALL",
    "items": "SELECT workspace_id, toUnixTimestamp64Second(hour), kind, cluster, sum(facts), sum(opened), sum(closed), "
             "sum(open_change) FROM attn.items_hourly GROUP BY ALL ORDER BY ALL",
    "seconds": "SELECT sum(seconds_open_sum) FROM attn.activity_hourly",
}


def answers(client: Any) -> dict[str, Any]:
    """Returns the result of each query in `QUERIES`."""
    results = {name: [list(row) for row in client.query(sql).result_rows] for name, sql in QUERIES.items()}
    (seconds,), = results["seconds"]
    in_order = {name: sorted(results[name]) for name in ("events", "hours", "items")}
    return in_order | {"cases": results["cases"], "seconds": seconds}


def ask(settings: Settings) -> dict[str, Any]:
    """Returns the `answers` of the embedded ClickHouse. A child process runs the queries."""
    code = (
        "import json, sys, clickhouse_connect; sys.path.insert(0, sys.argv[2])\n"
        "from support.clickhouse.facts import answers\n"
        "client = clickhouse_connect.get_client(interface='chdb', path=sys.argv[1])\n"
        "print(json.dumps(answers(client))); client.close()"
    )
    path = str(Path(settings.data_dir) / "clickhouse")
    done = subprocess.run(
        [sys.executable, "-c", code, path, str(ROOT / "tests")], capture_output=True, text=True, timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def assert_exact(got: dict[str, Any], facts: Sequence[Fact]) -> None:
    """Fails if an event is doubled or missing, or if the results `got` differ from the expected ones."""
    wanted = expected(facts)
    twice = [event for event, count in Counter(map(tuple, got["events"])).items() if count > 1]
    missing = {tuple(event) for event in wanted["events"]} - {tuple(event) for event in got["events"]}
    assert not twice, f"{len(twice)} of {len(facts)} twice: {twice[:5]}"
    assert not missing, f"{len(missing)} of {len(facts)} missing: {sorted(missing)[:5]}"
    assert got == wanted


def start_history(settings: Settings, log: Path) -> Forked:
    """Starts `attn history` as a child process that logs to the file `log`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATTN_")} | {
        "ATTN_KAFKA": settings.kafka, "ATTN_DATA_DIR": str(settings.data_dir), "ATTN_CLICKHOUSE": settings.clickhouse,
        "ATTN_LOG_PARTITIONS": str(settings.log_partitions), "ATTN_METRICS_PORT": str(settings.metrics_port),
        "ATTN_HISTORY_BATCH_ROWS": str(settings.history_batch_rows),
        "ATTN_HISTORY_BATCH_MS": str(settings.history_batch_ms), "ATTN_LOG_FORMAT": "json",
    }
    with log.open("ab") as out:
        return fork_server.start(
            ["-m", "ops.cli", "history"], cwd=ROOT, env=environment, stdout=out.fileno(), stderr=out.fileno())


async def feed(settings: Settings, facts: list[Fact]) -> None:
    """Sends facts with a new producer."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        await send(producer, facts, settings.log_partitions)


def exact(settings: Settings, facts: list[Fact]) -> None:
    """Fails unless ClickHouse has exactly these facts, and no database but `attn`."""
    with closing(client.connect(settings)) as connection:
        assert_exact(answers(connection), facts)
        databases = connection.query("SELECT name FROM system.databases WHERE name LIKE 'attn%'").result_rows
    assert databases == [("attn",)]
