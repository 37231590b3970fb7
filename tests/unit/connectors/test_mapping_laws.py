"""Laws of the mappings: any JSON is mapped or raises MappingError, and the order and repeats of deliveries do not
matter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law
from support.fold.fold_driver import Folding

from schemas.topics import TOPIC_OF_TYPE
from streams.connectors.hooks.hooks_file import BUILT_IN, Hook
from streams.connectors.hooks.payloads import GITHUB_EVENT, map_payload
from streams.connectors.mappings import alertmanager, generic, github, grafana
from streams.connectors.mappings.alertmanager import AlertOptions
from streams.connectors.mappings.grafana import GrafanaOptions
from streams.connectors.mappings.mapped import Mapped, MappingError, encode_event
from streams.connectors.mappings.mapping_file import parse_mapping
from streams.core.normalise import Rejected, normalise

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from(["firing", "resolved", "0001-01-01T00:00:00Z", "2026-05-20T08:14:22.5Z", "9999-12-31T23:59:59Z",
                     "requested", "completed", "failure", "success", "approved", "a/b", "4", "```", "\ud800", " "]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-10**30, 10**30), st.floats(), TEXTS)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
                    max_leaves=12)
NAMES = st.sampled_from([
    "alerts", "status", "labels", "annotations", "startsAt", "endsAt", "fingerprint", "generatorURL", "groupKey",
    "version", "truncatedAlerts", "alertname", "severity", "summary", "values", "silenceURL", "action", "repository",
    "full_name", "workflow_run", "id", "run_attempt", "updated_at", "run_started_at", "conclusion", "environment",
    "workflow_job_runs", "workflow_job_run", "since", "deployment", "deployment_callback_url", "created_at",
    "default_branch", "triggering_actor", "login", "groupLabels", "name", "head_branch",
])
SHAPED = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
                      max_leaves=30)
MAPPING = parse_mapping("""
[[event]]
each = "payload.alerts"
when = "item.status != 'x' && length(item.labels || `{}`) >= `0`"
type = "escalation.opened"
subject = "{{ item.id }}"
time = "{{ item.startsAt || payload.since || received }}"
id = "{{ item.id }}{{ item }}"
source = "/x/{{ item.name }}"
[event.data]
title = "{{ item.labels.alertname }} {{ join(', ', keys(item.labels)) }}"
payload = "{{ item }}"
priority = "{{ lookup('p', item.status) }}"
[[event]]
type = "{{ payload.type || 'run.failed' }}"
subject = "{{ to_string(@) }}"
time = "{{ payload.updated_at }}"
data = { title = "{{ max(payload.values) }}", x = [1, "{{ sort(payload.values) }}"] }
[lookup.p]
firing = "urgent"
""")
MAPPERS = {
    "alertmanager": alertmanager.events_of,
    "alertmanager-group": lambda payload: alertmanager.events_of(
        payload, AlertOptions(per="group", kind="failed_run", prefix="p/")),
    "grafana": grafana.events_of,
    "grafana-group": lambda payload: grafana.events_of(payload, GrafanaOptions(per="group")),
    **{f"github-{event}": lambda payload, event=event: github.events_of(event, payload) for event in github.EVENTS},
    "generic": lambda payload: generic.events_of(payload, MAPPING, {"x": "y"}),
}
ALERT = {"status": "firing", "labels": {"alertname": "A", "severity": "critical", "cluster": "eu"}, "fingerprint": "f1",
         "annotations": {"summary": "S"}, "startsAt": "2026-05-20T08:00:00Z", "endsAt": "0001-01-01T00:00:00Z"}
RUN = {"id": 7, "run_attempt": 1, "name": "CI", "conclusion": "failure", "status": "completed", "head_branch": "main",
       "updated_at": "2026-05-20T08:01:00Z", "run_started_at": "2026-05-20T08:00:00Z"}
REPOSITORY = {"full_name": "acme/shop", "default_branch": "main"}


def check(result: Mapped) -> None:
    """The edge accepts each event of a mapping, or names the reason."""
    assert all(isinstance(problem, MappingError) for problem in result.problems)
    assert len(result.indexes) in (0, len(result.events))
    for event in result.events:
        try:
            normalise(TOPIC_OF_TYPE.get(event["type"], "messages"), encode_event(event | {"workspaceid": "ws"}))
        except Rejected:
            pass


@pytest.mark.parametrize("name", MAPPERS)
@law(150)
@given(payload=st.one_of(JSON, SHAPED))
def test_any_json_is_mapped_or_has_a_mapping_error(name: str, payload: Any) -> None:
    try:
        check(MAPPERS[name](payload))
    except MappingError:
        pass


def damaged(payload: Any, path: list[int], value: Any) -> Any:
    """Returns a copy in which the value at the path of these numbers is replaced."""
    payload = copy.deepcopy(payload)
    node, owner, place = payload, None, None
    for number in path:
        if isinstance(node, dict) and node:
            owner, place = node, sorted(node)[number % len(node)]
        elif isinstance(node, list) and node:
            owner, place = node, number % len(node)
        else:
            break
        node = owner[place]
    if owner is None:
        return value
    owner[place] = value
    return payload


@pytest.mark.parametrize("name", MAPPERS)
@law(80)
@given(path=st.lists(st.integers(0, 50), max_size=5), value=SHAPED)
def test_a_damaged_payload_is_mapped_or_has_a_mapping_error(name: str, path: list[int], value: Any) -> None:
    whole = {"version": "4", "groupKey": "g", "alerts": [ALERT, ALERT | {"status": "resolved"}], "action": "completed",
             "workflow_run": RUN, "repository": REPOSITORY, "environment": "prod", "since": "2026-05-20T08:00:00Z",
             "deployment": {"id": 1, "created_at": "2026-05-20T08:00:00Z", "ref": "main", "sha": "abc"},
             "workflow_job_runs": [{"environment": "prod", "updated_at": "2026-05-20T08:02:00Z"}],
             "deployment_callback_url": "https://x/actions/runs/7/deployment_protection_rule"}
    for action in ("completed", "requested", "approved"):
        try:
            check(MAPPERS[name](damaged(whole | {"action": action}, path, value)))
        except MappingError:
            pass


@law(150)
@given(body=st.binary(max_size=60), content_type=st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", ""]), name=st.sampled_from(sorted(BUILT_IN)))
def test_any_bytes_are_mapped_or_have_a_mapping_error(body: bytes, content_type: str, name: str) -> None:
    for given_body in (body, b"payload=" + body):
        try:
            map_payload(BUILT_IN[name], given_body, {"content-type": content_type, GITHUB_EVENT: "workflow_run"}, 0)
        except MappingError:
            pass


@st.composite
def alert_deliveries(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draws the deliveries of some alerts of one group in Alertmanager's order: each alert fires and is resolved
    several times, and some deliveries have several alerts."""
    deliveries, minute = [], 0
    firing: dict[int, str] = {}
    for _ in range(draw(st.integers(1, 8))):
        minute += draw(st.integers(1, 3))
        resolved = []
        for number in draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)):
            if number in firing:
                resolved.append((number, firing.pop(number)))
            else:
                firing[number] = f"2026-05-20T08:{minute:02}:00.{draw(st.integers(0, 999)):03}Z"
        alerts = [alert_of(number, "resolved", began, f"2026-05-20T08:{minute:02}:30Z") for number, began in resolved]
        alerts += [alert_of(number, "firing", began, "0001-01-01T00:00:00Z") for number, began in firing.items()]
        deliveries.append({"version": "4", "groupKey": "g", "status": "firing" if firing else "resolved",
                           "alerts": draw(st.permutations(alerts))})
    return deliveries


