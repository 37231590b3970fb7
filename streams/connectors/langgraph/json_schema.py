"""Checks a value against the part of JSON Schema that Pydantic and tools use, before it is sent to a graph.

The graph checks the value again, with all keywords. A keyword that is not listed here accepts every value, so that
nothing is refused that the graph might accept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

__all__ = ["list_of", "resolve", "schema_error"]

_MAX_STEPS = 40  # levels of schemas within each other, and references that lead to references
_MAX_CHECKS = 20_000  # of one value: branches that refer to each other would take exponentially many

Schema = Mapping[str, Any]


def resolve(schema: Any, root: Schema) -> Schema | None:
    """Returns a schema without `$ref`; members beside `$ref` win. None if it is no object or the reference is foreign,
    missing or circular."""
    for _ in range(_MAX_STEPS):
        if not isinstance(schema, Mapping):
            return None
        reference = schema.get("$ref")
        if reference is None:
            return schema
        target = _lookup(reference, root)
        if target is None:
            return None
        schema = {**target, **{name: member for name, member in schema.items() if name != "$ref"}}
    return None


def list_of(schema: Schema, name: str) -> list[Any]:
    """Returns a member that is a list; any other one counts as an empty list."""
    found = schema.get(name)
    return found if isinstance(found, list) else []


def _lookup(reference: Any, root: Schema) -> Schema | None:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    target: Any = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or name not in target:
            return None
        target = target[name]
    return target if isinstance(target, Mapping) else None


def schema_error(schema: Any, value: Any, root: Schema, at: str = "") -> str | None:
    """Returns why the value does not match, with its path, such as `args.delay: must be an integer`; else None.

    A value that takes more than 20,000 checks counts as matching from there on.
    """
    return _Check(root).error(schema, value, at, 0)


class _Check:
    """One check of a value. `left`: schemas that may still be tried."""

    def __init__(self, root: Schema) -> None:
        self.root, self.left = root, _MAX_CHECKS

    def error(self, schema: Any, value: Any, at: str, steps: int) -> str | None:
        self.left -= 1
        found = resolve(schema, self.root)
        if found is None or steps > _MAX_STEPS or self.left < 0:
            return None
        return (_own_error(found, value, at) or _bounds_error(found, value, at)
                or self._members_error(found, value, at, steps) or self._branches_error(found, value, at, steps))

    def _members_error(self, schema: Schema, value: Any, at: str, steps: int) -> str | None:
        if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
            return _first(self.error(schema["items"], member, f"{at}[{number}]", steps + 1)
                          for number, member in enumerate(value))
        if not isinstance(value, Mapping):
            return None
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        for name in list_of(schema, "required"):
            if isinstance(name, str) and name not in value:
                return _at(f"{at}.{name}", "is required")
        if schema.get("additionalProperties") is False and (extra := sorted(value.keys() - properties.keys())):
            return _at(f"{at}.{extra[0]}", "is not expected")
        return _first(self.error(properties[name], value[name], f"{at}.{name}", steps + 1)
                      for name in value if name in properties)

    def _branches_error(self, schema: Schema, value: Any, at: str, steps: int) -> str | None:
        for name in ("anyOf", "oneOf"):
            branches = list_of(schema, name)
            errors = [self.error(branch, value, at, steps + 1) for branch in branches]
            if branches and None not in errors:
                named = _named_branch(branches, value, self.root)
                return errors[named] if named is not None else _at(
                    at, f"fits none of {len(branches)} forms: {errors[0]}")
        return _first(self.error(part, value, at, steps + 1) for part in list_of(schema, "allOf"))


def _own_error(schema: Schema, value: Any, at: str) -> str | None:
    if "const" in schema and not _equal(schema["const"], value):
        return _at(at, f"must be {str(schema['const'])[:80]!r}")
    if isinstance(schema.get("enum"), list) and not any(_equal(one, value) for one in schema["enum"]):
        return _at(at, f"must be one of {', '.join(str(one)[:40] for one in schema['enum'][:20])}")
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds and not any(_is_a(kind, value) for kind in kinds):
        return _at(at, f"must be {' or '.join(_NAMES.get(str(kind), str(kind)) for kind in kinds)}")
    return None


def _named_branch(branches: list[Any], value: Any, root: Schema) -> int | None:
    """The branch whose constant `type` the value has: its error is the one that helps."""
    for number, branch in enumerate(branches):
        properties = (resolve(branch, root) or {}).get("properties")
        kind = resolve(properties.get("type"), root) if isinstance(properties, Mapping) else None
        if kind and isinstance(value, Mapping) and "const" in kind and kind["const"] == value.get("type"):
            return number
    return None


def _bounds_error(schema: Schema, value: Any, at: str) -> str | None:
    size = len(value) if isinstance(value, str | list) else None
    least, most = (("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems"))
    if size is not None:
        if _is_number(schema.get(least)) and size < schema[least]:
            return _at(at, f"needs at least {schema[least]}, has {size}")
        if _is_number(schema.get(most)) and size > schema[most]:
            return _at(at, f"takes at most {schema[most]}, has {size}")
    if _is_number(value):
        for name, fails in _LIMITS.items():
            limit = schema.get(name)
            if _is_number(limit) and fails(value, limit):
                return _at(at, f"violates {name} {limit}")
    return None


_LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, limit: value < limit, "maximum": lambda value, limit: value > limit,
    "exclusiveMinimum": lambda value, limit: value <= limit, "exclusiveMaximum": lambda value, limit: value >= limit,
}
_NAMES = {"object": "an object", "array": "a list", "string": "a string", "integer": "an integer",
          "number": "a number", "boolean": "true or false", "null": "null"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_a(kind: Any, value: Any) -> bool:
    match kind:
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "number":
            return _is_number(value)
        case "integer":
            if isinstance(value, Decimal):
                return value == value.to_integral_value()  # never int(): 1e999999999 would have a billion digits
            return _is_number(value) and (isinstance(value, int) or float(value).is_integer())
    return True


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _first(errors: Any) -> str | None:
    return next((error for error in errors if error is not None), None)


def _at(path: str, problem: str) -> str:
    path = path.lstrip(".")
    return f"{path}: {problem}" if path else problem
