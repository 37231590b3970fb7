"""Questions about tool calls, and forms from JSON Schemas. Shared by the adapters; pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from attn_client.exact import dumps, loads
from attn_client.questions import Action, Answer, Option, Question

__all__ = ["form_for", "tool_question", "value_of"]

_MESSAGE = {"type": "object", "required": ["message"],
            "properties": {"message": {"type": "string", "title": "Answer", "minLength": 1}}}
_TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "title": "Answer"}}}
_JSON = {"type": "object", "required": ["json"], "properties": {"json": {
    "type": "string", "title": "Answer", "description": "JSON: an object, a list, a number, or a text in quotes"}}}
# The keywords that a form of attn has (MCP's subset of JSON Schema), by the type of the field.
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "string": frozenset(("minLength", "maxLength", "format", "enum", "enumNames", "oneOf")),
    "number": frozenset(("minimum", "maximum")), "integer": frozenset(("minimum", "maximum")), "boolean": frozenset(),
    "array": frozenset(("items", "minItems", "maxItems")),
}
_FORMATS = ("email", "uri", "date", "date-time")
MAX_TITLE = 512  # characters


def tool_question(
    name: str, args: Mapping[str, Any], allowed: Collection[str], subject: str | None, title: str | None = None,
    body: str | None = None,
) -> Question:
    """Returns the question whether a tool may be called. `allowed`: some of approve, edit, reject, respond."""
    offered = {
        "approve": Option("approve", "approve", style="primary"),
        "edit": Option("edit", "edit"),
        "respond": Option("respond", "respond", title="Answer instead", form=_MESSAGE),
        "reject": Option("reject", "reject", style="danger", comment="optional"),
    }
    options = [option for id, option in offered.items() if id in allowed and (id != "edit" or args)]
    action = Action(name, args, editable=True if "edit" in allowed and args else None)
    return Question((title or f"Call {name}?")[:MAX_TITLE], body, options, action=action, subject=subject)


def form_for(schema: Any) -> Mapping[str, Any]:
    """Returns a form for a value of this JSON Schema. `value_of` reads the value from the answer.

    A flat object and a single simple value have fields. Any other schema has one field for JSON; None has one text.
    """
    if schema is None:
        return _TEXT
    if isinstance(schema, Mapping) and schema.get("type") == "object":
        fields = {name: _field(one) for name, one in (schema.get("properties") or {}).items()}
        if fields and len(fields) <= 50 and None not in fields.values():
            required = [name for name in schema.get("required", ()) if name in fields]
            return {"type": "object", "properties": fields, "required": required}
        return _JSON
    field = _field(schema)
    return _JSON if field is None else {"type": "object", "properties": {"value": field}, "required": ["value"]}


def _field(schema: Any) -> dict[str, Any] | None:
    """Returns the field of a simple type. None if a form cannot show it, or would accept other values."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        return None
    shown = frozenset(("type", "title", "description"))
    if not schema.keys() <= shown | _KEYWORDS[kind] | {"default"} or schema.get("format", "uri") not in _FORMATS:
        return None
    items = schema.get("items")
    if kind == "array" and not (isinstance(items, Mapping) and items.keys() & {"enum", "anyOf"}):
        return None
    choices = [*schema.get("enum", ()), *((items or {}).get("enum", ()) if kind == "array" else ())]
    if not all(isinstance(one, str) and one for one in choices):
        return None
    default = schema.get("default")
    return {name: value for name, value in schema.items() if name != "default" or default not in (None, "", [])}


def value_of(answer: Answer, form: Mapping[str, Any]) -> Any:
    """Returns the value that a person gave in a form of `form_for`. Raises ValueError if the text is not JSON."""
    if form is _TEXT:
        return answer.form.get("text", "")
    if form is _JSON:
        return loads(str(answer.form.get("json", "")))
    if list(form["properties"]) == ["value"]:
        return answer.form.get("value")
    return dict(answer.form)


def shown(value: Any) -> str:
    """Returns a value as Markdown: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        text = json.dumps(loads(dumps(value)), indent=2, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return f"```json\n{text[:16_000]}\n```"