def alert_of(number: int, status: str, began: str, ended: str) -> dict[str, Any]:
    labels = {"alertname": "A", "cluster": f"c{number}", "severity": ("critical", "warning", "info")[number]}
    return {"status": status, "labels": labels, "annotations": {"summary": f"alert {number}"}, "startsAt": began,
            "endsAt": ended, "fingerprint": f"f{number}"}


def view(deliveries: list[Any], mapper: Any) -> Any:
    """Returns what every reader sees after validation and fold of the deliveries, without times of attn's clock."""
    folding = Folding()
    for delivery in deliveries:
        folding.pack(*[normalise(TOPIC_OF_TYPE[event["type"]], encode_event(event | {"workspaceid": "ws"}))
                       for event in mapper(delivery).events])
    return [(row.kind, row.source_id, row.state, row.priority, row.data.title, row.data.body_md, bytes(row.data.ask),
             row.periods, row.resolved_at, row.resolved_action, row.question and row.question.digest)
            for row in folding.items()]


@pytest.mark.parametrize("kind", ["escalation", "failed_run"])
@law(60)
@given(data=st.data())
def test_any_order_and_repeats_of_an_alerts_deliveries_give_one_view(kind: str, data: st.DataObject) -> None:
    deliveries = data.draw(alert_deliveries())
    repeated = data.draw(st.permutations(deliveries + data.draw(st.lists(st.sampled_from(deliveries), max_size=5))))

    def mapper(delivery: Any) -> Mapped:
        return alertmanager.events_of(delivery, AlertOptions(kind=kind))

    expected = view(deliveries, mapper)
    assert view(repeated, mapper) == expected
    firing = {alert["fingerprint"] for alert in deliveries[-1]["alerts"] if alert["status"] == "firing"}
    assert {row[1] for row in expected if row[0] == kind and row[2] != "resolved"} == firing


