"""Reads JSON text from producers as RFC 8259 allows it: with a byte order mark, escapes of half a surrogate pair, and
numbers of any length. Parsers disagree on all three, so every reader of foreign JSON goes through `read`.
"""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any

import orjson

__all__ = ["MAX_DEPTH", "read_json"]

MAX_DEPTH = 100  # levels: the parsers on an event's way give up at different depths, so none may come near

_BOM = b"\xef\xbb\xbf"
# The first four bytes of a JSON text tell its encoding: two ASCII characters, or a byte order mark (RFC 4627, 3).
_ENCODINGS = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|\0\0\0[^\0]|[^\0]\0\0\0", re.DOTALL), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|\0[^\0]|[^\0]\0", re.DOTALL), "UTF-16"),
)
# A whole pair or half of one (group 2), behind all the backslashes before it (group 1): those are escaped, two by two.
_ESCAPE = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([dD][89a-fA-F][0-9a-fA-F]{2}))")
# Digits of an integer read as one; a longer one is beyond a double, and Python refuses 4300 and more.
_MAX_EXACT_DIGITS = 400


def read_json(value: bytes) -> tuple[bytes, Any]:
    """The text as every parser takes it, and what it says. A number beyond a double reads as infinity.

    The text is `value` without a byte order mark, with U+FFFD for half a surrogate pair; numbers keep their digits.
    Raises ValueError with the reason where it is not JSON, not UTF-8 or nested deeper than MAX_DEPTH.
    """
    if value.startswith(_BOM):  # here, as some versions of orjson take it and msgspec never does
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
    """How deep objects and arrays are nested; without recursion, which is what it protects."""
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
    return _ESCAPE.sub(lambda found: found[1] + rb"\ufffd" if found[2] else found[0], value)


def _with_any_numbers(text: bytes) -> Any:
    """What orjson refuses may be a number beyond a double. Else the error says what is wrong and where."""
    try:
        return json.loads(text, parse_int=_integer, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_EXACT_DIGITS else -inf if digits.startswith("-") else inf


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
