"""JSON Schema of msgspec types, with the same bytes for all versions of msgspec and Python.

Versions differ in the whitespace of docstrings and in the order of `anyOf`. Both are normalised, because a test
compares the documents in `schemas/json` with those that the code generates.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec

__all__ = ["normalise", "schema", "schema_components"]


def schema(kind: Any) -> dict[str, Any]:
    """Returns the schema of one type; the types that it refers to are under `$defs`."""
    with _raw_defaults():
        return dict(normalise(msgspec.json.schema(kind)))


def schema_components(kinds: list[Any], ref_template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the schemas of several types, and name -> schema of the types that they refer to."""
    with _raw_defaults():
        schemas, components = msgspec.json.schema_components(kinds, ref_template=ref_template)
    return [normalise(schema) for schema in schemas], dict(normalise(components))


def normalise(node: Any) -> Any:
    """Returns the schema with one-line descriptions and sorted alternatives of `anyOf`, `null` last."""
    if isinstance(node, list):
        return [normalise(child) for child in node]
    if not isinstance(node, dict):
        return node
    result = {name: normalise(child) for name, child in node.items()}
    if isinstance(description := result.get("description"), str):
        result["description"] = " ".join(description.split())
    if isinstance(alternatives := result.get("anyOf"), list):
        result["anyOf"] = sorted(
            alternatives, key=lambda one: (one == {"type": "null"}, json.dumps(one, sort_keys=True)))
    return result


def _raw_defaults() -> Any:
    """Returns a patch for defaults of type Raw (an absent payload), which msgspec cannot encode and has no hook for."""
    return patch("msgspec._json_schema.to_builtins", partial(msgspec.to_builtins, enc_hook=lambda _: None))
