"""A source that knows only CONTRACT §7 is killed at every step between reading a decision and confirming it.

Nothing is lost, nothing is applied twice, and what was taken back is not applied.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from support.clients import decision_source
from support.kafka.pipeline import Stack, eventually, read, send, worker

from schemas.asking.question import DecisionRow
from schemas.facts import Fact, decode_fact
from schemas.log import Decide, Pack, TakeBack, encode_pack
from schemas.scalars import format_timestamp
from schemas.settings import Settings
from schemas.topics import DECISIONS, FACTS, LOG, VIEWS, partition_of
from schemas.views import ItemRow, apply_changes, decode_row
from streams.kafka import topics
from streams.runtime.clock import now_us

WS = "ws_1"
COUNT = 6
# (step, n): a source process is killed at the nth step of this name. The next process continues.
LIVES = (("read", 1), ("read", 3), ("applied", 1), ("confirmed", 1), ("applied", 2), ("confirmed", 2), ("committed", 1))


class Source:
    """The process of a source. It waits before each step until the test allows it."""

    def __init__(self, settings: Settings, ledger: Path, *flags: str) -> None:
        arguments = [settings.kafka, "source-1", str(ledger), "waitpoints", "waitpoint.approved", *flags]
        self.process = subprocess.Popen([sys.executable, decision_source.__file__, *arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def run_to(self, step: str, count: int) -> None:
        """Allows steps until the nth step of this name."""
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        for line in self.process.stdout:
            count -= line.split()[0] == step
            if not count:
                break
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        assert self.process.poll() is None, "the source has exited"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


async def rows(settings: Settings, kind: type[Any]) -> list[Any]:
    """Returns all rows of this type in the view."""
    view: dict[bytes, bytes] = {}
    for records in (await read(settings, VIEWS)).values():
        apply_changes(view, [(record.key, record.value) for record in records])
    return [row for key, value in view.items() if isinstance(row := decode_row(key, value), kind)]


async def append(settings: Settings, *entries: Any) -> None:
    """Appends commands to the log as an edge does."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka) as producer:
        await producer.send_and_wait(LOG, encode_pack(Pack(now_us(), list(entries))),
                                     partition=partition_of(WS, settings.log_partitions))


def asking(number: int) -> dict[str, Any]:
    return {"topic": "waitpoints", "key": None, "value": {
        "specversion": "1.0", "id": f"open-{number}", "source": "/deploys", "type": "waitpoint.created",
        "subject": f"wp_{number}", "time": format_timestamp(now_us()), "workspaceid": WS,
        "data": {"title": f"Deploy {number}", "ask": {}}}}


def command(kind: type[Any], item: ItemRow, name: str, **fields: Any) -> Any:
    return kind(
        ws=WS, id=f"{name}-{item.source_id}", time=now_us(), user="ann", roles=("OWNER",), item=item.id, **fields)


async def test_a_source_killed_at_every_step_loses_nothing_and_applies_nothing_twice(
    stack: Stack, tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger"
    async with stack(undo_seconds=5.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            await send(settings, [asking(number) for number in range(COUNT)])

            async def asked() -> list[ItemRow] | None:
                items = [row for row in await rows(settings, ItemRow) if row.question is not None]
                return items if len(items) == COUNT else None

            items = await eventually(asked, "all items have a question")
            await append(settings, *(
                command(Decide, item, "decide", option="approve", digest=item.question.digest, role="OWNER")
                for item in items))
            await append(settings, command(TakeBack, items[0], "take-back"))
            for life in LIVES:
                source = Source(settings, ledger, "--steps")
                try:
                    await asyncio.wait_for(asyncio.to_thread(source.run_to, *life), 60)
                finally:
                    source.kill()
            last = Source(settings, ledger)
            try:
                async def applied() -> list[DecisionRow] | None:
                    rows_ = await rows(settings, DecisionRow)
                    return rows_ if sorted(row.state for row in rows_) == ["applied"] * (COUNT - 1) + ["taken_back"] \
                        else None

                decisions = await eventually(applied, "all decisions are applied")
            finally:
                last.kill()
        lines = Counter(line.split()[0] for line in ledger.read_text().splitlines())
        assert lines == {row.id: 1 for row in decisions if row.state == "applied"}
        facts = [decode_fact(record.value) for records in (await read(settings, FACTS)).values() for record in records]
        counts = Counter((fact.type, fact.decision) for fact in facts if isinstance(fact, Fact) and fact.decision)
        assert {count for (kind, _), count in counts.items() if kind.startswith("decision.")} == {1}
        for item in await rows(settings, ItemRow):
            assert (item.state, item.resolved_by) == (
                ("unread", None) if item.id == items[0].id else ("resolved", "ann"))
        published = Counter(record.key for records in (await read(settings, DECISIONS)).values() for record in records)
        assert published == {WS.encode(): 2 * COUNT}, "each decision has two records: made, then applied or taken back"


async def test_the_clock_of_a_source_may_be_ahead(stack: Stack) -> None:
    """A source whose clock is ahead applies a decision before `undo_until`. A later undo is answered with 409."""
    async with stack(undo_seconds=60.0) as settings:
        await topics.ensure_topics(settings)
        async with worker(settings):
            await send(settings, [asking(0)])
            item, = await eventually(lambda: rows(settings, ItemRow), "the item is in the view")
            await append(settings, command(
                Decide, item, "decide", option="approve", digest=item.question.digest, role="OWNER"))
            done = asking(0)["value"] | {"id": "done", "type": "waitpoint.approved", "data": {}}
            await eventually(lambda: rows(settings, DecisionRow), "the decision is in the view")
            await send(settings, [{"topic": "waitpoints", "key": None, "value": done}])

            async def states() -> bool:
                return [row.state for row in await rows(settings, DecisionRow)] == ["applied"]

            await eventually(states, "the decision is applied")
            await append(settings, command(TakeBack, item, "take-back"))

            async def refused() -> list[int]:
                facts = [decode_fact(record.value) for records in (await read(settings, FACTS)).values()
                         for record in records]
                return [fact.status for fact in facts if not isinstance(fact, Fact)][1:]

            assert await eventually(refused, "the outcome of the undo") == [409]
