"""kill -9 of the worker at random moments of the input, and between any two of its writes.

No record is lost or doubled (law 8). Rows and facts are compared with one fold of the log, the log with the input.
"""

from __future__ import annotations

import asyncio
import random
import time

from support import events
from support.kafka.pipeline import (
    Seen,
    Stack,
    caught_up,
    check,
    eventually,
    handles_sigterm,
    kill,
    look,
    send,
    spawn,
)

from schemas.settings import Settings
from streams.kafka import topics

POINTS = (
    "loading:1", "claim:2", "log:1", "commit:1", "facts:1", "rows:1", "table:1", "facts:4", "rows:5", "table:6",
    "log:3",
)


def check_all(seen: Seen, settings: Settings, lines: list[events.Line]) -> None:
    check(seen, settings)
    event_ids = [fact.event_id for fact in seen.unique_facts() if not fact.derived]
    assert len(event_ids) == len(set(event_ids)), "an event was folded twice"
    assert set(event_ids) == {f"{line['value']['source']} {line['value']['id']}" for line in lines}
    assert not seen.letters


async def test_kills_at_random_moments(stack: Stack) -> None:
    lines = events.generate(time.time_ns(), 3000, workspaces=("ws_01", "ws_02", "ws_03", "ws_04"))
    async with stack() as settings:
        await topics.ensure_topics(settings)

        async def feed() -> None:
            for at in range(0, len(lines), 20):
                await send(settings, lines[at:at + 20])
                await asyncio.sleep(0.15)

        feeding, kills = asyncio.create_task(feed()), 0
        process = spawn(settings)
        try:
            while not feeding.done():
                # A start takes about 2 s, so some workers are killed before they fold a record.
                await asyncio.sleep(random.uniform(1.0, 3.5))
                kill(process)
                kills += 1
                process = spawn(settings)
            await feeding
            seen = await eventually(lambda: caught_up(settings, len(lines)), "all events are folded")
        finally:
            kill(process)
        check_all(seen, settings, lines)
        assert kills >= 5


async def test_kills_between_any_two_writes(stack: Stack) -> None:
    """Eleven workers run after each other; each kills itself at another point. A twelfth worker folds the rest."""
    lines, sent = events.generate(11, 4000), 0
    async with stack(log_partitions=2) as settings:
        await topics.ensure_topics(settings)
        for point in POINTS:
            process = spawn(settings, point)
            try:
                pause = 0.2
                while process.poll() is None and pause < 20:
                    # Ten events at once cause at least one write of each kind.
                    sent += await send(settings, lines[sent:sent + 10])
                    await asyncio.sleep(pause)
                    pause *= 1.15
                assert sent < len(lines)
                assert process.returncode == -9, f"the worker did not reach {point}"
            finally:
                kill(process)
        process = spawn(settings)
        try:
            seen = await eventually(lambda: caught_up(settings, sent), "all events are folded")
            await eventually(lambda: handles_sigterm(process), "the worker handles SIGTERM")
        finally:
            process.terminate()
            assert process.wait(60) == 0
        check_all(await look(settings) or seen, settings, lines[:sent])
