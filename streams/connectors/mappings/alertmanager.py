"""Maps Alertmanager's webhook, version 4, to events of one item per alert or per group of alerts. Pure.

`events_of(payload, options)` maps a delivery. `event_of_alert(alert, options)` maps one alert, of a delivery or of
`GET /api/v2/alerts`, so a sweep makes the same event as the hook. `close_of(...)` makes the event of an alert that
ended without a delivery, for example while it was silenced.

An alert is identified by its fingerprint, one occurrence of it by `startsAt`. Annotations may change during an
occurrence: the item keeps the text of the delivery that attn read first, so a person decides on a text that does not
change, and a repeated delivery changes nothing. ops/decisions/0058 has the reasons.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.scalars import format_timestamp
from streams.connectors.mappings.mapped import (
    MAX_BODY,
    MAX_TITLE,
    CloudEventDict,
    Mapped,
    MappingError,
    clip,
    cloud_event,
    code_block,
    code_span,
    get_time,
    link_of,
    need_list,
    need_object,
    need_text,
    need_time,
    short_id,
    shown,
    text_of,
)

__all__ = [
    "MAX_ALERTS", "SILENCE_LENGTHS", "AlertOptions", "acknowledge_ask", "close_of", "event_of_alert", "events_of",
    "fingerprint_of", "occurrence_of", "subject_of",
]

MAX_ALERTS = 1000  # of one delivery; Alertmanager's `max_alerts` limits them at the sender
_LABEL_CHARACTERS = 300  # of one label or annotation in the payload of an event
_MAX_LABELS = 100

# Values of the form field `length` of an acknowledgement -> seconds of the silence.
SILENCE_LENGTHS = {"30m": 1800, "1h": 3600, "2h": 7200, "4h": 14_400, "8h": 28_800, "24h": 86_400, "3d": 259_200}
_LENGTH_TITLES = {"30m": "30 minutes", "1h": "1 hour", "2h": "2 hours", "4h": "4 hours", "8h": "8 hours",
                  "24h": "24 hours", "3d": "3 days"}

# Lower-case value of the severity label -> priority. Others count as normal.
_PRIORITIES = {
    **dict.fromkeys(("critical", "page", "emergency", "fatal", "disaster", "p0", "p1", "sev0", "sev1"), "urgent"),
    **dict.fromkeys(("error", "high", "major", "p2", "sev2"), "high"),
    **dict.fromkeys(("warning", "warn", "medium", "moderate", "average", "minor", "p3", "sev3"), "normal"),
    **dict.fromkeys(("info", "information", "notice", "low", "none", "debug", "p4", "p5", "sev4", "sev5"), "low"),
}

Priority = Literal["low", "normal", "high", "urgent"]
_Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class AlertOptions(BaseModel):
    """Options of a hook. A connector that sweeps must use those of the hook, or both make different events."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    per: Literal["alert", "group"] = Field("alert", description="one item per fingerprint, or per groupKey")
    kind: Literal["escalation", "failed_run"] = Field(
        "escalation", description="kind of the items; failed_run: alerts of several clusters form an incident")
    ask: bool = Field(True, description="whether an item asks to acknowledge it")
    severity_label: _Label = Field("severity", description="label that the priority follows from")
    priorities: dict[str, Priority] = Field({}, description="value of that label, in lower case -> priority")
    cluster_label: _Label = Field("cluster", description="label with the cluster")
    stack_label: _Label = Field("service", description="label with the stack")
    incident_label: _Label = Field("alertname", description="label with the incident key")
    target_role: Literal["OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER"] | None = Field(
        None, description="role that sees the items; default: the workspace")
    prefix: Annotated[str, StringConstraints(max_length=100, pattern=r"^[!-~]*$")] = Field(
        "", description="text before each subject: separates the alerts of several Alertmanagers in one workspace")
    source: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = Field(
        "/alertmanager", description="`source` of the events")
    name: str = Field("Alertmanager", description="name of the sender that items show")


def events_of(payload: Any, options: AlertOptions = AlertOptions()) -> Mapped:  # noqa: B008 - frozen
    """Returns the events of a delivery. An alert that cannot be mapped is a problem, and the others have their events.

    Raises MappingError if the payload as a whole is no delivery of version 4.
    """
    body = need_object(payload, "")
    version = body.get("version", "4")
    if version != "4":
        raise MappingError("version", f"must be '4', not {shown(version)}; Grafana sends to /hooks/grafana")
    return map_delivery(body, options)


