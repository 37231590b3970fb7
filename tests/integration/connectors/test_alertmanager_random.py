"""After random sequences of alerts, silences, answers and kills, attn and the real Alertmanager have the same state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.connect.alert_world import AlertWorld
from support.peers.alertmanager import alertmanager_program
from support.processes.up import Up, wait_for

from streams.connectors.alertmanager.silences import decision_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS, ACTIONS = 6, 8
BEGUN = 1780272000.0  # start of an alert that ends and fires again with the same start, as after a Prometheus outage


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    alertmanager_program()
    attn = Up(tmp_path_factory.mktemp("attn"), env={"ATTN_UNDO_SECONDS": "0", "ATTN_EVENT_RATE": "1000"})
    try:
        attn.start()
        yield attn
    finally:
        attn.close()


class History:
    """Random actions on three alerts. `decided`: ids of all decisions."""

    def __init__(self, world: AlertWorld, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.alerts = [world.labels | {"instance": f"i{number}"} for number in range(3)]
        self.connector = world.connector()
        self.connector.start()
        self.decided: list[str] = []
        self.done: list[str] = []

    def act(self) -> None:
        actions = [self.fire, self.fire, self.end, self.answer, self.answer, self.silence, self.expire, self.kill]
        action = self.random.choice(actions)
        self.done.append(action.__name__)
        action()

    def fire(self) -> None:
        self.world.alertmanager.fire(self.random.choice(self.alerts), started=self.random.choice([None, BEGUN]))

    def end(self) -> None:
        self.world.alertmanager.end(self.random.choice(self.alerts))

    def answer(self) -> None:
        items = self.world.desk.items()
        if items:
            item = self.random.choice(items)
            body = {"option": "acknowledge", "digest": item["digest"], "form": {"length": "1h"}}
            answer = self.world.desk.try_request("POST", f"/api/v1/inbox/{item['id']}/decision", json=body)
            if answer.status_code == 201:  # else the connector has closed or changed the item before the answer
                self.decided.append(answer.json()["decision"]["id"])

    def silence(self) -> None:
        self.world.alertmanager.silence({"instance": self.random.choice(self.alerts)["instance"]}, 3600)

    def expire(self) -> None:
        silences = self.world.alertmanager.silences()
        if silences:
            self.world.alertmanager.expire(self.random.choice(silences)["id"])

    def kill(self) -> None:
        self.connector.kill()
        self.connector.start(ready=False)

    def truth(self) -> set[str]:
        return {alert["fingerprint"] for alert in self.world.alertmanager.alerts()
                if not alert["status"]["silencedBy"]}

    def shown(self) -> set[str]:
        return {item["source_id"] for item in self.world.desk.items()}

    def is_quiet(self) -> bool:
        states = {entry["state"] for entry in self.entries()}
        return self.shown() == self.truth() and not states & {"made", "sending"}

    def entries(self) -> list[dict[str, Any]]:
        return list(self.world.desk.request("GET", "/org/me/decisions", params={"limit": 500})["decisions"])

    def check(self) -> None:
        wait_for(self.is_quiet, 90, f"quiet after {self.done}; {self.connector.text()[-2000:]}")
        made = [decision_of(each) for each in self.world.alertmanager.silences("active", "pending", "expired")]
        for entry in self.entries():
            # An applied decision has no silence if the alert ended, or a user silenced it, before attn created one.
            assert made.count(entry["id"]) <= (entry["state"] == "applied"), (entry, self.done)
        assert {entry["id"] for entry in self.entries()} == set(self.decided)


@pytest.mark.parametrize("seed", [1, 2])
def test_attn_ends_with_the_state_of_alertmanager(up: Up, tmp_path: Path, seed: int) -> None:
    with ExitStack() as stack:
        history = History(AlertWorld(up, tmp_path, stack), seed)
        for _ in range(ROUNDS):
            for _ in range(ACTIONS):
                history.act()
            history.check()
        assert history.decided
