"""Makes the form of an ask from a `response_schema`, if the schema fits the subset that forms have (CONTRACT §7).

The subset is that of MCP's elicitation: a flat object of strings, numbers, integers, booleans and choices. A schema of
one such value becomes a form with one field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from schemas.asking.ask import Form
from streams.connectors.langgraph.dialects.asking import ANSWER, Misfit
from streams.connectors.langgraph.json_schema import list_of, resolve
from streams.connectors.langgraph.json_values import json_text

__all__ = ["SchemaForm", "read_schema_form"]

_FORMATS = ("email", "uri", "date", "date-time")
_MAX_FORM_BYTES = 48 << 10  # of the 64 KiB of an ask
_MAX_LEVELS = 10  # of optional values within each other
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class SchemaForm:
    """A form and how its answer becomes a value. `single`: the value is that of the only field, not an object.

    `fixed`: members that the schema gives a constant. `nulls`: required members that may be null.
    """

    form: Mapping[str, Any]
    single: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)
    nulls: frozenset[str] = frozenset()

    def value_of(self, answer: Mapping[str, Any]) -> Any:
        """Returns the value of an answer. Raises Misfit if it has fields that the form does not have."""
        properties = self.form["properties"]
        if unknown := sorted(answer.keys() - properties.keys()):
            raise Misfit(f"the form has no field {unknown[0]}")
        values = {name: _whole(properties[name], value) for name, value in answer.items()}
        if self.single:
            if ANSWER not in values:
                raise Misfit("the answer is empty")
            return values[ANSWER]
        return {**self.fixed, **dict.fromkeys(self.nulls), **values}


def read_schema_form(schema: Any) -> SchemaForm | None:
    """Returns the form of a JSON Schema, None if the schema does not fit the subset."""
    root = schema if isinstance(schema, Mapping) else {}
    found = resolve(schema, root)
    if not found:
        return None
    made = _object_form(found, root) if found.get("type") == "object" else _single_form(found, root)
    if made is None or len(json_text(made.form).encode()) > _MAX_FORM_BYTES:
        return None
    try:
        Form.model_validate(made.form)
    except ValidationError:  # a limit of attn: names, lengths, number of choices
        return None
    return made


def _single_form(schema: Mapping[str, Any], root: Mapping[str, Any]) -> SchemaForm | None:
    made, optional = _field(schema, root)
    if made is None or optional:
        return None
    made.setdefault("title", "Answer")
    return SchemaForm({"type": "object", "properties": {ANSWER: made}, "required": [ANSWER]}, single=True)


def _object_form(schema: Mapping[str, Any], root: Mapping[str, Any]) -> SchemaForm | None:
    members = schema.get("properties")
    if not isinstance(members, Mapping) or any(name in schema for name in ("anyOf", "oneOf", "allOf")):
        return None
    required = [name for name in list_of(schema, "required") if isinstance(name, str)]
    properties: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    nulls: set[str] = set()
    for name, member in members.items():
        found = resolve(member, root)
        if found is not None and found.get("const", _ABSENT) is not _ABSENT:
            fixed[name] = found["const"]
            continue
        made, optional = _field(member, root)
        if made is None:
            return None
        properties[name] = made
        if optional and name in required:
            nulls.add(name)
    if not set(required) <= {*properties, *fixed}:
        return None
    form = {"type": "object", "properties": properties,
            "required": [name for name in required if name in properties and name not in nulls]}
    return SchemaForm(form, fixed=fixed, nulls=frozenset(nulls)) if properties else None


def _field(schema: Any, root: Mapping[str, Any], levels: int = 0) -> tuple[dict[str, Any] | None, bool]:
    """Returns the field of a form, or None if none fits, and whether the value may be null."""
    found = resolve(schema, root)
    if found is None or "allOf" in found or levels > _MAX_LEVELS:
        return None, False
    branches = list_of(found, "anyOf") or list_of(found, "oneOf")
    if branches:
        some = [branch for branch in branches if (resolve(branch, root) or {}).get("type") != "null"]
        if len(some) != 1 or len(some) == len(branches):
            return None, False
        made, _ = _field(some[0], root, levels + 1)
        return (None if made is None else {**made, **_texts(found)}), True
    build = {"string": _string, "integer": _number, "number": _number, "boolean": _boolean, "array": _choices}.get(
        str(found.get("type")))
    made = build(found, root) if build is not None else None
    if made is None:
        return None, False
    made |= _texts(found)
    default = found.get("default")
    if default is not None and _is_default(made, default):
        made["default"] = default
    return made, False


def _texts(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: text[:limit] for name, limit in (("title", 256), ("description", 4096))
            if isinstance(text := schema.get(name), str) and text}


def _is_default(made: Mapping[str, Any], default: Any) -> bool:
    match made["type"]:
        case "string":
            return isinstance(default, str) and default in made.get("enum", [default])
        case "boolean":
            return isinstance(default, bool)
        case "array":
            return isinstance(default, list) and all(one in made["items"]["enum"] for one in default)
    return isinstance(default, int | float | Decimal) and not isinstance(default, bool)


def _string(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    if "enum" in schema:
        choices = schema["enum"]
        return {"type": "string", "enum": choices} if _are_choices(choices) else None
    kept = {name: schema[name] for name in ("minLength", "maxLength") if name in schema}
    if schema.get("format") in _FORMATS:
        kept["format"] = schema["format"]
    return {"type": "string", **kept}


def _number(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    if "enum" in schema:
        return None
    kept: dict[str, Any] = {name: schema[name] for name in ("minimum", "maximum") if name in schema}
    if schema["type"] == "integer":
        for name, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            if isinstance(schema.get(name), int):
                kept.setdefault(bound, schema[name] + step)
    return {"type": schema["type"], **kept}


def _boolean(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if "enum" in schema else {"type": "boolean"}


def _choices(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    items = resolve(schema.get("items"), root)
    if items is None or items.get("type", "string") != "string" or not _are_choices(items.get("enum")):
        return None
    kept = {name: schema[name] for name in ("minItems", "maxItems") if name in schema}
    return {"type": "array", "items": {"type": "string", "enum": items["enum"]}, **kept}


def _are_choices(choices: Any) -> bool:
    return isinstance(choices, list) and bool(choices) and all(isinstance(choice, str) for choice in choices)


def _whole(field_of: Mapping[str, Any], value: Any) -> Any:
    """A Decimal without fraction of an integer field as int: a graph without validation gets no 3.0 for 3."""
    if field_of["type"] == "integer" and isinstance(value, Decimal) and abs(value) < 1 << 64:
        return int(value) if value == value.to_integral_value() else value
    return value
