"""Maps any JSON webhook to events by a mapping file: TOML with JMESPath. Pure.

    [[event]]                                   # at most 50 rules; each may match
    each = "payload.issues"                     # optional: one event per element of this list
    when = "item.status == 'blocked'"           # optional: condition
    type = "escalation.opened"
    subject = "{{ item.key }}"
    time = "{{ item.updated }}"                 # RFC 3339, or seconds or milliseconds since 1970
    id = "{{ item.key }}/{{ item.version }}"    # optional, default: subject, type and time
    [event.data]
    title = "{{ item.key }}: {{ item.summary }}"
    priority = "{{ lookup('priority', item.severity) || 'normal' }}"
    [event.data.ask]
    options = [{ id = "ack", does = "acknowledge" }]

    [lookup.priority]                           # optional tables for the function `lookup`
    sev1 = "urgent"

A text may have expressions in double braces. They read `payload` (the body), `item` (the element of `each`, else the
body), `index`, `headers` (of the request, lower-case names) and `received` (its time). A text that is one expression
has the value of the expression, of any JSON type; null leaves the member out.
"""

from __future__ import annotations

import re
from typing import Any

from schemas.scalars import LATEST, SECOND, format_timestamp
from schemas.topics import DECISION_REPORTS, TOPIC_OF_TYPE
from streams.connectors.mappings.expressions import EvaluationCost, Evaluator, ExpressionError
from streams.connectors.mappings.mapped import (
    CloudEventDict,
    Mapped,
    MappingError,
    clip,
    need_text,
    need_time,
    short_id,
    shown,
)
from streams.connectors.mappings.mapping_file import GenericMapping, Rule, Template

__all__ = ["MAX_EVENTS", "events_of"]

MAX_EVENTS = 1000  # of one payload
_MAX_TEXT = 256 << 10  # characters of one text with its expressions replaced
_MILLISECONDS_FROM = 100_000_000_000  # a larger number of seconds would be after the year 5000


def events_of(
    payload: Any, mapping: GenericMapping, headers: dict[str, str] | None = None, received: int = 0,
) -> Mapped:
    """Returns the events of a payload. A rule that fails on one element is a problem; the others have their events.

    `headers`: of the request. `received`: microseconds. Raises MappingError if the payload has more than MAX_EVENTS
    elements, or if its expressions cost too much.
    """
    budget = EvaluationCost()
    evaluator = Evaluator(mapping.tables, budget)
    shared = {"payload": payload, "headers": headers or {}, "received": format_timestamp(received)}
    mapped, seen = Mapped(), 0
    for number, rule in enumerate(mapping.rules):
        elements = _elements(rule, shared, evaluator, f"event.{number}.each")
        seen += len(elements)
        if seen > MAX_EVENTS:
            raise MappingError(f"event.{number}.each", f"{seen} elements; at most {MAX_EVENTS} are accepted")
        for index, element in enumerate(elements):
            context = shared | {"item": element, "index": index}
            try:
                _apply(rule, context, evaluator, mapping, number, index, mapped)
            except MappingError as problem:
                mapped.problems.append(problem)
    if not mapped.events and not mapped.problems:
        mapped.ignored = "no rule of the mapping matches the payload"
    return mapped


def _apply(
    rule: Rule, context: dict[str, Any], evaluator: Evaluator, mapping: GenericMapping, number: int, index: int,
    mapped: Mapped,
) -> None:
    """Adds the event of a rule for one element, if its condition is true."""
    place = f"event.{number}"
    if rule.when is not None:
        try:
            if not evaluator.is_true(rule.when, context):
                return
        except ExpressionError as error:
            raise MappingError(f"{place}.when", str(error)) from None
    event = _event(rule, context, evaluator, mapping.source, place)
    mapped.events.append(event)
    mapped.indexes.append(index)


def _elements(rule: Rule, shared: dict[str, Any], evaluator: Evaluator, place: str) -> list[Any]:
    """Returns the elements of a rule: the body itself without `each`, none if `each` is null."""
    if rule.each is None:
        return [shared["payload"]]
    try:
        found = evaluator.evaluate(rule.each, shared)
    except ExpressionError as error:
        raise MappingError(place, str(error)) from None
    if found is None:
        return []
    if not isinstance(found, list):
        raise MappingError(place, f"must give an array, not {shown(found)}")
    return found


def _event(
    rule: Rule, context: dict[str, Any], evaluator: Evaluator, default_source: str, place: str
) -> CloudEventDict:
    values: dict[str, Any] = {}
    for name, template in rule.fields.items():
        try:
            values[name] = _fill(template, context, evaluator, f"{place}.{name}")
        except MappingError as error:
            raise _named(error, template) from None
    event_type = need_text(values.get("type"), f"{place}.type", 100)
    if event_type not in TOPIC_OF_TYPE and event_type not in DECISION_REPORTS:
        raise MappingError(f"{place}.type", f"{shown(event_type)} is not an event type of attn")
    try:
        subject = need_text(values.get("subject"), f"{place}.subject")
        time = _time(values.get("time"), f"{place}.time")
        text = need_text(values["id"], f"{place}.id", 4000) if "id" in rule.fields else (
            f"{subject}/{event_type}/{format_timestamp(time)}")
        source = need_text(values["source"], f"{place}.source", 2000) if "source" in rule.fields else default_source
    except MappingError as error:
        raise _named(error, rule.fields[error.field.rpartition(".")[2]]) from None
    event: CloudEventDict = {
        "specversion": "1.0", "id": text if len(text) <= 400 else short_id(text), "source": source,
        "type": event_type, "subject": subject, "time": format_timestamp(time),
    }
    data = _fill(rule.data, context, evaluator, f"{place}.data")
    return event | ({"data": data} if data else {})


def _named(error: MappingError, template: Template) -> MappingError:
    """Returns the error with the text of the field in the mapping file."""
    return MappingError(error.field, f"{error.reason}: {clip(template.text, 200)}")


def _fill(node: Any, context: dict[str, Any], evaluator: Evaluator, place: str) -> Any:
    """Returns the value of a part of a rule. Members that become null are left out."""
    if isinstance(node, dict):
        filled = {name: _fill(child, context, evaluator, f"{place}.{name}") for name, child in node.items()}
        return {name: value for name, value in filled.items() if value is not None}
    if isinstance(node, list):
        return [_fill(child, context, evaluator, f"{place}.{index}") for index, child in enumerate(node)]
    if not isinstance(node, Template):
        return node
    try:
        if (whole := node.expression) is not None:
            return evaluator.evaluate(whole, context)
        texts = [text if expression is None else _text(evaluator.evaluate(expression, context))
                 for text, expression in node.parts]
    except ExpressionError as error:
        raise MappingError(place, str(error)) from None
    if sum(map(len, texts)) > _MAX_TEXT:
        raise MappingError(place, f"{sum(map(len, texts))} characters; at most {_MAX_TEXT} are accepted")
    return "".join(texts)


def _text(value: Any) -> str:
    """Returns what an expression adds to a text: nothing for null, arrays and objects."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**100:
        return ""
    return str(value) if isinstance(value, str | int | float) else ""


def _time(value: Any, place: str) -> int:
    """Returns the microseconds of RFC 3339 text, or of a number of seconds or milliseconds since 1970."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,9})?", value, re.ASCII):
        value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < 10**16:
            raise MappingError(place, "must lie between 1970 and 2200")
        time = int(value * 1000) if value >= _MILLISECONDS_FROM else int(value * SECOND)
        if time >= LATEST:
            raise MappingError(place, "must lie between 1970 and 2200")
        return time
    return need_time(value, place)