def map_delivery(body: dict[str, Any], options: AlertOptions) -> Mapped:
    """Returns the events of a delivery of any version; Grafana's have the same shape."""
    alerts = need_list(body.get("alerts"), "alerts")
    truncated = body.get("truncatedAlerts", 0)
    known = isinstance(truncated, int) and not isinstance(truncated, bool) and truncated > 0
    mapped = Mapped(truncated=min(truncated, 10**9) if known else 0)
    if len(alerts) > MAX_ALERTS:
        raise MappingError("alerts", f"{len(alerts)} alerts; at most {MAX_ALERTS} are accepted in one delivery: set "
                                     "max_alerts of the receiver, attn connect alertmanager reads the others")
    if options.per == "group":
        mapped.events = _group_events(body, alerts, options)
    for index, alert in enumerate(alerts if options.per == "alert" else ()):
        try:
            mapped.events.append(event_of_alert(alert, options, f"alerts.{index}"))
            mapped.indexes.append(index)
        except MappingError as problem:
            mapped.problems.append(problem)
    if not alerts:
        mapped.ignored = "the delivery has no alerts"
    return mapped


def event_of_alert(
    alert: Any, options: AlertOptions = AlertOptions(), place: str = "alert", after: int | None = None,  # noqa: B008
) -> CloudEventDict:
    """Returns the event of one alert: it opens an item while the alert fires, and closes it when it is resolved.

    `status` is that of a delivery (`firing`, `resolved`) or an object, as `GET /api/v2/alerts` has it: such an alert
    fires. `place`: field of the alert in the payload, for errors. `after`: for a sweep that sees an alert fire of which
    attn knows that it was closed at this time (microseconds), later than its `startsAt`: Alertmanager resolves alerts
    that it receives no more, and they begin again with the same `startsAt`. The opening is then 1 µs after the close.

    Raises MappingError with the field that is missing or wrong.
    """
    alert = need_object(alert, place)
    labels = _labels(alert.get("labels"), f"{place}.labels")
    fingerprint = _fingerprint(alert, labels, place)
    status = alert.get("status")
    if status != "resolved" and status != "firing" and not isinstance(status, dict):
        raise MappingError(f"{place}.status", "must be firing or resolved")
    if status == "resolved":
        started, ended = _resolved_times(alert, place)
        return close_of(fingerprint, started, ended, options)
    started = _to_milliseconds(need_time(alert.get("startsAt"), f"{place}.startsAt"))
    occurrence = occurrence_of(fingerprint, started)
    if after is not None and after >= started:
        occurrence += f"/{format_timestamp(after)}"
        started = after + 1
    data = _alert_data(alert, labels, options) | {"incident_key": labels.get(options.incident_label)}
    data["payload"] = {"fingerprint": fingerprint} | data["payload"]
    return _opening(subject_of(fingerprint, options), occurrence, started, data, options)


def close_of(
    fingerprint: str, started: int | None, ended: int, options: AlertOptions = AlertOptions(),  # noqa: B008
) -> CloudEventDict:
    """Returns the event that closes the item of an alert. Times in microseconds; `started`: if it is known."""
    occurrence = fingerprint if started is None else occurrence_of(fingerprint, started)
    closing = "escalation.resolved" if options.kind == "escalation" else "run.recovered"
    return cloud_event(closing, subject_of(fingerprint, options), ended, source=options.source,
                       id=f"{options.prefix}{occurrence}.resolved.{format_timestamp(ended)}")


def subject_of(fingerprint: str, options: AlertOptions = AlertOptions()) -> str:  # noqa: B008
    """Returns the subject of an alert's events, which is the `source_id` of its item."""
    return options.prefix + fingerprint


def occurrence_of(fingerprint: str, started: int) -> str:
    """Returns the name of one occurrence of an alert, which is the `id` of its ask. `started`: microseconds."""
    return f"{fingerprint}@{format_timestamp(started)}"


