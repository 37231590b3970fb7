"""Exports the facts of a period as Parquet files, one per month or day. ClickHouse creates their content;
this process writes it as the response arrives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from streams.history.clickhouse.client import ClickHouseError, translate_errors
from streams.history.clickhouse.columns import COLUMNS
from streams.runtime.private_files import replace_atomically

__all__ = ["Broken", "File", "Span", "export", "spans"]

Span = Literal["month", "day"]

_CHUNK = 1 << 20  # bytes
_MAGIC = b"PAR1"  # at the start and the end of a Parquet file
_QUERY = """
SELECT $what FROM $activity
WHERE occurred_at >= fromUnixTimestamp64Second({low:Int64}, 'UTC')
  AND occurred_at < fromUnixTimestamp64Second({high:Int64}, 'UTC')
"""
_ORDER = "ORDER BY workspace_id, occurred_at, event_id"


class Broken(ClickHouseError):
    """The response is not a complete Parquet file."""


@dataclass(frozen=True, slots=True)
class File:
    path: Path
    rows: int
    size: int


def spans(begin: datetime, end: datetime, by: Span) -> Iterator[tuple[str, datetime, datetime]]:
    """Yields name, start, and end of each month or day that overlaps [begin, end), cut to that range."""
    low = begin
    while low < end:
        if by == "day":
            following = datetime(low.year, low.month, low.day, tzinfo=low.tzinfo) + timedelta(days=1)
        else:
            following = datetime(low.year + low.month // 12, low.month % 12 + 1, 1, tzinfo=low.tzinfo)
        yield f"{low:%Y-%m-%d}" if by == "day" else f"{low:%Y-%m}", low, min(following, end)
        low = following


def export(client: Any, database: str, begin: datetime, end: datetime, by: Span, directory: Path) -> Iterator[File]:
    """Writes the files of [begin, end), by the time of the events. A month or day without facts has no file. Each file
    replaces one of the same name atomically. Raises ClickHouseUnavailable, Broken, OSError."""
    query = _QUERY.replace("$activity", f"`{database}`.activity")
    with translate_errors():
        parameters = {"low": int(begin.timestamp()), "high": int(end.timestamp())}
        result = client.query(query.replace("$what", "DISTINCT toDate(occurred_at)"), parameters=parameters)
    days = {day for day, in result.result_rows}
    count, select = query.replace("$what", "count()"), query.replace("$what", ", ".join(COLUMNS)) + _ORDER
    for name, low, high in spans(begin, end, by):
        if not any(f"{day}".startswith(name) for day in days):
            continue
        given = {"low": int(low.timestamp()), "high": int(high.timestamp())}
        with translate_errors():
            (rows,), = client.query(count, parameters=given).result_rows
        if rows:
            path = directory / f"activity-{name}.parquet"
            yield File(path, rows, _write(client, select, given, path))


def _write(client: Any, sql: str, given: dict[str, int], path: Path) -> int:
    """Writes one file. Returns its size in bytes."""
    with replace_atomically(path, path.with_name(f".{path.name}.{os.getpid()}")) as draft:
        with draft.open("wb") as out, translate_errors():
            # With wait_end_of_query the response starts after the query has ended, so no error is in the data.
            stream = client.raw_stream(sql, parameters=given, fmt="Parquet", settings={"wait_end_of_query": 1})
            while chunk := stream.read(_CHUNK):
                out.write(chunk)
            stream.close()
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        with draft.open("rb") as written:
            head = written.read(len(_MAGIC))
            written.seek(max(0, size - len(_MAGIC)))
            if head != _MAGIC or written.read() != _MAGIC:
                raise Broken(f"{path.name}: the response of ClickHouse is not a complete Parquet file")
    return size
