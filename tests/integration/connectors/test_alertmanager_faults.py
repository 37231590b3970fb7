"""`attn connect alertmanager` with faults: killed at each step, Alertmanager or attn down, two connectors at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.connect.alert_world import AlertWorld, metric, swept
from support.connect.connector_process import ConnectorProcess
from support.connect.stopping_proxy import Dropped, Moment, StoppingProxy
from support.peers.alertmanager import alertmanager_program
from support.processes.up import Up, wait_for

from streams.connectors.alertmanager.silences import decision_of
from streams.connectors.mappings.alertmanager import fingerprint_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

SILENCES = "/api/v2/silences"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    alertmanager_program()  # first: it skips the tests, or takes minutes to build
    attn = Up(tmp_path_factory.mktemp("attn"), env={"ATTN_UNDO_SECONDS": "0", "ATTN_EVENT_RATE": "1000"})
    try:
        attn.start()
        yield attn
    finally:
        attn.close()


@pytest.fixture
def world(up: Up, tmp_path: Path) -> Iterator[AlertWorld]:
    with ExitStack() as stack:
        yield AlertWorld(up, tmp_path, stack)


class Killer:
    """Kills a connector once, at one step of a decision. `posted`: the connector has sent a silence."""

    def __init__(self, step: str) -> None:
        self.step, self.posted, self.fired = step, False, threading.Event()
        self.victim: ConnectorProcess | None = None

    def at_alertmanager(self, moment: Moment, method: str, path: str) -> None:
        if (method, path) == ("POST", SILENCES):
            self.strike("silence not sent" if moment == "before" else "silence made")
            self.posted = True
        elif (method, path) == ("GET", SILENCES) and self.posted:
            self.strike("read back" if moment == "before" else "read back answered")

    def at_attn(self, moment: Moment, method: str, path: str) -> None:
        if (method, path) == ("POST", "/events") and self.posted:
            self.strike("report not sent" if moment == "before" else "report durable")

    def strike(self, step: str) -> None:
        if step == self.step and not self.fired.is_set():
            assert self.victim is not None
            self.fired.set()
            self.victim.kill()
            raise Dropped


@pytest.mark.parametrize("step", [
    "silence not sent", "silence made", "read back", "read back answered", "report not sent", "report durable"])
def test_a_connector_that_is_killed_leaves_one_silence(world: AlertWorld, step: str) -> None:
    killer = Killer(step)
    with StoppingProxy(world.alertmanager.url) as peer, StoppingProxy(world.up.url) as attn:
        peer.at, attn.at = killer.at_alertmanager, killer.at_attn
        connector = killer.victim = world.connector("--sweep", "3600", url=peer.url, attn=attn.url)
        world.alertmanager.fire(world.labels)
        connector.start()
        decision = world.acknowledge(world.desk.wait_item(world.subject))
        assert killer.fired.wait(60), connector.text()[-2000:]
        connector.start()
        entry = world.desk.wait_decision(decision, "applied")
        assert [one["status"]["state"] for one in world.silences_of(decision)] == ["active"]
        assert entry.get("returned") is None
        assert connector.stop() == 0


def test_two_connectors_at_once_leave_one_silence_in_force(world: AlertWorld) -> None:
    alerts = [world.labels | {"instance": f"i{number}"} for number in range(4)]
    world.alertmanager.fire(*alerts)
    both = threading.Barrier(2)

    def meet(moment: Moment, method: str, path: str) -> None:
        if (moment, method, path) == ("before", "POST", SILENCES):
            try:
                both.wait(20)  # until both connectors have found no silence
            except threading.BrokenBarrierError:
                both.reset()

    with StoppingProxy(world.alertmanager.url) as peer:
        peer.at = meet
        connectors = [world.connector(url=peer.url, name=name) for name in ("c1", "c2")]
        for connector in connectors:
            connector.start()
        decisions = []
        for labels in alerts:
            decisions.append(world.acknowledge(world.desk.wait_item(fingerprint_of(labels))))
            world.desk.wait_decision(decisions[-1], "applied")
        for connector in connectors:
            swept(connector, 2)
        assert peer.seen.count(("POST", SILENCES)) > len(alerts)  # both connectors have created a silence
        assert sorted(map(str, map(decision_of, world.alertmanager.silences()))) == sorted(decisions)
        assert world.desk.items() == []
        assert all(alert["status"]["state"] == "suppressed" for alert in world.alertmanager.alerts())


def test_a_decision_waits_while_alertmanager_is_down(world: AlertWorld) -> None:
    with StoppingProxy(world.alertmanager.url) as peer:
        connector = world.connector(url=peer.url)
        world.alertmanager.fire(world.labels)
        connector.start()
        item = world.desk.wait_item(world.subject)
        peer.down = True
        decision = world.acknowledge(item)
        tried = 'attn_connector_decisions_total{connector="alertmanager",outcome="peer"}'
        wait_for(lambda: metric(connector, tried) >= 2, 60, "attempts")
        wait_for(lambda: metric(connector, 'attn_connector_peer_up{connector="alertmanager"}') == 0, 60, "down")
        assert world.desk.decision(decision)["state"] == "sending"
        wait_for(lambda: metric(connector, 'attn_connector_waiting{connector="alertmanager"}') == 1, 60, "waiting")
        peer.down = False
        world.desk.wait_decision(decision, "applied")
        assert len(world.silences_of(decision)) == 1


def test_an_alert_that_ended_before_its_silence_is_refused_and_closed(world: AlertWorld) -> None:
    with StoppingProxy(world.alertmanager.url) as peer:
        connector = world.connector(url=peer.url)
        world.alertmanager.fire(world.labels)
        connector.start()
        item = world.desk.wait_item(world.subject)
        peer.down = True
        decision = world.acknowledge(item)
        world.alertmanager.end(world.labels)
        peer.down = False
        refused = world.desk.wait_decision(decision, "refused")
        assert refused["reason"] == "the alert had ended before it could be silenced"
        assert world.desk.wait_item(world.subject, "resolved")["resolved_action"] == "resolved"
        assert world.silences_of(decision) == []


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "lost"])
def test_alertmanager_restarts_with_its_state_kept_or_lost(world: AlertWorld, kept: bool) -> None:
    other = world.labels | {"instance": "other"}
    begun = 1780272000.0
    world.alertmanager.fire(world.labels, other, started=begun)
    connector = world.connector("--grace", "1h")
    connector.start()
    world.desk.wait_item(fingerprint_of(other))
    decision = world.acknowledge(world.desk.wait_item(world.subject))
    world.desk.wait_decision(decision, "applied")
    world.alertmanager.stop(hard=not kept)
    if not kept:
        shutil.rmtree(world.alertmanager.home / "state")
    world.alertmanager.start()
    swept(connector, 3)  # a restarted Alertmanager lists no alerts yet; no item may close
    assert [one["source_id"] for one in world.desk.items()] == [fingerprint_of(other)]
    world.alertmanager.fire(world.labels, other, started=begun)
    if kept:
        swept(connector, 3)
        assert [one["source_id"] for one in world.desk.items()] == [fingerprint_of(other)]
    else:  # without the silence the alert notifies again, so its item opens again
        again = world.desk.wait_item(world.subject)
        world.desk.wait_decision(world.acknowledge(again), "applied")
    assert len(world.alertmanager.silences()) == 1


def test_attn_restarts_while_a_decision_is_applied(world: AlertWorld) -> None:
    connector = world.connector()
    world.alertmanager.fire(world.labels)
    connector.start()
    item = world.desk.wait_item(world.subject)
    edge = world.up.kill("edge")
    world.up.wait_restarted("edge", edge)
    decision = world.acknowledge(item)
    world.desk.wait_decision(decision, "applied")
    assert len(world.silences_of(decision)) == 1
