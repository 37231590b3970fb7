"""Bytes and times: the few conversions everything shares.

Inside attn a time is an `int`: microseconds since 1970-01-01T00:00:00Z. Outside it is RFC 3339 text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = [
    "DAY", "HOUR", "LATEST", "MINUTE", "SECOND", "format_timestamp", "is_valid_unicode", "parse_clamped_timestamp",
    "parse_timestamp",
]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# ClickHouse's DateTime64 and a target added to any accepted time must both fit: narrower than RFC 3339.
EARLIEST, LATEST = 0, 7_258_118_400 * SECOND  # 1970-01-01 .. 2200-01-01

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_2000_YEARS = 730_485 * DAY
_RFC3339 = re.compile(
    r"(\d{4})(-\d\d-\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def parse_timestamp(text: str) -> int:
    """RFC 3339 with an offset -> microseconds since the epoch; finer digits are cut.

    Raises ValueError with what is wrong.
    """
    us = _parse_microseconds(text)
    if not EARLIEST <= us < LATEST:
        raise ValueError("must lie between 1970 and 2200")
    return us


def parse_clamped_timestamp(text: str) -> int | None:
    """As `parse_timestamp`, of a time that need not be given. None before 1970: Go writes "not set" as the year 1.

    From 2200 on it is the last microsecond before: "never" is often written as the year 9999.
    """
    us = _parse_microseconds(text)
    return None if us < EARLIEST else min(us, LATEST - 1)


def _parse_microseconds(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-05-20T08:14:22Z")
    year, day, hour, minute, second, fraction, offset = found.groups()
    leap = second == "60"  # RFC 3339 allows it; it counts as the second after
    micros = (fraction or ".")[1:7].ljust(6, "0")
    zone = "+00:00" if offset in "Zz" else offset
    first = year == "0000"  # RFC 3339 has this year, Python has not: it is as the year 2000, 2000 years earlier
    try:
        moment = datetime.fromisoformat(
            f"{'2000' if first else year}{day}T{hour}:{minute}:{'59' if leap else second}.{micros}{zone}")
    except ValueError as error:
        raise ValueError("is not a date that exists") from error
    return (moment - _EPOCH) // _MICROSECOND + (SECOND if leap else 0) - (_2000_YEARS if first else 0)


def format_timestamp(us: int) -> str:
    """Microseconds since the epoch -> RFC 3339 in UTC, with a fraction only where there is one."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def is_valid_unicode(value: str) -> bool:
    """False where half of a surrogate pair is in it: JSON can spell that, but no answer and no record could hold it."""
    return not any("\ud800" <= char <= "\udfff" for char in value)
