"""JSON Schema of msgspec types, the same bytes with every version of msgspec and Python.

The versions differ in the whitespace of docstrings and in the order of `anyOf`; both are normalised here, since the
documents in `schemas/json` are compared with what the code makes.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from unittest.mock import patch

import msgspec

__all__ = ["normalise", "schema", "schema_components"]


def schema(kind: Any) -> dict[str, Any]:
    """The schema of one type, with the types it refers to under `$defs`."""
    with _raw_defaults():
        return dict(normalise(msgspec.json.schema(kind)))


def schema_components(kinds: list[Any], ref_template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schemas of several types, and those of the types they refer to by name."""
    with _raw_defaults():
        found, components = msgspec.json.schema_components(kinds, ref_template=ref_template)
    return [normalise(one) for one in found], dict(normalise(components))


def normalise(found: Any) -> Any:
    """Descriptions become one line; the alternatives of `anyOf` are sorted, `null` last."""
    if isinstance(found, list):
        return [normalise(one) for one in found]
    if not isinstance(found, dict):
        return found
    made = {name: normalise(one) for name, one in found.items()}
    if isinstance(about := made.get("description"), str):
        made["description"] = " ".join(about.split())
    if isinstance(alternatives := made.get("anyOf"), list):
        made["anyOf"] = sorted(
            alternatives, key=lambda one: (one == {"type": "null"}, json.dumps(one, sort_keys=True)))
    return made


def _raw_defaults() -> Any:
    """msgspec cannot encode a default of type Raw (an absent payload) and has no hook for it."""
    return patch("msgspec._json_schema.to_builtins", partial(msgspec.to_builtins, enc_hook=lambda _: None))
