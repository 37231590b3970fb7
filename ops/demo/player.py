"""Sends the demo's events to the source topics: those of the last day at once, then 30 times as fast as real time.

Its position is stored in the data directory, so a restarted demo continues where it was stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgspec
import orjson
import structlog
from aiokafka import AIOKafkaProducer

from ops.demo import site
from ops.demo.desk import AnswerDesk
from ops.demo.scenarios import KINDS
from ops.demo.story import DAY, NOON, ScheduledEvent, Story
from ops.demo.users import WORKSPACE, DemoUsers
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings
from schemas.topics import TOPIC_OF_TYPE
from streams.kafka.producer import idempotent_producer, wait_acknowledged
from streams.runtime import health, private_files
from streams.runtime.clock import now_us

__all__ = ["Place", "events", "run"]

SPEED = 30.0  # times life: something happens every few seconds
_PORTION = 200  # events sent at once

log = structlog.get_logger("attn.demo")


class Place(msgspec.Struct):
    """`began`: microseconds, when it was started first. `number` events were sent, until the story's second `at`."""

    seed: int
    began: int
    number: int = 0
    at: float = 0.0


def events(place: Place, now: int) -> Iterator[tuple[Place, int, dict[str, Any]]]:
    """What comes after `place`: (the place then, microseconds at which it happens, CloudEvent), in order, for ever.

    The story's first day are the 24 hours before the demo began, which is at noon of the story, whenever that is; from
    then on it goes at SPEED, whenever it is played. Ids begin with the time at which it began, so nothing of another
    demo is met.
    """
    begins = place.began / SECOND - DAY
    story, run, ahead = Story(place.seed, KINDS, NOON), f"d{place.began // SECOND:x}", max(DAY, place.at)
    for number, happening in zip(count(1), story.scheduled_events(), strict=False):
        if number > place.number:
            at = begins + happening.at if happening.at < DAY else now / SECOND + (happening.at - ahead) / SPEED
            stamp = int(at * SECOND) + number % 1000  # no two of a thread at one time
            yield Place(place.seed, place.began, number, happening.at), stamp, _event(happening, run, number, stamp)


def _event(happening: ScheduledEvent, run: str, number: int, at: int) -> dict[str, Any]:
    say, data = happening.say, dict(happening.say.data)
    if "expires_in" in data:
        data["expires_at"] = format_timestamp(at + int(data.pop("expires_in") * SECOND))
    if "session_id" in data:
        data["session_id"] = f"{data['session_id']}_{run}"
    subject = say.subject if say.type == "case.state_changed" else f"{say.subject}_{run}"
    return {
        "specversion": "1.0", "id": f"{run}-{number}", "source": f"/demo/{TOPIC_OF_TYPE[say.type]}", "type": say.type,
        "subject": subject, "time": format_timestamp(at), "workspaceid": WORKSPACE, "data": data,
    }


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Until `stop`, against the broker and the edge of the settings. KafkaError: no broker."""
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
    place = msgspec.json.decode(file.read_bytes(), type=Place) if file.exists() else Place(now % 1000, now)
    desk = AnswerDesk(file.with_name("demo-desk.json"))
    for _, _, event in islice(events(Place(place.seed, place.began), now), place.number):
        desk.told(event)
    out = idempotent_producer(settings, "demo")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    address = f"http://{f'[{host}]' if ':' in host else host}"
    inbox = f"{address}:{settings.port}"
    async with contextlib.aclosing(DemoUsers(settings, inbox, place.seed)) as crew:
        try:
            await out.start()
            async with site.serve(desk, partial(_send, out), inbox, settings.host):
                crew.begin()
                await _follow(out, place, now, file, desk, f"{address}:{desk.port}")
        finally:
            await out.stop()


async def _follow(out: AIOKafkaProducer, place: Place, now: int, file: Path, desk: AnswerDesk, address: str) -> None:
    waiting: list[dict[str, Any]] = []
    for after, at, event in events(place, now):
        left = at / SECOND - time.time()
        if waiting and (left > 0 or len(waiting) == _PORTION):
            await _send(out, waiting)
            waiting = []
            _keep(file, place)
        if left > 0:
            if place.at < DAY <= after.at:
                log.info("sent the events of the last day; continuing at demo speed", speed=SPEED)
            await asyncio.sleep(left)
        if desk.told(event):
            waiting.append(linked(event, desk, address))
        place = after


def linked(event: dict[str, Any], desk: AnswerDesk, address: str) -> dict[str, Any]:
    """The event as its source sends it: what it opens is answered at the desk."""
    path = desk.path(event)
    return event if path is None else {**event, "data": {**event["data"], "action_url": address + path}}


def _keep(file: Path, place: Place) -> None:
    with private_files.replace_atomically(file) as draft:
        draft.write_bytes(msgspec.json.encode(place))


async def _send(out: AIOKafkaProducer, events: list[dict[str, Any]]) -> None:
    """Acknowledged when it returns."""
    await wait_acknowledged([
        await out.send(TOPIC_OF_TYPE[event["type"]], orjson.dumps(event), key=WORKSPACE.encode()) for event in events])
