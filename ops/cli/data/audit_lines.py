"""Facts of the audit trail as lines: JSON, or CSV that a spreadsheet does not run. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from schemas.scalars import format_timestamp
from streams.history.clickhouse.audit import FIELDS, AuditFact

__all__ = ["COLUMNS", "csv_line", "json_line", "row_of"]

COLUMNS = (*FIELDS, "cursor")
_TIMES = ("occurred_at", "accepted_at")

# Characters with which spreadsheets begin a formula, also full-width ones, at the start of a value or after a character
# that a spreadsheet with another separator takes for the start of a cell.
_FORMULA = re.compile(r"(^|[;,|\"'])(?=\s*[=+\-@＝＋－＠])")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029]")  # control characters that JSON leaves as they are


def row_of(fact: AuditFact, cursor: str) -> dict[str, Any]:
    """Returns the fact with the names of COLUMNS. `cursor`: continues after this fact."""
    row = dict(zip(FIELDS, fact.values, strict=True))
    for name in _TIMES:
        row[name] = format_timestamp(row[name])
    return row | {"cursor": cursor}


def json_line(row: dict[str, Any]) -> str:
    """Returns one line of JSON, exact, without an unescaped control character."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def csv_line(values: Sequence[Any]) -> str:
    """Returns one line of CSV (RFC 4180), each value quoted. Control characters are blanks, and a `'` precedes what a
    spreadsheet would take for a formula (CWE-1236): use JSON where the exact text matters."""
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'", _CONTROLS.sub(" ", value))
    return str(value).lower() if isinstance(value, bool) else str(value)
