"""Decides whether an event that was sent over HTTP is accepted: by the validation of ingest, then by the sender's
scope. Pure.

The event is validated by `streams.core.normalise.normalise`, as a worker does, on the bytes that are sent to Kafka. So
what is accepted here is accepted there, and the scope is checked on the attributes that the worker reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from api.intake.http_binding import SentEvent
from schemas.topics import DECISION_REPORTS, SOURCE_TYPES, TOPIC_OF_TYPE
from schemas.views import SourceKeyRow
from streams.core.json_text import read_json
from streams.core.normalise import EventLimits, Rejected, normalise
from streams.core.sealing import Sealer
from streams.runtime.source_keys import covers_source

__all__ = ["AcceptedEvent", "EventRefused", "Gate"]

_ANY_TOPIC = next(iter(SOURCE_TYPES))  # of an event without a usable type: validation says what is wrong with it


class EventRefused(Exception):
    """The event is not accepted. `status`: 400 invalid, 403 outside of the sender's scope, 413 too large."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


class AcceptedEvent(NamedTuple):
    """A valid event: the record to write."""

    topic: str
    value: bytes
    headers: list[tuple[str, bytes]]


class Gate:
    """Accepts the events of one request. `key`: the sender's key; None: a user, who may use every topic and source.

    `topic`: the topic that the request names, for reports of decisions. `topic_of_subject`: subject -> topic of the
    item that asked, None if there is none.
    """

    def __init__(
        self, workspace: str, key: SourceKeyRow | None, limits: EventLimits, sealer: Sealer | None,
        topic: str | None = None, topic_of_subject: Callable[[str], str | None] = lambda subject: None,
    ) -> None:
        self._workspace, self._key, self._limits, self._sealer = workspace, key, limits, sealer
        self._topics = frozenset(SOURCE_TYPES if key is None else key.topics)
        self._topic, self._topic_of_subject = topic, topic_of_subject

    def accept(self, event: SentEvent, binary: bool) -> AcceptedEvent:
        """Returns the record of an event, with the workspace if it was left out.

        Raises EventRefused with the reason.
        """
        self._check_size(event.value)
        attributes = _attributes_of(event, binary)
        if attributes.get("workspaceid") is None:
            event = _with_workspace(event, binary, self._workspace, bool(attributes))
            self._check_size(event.value)
        topic = self._topic_for(attributes)
        try:
            checked = normalise(topic, event.value, event.headers, self._limits, sealer=self._sealer)
        except Rejected as rejected:
            raise EventRefused(400, str(rejected)) from None
        if checked.ws != self._workspace:
            raise EventRefused(403, "workspaceid: the sender belongs to another workspace")
        if topic not in self._topics:
            raise EventRefused(403, f"type: the key may not send to topic {topic}")
        if self._key is not None and not covers_source(self._key.source, checked.source):
            raise EventRefused(403, f"source: the key sends for {self._key.source!r} and sources below it")
        return AcceptedEvent(topic, event.value, event.headers)

    def _check_size(self, value: bytes) -> None:
        if len(value) > self._limits.event:
            raise EventRefused(413, f"the event is {len(value)} bytes; at most {self._limits.event} are accepted")

    def _topic_for(self, attributes: dict[str, Any]) -> str:
        """Returns the topic of an event: that of its type. A report of a decision has none of its own, and its effect
        does not depend on the topic: the one that the request names, else that of the item that asked."""
        event_type, subject = attributes.get("type"), attributes.get("subject")
        if event_type in DECISION_REPORTS:
            if self._topic is not None:
                return self._topic
            found = self._topic_of_subject(subject) if isinstance(subject, str) else None
            return found if found in self._topics else min(self._topics, default=_ANY_TOPIC)
        own = TOPIC_OF_TYPE.get(event_type) if isinstance(event_type, str) else None
        return self._topic or own or _ANY_TOPIC


def _attributes_of(event: SentEvent, binary: bool) -> dict[str, Any]:
    """Returns the attributes that the sender gave. Raises EventRefused if a structured event is no JSON object."""
    if binary:
        return {name.removeprefix("ce_"): value.decode() for name, value in event.headers if name.startswith("ce_")}
    try:
        _, body = read_json(event.value)
    except ValueError as error:
        raise EventRefused(400, f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise EventRefused(400, f"not a CloudEvent: a JSON object is expected, not {type(body).__name__}")
    return body


def _with_workspace(event: SentEvent, binary: bool, workspace: str, has_members: bool) -> SentEvent:
    """Adds the attribute `workspaceid`, as the last member of a structured event: there it also replaces a null."""
    if binary:
        return SentEvent(event.value, [*event.headers, ("ce_workspaceid", workspace.encode())])
    member = b'"workspaceid":' + msgspec.json.encode(workspace)
    before = event.value.rstrip().removesuffix(b"}")
    return SentEvent(before + (b"," if has_members else b"") + member + b"}", event.headers)
