"""Reads JSON text of producers: with a byte order mark, lone surrogate escapes, and numbers of any length.

RFC 8259 allows all three, and parsers disagree on them. So all JSON from outside goes through `read_json`.
"""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any

import orjson

__all__ = ["MAX_DEPTH", "read_json"]

MAX_DEPTH = 100  # levels; parsers have different limits, and all are higher than this

_BOM = b"\xef\xbb\xbf"
# The first four bytes of a JSON text show its encoding: two ASCII characters, or a byte order mark (RFC 4627, 3).
_ENCODINGS = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|\0\0\0[^\0]|[^\0]\0\0\0", re.DOTALL), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|\0[^\0]|[^\0]\0", re.DOTALL), "UTF-16"),
)
# A surrogate pair or a lone surrogate (group 2), after an even number of backslashes (group 1).
_ESCAPE = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([dD][89a-fA-F][0-9a-fA-F]{2}))")
# Integers of at most this many digits are parsed; a longer one exceeds a double, and Python refuses 4300 digits or
# more.
_MAX_EXACT_DIGITS = 400


def read_json(value: bytes) -> tuple[bytes, Any]:
    """Returns normalised text that every parser accepts, and its parsed value.

    The text is `value` without a byte order mark, and with U+FFFD for lone surrogates; numbers keep their digits. A
    number beyond a double is parsed as infinity. Raises ValueError with the reason if the value is not JSON, not UTF-8,
    or nested deeper than MAX_DEPTH.
    """
    if value.startswith(_BOM):  # removed here: some versions of orjson accept it, msgspec does not
        value = value[len(_BOM):]
        if value.startswith(_BOM):
            raise ValueError("it begins with two byte order marks")
    try:
        return value, _check_depth(value, orjson.loads(value))
    except orjson.JSONDecodeError:
        pass
    text = _repaired(value)
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = _with_any_numbers(text)
    return text, _check_depth(text, body)


def _check_depth(text: bytes, body: Any) -> Any:
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return body


def _depth(body: Any) -> int:
    """Returns the nesting depth of objects and arrays. Iterative, because deep nesting would exceed the recursion
    limit."""
    depth, layer = 0, [body]
    while layer := [node for node in layer if isinstance(node, dict | list)]:
        depth += 1
        layer = [child for node in layer for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def _repaired(value: bytes) -> bytes:
    for start, encoding in _ENCODINGS:
        if start.match(value):
            raise ValueError(f"the text is in {encoding}; JSON must be in UTF-8")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{value[error.start]:02x} at offset {error.start} is not UTF-8") from None
    return _ESCAPE.sub(lambda match: match[1] + rb"\ufffd" if match[2] else match[0], value)


def _with_any_numbers(text: bytes) -> Any:
    """Parses text that orjson refused: it may have a number beyond a double. Raises ValueError with the position if
    not."""
    try:
        return json.loads(text, parse_int=_integer, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_EXACT_DIGITS else -inf if digits.startswith("-") else inf


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
