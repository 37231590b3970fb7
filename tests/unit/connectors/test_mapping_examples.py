"""Golden payloads of webhooks: each is mapped to exactly the stored events, and attn accepts these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.topics import TOPIC_OF_TYPE
from streams.connectors.hooks.hooks_file import BUILT_IN, Hook, load_mapping
from streams.connectors.hooks.payloads import GITHUB_EVENT, map_payload
from streams.connectors.mappings.alertmanager import event_of_alert, fingerprint_of
from streams.connectors.mappings.mapped import encode_event
from streams.core.normalise import normalise

DATA = Path(__file__).parents[2] / "data" / "connect"
GOLDEN = sorted(path.relative_to(DATA).as_posix() for path in DATA.glob("*/*.events.json"))


def payload_of(golden: str) -> Path:
    return DATA / golden.replace(".events.json", ".json")


def hook_of(golden: str) -> Hook:
    name = golden.partition("/")[0]
    if name != "generic":
        return BUILT_IN[name]
    return Hook("jira", "generic", load_mapping(DATA / "generic" / "jira.toml", "/hooks/jira"))


def mapped(golden: str) -> Any:
    path = payload_of(golden)
    headers = {GITHUB_EVENT: path.name.partition(".")[0], "content-type": "application/json"}
    return map_payload(hook_of(golden), path.read_bytes(), headers, 0)


def test_there_are_golden_payloads_of_each_mapping() -> None:
    assert {name.partition("/")[0] for name in GOLDEN} == {"alertmanager", "generic", "github", "grafana"}
    assert len(GOLDEN) >= 15


@pytest.mark.parametrize("golden", GOLDEN)
def test_a_payload_becomes_its_stored_events(golden: str) -> None:
    """`attn hooks try NAME PAYLOAD` prints these events."""
    result = mapped(golden)
    assert result.events == json.loads((DATA / golden).read_text())
    assert result.problems == []
    assert bool(result.ignored) == (result.events == [])


@pytest.mark.parametrize("golden", GOLDEN)
def test_attn_accepts_the_events(golden: str) -> None:
    for event in mapped(golden).events:
        accepted = normalise(TOPIC_OF_TYPE[event["type"]], encode_event(event | {"workspaceid": "ws"}))
        assert (accepted.subject, accepted.source) == (event["subject"], event["source"])


def test_truncated_alerts_are_reported() -> None:
    assert [mapped(f"alertmanager/{name}.events.json").truncated
            for name in ("firing", "truncated", "one-resolved", "resolved")] == [0, 1, 1, 0]


def test_the_fingerprint_is_that_of_alertmanager() -> None:
    """For each label set of deliveries that a real Alertmanager 0.35.0 sent."""
    alerts = [alert for name in ("firing", "truncated", "resolved")
              for alert in json.loads((DATA / "alertmanager" / f"{name}.json").read_text())["alerts"]]
    assert len({alert["fingerprint"] for alert in alerts}) == 3
    for alert in alerts:
        assert fingerprint_of(alert["labels"]) == alert["fingerprint"]
        without = {name: value for name, value in alert.items() if name != "fingerprint"}
        assert event_of_alert(without) == event_of_alert(alert)


def test_a_sweep_of_the_api_makes_the_events_of_the_hook() -> None:
    """An alert of `GET /api/v2/alerts` has the id, subject and time of the delivery about it."""
    hook = {event["subject"]: event for event in mapped("alertmanager/firing.events.json").events}
    for alert in json.loads((DATA / "alertmanager" / "api-alerts.json").read_text()):
        event = event_of_alert(alert)
        assert {name: event[name] for name in ("id", "subject", "time", "type")} == {
            name: hook[event["subject"]][name] for name in ("id", "subject", "time", "type")}
        assert event["data"]["ask"] == hook[event["subject"]]["data"]["ask"]