def fingerprint_of(labels: dict[str, str]) -> str:
    """Returns Alertmanager's fingerprint of a set of labels: FNV-1a, 64 bits, of the sorted names and values."""
    value = 0xCBF29CE484222325
    encoded = {name.encode(errors="replace"): text.encode(errors="replace") for name, text in labels.items()}
    for name in sorted(encoded):
        for byte in (*name, 255, *encoded[name], 255):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def acknowledge_ask(question: str) -> dict[str, Any]:
    """Returns the ask of an alert: acknowledge it for a length of time. `question`: the id of the ask."""
    length = {"type": "string", "title": "Silence for", "default": "2h", "oneOf": [
        {"const": value, "title": _LENGTH_TITLES[value]} for value in SILENCE_LENGTHS]}
    return {"id": question, "options": [{
        "id": "acknowledge", "does": "acknowledge", "title": "Acknowledge", "style": "primary", "comment": "optional",
        "form": {"type": "object", "properties": {"length": length}, "required": ["length"]}}]}


def _opening(
    subject: str, occurrence: str, started: int, data: dict[str, Any], options: AlertOptions
) -> CloudEventDict:
    if options.ask:
        data["ask"] = acknowledge_ask(occurrence)
    data |= {"target_role": options.target_role, "sender": {"type": "system", "name": clip(options.name, 200)}}
    kind = "escalation.opened" if options.kind == "escalation" else "run.failed"
    return cloud_event(kind, subject, started, id=f"{options.prefix}{occurrence}.firing", source=options.source,
                       data=data)


def _resolved_times(alert: dict[str, Any], place: str) -> tuple[int | None, int]:
    """Returns when a resolved alert began, if that is known, and when it ended: not before it began."""
    started = get_time(alert.get("startsAt"), f"{place}.startsAt")
    ended = get_time(alert.get("endsAt"), f"{place}.endsAt")
    if started is None and ended is None:
        raise MappingError(f"{place}.endsAt", "is missing, as is startsAt")
    started = _to_milliseconds(started) if started is not None else None
    return started, max(started or 0, ended or 0)


def _to_milliseconds(time: int) -> int:
    """Returns a time in microseconds without its digits below a millisecond: a delivery has nanoseconds, the API of
    Alertmanager milliseconds, and both must give one occurrence one id."""
    return time // 1000 * 1000


def _labels(value: Any, place: str) -> dict[str, str]:
    labels = need_object(value, place)
    if len(labels) > _MAX_LABELS:
        raise MappingError(place, f"{len(labels)} labels; at most {_MAX_LABELS} are accepted")
    for name, text in labels.items():
        if not isinstance(text, str):
            raise MappingError(f"{place}.{clip(name, 80)}", "must be text")
    return {clip(name, _LABEL_CHARACTERS): clip(text, 4 * _LABEL_CHARACTERS) for name, text in labels.items()}


def _fingerprint(alert: dict[str, Any], labels: dict[str, str], place: str) -> str:
    """Returns the fingerprint that the sender names; versions before 0.20 name none."""
    if alert.get("fingerprint") is not None:
        return need_text(alert["fingerprint"], f"{place}.fingerprint", 128)
    if not labels:
        raise MappingError(f"{place}.fingerprint", "is missing, and the alert has no labels")
    return fingerprint_of(alert["labels"])


def _alert_data(alert: dict[str, Any], labels: dict[str, str], options: AlertOptions) -> dict[str, Any]:
    """Returns the fields of an item that follow from labels, annotations and links of an alert."""
    annotations = _annotations(alert.get("annotations"))
    name = labels.get("alertname", "").strip() or "Alert"
    cluster = labels.get(options.cluster_label, "").strip()
    return {
        "title": clip(_title(name, labels, annotations), MAX_TITLE), "body_md": _body(alert, labels, annotations),
        "priority": _priority(labels, options), "cluster": clip(cluster, 500) or None,
        "stack": clip(labels.get(options.stack_label, ""), 500) or None,
        "action_url": link_of(alert.get("panelURL"), alert.get("dashboardURL"), alert.get("generatorURL")),
        "pipeline": name if options.kind == "failed_run" else None,
        "payload": {
            "labels": {key: clip(value, _LABEL_CHARACTERS) for key, value in labels.items()},
            "annotations": {key: clip(value, _LABEL_CHARACTERS) for key, value in annotations.items()},
            "startsAt": text_of(alert.get("startsAt"), 64), "generatorURL": text_of(alert.get("generatorURL"), 2000),
        },
    }