@law(60)
@given(data=st.data())
def test_a_group_is_open_while_one_of_its_alerts_fires_in_any_order(data: st.DataObject) -> None:
    """The item's text comes from the first delivery about its newest alert, so the test compares the state only."""
    deliveries = data.draw(alert_deliveries())
    repeated = data.draw(st.permutations(deliveries + data.draw(st.lists(st.sampled_from(deliveries), max_size=5))))

    def mapper(delivery: Any) -> Mapped:
        return alertmanager.events_of(delivery, AlertOptions(per="group"))

    expected = [(row[1], row[2], row[7], row[8]) for row in view(deliveries, mapper)]
    assert [(row[1], row[2], row[7], row[8]) for row in view(repeated, mapper)] == expected
    assert [state != "resolved" for _, state, _, _ in expected] == [deliveries[-1]["status"] == "firing"]


@law(60)
@given(order=st.permutations(range(6)), repeats=st.lists(st.integers(0, 5), max_size=4))
def test_any_order_and_repeats_of_the_deliveries_of_a_run_give_one_view(order: list[int], repeats: list[int]) -> None:
    """All steps of three attempts happen within one second."""
    at = {"updated_at": "2026-05-20T08:00:00Z", "run_started_at": "2026-05-20T08:00:00Z"}
    steps = [("completed", RUN | at), *[
        (action, RUN | at | {"run_attempt": attempt, "conclusion": conclusion})
        for attempt, action, conclusion in (
            (2, "requested", None), (2, "in_progress", None), (2, "completed", "failure"), (3, "requested", None),
            (3, "completed", "timed_out"))]]
    deliveries = [{"action": action, "workflow_run": run, "repository": REPOSITORY} for action, run in steps]

    def mapper(delivery: Any) -> Mapped:
        return github.events_of("workflow_run", delivery)

    expected = view(deliveries, mapper)
    assert [(row[0], row[2]) for row in expected] == [("failed_run", "unread")]
    assert view([deliveries[index] for index in [*order, *repeats]], mapper) == expected
    recovered = {"action": "completed", "repository": REPOSITORY,
                 "workflow_run": RUN | at | {"run_attempt": 4, "conclusion": "success"}}
    shuffled = [recovered, *[deliveries[index] for index in order]]
    assert [(row[2], row[9]) for row in view(shuffled, mapper)] == [("resolved", "recovered")]


@law(40)
@given(order=st.permutations(range(4)), repeats=st.lists(st.integers(0, 3), max_size=3))
def test_any_order_and_repeats_of_the_reviews_of_a_deployment_give_one_view(
    order: list[int], repeats: list[int],
) -> None:
    """Two jobs of a run deploy to one environment, one after the other."""
    def requested(job: int, since: str) -> dict[str, Any]:
        return {"action": "requested", "environment": "prod", "since": since, "workflow_run": RUN,
                "workflow_job_run": {"id": job, "environment": "prod"}, "repository": REPOSITORY}

    def reviewed(action: str, at: str) -> dict[str, Any]:
        return {"action": action, "since": at, "workflow_run": RUN, "repository": REPOSITORY,
                "workflow_job_runs": [{"environment": "prod", "updated_at": at}], "approver": {"login": "ann"}}

    deliveries = [requested(1, "2026-05-20T08:02:00Z"), reviewed("approved", "2026-05-20T08:03:00Z"),
                  requested(2, "2026-05-20T08:04:00Z"), reviewed("rejected", "2026-05-20T08:05:00Z")]

    def mapper(delivery: Any) -> Mapped:
        return github.events_of("deployment_review", delivery)

    expected = view(deliveries, mapper)
    assert [(row[0], row[2], row[9]) for row in expected] == [("waitpoint", "resolved", "rejected")]
    assert view([deliveries[index] for index in [*order, *repeats]], mapper) == expected
    assert view(deliveries[:3], mapper)[0][2] == "unread"


def test_hook_and_name_are_a_hook() -> None:
    assert all(isinstance(hook, Hook) and hook.name == name for name, hook in BUILT_IN.items())
