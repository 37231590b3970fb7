"""The demo's story: attn accepts every event, and a restart continues at the position of the last event."""

from __future__ import annotations

import json
from itertools import islice, takewhile

from support.model import Model, Reader

from ops.demo.player import StoryPosition, events
from ops.demo.scenarios import PEOPLE
from ops.demo.story import DAY
from schemas.scalars import SECOND, parse_timestamp
from schemas.sources import ROLES
from schemas.topics import SOURCE_TYPES, TOPIC_OF_TYPE
from streams.core.normalise import normalise

NOW = parse_timestamp("2026-05-20T12:00:00Z")


def played(position: StoryPosition, now: int, count: int) -> list[tuple[StoryPosition, int, dict[str, object]]]:
    return list(islice(events(position, now), count))


def test_every_event_is_accepted_and_every_type_but_a_few_occurs() -> None:
    played_events = played(StoryPosition(7, NOW), NOW, 4000)
    for _, _, event in played_events:
        normalise(TOPIC_OF_TYPE[str(event["type"])], json.dumps(event).encode())
    types = {event["type"] for _, _, event in played_events}
    missing = {name for names in SOURCE_TYPES.values() for name in names} - types
    assert missing <= {"proof.expired"}
    assert len({event["id"] for _, _, event in played_events}) == len(played_events)


def test_the_same_seed_gives_the_same_story() -> None:
    assert played(StoryPosition(7, NOW), NOW, 300) == played(StoryPosition(7, NOW), NOW, 300)
    assert played(StoryPosition(7, NOW), NOW, 300) != played(StoryPosition(8, NOW), NOW, 300)


def test_events_of_the_last_day_come_first_and_later_ones_are_faster_than_real_time() -> None:
    played_events = played(StoryPosition(7, NOW), NOW, 3000)
    past = [at for position, at, _ in played_events if position.at < DAY]
    assert min(past) >= NOW - DAY * SECOND
    assert max(past) <= NOW + SECOND
    live = [at for position, at, _ in played_events if position.at >= DAY]
    assert 0.5 < (live[-1] - NOW) / SECOND / len(live) < 10, "seconds between two events"


def test_a_restarted_demo_continues_at_its_position() -> None:
    whole = played(StoryPosition(7, NOW), NOW, 2500)
    stopped = whole[1999][0]
    later = NOW + 3600 * SECOND
    rest = played(stopped, later, 500)
    assert [event["id"] for _, _, event in rest] == [event["id"] for _, _, event in whole[2000:]]
    assert all(at >= later for _, at, _ in rest)


def test_the_demo_starts_with_open_items() -> None:
    yesterday = takewhile(lambda entry: entry[0].at < DAY, events(StoryPosition(7, NOW), NOW))
    lines = [{"topic": TOPIC_OF_TYPE[str(event["type"])], "key": None, "value": event} for _, _, event in yesterday]
    view = Model(lines).at(NOW, "demo")["demo"]
    items = view.ranked(Reader("maria", "OWNER"), ids={item.key: str(item.key) for item in view.items.values()})
    assert 15 <= len(items) <= 150
    assert {"waitpoint", "plan_approval", "failed_run", "session_waiting", "pending_action"} <= {
        item.kind for item in items}


def test_the_demo_makes_no_decision_in_the_name_of_the_signed_in_user() -> None:
    played_events = islice(events(StoryPosition(7, NOW), NOW), 3000)
    deciders = {event["data"].get("by_user_id") for _, _, event in played_events} - {None}
    assert deciders == {user for user, _, _ in PEOPLE[1:]}


def test_people_of_the_demo_have_valid_roles() -> None:
    assert {role for _, role, _ in PEOPLE} <= set(ROLES)
