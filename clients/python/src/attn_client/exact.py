"""JSON whose numbers keep their digits.

`json` reads 0.12345678901234567890 as a float with 17 digits. Arguments that a person approved must reach the action
as they were shown, so such a number is read as a `Decimal`, and a `Decimal` is written as a number.
"""

from __future__ import annotations

import json
import re
import secrets
from decimal import Decimal
from typing import Any

__all__ = ["canonical", "dumps", "loads"]

_MARK = f"{secrets.token_hex(16)}:"  # random: no text of an event can imitate a number
_MARKED = re.compile(f'"{_MARK}([^"]*)"')


def _read_number(text: str) -> float | Decimal:
    number, exact = float(text), Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def loads(text: str | bytes) -> Any:
    """Parses JSON. A number that a float cannot represent becomes a `Decimal`. Raises ValueError if it is no JSON."""
    return json.loads(text, parse_float=_read_number)


def _default(value: Any) -> Any:
    if isinstance(value, Decimal) and value.is_finite():
        return f"{_MARK}{value}"
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r:.100}")


def dumps(value: Any, *, sort: bool = False) -> str:
    """Serialises JSON; a `Decimal` becomes a number. Raises TypeError or ValueError if the value is not JSON."""
    text = json.dumps(value, default=_default, allow_nan=False, sort_keys=sort, separators=(",", ":"))
    return _MARKED.sub(r"\1", text)


def canonical(value: Any) -> bytes:
    """Returns the same bytes for equal values, whatever the order of their members."""
    return dumps(value, sort=True).encode()