def _annotations(value: Any) -> dict[str, str]:
    """Returns the annotations that are text. Grafana's own, which begin with two underscores, are left out."""
    texts = value if isinstance(value, dict) else {}
    return {clip(name, _LABEL_CHARACTERS): text_of(text, 8000) for name, text in list(texts.items())[:_MAX_LABELS]
            if not name.startswith("__")}


def _title(name: str, labels: dict[str, str], annotations: dict[str, str]) -> str:
    summary = " ".join((annotations.get("summary") or annotations.get("title") or "").split())
    if summary:
        return summary if name.lower() in summary.lower() else f"{name}: {summary}"
    told_apart = [f"{key}={labels[key]}" for key in ("namespace", "service", "job", "instance", "pod") if key in labels]
    return f"{name} ({', '.join(told_apart)})" if told_apart else name


def _body(alert: dict[str, Any], labels: dict[str, str], annotations: dict[str, str]) -> str:
    described = annotations.get("description") or annotations.get("message") or ""
    links = [f"[{title}]({url})" for title, url in (
        ("Runbook", link_of(annotations.get("runbook_url"))), ("Dashboard", link_of(alert.get("dashboardURL"))),
        ("Panel", link_of(alert.get("panelURL"))), ("Source", link_of(alert.get("generatorURL"))),
    ) if url is not None and not set(url) & set("()<>")]
    values = "\n".join(f"{key} = {value}" for key, value in sorted(labels.items()))
    shown = clip(values, MAX_BODY // 2)
    return "\n\n".join(filter(None, (clip(described, MAX_BODY // 3), code_block(shown), " · ".join(links))))


def _priority(labels: dict[str, str], options: AlertOptions) -> str:
    severity = labels.get(options.severity_label, "").strip().lower()
    return options.priorities.get(severity) or _PRIORITIES.get(severity, "normal")


def _group_events(body: dict[str, Any], alerts: list[Any], options: AlertOptions) -> list[CloudEventDict]:
    """Returns the event of a group: it opens when its newest firing alert begins, and closes when none fires.

    Each further alert of the group opens the item anew, with the alerts that fire then. Raises MappingError if one
    alert cannot be read: the state of the group is then not known.
    """
    key = need_text(body.get("groupKey"), "groupKey", 100_000)
    group = short_id(key)
    firing: list[tuple[int, dict[str, Any], dict[str, str]]] = []
    newest = 0
    for index, value in enumerate(alerts):
        place = f"alerts.{index}"
        alert = need_object(value, place)
        if alert.get("status") == "resolved":
            newest = max(newest, _resolved_times(alert, place)[1])
        elif alert.get("status") == "firing":
            started = need_time(alert.get("startsAt"), f"{place}.startsAt")
            firing.append((started, alert, _labels(alert.get("labels"), f"{place}.labels")))
        else:
            raise MappingError(f"{place}.status", "must be firing or resolved")
    if not firing and (not newest or body.get("status") == "firing"):
        return []  # alerts that the sender left out still fire
    if not firing:
        return [close_of(group, None, newest, options)]
    firing.sort(key=lambda one: (one[0], fingerprint_of(one[2])))
    started, alert, labels = firing[-1]
    data = _alert_data(alert, labels, options)
    titles = [f"- {code_span(_title(own.get('alertname', 'Alert'), own, {}))}" for _, _, own in firing[:50]]
    shared = _labels(body.get("groupLabels") or {}, "groupLabels")
    named = ", ".join(f"{name}={value}" for name, value in sorted(shared.items()) if name != "alertname")
    name = shared.get("alertname") or labels.get("alertname") or "Alerts"
    order = ("urgent", "high", "normal", "low")
    data |= {
        "title": clip(f"{name} ({named})" if named else name, MAX_TITLE),
        "body_md": clip("\n".join([f"{len(firing)} alerts fire:", "", *titles]), MAX_BODY),
        "priority": min((_priority(own, options) for _, _, own in firing), key=order.index),
        "incident_key": labels.get(options.incident_label),
        "action_url": link_of(body.get("externalURL")),
        "payload": {"groupKey": clip(key, 2000), "groupLabels": shared, "alerts": len(firing)},
    }
    return [_opening(subject_of(group, options), occurrence_of(group, started), started, data, options)]
