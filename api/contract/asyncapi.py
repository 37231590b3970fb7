"""Generates the AsyncAPI 3 document at `/asyncapi.json`: all topics, event streams and the WebSocket.

The schemas come from the topic table and from the models that the code reads and writes: pydantic models of source
events and feed frames, msgspec structs of attn's own records and of WebSocket messages. Each family has its own prefix
in `components/schemas`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any, get_args

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from api.contract import json_schema, messages
from api.contract.messages import CLIENT_MESSAGES, FRAMES, SERVER_MESSAGES
from api.contract.requests import SESSION_COOKIE
from schemas import facts, log, sources, views
from schemas.asking.decision_event import DecisionEvent
from schemas.dead_letters import CAUSES, DeadLetter, ResolvedMarker, ResumeTopicMarker
from schemas.topics import DEAD_LETTERS, DECISION_REPORTS, DECISIONS, FACTS, LOG, SOURCE_TYPES, TOPICS, VIEWS, Topic
from streams.tracing.context import TRACES

__all__ = ["asyncapi"]

_Json = dict[str, Any]

_ABOUT = """\
What attn reads from and writes to Kafka, and what it sends over server-sent events and its WebSocket.

Source events are CloudEvents 1.0: structured (the whole event in the record value) or binary (`ce_` headers, the data
in the value). The workspace in the event counts, not the record key. Topics named `attn.` are written only by attn;
anyone may read them. Streams need authentication, as routes do, and contain only what the caller may see.
"""
_KAFKA, _HTTP, _SOCKET = "kafka", "edge", "edge-websocket"
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
               "description": "JWT with the claims sub, workspace_id, role and exp"},
    "session": {"type": "httpApiKey", "in": "cookie", "name": SESSION_COOKIE,
                "description": "the same token as a cookie"},
}
# Headers of traced records (docs/traces.md). Values never have a context.
_CONTEXT: _Json = {
    "traceparent": {"type": "string", "maxLength": 128, "description": "W3C Trace Context; a malformed one is ignored"},
    "tracestate": {"type": "string", "maxLength": 512}}
_TRACES: _Json = {TRACES: {
    "type": "string", "description": "JSON array of the sampled contexts, at most 64; absent while traces are off"}}
_CURSOR = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}


def asyncapi() -> _Json:
    """Returns the document; every call returns the same one."""
    builder = _DocumentBuilder()
    for topic in TOPICS:
        builder.topic(topic)
    builder.feed()
    builder.cases()
    builder.socket()
    document = {
        "asyncapi": "3.0.0",
        "info": {"title": "attn", "version": metadata.version("attn"), "description": _ABOUT,
                 "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}},
        "defaultContentType": "application/json",
        "servers": {
            _KAFKA: {"host": "127.0.0.1:19092", "protocol": "kafka", "description": "ATTN_KAFKA"},
            _HTTP: {"host": "127.0.0.1:8080", "protocol": "http", "description": "any edge",
                    "security": [_ref("securitySchemes", name) for name in _SECURITY]},
            _SOCKET: {"host": "127.0.0.1:8080", "protocol": "ws", "description": "any edge",
                      "security": [_ref("securitySchemes", name) for name in _SECURITY]},
        },
        "channels": builder.channels, "operations": builder.operations,
        "components": {"messages": builder.messages, "schemas": builder.schemas, "securitySchemes": _SECURITY},
    }
    as_json: _Json = orjson.loads(orjson.dumps(document))  # some defaults are tuples, which JSON does not have
    return as_json


def _ref(*path: str) -> _Json:
    return {"$ref": "#/" + "/".join(("components", *path))}


class _DocumentBuilder:
    """Collects the channels, operations, messages and schemas of the document."""

    def __init__(self) -> None:
        self.channels: _Json = {}
        self.operations: _Json = {}
        self.messages: _Json = {}
        self.schemas: _Json = {}

    # --- topics ---

    def topic(self, topic: Topic) -> None:
        own = {LOG: self._log, VIEWS: self._views, FACTS: self._facts, DECISIONS: self._decisions,
               DEAD_LETTERS: self._dead_letters}
        names = list(own[topic.name]()) if topic.name in own else list(self._source(topic.name))
        compacted = {"topicConfiguration": {"cleanup.policy": ["compact"]}} if topic.cleanup == "compact" else {}
        self._channel(topic.name, topic.name, _KAFKA, names, f"{topic.holds}; key: {topic.key}; {topic.model}",
                      {"kafka": {"topic": topic.name, **compacted}})
        if topic.name in SOURCE_TYPES:
            self._operation(f"read {topic.name}", "receive", topic.name, names)
        else:
            self._operation(f"write {topic.name}", "send", topic.name, names)
            self._operation(f"read {topic.name}", "receive", topic.name, names)

    def _source(self, topic: str) -> Iterable[str]:
        """Adds two messages per event type: structured and binary."""
        kinds = (*SOURCE_TYPES[topic], *DECISION_REPORTS)
        models = [sources.MODELS[kind] for kind in kinds]
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/components/schemas/source.{model}")
        self._add_schemas("source.", definitions["$defs"])
        for kind, model in zip(kinds, models, strict=True):
            data = model.model_fields["data"].annotation
            yield self._message(
                kind, f"CloudEvent {kind}, structured", _ref("schemas", f"source.{model.__name__}"),
                content="application/cloudevents+json", headers={"type": "object", "properties": _CONTEXT},
                bindings=_key_binding({"type": ["string", "null"]}))
            yield self._message(
                f"{kind}.binary", f"CloudEvent {kind}, binary", _ref("schemas", f"source.{data.__name__}"),  # type: ignore[union-attr]
                headers=_binary_headers(kind, model), bindings=_key_binding({"type": ["string", "null"]}))

    def _log(self) -> Iterable[str]:
        yield self._message("pack", "events, commands and ticks", self._struct("log.", log.Pack),
                            headers={"type": "object", "properties": _TRACES})

    def _views(self) -> Iterable[str]:
        for prefix, row in views.ROW_TYPES.items():
            about = (row.__doc__ or row.__name__).partition("\n")[0]
            yield self._message(f"row.{row.__name__.removesuffix('Row').lower()}", about,
                                self._struct("view.", row),
                                headers={"type": "object", "properties": _TRACES} if row is views.PositionRow else None,
                                bindings=_key_binding({"type": "string", "pattern": f"^{prefix.decode()}"}))

    def _facts(self) -> Iterable[str]:
        workspace = _key_binding({"type": "string", "description": "the workspace"})
        context = {"type": "object", "properties": _CONTEXT}
        yield self._message("fact", "an accepted change", self._struct("fact.", facts.Fact),
                            headers=context, bindings=workspace)
        yield self._message("outcome", "the result of a command", self._struct("fact.", facts.Outcome),
                            headers=context, bindings=workspace)

    def _decisions(self) -> Iterable[str]:
        yield self._message(
            "decision", "CloudEvent about a decision, structured", self._struct("decision.", DecisionEvent),
            content="application/cloudevents+json", headers={"type": "object", "properties": _CONTEXT},
            bindings=_key_binding({"type": "string", "description": "the workspace"}))

    def _dead_letters(self) -> Iterable[str]:
        """A dead letter has the key, the value and the headers of the rejected record; attn appends its own headers."""
        letter = DeadLetter(topic="t", partition=0, offset=0, reason="r", at=0)
        for name, record, about in (
            ("dead-letter", letter, "a rejected record, unchanged but for its reply tokens"),
            ("settled", ResolvedMarker((0,)), "operator marker: these dead letters were sent again"),
            ("go-on", ResumeTopicMarker("t"), "operator marker: resume this topic"),
        ):
            fields: _Json = {header: {"type": "string"} for header, _ in record.record_headers()}
            required = list(fields)
            if "attn-cause" in fields:
                fields["attn-cause"] = {"type": "string", "enum": list(CAUSES)}
                fields["attn-blanked"] = {"type": "string", "description": "number of reply tokens replaced by \"\""}
            body: _Json = {"description": "any bytes"} if record is letter else {"type": "null"}
            yield self._message(name, about, body, content="application/octet-stream",
                                headers={"type": "object", "properties": fields, "required": required})

    # --- streams ---

    def feed(self) -> None:
        names = []
        for event, kind in FRAMES.items():
            schema = TypeAdapter(kind).json_schema(ref_template="#/components/schemas/feed.{model}")
            self._add_schemas("feed.", schema.pop("$defs", {}))
            names.append(self._message(
                f"feed.{event}", (schema.get("description") or f"the new value of {event}").partition("\n")[0], schema,
                headers=_frame_headers({"type": "string", "const": event})))
        query = {
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 500},
            "last_event_id": {**_CURSOR, "description": "same as the header Last-Event-ID"},
        }
        self._stream("feed", "/org/me/feed", names, "live feed of the caller's inbox", query)

    def cases(self) -> None:
        names = []
        for name, fields in messages.CASE_EVENTS.values():
            known = {"type": {"const": name}, **{field: {"type": "string"} for field in fields},
                     "at": {"type": "string", "format": "date-time"}}
            names.append(self._message(f"case.{name}", f"case event: {name.replace('_', ' ')}", {
                "type": "object", "properties": known, "required": ["type", "at"], "additionalProperties": False,
            }, headers=_frame_headers()))
        names.append(self._message("case.reset", "missed events are no longer available: read the current state again",
                                   {"type": "object", "maxProperties": 0}, headers=_frame_headers({"const": "reset"})))
        query = {"last_event_id": {**_CURSOR, "description": "same as the header Last-Event-ID"}}
        self._stream("events", "/events/stream", names, "events of all cases of the workspace", query)
        self._stream("case-events", "/cases/{case}/events", names, "events of one case", query,
                     {"case": {"description": "id of the case"}})

    def socket(self) -> None:
        received = [self._message(f"socket.{_tag_of(kind)}", _summary_of(kind), self._struct("socket.", kind))
                    for kind in CLIENT_MESSAGES]
        sent = [self._message(f"socket.{_tag_of(kind)}", _summary_of(kind), self._struct("socket.", kind))
                for kind in SERVER_MESSAGES]
        self._channel("socket", "/api/v1/ws", _SOCKET, [*received, *sent],
                      "authentication, then subscriptions, then `inbox.updated`", {"ws": {"method": "GET"}})
        self._operation("receive socket", "receive", "socket", received)
        self._operation("send socket", "send", "socket", sent)

    def _stream(
        self, name: str, address: str, names: list[str], about: str, query: _Json, parameters: _Json | None = None
    ) -> None:
        self._channel(name, address, _HTTP, names, about + ", as text/event-stream", {}, parameters)
        self._operation(f"send {name}", "send", name, names, {"http": {
            "method": "GET", "query": {"type": "object", "properties": query, "additionalProperties": False}}})

    # --- parts ---

    def _channel(
        self, name: str, address: str, server: str, names: list[str], about: str, bindings: _Json,
        parameters: _Json | None = None,
    ) -> None:
        self.channels[name] = {
            "address": address, "description": about, "servers": [{"$ref": f"#/servers/{server}"}],
            "messages": {one: _ref("messages", one) for one in names},
            **({"bindings": bindings} if bindings else {}), **({"parameters": parameters} if parameters else {}),
        }

    def _operation(
        self, name: str, action: str, channel: str, names: list[str], bindings: _Json | None = None
    ) -> None:
        self.operations[name.replace(" ", "-")] = {
            "action": action, "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{one}"} for one in names],
            **({"bindings": bindings} if bindings else {}),
        }

    def _message(
        self, name: str, about: str, payload: _Json, content: str = "", headers: _Json | None = None,
        bindings: _Json | None = None,
    ) -> str:
        self.messages[name] = {
            "name": name, "summary": about, "payload": payload, **({"contentType": content} if content else {}),
            **({"headers": headers} if headers else {}), **({"bindings": bindings} if bindings else {}),
        }
        return name

    def _struct(self, prefix: str, kind: Any) -> _Json:
        [schema], definitions = json_schema.schema_components(
            [kind], ref_template="#/components/schemas/" + prefix + "{name}")
        self._add_schemas(prefix, definitions)
        return schema

    def _add_schemas(self, prefix: str, definitions: _Json) -> None:
        for name, schema in definitions.items():
            _drop_discriminators(schema)
            known = self.schemas.setdefault(prefix + name, schema)
            assert known == schema, f"two schemas have the name {prefix + name}"


def _drop_discriminators(schema: Any) -> None:
    """Removes OpenAPI's `discriminator`, which AsyncAPI does not have. The schema of each variant has its tag as a
    constant."""
    if isinstance(schema, dict):
        if isinstance(schema.get("discriminator"), dict):
            del schema["discriminator"]
        for part in schema.values():
            _drop_discriminators(part)
    elif isinstance(schema, list):
        for part in schema:
            _drop_discriminators(part)


def _tag_of(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def _summary_of(kind: Any) -> str:
    """Returns the first line of the docstring, or the tag."""
    own = kind.__dict__.get("__doc__") or _tag_of(kind)
    return str(own).partition("\n")[0]


def _key_binding(schema: _Json) -> _Json:
    return {"kafka": {"key": schema}}


def _frame_headers(event: _Json | None = None) -> _Json:
    """Returns the schema of the SSE fields of a frame besides its data. Without `event` the frame has no event name."""
    fields: _Json = {"id": _CURSOR, **({"event": event} if event else {})}
    return {"type": "object", "properties": fields, "required": list(fields)}


def _binary_headers(kind: str, model: type[sources.CloudEvent]) -> _Json:
    """Returns the headers of a binary CloudEvent (Kafka binding): each attribute is a header, `data` is the record
    value."""
    whole = model.model_json_schema()["properties"]
    fields = {f"ce_{name}": {**whole[name], "type": "string"} for name in whole if name != "data"}
    assert get_args(model.model_fields["type"].annotation) == (kind,)
    contexts = {**_CONTEXT, **{f"ce_{name}": schema for name, schema in _CONTEXT.items()}}
    return {"type": "object", "properties": {**fields, "content-type": {"type": "string"}, **contexts},
            "required": list(fields)}
