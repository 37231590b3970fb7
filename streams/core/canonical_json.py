"""Canonical JSON by RFC 8785 (JCS): one text for every spelling of the same JSON value.

Object members are sorted by their UTF-16 code units, strings have the shortest escapes, and numbers are written as
ECMAScript writes doubles. RFC 8785 has no form for an integer that a double rounds, such as 9007199254740993, nor for
a number beyond doubles, such as 1e400. Both keep the digits of their source here, so that two identifiers that differ
in the last digit have different digests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

__all__ = ["canonical_json", "exact_json", "read_exact"]


class _Digits(str):
    """A JSON number as its source wrote it."""

    __slots__ = ()


def read_exact(text: bytes) -> Any:
    """Parses JSON text; numbers keep their digits for `canonical_json`.

    The caller has bounded the text and its depth (`streams.core.json_text.read`). Raises ValueError if it is not JSON.
    """
    return json.loads(text, parse_int=_Digits, parse_float=_Digits, parse_constant=_refuse_constant)


def canonical_json(value: Any) -> bytes:
    """Returns the canonical UTF-8 text of a value made of dict, list, str, bool, None, int, float or `read_exact`."""
    return _text(value, _number).encode()


def exact_json(value: Any) -> bytes:
    """Returns the text of `canonical_json`, except that each number is written as its source wrote it.

    A decimal such as 12.50 or 0.10000000000000000001 keeps its digits, and 1.0 stays a number with a fraction.
    """
    return _text(value, str).encode()


def _text(value: Any, number: Callable[[str], str]) -> str:
    if isinstance(value, _Digits):
        return number(value)
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return number(repr(value))
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(
            f"{json.dumps(name, ensure_ascii=False)}:{_text(item, number)}" for name, item in members) + "}"
    return "[" + ",".join(_text(item, number) for item in value) + "]"


def _number(digits: str) -> str:
    """ECMAScript's text of the double; `digits` where RFC 8785 has none: no double, or an integer that it rounds."""
    double = float(digits)
    if math.isinf(double):
        return digits
    if digits.lstrip("-").isdigit() and int(double) != int(digits):
        return digits
    return _ecmascript(double)


def _ecmascript(double: float) -> str:
    """Number::toString of ECMAScript, from Python's shortest digits: they differ in where the exponent begins."""
    if double == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(double)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    point = len(digits) + int(exponent)  # digits before the decimal point
    if len(text) <= point <= 21:
        body = text + "0" * (point - len(text))
    elif 0 < point <= 21:
        body = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        body = f"0.{'0' * -point}{text}"
    else:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        body = f"{text[0]}{fraction}e{point - 1:+d}"
    return f"-{body}" if sign else body


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
