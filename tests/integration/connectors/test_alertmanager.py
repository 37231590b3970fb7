"""`attn connect alertmanager` between a real Alertmanager and a real `attn up`: sweeps, silences, kills, restarts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.connect.alert_world import AlertWorld, swept
from support.peers.alertmanager import Alertmanager, alertmanager_program
from support.processes.up import Up, wait_for

from ops.process.ports import free_port
from schemas.scalars import parse_timestamp
from streams.connectors.alertmanager.silences import decision_of
from streams.connectors.mappings.alertmanager import fingerprint_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(900)]

HOUR = 3600.0


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


def seconds_of(silence: dict[str, Any]) -> float:
    return (parse_timestamp(silence["endsAt"]) - parse_timestamp(silence["startsAt"])) / 1e6


def test_an_acknowledgement_becomes_one_silence_of_exactly_this_alert(world: AlertWorld) -> None:
    other = world.labels | {"instance": "other"}
    world.alertmanager.fire(world.labels, other, annotations={"summary": "slow"})
    connector = world.connector()
    connector.start()
    item = world.desk.wait_item(world.subject)
    assert (item["priority"], item["title"], item["kind"]) == ("urgent", "HighLatency: slow", "escalation")
    decision = world.acknowledge(item, comment="I look at it", user="bob", name="Bob Builder")
    entry = world.desk.wait_decision(decision, "applied")
    [silence] = world.alertmanager.silences()
    assert {matcher["name"]: matcher["value"] for matcher in silence["matchers"]} == world.labels
    assert all(matcher["isEqual"] and not matcher["isRegex"] for matcher in silence["matchers"])
    assert silence["createdBy"] == "Bob Builder"
    assert silence["comment"] == f"I look at it (attn decision {decision})"
    assert 2 * HOUR - 5 <= seconds_of(silence) <= 2 * HOUR + 5
    states = {alert["labels"]["instance"]: alert["status"]["state"] for alert in world.alertmanager.alerts()}
    assert states == {world.labels["instance"]: "suppressed", "other": "active"}
    assert entry["state"] == "applied"
    assert world.desk.wait_item(fingerprint_of(other))  # its item is still open
    assert world.desk.wait_item(world.subject, "resolved")["resolved_action"] == "acknowledge"


def test_an_alert_that_ends_while_it_is_silenced_is_closed(world: AlertWorld) -> None:
    world.alertmanager.fire(world.labels)
    connector = world.connector()
    connector.start()
    decision = world.acknowledge(world.desk.wait_item(world.subject))
    world.desk.wait_decision(decision, "applied")
    world.alertmanager.end(world.labels)
    wait_for(lambda: world.desk.wait_item(world.subject, "resolved")["resolved_action"] == "resolved", 60, "closed")
    assert world.desk.items() == []
    # The alert fires again. While the silence is in force no item opens; once it has ended, an item opens.
    world.alertmanager.fire(world.labels)
    wait_for(lambda: world.alertmanager.alerts()[0]["status"]["state"] == "suppressed", 60, "suppressed")
    swept(connector, 3)
    assert world.desk.items() == []
    [silence] = world.alertmanager.silences()
    world.alertmanager.expire(silence["id"])
    again = world.desk.wait_item(world.subject)
    assert "decision" not in again


def test_an_alert_asks_again_when_its_silence_is_ended_before_its_time(world: AlertWorld) -> None:
    world.alertmanager.fire(world.labels)
    connector = world.connector()
    connector.start()
    first = world.desk.wait_item(world.subject)
    decision = world.acknowledge(first)
    world.desk.wait_decision(decision, "applied")
    [silence] = world.alertmanager.silences()
    world.alertmanager.expire(silence["id"])
    again = world.desk.wait_item(world.subject)
    assert again["digest"] != first["digest"]
    assert again["created_at"] > first["created_at"]  # opened when the silence ended
    second = world.acknowledge(again)
    assert second != decision
    world.desk.wait_decision(second, "applied")
    assert [decision_of(silence) for silence in world.alertmanager.silences()] == [second]


def test_a_silence_of_a_user_at_alertmanager_closes_the_item_until_it_ends(world: AlertWorld) -> None:
    world.alertmanager.fire(world.labels)
    connector = world.connector()
    connector.start()
    world.desk.wait_item(world.subject)
    silence = world.alertmanager.silence({"alertname": "HighLatency"}, HOUR)
    assert world.desk.wait_item(world.subject, "resolved")["resolved_action"] == "silenced"
    world.alertmanager.expire(silence)
    assert world.desk.wait_item(world.subject)["state"] == "unread"


def documented_config(home: Path, max_alerts: int) -> str:
    """Returns the configuration of docs/connect/alertmanager.md for the addresses, times and key of a test."""
    page = (Path(__file__).parents[3] / "docs" / "connect" / "alertmanager.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    for shown, here in (
        ("http://127.0.0.1:8080/", "$ATTN/"), ("group_wait: 10s", "group_wait: 200ms\n  group_interval: 1s"),
        ("max_alerts: 100", f"max_alerts: {max_alerts}"), ("/etc/alertmanager/attn-key", str(home / "attn-key")),
    ):
        assert text.count(shown) == 1, shown
        text = text.replace(shown, here)
    return text


def test_truncated_alerts_get_items_and_hook_and_sweep_make_the_same_events(up: Up, tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = AlertWorld(up, tmp_path, stack, documented_config(tmp_path, max_alerts=1))
        alerts = [world.labels | {"instance": f"i{number}"} for number in range(4)]
        world.alertmanager.fire(*alerts)
        wait_for(world.desk.items, 60, "the delivery made an item")
        [pushed] = world.desk.items()  # max_alerts is 1: the webhook omits the other three
        connector = world.connector()
        connector.start()
        wait_for(lambda: len(world.desk.items()) == 4, 60, "the truncated alerts have items")
        swept(connector, 2)
        [same] = [item for item in world.desk.items() if item["id"] == pushed["id"]]
        assert same["revision"] == pushed["revision"]  # the event of the sweep repeats that of the webhook
        world.alertmanager.end(*alerts)  # the webhook has one of the four; sweeps close the others
        wait_for(lambda: not world.desk.items(), 60, "all are closed")


def test_a_decision_that_cannot_take_effect_comes_back_with_the_reason(up: Up, tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = AlertWorld(up, tmp_path, stack, flags=("--silences.max-silences=1",))
        world.alertmanager.fire(world.labels)
        world.connector("--longest-silence", "4h").start()
        item = world.desk.wait_item(world.subject)
        refused = world.desk.wait_decision(world.acknowledge(item, "24h"), "refused")
        assert refused["reason"] == "a silence of 24h is longer than the 4 h that are allowed here"
        again = world.desk.wait_item(world.subject)
        assert (again["digest"], again["decision"]["state"]) == (item["digest"], "refused")
        world.alertmanager.silence({"alertname": "Other"}, HOUR)
        limited = world.desk.wait_decision(world.acknowledge(again), "refused")
        assert limited["reason"].startswith("Alertmanager rejects the silence: exceeded maximum number of silences")
        assert world.silences_of(limited["id"]) == []


def test_a_cluster_has_one_silence_and_one_member_may_be_down(up: Up, tmp_path: Path) -> None:
    with ExitStack() as stack:
        gossip = f"127.0.0.1:{free_port()}"
        world = AlertWorld(up, tmp_path, stack, flags=(f"--cluster.listen-address={gossip}",))
        second = Alertmanager(tmp_path / "am2", world.config_text(),
                              f"--cluster.listen-address=127.0.0.1:{free_port()}", f"--cluster.peer={gossip}")
        stack.callback(second.close)
        second.start()
        other = world.labels | {"instance": "other"}
        for member in (world.alertmanager, second):
            member.fire(world.labels, other, started=1780272000.0)
        world.connector("--url", second.url).start()
        decision = world.acknowledge(world.desk.wait_item(world.subject))
        world.desk.wait_decision(decision, "applied")
        wait_for(lambda: [decision_of(silence) for silence in second.silences()] == [decision], 60, "gossip")
        world.alertmanager.stop()
        item = world.desk.wait_item(fingerprint_of(other))
        world.desk.wait_decision(world.acknowledge(item), "applied")
        assert len(second.silences()) == 2
        assert world.desk.items() == []


def test_options_of_the_mapping_name_kind_source_and_subjects(up: Up, tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = AlertWorld(up, tmp_path, stack)
        world.key = world.desk.create_key("run-failures", source="/am")
        options = tmp_path / "options.toml"
        options.write_text('kind = "failed_run"\nsource = "/am/eu"\nprefix = "eu-"\nseverity_label = "level"\n')
        labels = world.labels | {"level": "info"}
        world.alertmanager.fire(labels)
        world.connector("--options", str(options)).start()
        item = world.desk.wait_item(f"eu-{fingerprint_of(labels)}")
        assert (item["kind"], item["priority"], item["source"]) == ("failed_run", "low", "/am/eu")
        decision = world.acknowledge(item)
        world.desk.wait_decision(decision, "applied")
        assert len(world.silences_of(decision)) == 1
        world.alertmanager.end(labels)
        wait_for(lambda: world.desk.wait_item(item["source_id"], "resolved")["resolved_action"] == "recovered", 60,
                 "the end of the alert is known")
