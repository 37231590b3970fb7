"""Reads the mapping file of a generic webhook: TOML with JMESPath. `streams.connectors.mappings.generic` describes it.

Pure.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from schemas.topics import DECISION_REPORTS, TOPIC_OF_TYPE
from streams.connectors.mappings.expressions import Expression, ExpressionError, compile_expression

__all__ = ["GenericMapping", "MappingFileError", "Rule", "Template", "parse_mapping"]

MAX_FILE_BYTES = 256 << 10
_MAX_RULES = 50
_MAX_DEPTH = 12  # levels of `data`
_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_RULE_KEYS = frozenset({"each", "when", "type", "subject", "time", "id", "source", "data"})
_CONTEXT = frozenset({"payload", "item", "index", "headers", "received"})


class MappingFileError(Exception):
    """A mapping file cannot be used. `str(error)` names the place in the file and the problem."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with expressions: texts and expressions in turn, each with its own text."""

    parts: tuple[tuple[str, Expression | None], ...]

    @property
    def expression(self) -> Expression | None:
        """The expression, if the text is nothing else: its value may have any type."""
        return self.parts[0][1] if len(self.parts) == 1 else None

    @property
    def text(self) -> str:
        return "".join(f"{{{{{text}}}}}" if expression is not None else text for text, expression in self.parts)


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[event]]`. `fields`: type, subject, time, id and source, as templates. `data`: with templates as leaves."""

    each: Expression | None
    when: Expression | None
    fields: dict[str, Template]
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class GenericMapping:
    """A parsed mapping file. `source`: of the events of rules that name none."""

    rules: tuple[Rule, ...]
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    source: str = "/hooks"


def parse_mapping(text: str, source: str = "/hooks") -> GenericMapping:
    """Returns the mapping of a file's text. Raises MappingFileError with the place and the problem."""
    if len(text.encode(errors="replace")) > MAX_FILE_BYTES:
        raise MappingFileError(f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MappingFileError(f"not TOML: {error}") from None
    if unknown := sorted(content.keys() - {"event", "lookup"}):
        raise MappingFileError(f"{unknown[0]}: is not known; a mapping has [[event]] and [lookup.NAME]")
    rules = content.get("event")
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, dict) for rule in rules):
        raise MappingFileError("event: at least one [[event]] is needed")
    if len(rules) > _MAX_RULES:
        raise MappingFileError(f"event: {len(rules)} rules; at most {_MAX_RULES} are accepted")
    tables = content.get("lookup", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise MappingFileError("lookup: must have tables, such as [lookup.priority]")
    parsed = tuple(_rule(rule, f"event.{number}") for number, rule in enumerate(rules))
    return GenericMapping(parsed, tables, source)


def _rule(rule: dict[str, Any], place: str) -> Rule:
    if unknown := sorted(rule.keys() - _RULE_KEYS):
        raise MappingFileError(f"{place}.{unknown[0]}: is not known; a rule has {', '.join(sorted(_RULE_KEYS))}")
    for name in ("type", "subject", "time"):
        if name not in rule:
            raise MappingFileError(f"{place}.{name}: is missing")
    fields = {}
    for name in ("type", "subject", "time", "id", "source"):
        if name in rule:
            if not isinstance(rule[name], str) or not rule[name].strip():
                raise MappingFileError(f"{place}.{name}: must be text")
            fields[name] = _template(rule[name], f"{place}.{name}")
    if "id" not in fields and "received" in fields["time"].text:
        raise MappingFileError(f"{place}.id: is needed, because the time is that of the request: a repeated delivery "
                               "must have the same id")
    kind = rule["type"]
    if "{{" not in kind and kind not in TOPIC_OF_TYPE and kind not in DECISION_REPORTS:
        raise MappingFileError(f"{place}.type: {kind[:100]!r} is not an event type of attn")
    data = rule.get("data", {})
    if not isinstance(data, dict):
        raise MappingFileError(f"{place}.data: must be a table")
    return Rule(_expression(rule, "each", place), _expression(rule, "when", place), fields,
                 _templates(data, f"{place}.data", 0))


def _expression(rule: dict[str, Any], name: str, place: str) -> Expression | None:
    if name not in rule:
        return None
    if not isinstance(rule[name], str):
        raise MappingFileError(f"{place}.{name}: must be text with an expression")
    return _compile(rule[name], f"{place}.{name}")


def _templates(node: Any, place: str, depth: int) -> Any:
    """Returns a part of `data` with each text parsed."""
    if depth > _MAX_DEPTH:
        raise MappingFileError(f"{place}: nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, dict):
        return {name: _templates(child, f"{place}.{name}", depth + 1) for name, child in node.items()}
    if isinstance(node, list):
        return [_templates(child, f"{place}.{index}", depth + 1) for index, child in enumerate(node)]
    if isinstance(node, str):
        return _template(node, place) if "{{" in node else node
    if isinstance(node, bool | int | float):
        return node
    return node.isoformat()  # a date or time of TOML


def _template(text: str, place: str) -> Template:
    parts: list[tuple[str, Expression | None]] = []
    for number, part in enumerate(_TEMPLATE.split(text)):
        if number % 2:
            parts.append((part, _compile(part, place)))
        elif part:
            if "{{" in part:
                raise MappingFileError(f"{place}: {{{{ without }}}}")
            parts.append((part, None))
    return Template(tuple(parts))


def _compile(text: str, place: str) -> Expression:
    try:
        parsed = compile_expression(text.strip())
    except ExpressionError as error:
        raise MappingFileError(f"{place}: {error}") from None
    if unknown := _unknown_name(parsed.parsed):
        names = ", ".join(sorted(_CONTEXT))
        raise MappingFileError(f"{place}: {unknown[:100]!r} is not known; expressions begin with {names}")
    return parsed


def _unknown_name(node: dict[str, Any]) -> str | None:
    """Returns a name that an expression reads at its begin and that does not exist; a misspelt one would be null."""
    while node["type"] in ("subexpression", "index_expression", "projection", "filter_projection", "value_projection",
                           "flatten", "pipe", "slice") and node["children"] and isinstance(node["children"][0], dict):
        node = node["children"][0]
    return str(node["value"]) if node["type"] == "field" and node["value"] not in _CONTEXT else None
