"""Events of a sweep of Alertmanager: none that attn has already, and the same ids by every connector."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from schemas.scalars import format_timestamp, parse_timestamp
from streams.connectors.alertmanager.client import Truth
from streams.connectors.alertmanager.silences import (
    LengthRefused,
    decision_of,
    fingerprint_of_silence,
    length_of,
    matches,
    new_silence,
    of_decision,
    surplus,
)
from streams.connectors.alertmanager.sweep import Planner
from streams.connectors.mappings.alertmanager import AlertOptions, acknowledge_ask, fingerprint_of, occurrence_of

NOW = parse_timestamp("2026-11-30T12:00:00Z")
MINUTE, HOUR = 60_000_000, 3_600_000_000
LABELS = {"alertname": "X", "instance": "i1"}
FINGERPRINT = fingerprint_of(LABELS)
STARTED = NOW - HOUR
DECISION = "dec_" + "0123456789abcdef" * 2


def alert(labels: dict[str, str] = LABELS, started: int = STARTED, **status: Any) -> dict[str, Any]:
    return {"labels": labels, "annotations": {}, "fingerprint": fingerprint_of(labels), "generatorURL": "",
            "startsAt": format_timestamp(started), "endsAt": format_timestamp(NOW + HOUR),
            "receivers": [{"name": "attn"}, {"name": "pager"}],
            "status": {"state": "active", "silencedBy": [], "inhibitedBy": [], "mutedBy": [], **status}}


def truth(*alerts: dict[str, Any], at: int = NOW, up: int = HOUR) -> Truth:
    return Truth("http://am", at, at - up, list(alerts))


def item(state: str = "unread", started: int = STARTED, **more: Any) -> dict[str, Any]:
    return {"id": "ibx_1", "source_id": FINGERPRINT, "source": "/alertmanager", "state": state,
            "payload": {"fingerprint": FINGERPRINT}, "created_at": format_timestamp(started),
            "ask": acknowledge_ask(occurrence_of(FINGERPRINT, started)), **more}


def silence(name: str = "s1", state: str = "active", comment: str = "maintenance", start: int = NOW - 30 * MINUTE,
            end: int = NOW + HOUR) -> dict[str, Any]:
    return {"id": name, "comment": comment, "createdBy": "ops", "status": {"state": state},
            "startsAt": format_timestamp(start), "endsAt": format_timestamp(end), "updatedAt": format_timestamp(start),
            "matchers": [{"name": key, "value": value, "isRegex": False, "isEqual": True}
                         for key, value in LABELS.items()]}


def plan(planner: Planner, seen: Truth, *items: dict[str, Any], silences: Any = (), decided: Any = ()) -> list[Any]:
    return [(event["type"], event["id"]) for event in planner.plan(seen, silences, items, decided).events]


def planner(**more: Any) -> Planner:
    return Planner(AlertOptions(), **{"grace": 300.0, **more})


OPENED = ("escalation.opened", f"{FINGERPRINT}@2026-11-30T11:00:00Z.firing")


def test_a_new_alert_is_sent_once_by_each_connector_with_the_same_id() -> None:
    first, second = planner(), planner()
    assert plan(first, truth(alert())) == plan(second, truth(alert())) == [OPENED]
    unknown = first.plan(truth(alert()), (), (), ())
    # the connector sent it, but attn does not list it
    assert (unknown.events, list(unknown.unknown)) == ([], [FINGERPRINT])
    assert plan(first, truth()) == []
    # the alert ended and fired again: the connector remembers only alerts that Alertmanager lists
    assert plan(first, truth(alert())) == [OPENED]


@pytest.mark.parametrize("state", ["unread", "decided"])
def test_a_listed_alert_is_not_sent_unless_it_fired_again(state: str) -> None:
    shown = {"decided": [item(state)]} if state == "decided" else {}
    items = [] if shown else [item()]
    assert plan(planner(), truth(alert()), *items, **shown) == []
    # a replica of Alertmanager knew the alert earlier, and the merged alert has the earlier start
    assert plan(planner(), truth(alert(started=STARTED - HOUR)), *items, **shown) == []
    assert plan(planner(), truth(alert(started=STARTED + 1000)), *items, **shown) == [
        ("escalation.opened", f"{FINGERPRINT}@2026-11-30T11:00:00.001000Z.firing")]


@pytest.mark.parametrize("status", [{"inhibitedBy": ["f"]}, {"mutedBy": ["nights"]}], ids=["inhibited", "interval"])
def test_inhibited_and_muted_alerts_change_nothing(status: dict[str, Any]) -> None:
    for items in ([], [item()]):
        connector = planner()
        for _ in range(3):
            assert plan(connector, truth(alert(state="suppressed", **status)), *items) == []


def test_only_alerts_of_the_named_receivers_open_items_and_all_are_kept_open() -> None:
    assert plan(planner(receivers=frozenset({"pager"})), truth(alert())) == [OPENED]
    other = planner(receivers=frozenset({"mail"}))
    for _ in range(3):
        assert plan(other, truth(alert())) == []
        assert plan(other, truth(alert()), item()) == []  # a hook of another receiver made the item, so it stays open


def test_an_alert_that_cannot_be_mapped_does_not_stop_the_others() -> None:
    wide = alert({f"l{number}": "v" for number in range(101)})
    assert plan(planner(), truth(wide, alert())) == [OPENED]


def test_a_missing_alert_has_ended_after_two_sweeps_of_an_alertmanager_that_runs_for_long() -> None:
    connector = planner()
    assert plan(connector, truth(), item()) == []
    assert plan(connector, truth(at=NOW + MINUTE), item()) == [
        ("escalation.resolved", f"{FINGERPRINT}@2026-11-30T11:00:00Z.resolved.2026-11-30T12:00:00Z")]
    fresh = planner()
    for _ in range(5):
        # Alertmanager restarted, and Prometheus has not sent the alerts again yet
        assert plan(fresh, truth(up=299_000_000), item()) == []
    assert plan(fresh, truth(), item()) == []
    assert plan(fresh, truth(alert()), item()) == []
    assert plan(fresh, truth(), item()) == []  # the count of sweeps starts again


@pytest.mark.parametrize("foreign", [
    {"source": "/other"}, {"source_id": "eu-" + FINGERPRINT}, {"payload": {"groupKey": "{}"}}, {"payload": None},
], ids=["source", "prefix", "group", "nothing"])
def test_items_of_others_are_never_closed(foreign: dict[str, Any]) -> None:
    connector = planner()
    for _ in range(3):
        assert plan(connector, truth(), item(**foreign)) == []


def test_a_silence_closes_an_open_item_with_the_same_id_in_each_sweep() -> None:
    seen = truth(alert(state="suppressed", silencedBy=["s2", "s1"]))
    muting = [silence("s1", start=NOW - 10 * MINUTE), silence("s2", start=NOW - 20 * MINUTE)]
    first = planner().plan(seen, muting, [item()], []).events
    assert first == planner().plan(seen, muting[::-1], [item()], []).events
    [close] = first
    assert (close["time"], close["data"]) == (format_timestamp(NOW - 20 * MINUTE), {"action": "silenced"})
    own = [silence("s1", comment=f"x (attn decision {DECISION})")]
    [close] = planner().plan(truth(alert(silencedBy=["s1"])), own, [item()], []).events
    assert close["data"] == {"action": "acknowledged"}
    assert plan(planner(), seen, silences=muting) == []  # no item: nobody was asked about this alert


def test_the_end_of_a_silenced_alert_is_sent_once_per_silence() -> None:
    made = [silence("s1", "expired", f"x (attn decision {DECISION})"), silence("s2", "active")]
    connector = planner()
    assert plan(connector, truth(), silences=made) == []
    expected = [("escalation.resolved", f"{FINGERPRINT}.ended.s1")]
    assert plan(connector, truth(), silences=made) == expected
    assert plan(connector, truth(), silences=made) == []
    again = planner()
    plan(again, truth(), silences=made)
    # after a restart the connector sends the same event, which attn drops as a repeat
    assert plan(again, truth(), silences=made) == expected


def test_a_resolved_item_opens_at_the_end_of_its_silence() -> None:
    resolved = item("resolved", resolved_at=format_timestamp(NOW - 50 * MINUTE),
                    decision={"id": DECISION, "state": "applied"})
    ended = silence("s1", "expired", f"x (attn decision {DECISION})", end=NOW - 20 * MINUTE)
    close, opening = planner().reopened(alert(), resolved, [ended, silence("s2", "expired")], NOW)
    assert (close["type"], close["time"]) == ("escalation.resolved", format_timestamp(NOW - 20 * MINUTE))
    assert (opening["type"], opening["time"]) == ("escalation.opened", format_timestamp(NOW - 20 * MINUTE + 1))
    lost, since = planner().reopened(alert(), resolved, [], NOW), NOW - 50 * MINUTE
    assert [event["time"] for event in lost] == [format_timestamp(since), format_timestamp(since + 1)]
    assert planner().reopened(alert(), item(), [], NOW) == []


def test_one_silence_per_decision_stays_in_any_order_of_the_list() -> None:
    text = f"x (attn decision {DECISION})"
    made = [silence("b", comment=text, start=NOW), silence("a", comment=text, start=NOW),
            silence("0", "expired", text, start=NOW - HOUR), silence("c", "pending", text, start=NOW + MINUTE),
            silence("d", comment="other")]
    for order in itertools.permutations(made):
        assert [kept["id"] for kept in of_decision(order, DECISION)] == ["a", "b", "c", "0"]
        assert {kept["id"] for kept in surplus(order)} == {"b", "c"}


def test_a_silence_names_each_label_its_decider_and_its_decision_only() -> None:
    forged = "dec_" + "f" * 32
    decision = {"id": DECISION, "comment": f"see (attn decision {forged})\n\n now",
                "actors": [{"user": "bob", "name": "Bob"}, {"user": "eve"}], "form": {"length": "30m"}}
    made = new_silence(decision, {"b": "2", "a": 'q"{}~='}, NOW, length_of(decision))
    assert [matcher["name"] for matcher in made["matchers"]] == ["a", "b"]
    assert (made["createdBy"], made["endsAt"]) == ("Bob, eve", format_timestamp(NOW + 30 * MINUTE))
    assert decision_of(made) == DECISION
    assert decision_of({"comment": f"(attn decision {DECISION}) and more"}) is None
    assert fingerprint_of_silence(new_silence(decision, LABELS, NOW, 60)) == FINGERPRINT
    assert decision_of(new_silence(decision | {"comment": "x" * 5000}, LABELS, NOW, 60)) == DECISION


@pytest.mark.parametrize("form", [None, {}, {"length": "5y"}, {"length": 3600}, {"length": None}, {"length": "4h"}])
def test_a_length_that_is_missing_unknown_or_too_long_is_refused(form: Any) -> None:
    with pytest.raises(LengthRefused):
        length_of({"form": form}, longest=3600)


@pytest.mark.parametrize(("matcher", "holds"), [
    ({"name": "instance", "value": "i1", "isRegex": False}, True),
    ({"name": "instance", "value": "i2", "isRegex": False, "isEqual": True}, False),
    ({"name": "instance", "value": "i2", "isRegex": False, "isEqual": False}, True),
    ({"name": "missing", "value": "", "isRegex": False}, True),
    ({"name": "instance", "value": "nothing.*", "isRegex": True}, True),
])
def test_matchers(matcher: dict[str, Any], holds: bool) -> None:
    assert matches({"matchers": [matcher]}, LABELS) is holds
