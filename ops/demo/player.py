"""Sends the demo's events to the source topics: those of the last day at once, later ones at 30 times real time.

Its position is stored in the data directory, so a restarted demo continues where it was stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgspec
import orjson
import structlog
from aiokafka import AIOKafkaProducer

from ops.demo.desk import DecisionDesk
from ops.demo.scenarios import KINDS
from ops.demo.sources import apply_decisions
from ops.demo.story import DAY, NOON, ScheduledEvent, Story
from ops.demo.users import WORKSPACE, DemoUsers
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings
from schemas.topics import TOPIC_OF_TYPE
from streams.kafka.producer import idempotent_producer, wait_acknowledged
from streams.runtime import health, private_files
from streams.runtime.clock import now_us

__all__ = ["StoryPosition", "events", "run"]

SPEED = 30.0  # times real time: an event every few seconds
_BATCH = 200  # events that are sent before an acknowledgement is awaited

log = structlog.get_logger("attn.demo")


class StoryPosition(msgspec.Struct):
    """The content of demo.json. `began`: time of the first start, in microseconds. `number`: number of events sent.

    `at`: time of the last event that was sent, in seconds of the story.
    """

    seed: int
    began: int
    number: int = 0
    at: float = 0.0


def events(position: StoryPosition, started: int) -> Iterator[tuple[StoryPosition, int, dict[str, Any]]]:
    """Yields (position after the event, its time in microseconds, CloudEvent) from `position` on, without end.

    The first day of the story is the 24 hours before `began`. `began` is noon in the story, at any real time of day.
    Later events follow at SPEED from `started` on. Ids contain the time of the first start, so two demos share no ids.
    """
    begins = position.began / SECOND - DAY
    story, run, resumed_at = Story(position.seed, KINDS, NOON), _run_name(position), max(DAY, position.at)
    for number, scheduled in zip(count(1), story.scheduled_events(), strict=False):
        if number > position.number:
            at = begins + scheduled.at if scheduled.at < DAY else started / SECOND + (scheduled.at - resumed_at) / SPEED
            stamp = int(at * SECOND) + number % 1000  # two events of a thread never have the same time
            after = StoryPosition(position.seed, position.began, number, scheduled.at)
            yield after, stamp, _event(scheduled, run, number, stamp)


def _run_name(position: StoryPosition) -> str:
    return f"d{position.began // SECOND:x}"


def _event(scheduled: ScheduledEvent, run: str, number: int, at: int) -> dict[str, Any]:
    """Returns the CloudEvent. The id of its ask is its own id: an item that asks again asks another question."""
    emit, data = scheduled.emit, _with_expiry(scheduled.emit.data, at)
    if "ask" in data:
        data["ask"] = {"id": f"{run}-{number}", **_with_expiry(data["ask"], at)}
    if "session_id" in data:
        data["session_id"] = f"{data['session_id']}_{run}"
    subject = emit.subject if emit.type == "case.state_changed" else f"{emit.subject}_{run}"
    return {
        "specversion": "1.0", "id": f"{run}-{number}", "source": f"/demo/{TOPIC_OF_TYPE[emit.type]}", "type": emit.type,
        "subject": subject, "time": format_timestamp(at), "workspaceid": WORKSPACE, "data": data,
    }


def _with_expiry(fields: Mapping[str, Any], at: int) -> dict[str, Any]:
    """Returns the fields with `expires_at` instead of `expires_in`."""
    found = dict(fields)
    if "expires_in" in found:
        found["expires_at"] = format_timestamp(at + int(found.pop("expires_in") * SECOND))
    return found


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Runs the demo until `stop`, with the broker and the edge of the settings. Raises KafkaError without a broker."""
    async with health.serve(settings.metrics_port, lambda: None, settings.host):
        tasks = [asyncio.create_task(_play(settings)), asyncio.create_task(stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not tasks[0].cancelled():
            tasks[0].result()


async def _play(settings: Settings) -> None:
    file = Path(settings.data_dir) / "demo.json"
    now = now_us()
    position = StoryPosition(now % 1000, now)
    if file.exists():
        position = msgspec.json.decode(file.read_bytes(), type=StoryPosition)
    desk = DecisionDesk(file.with_name("demo-desk.json"))
    for _, _, event in islice(events(StoryPosition(position.seed, position.began), now), position.number):
        desk.accept(event)
    out = idempotent_producer(settings, "demo")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    inbox = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    async with contextlib.aclosing(DemoUsers(settings, inbox, position.seed)) as users:
        try:
            await out.start()
            users.begin()
            async with asyncio.TaskGroup() as group:
                group.create_task(_follow(out, position, now, file, desk))
                group.create_task(apply_decisions(
                    settings, desk, partial(_send, out), f"attn-demo-{_run_name(position)}", WORKSPACE))
        except ExceptionGroup as failed:  # the supervisor looks at the type: KafkaError means that Kafka is unavailable
            raise failed.exceptions[0] from None
        finally:
            await out.stop()


async def _follow(out: AIOKafkaProducer, position: StoryPosition, now: int, file: Path, desk: DecisionDesk) -> None:
    """Sends each event when it is due, and saves the position after each batch."""
    unsent: list[dict[str, Any]] = []
    for after, at, event in events(position, now):
        delay = at / SECOND - time.time()
        if unsent and (delay > 0 or len(unsent) == _BATCH):
            await _send(out, unsent)
            unsent = []
            _save(file, position)
        if delay > 0:
            if position.at < DAY <= after.at:
                log.info("sent the events of the last day; continuing at demo speed", speed=SPEED)
            await asyncio.sleep(delay)
        if desk.accept(event):
            unsent.append(event)
        position = after


def _save(file: Path, position: StoryPosition) -> None:
    with private_files.replace_atomically(file) as draft:
        draft.write_bytes(msgspec.json.encode(position))


async def _send(out: AIOKafkaProducer, events: list[dict[str, Any]]) -> None:
    """Sends the events, and waits until Kafka has acknowledged them."""
    await wait_acknowledged([
        await out.send(_topic(event), orjson.dumps(event), key=WORKSPACE.encode()) for event in events])


def _topic(event: dict[str, Any]) -> str:
    """Returns the event's topic. A report of a decision is sent to the topic of its source, `/demo/TOPIC`."""
    return TOPIC_OF_TYPE.get(event["type"]) or str(event["source"]).removeprefix("/demo/")
