"""Compares the alerts of Alertmanager with the items of attn, and returns the events that attn lacks. Pure.

An item is open while its alert fires and no silence mutes it:

    alert fires                  no item           opens one: the hook was lost, or the alert was truncated
    alert fires                  resolved item     opens it again: its silence is over, or the alert began again
    a silence mutes the alert    open item         closes it, `resolved_action` `silenced`
    no alert                     open item         closes it: no delivery says it if a silence muted the alert

An inhibited alert, or one that a time interval mutes, changes nothing. Event ids follow from alert, silence and item,
so that two connectors, and a connector that was restarted, send the same events.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.scalars import parse_timestamp
from streams.connectors.alertmanager.client import Truth
from streams.connectors.alertmanager.silences import (
    Silence,
    decision_of,
    end_of,
    fingerprint_of_silence,
    matches,
    of_decision,
    start_of,
)
from streams.connectors.mappings.alertmanager import (
    AlertOptions,
    close_of,
    event_of_alert,
    subject_of,
)
from streams.connectors.mappings.mapped import MappingError
from streams.connectors.peer import Event

__all__ = ["Item", "Plan", "Planner", "is_muted", "is_trusted", "occurrence_start"]

log = logging.getLogger("attn.connect")

Item = Mapping[str, Any]  # as `GET /api/v1/inbox` has it
Alert = Mapping[str, Any]  # as `GET /api/v2/alerts` has it

_ABSENT_SWEEPS = 2  # without an alert, until it counts as ended: members of a cluster get alerts one after another


@dataclass
class Plan:
    """`events`: what attn lacks. `unknown`: alerts that fire, by subject, of which attn lists no open item although
    their opening was sent: attn has to be asked for each."""

    events: list[Event] = field(default_factory=list)
    unknown: dict[str, Alert] = field(default_factory=dict)


def is_trusted(truth: Truth, grace: float) -> bool:
    """Returns whether an alert that is missing has ended. Alertmanager keeps no alerts over a restart: until Prometheus
    has sent them again, they are missing. `grace`: seconds after its start in which nothing counts as ended."""
    return truth.at - truth.up_since >= grace * 1_000_000


def occurrence_start(question: str) -> int | None:
    """Returns when the occurrence began that a question asks about, by the id of its ask, in microseconds."""
    try:
        return parse_timestamp(question.partition("@")[2].partition("/")[0])
    except ValueError:
        return None


def is_muted(alert: Alert) -> bool:
    """Returns whether Alertmanager notifies nobody of an alert: it is silenced, inhibited, or in a mute interval."""
    status = alert.get("status") or {}
    return bool(status.get("silencedBy") or status.get("inhibitedBy") or status.get("mutedBy"))


class Planner:
    """Plans sweeps. Its memory only saves repeats: a new planner sends what attn has once more, with the same ids.

    `receivers`: names of receivers whose alerts open items; None: all.
    """

    def __init__(self, options: AlertOptions, grace: float, receivers: frozenset[str] | None = None) -> None:
        self._options, self._grace, self._receivers = options, grace, receivers
        self._sent: set[str] = set()  # ids of events of the alerts and silences that Alertmanager lists
        self._absent: dict[str, tuple[int, int]] = {}  # subject -> first time (µs), number of sweeps
        self._unreadable: set[str] = set()

    def plan(
        self, truth: Truth, silences: Sequence[Silence], active: Sequence[Item], decided: Sequence[Item],
    ) -> Plan:
        """`active` and `decided`: the items of attn in these states, read before `truth`."""
        plan = Plan()
        open_items = {str(item["source_id"]): item for item in active if self._is_of_alert(item)}
        answered = {str(item["source_id"]): item for item in decided if self._is_of_alert(item)}
        listed = {subject_of(str(alert["fingerprint"]), self._options): alert for alert in truth.alerts}
        ids: set[str] = set()
        for subject, alert in listed.items():
            if is_muted(alert):
                self._plan_silenced(plan, alert, silences, open_items.get(subject))
            else:
                self._plan_firing(plan, subject, alert, open_items.get(subject) or answered.get(subject), ids)
        self._plan_ended(plan, truth, open_items, silences, listed, ids)
        self._sent &= ids
        self._sent |= {str(event["id"]) for event in plan.events} & ids
        return plan

    def reopened(self, alert: Alert, item: Item, silences: Sequence[Silence], now: int) -> list[Event]:
        """Returns the events that open a resolved item again whose alert fires; none if the item is not resolved.

        The item opens when the silence ended that muted the alert. Without one, because Alertmanager has lost it or
        resolved the alert itself, it opens when it was resolved. An item that an answer resolved is closed before, so
        that its due time counts from the end of the silence.
        """
        if item.get("state") != "resolved" or "resolved_at" not in item:
            return []
        decision = item.get("decision") or {}
        made = of_decision(silences, str(decision.get("id")))
        ended = end_of(made or [one for one in silences if matches(one, alert["labels"])], now)
        after = max(parse_timestamp(str(item["resolved_at"])), ended or 0)
        opening = event_of_alert(dict(alert), self._options, after=after)
        if decision.get("state") != "applied":
            return [opening]
        close = close_of(str(alert["fingerprint"]), None, after, self._options)
        return [close | {"id": f"{close['subject']}.silenced.{decision['id']}", "data": {"action": "acknowledged"}},
                opening]

    def _plan_firing(self, plan: Plan, subject: str, alert: Alert, item: Item | None, ids: set[str]) -> None:
        receivers = {receiver.get("name") for receiver in alert.get("receivers", ())}
        if self._receivers is not None and not self._receivers & receivers:
            return
        try:
            event = event_of_alert(dict(alert), self._options)
        except MappingError as problem:
            self._warn(subject, problem)
            return
        ids.add(event["id"])
        if item is not None:
            started = occurrence_start(str(item["ask"].get("id", "")))
            if started is None or parse_timestamp(event["time"]) <= started:
                return  # replicas of Prometheus may name different starts: Alertmanager merges them to the earliest
        if event["id"] not in self._sent:
            plan.events.append(event)
        elif item is None:
            plan.unknown[subject] = alert

    def _plan_silenced(
        self, plan: Plan, alert: Alert, silences: Sequence[Silence], item: Item | None
    ) -> None:
        """Closes an open item of which a silence mutes the alert, at the begin of that silence."""
        muting = [one for one in silences if one["id"] in alert["status"].get("silencedBy", ())]
        if item is None or not muting:
            return
        silence = min(muting, key=lambda one: (start_of(one), str(one["id"])))
        opened = str(item["created_at"])
        at = max(start_of(silence), parse_timestamp(opened))
        close = close_of(str(alert["fingerprint"]), None, at, self._options)
        action = "silenced" if decision_of(silence) is None else "acknowledged"
        plan.events.append(close | {
            "id": f"{close['subject']}.silenced.{silence['id']}.{opened}", "data": {"action": action}})

    def _plan_ended(
        self, plan: Plan, truth: Truth, open_items: Mapping[str, Item], silences: Sequence[Silence],
        listed: Mapping[str, Alert], ids: set[str],
    ) -> None:
        """Closes open items whose alerts were missing in two sweeps, at the time of the first one. Says the same of
        alerts that attn had silenced, once per silence: Alertmanager sends no webhook."""
        if not is_trusted(truth, self._grace):
            self._absent.clear()
            return
        silenced = {str(one["id"]): fingerprint for one in silences if decision_of(one) is not None
                    and (fingerprint := fingerprint_of_silence(one)) is not None}
        subjects = {*open_items, *(subject_of(fingerprint, self._options) for fingerprint in silenced.values())}
        self._absent = {
            subject: (self._absent[subject][0], self._absent[subject][1] + 1) if subject in self._absent
            else (truth.at, 1) for subject in subjects - listed.keys()}
        ended = {subject: first for subject, (first, sweeps) in self._absent.items() if sweeps >= _ABSENT_SWEEPS}
        for subject in ended.keys() & open_items.keys():
            item = open_items[subject]
            plan.events.append(close_of(
                subject.removeprefix(self._options.prefix), occurrence_start(str(item["ask"].get("id", ""))),
                max(ended[subject], parse_timestamp(str(item["created_at"]))), self._options))
        for silence, fingerprint in silenced.items():
            if (subject := subject_of(fingerprint, self._options)) in ended:
                close = close_of(fingerprint, None, ended[subject], self._options)
                close["id"] = f"{subject}.ended.{silence}"
                ids.add(close["id"])
                if close["id"] not in self._sent:
                    plan.events.append(close)

    def _is_of_alert(self, item: Item) -> bool:
        """Whether an item stands for one alert of this Alertmanager, not for a group and not for another one's."""
        fingerprint = (item.get("payload") or {}).get("fingerprint")
        return (item.get("source") == self._options.source and fingerprint is not None
                and item["source_id"] == subject_of(str(fingerprint), self._options))

    def _warn(self, subject: str, problem: MappingError) -> None:
        if subject not in self._unreadable:
            self._unreadable.add(subject)
            log.warning("alertmanager: alert %s has no item: %s", subject, problem)
