"""Reads and writes JSON with the digits of its numbers, and names numbers that LangGraph's parser would round.

A LangGraph server parses numbers as 64-bit integers or doubles. An answer with a number that would be rounded is
refused before it is sent, because the agent would act on another number than the person wrote.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from streams.connectors.attn_client import ExactNumber
from streams.core.domain.answers import read_values

__all__ = ["digest_of", "exact_numbers", "json_text", "levels_of", "read_values", "rounded_number"]

_MIN_INTEGER, _MAX_INTEGER = -(1 << 63), (1 << 64) - 1  # of orjson, which LangGraph servers use


def json_text(value: Any, *, sort: bool = False, indent: int | None = None) -> str:
    """Returns the JSON text of a value made of dict, list, str, bool, None, int, float and Decimal.

    Decimals keep their digits. Raises ValueError if a number is not finite.
    """
    return "".join(_parts(value, sort, indent, 0))


def _parts(value: Any, sort: bool, indent: int | None, level: int) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        inner = "" if indent is None else "\n" + " " * indent * (level + 1)
        outer = "" if indent is None else "\n" + " " * indent * level
        members: Any = value if isinstance(value, list) else (sorted if sort else list)(value)
        yield opening
        for number, member in enumerate(members):
            yield f"{',' if number else ''}{inner}" if indent is not None or number == 0 else ", "
            if isinstance(value, dict):
                yield json.dumps(str(member), ensure_ascii=False) + ": "
                member = value[member]
            yield from _parts(member, sort, indent, level + 1)
        yield outer + closing
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is not JSON")
        yield str(value)
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)


def exact_numbers(value: Any) -> Any:
    """Returns the value with a Decimal for each `ExactNumber` of AttnClient."""
    if isinstance(value, dict):
        return {name: exact_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [exact_numbers(member) for member in value]
    return Decimal(value.text) if isinstance(value, ExactNumber) else value


def digest_of(value: Any) -> str:
    """Returns 16 hex digits of the SHA-256 of a JSON value; the order of members does not matter."""
    return hashlib.sha256(json_text(value, sort=True).encode()).hexdigest()[:16]


def levels_of(value: Any) -> int:
    """Returns how deep objects and lists of a value are nested."""
    levels, members = 0, [value]
    while members := [member for one in members if isinstance(one, dict | list)
                      for member in (one.values() if isinstance(one, dict) else one)]:
        levels += 1
    return levels


def rounded_number(value: Any) -> str | None:
    """Returns the text of the first number that a LangGraph server would round, None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, dict | list):
        members = value.values() if isinstance(value, dict) else value
        return next((found for member in members if (found := rounded_number(member)) is not None), None)
    if isinstance(value, int):
        return None if _MIN_INTEGER <= value <= _MAX_INTEGER else str(Decimal(value))
    if isinstance(value, Decimal):
        return None if _survives(value) else str(value)
    return None


def _survives(value: Decimal) -> bool:
    double = float(value)
    return double - double == 0 and Decimal(repr(double)) == value
