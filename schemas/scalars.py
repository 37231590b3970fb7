"""Timestamps (microseconds <-> RFC 3339), field types of events (ids, roles, times), and the database of a URL.

Inside attn a time is an `int`: microseconds since 1970-01-01T00:00:00Z. In events and API responses it is RFC 3339
text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

__all__ = [
    "DAY", "EMPTY_TO_NONE", "HOUR", "LATEST", "MINUTE", "ROLES", "SECOND", "ClampedTimestamp", "Id", "OptionalId",
    "Role", "Timestamp", "empty_to_none", "format_timestamp", "is_valid_unicode", "not_blank",
    "parse_clamped_timestamp", "parse_timestamp", "split_database_url", "validate_clamped_timestamp",
    "validate_timestamp",
]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Accepted times, from EARLIEST to before LATEST. Narrower than RFC 3339, because a priority's target added to such a
# time must fit ClickHouse's DateTime64.
EARLIEST, LATEST = 0, 7_258_118_400 * SECOND  # 1970-01-01 .. 2200-01-01

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_2000_YEARS = 730_485 * DAY
_RFC3339 = re.compile(
    r"(\d{4})(-\d\d-\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def parse_timestamp(text: str) -> int:
    """Returns the microseconds of an RFC 3339 time with an offset; finer digits are truncated.

    Raises ValueError with the reason if the text is no such time, or lies outside of 1970 to 2200.
    """
    us = _parse_microseconds(text)
    if not EARLIEST <= us < LATEST:
        raise ValueError("must lie between 1970 and 2200")
    return us


def parse_clamped_timestamp(text: str) -> int | None:
    """Returns the microseconds of an optional RFC 3339 time, clamped to the accepted times.

    None for a time before 1970: Go writes the year 1 for "not set". A time from 2200 on becomes the last microsecond
    before 2200: the year 9999 often stands for "never". Raises ValueError if the text is no RFC 3339 time.
    """
    us = _parse_microseconds(text)
    return None if us < EARLIEST else min(us, LATEST - 1)


def _parse_microseconds(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-05-20T08:14:22Z")
    year, day, hour, minute, second, fraction, offset = match.groups()
    leap = second == "60"  # RFC 3339 allows leap seconds; one counts as the second after it
    micros = (fraction or ".")[1:7].ljust(6, "0")
    zone = "+00:00" if offset in "Zz" else offset
    is_year_0 = year == "0000"  # RFC 3339 allows it, Python does not: computed as the year 2000, minus 2000 years
    try:
        moment = datetime.fromisoformat(
            f"{'2000' if is_year_0 else year}{day}T{hour}:{minute}:{'59' if leap else second}.{micros}{zone}")
    except ValueError as error:
        raise ValueError("is not a date that exists") from error
    return (moment - _EPOCH) // _MICROSECOND + (SECOND if leap else 0) - (_2000_YEARS if is_year_0 else 0)


def format_timestamp(us: int) -> str:
    """Returns microseconds as RFC 3339 in UTC, without a fraction if it is zero."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def is_valid_unicode(value: str) -> bool:
    """Returns whether the text has no lone surrogate. JSON can spell one with an escape, but UTF-8 cannot encode it."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def split_database_url(url: str, default: str) -> tuple[str, str]:
    """Returns the URL without its path, and the database that the path names, else `default`."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="")), unquote(parts.path.strip("/")) or default


def validate_timestamp(value: Any) -> int:
    """Returns the microseconds of a required time of an event."""
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return parse_timestamp(value)


def validate_clamped_timestamp(value: Any) -> int | None:
    """Returns the microseconds of an optional time of an event; "" means none."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return parse_clamped_timestamp(value)


def empty_to_none(value: Any) -> Any:
    """Returns None for "". Some producers cannot omit a text field and send "".

    Not applied to targets: an item for one user must not become an item for all.
    """
    return None if value == "" else value


def not_blank(value: str) -> str:
    """Returns the text. Raises ValueError if it has nothing but white space."""
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Role = Literal["OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER"]
ROLES: tuple[Role, ...] = ("OWNER", "ADMIN", "MANAGER", "MEMBER", "VIEWER")
EMPTY_TO_NONE = BeforeValidator(empty_to_none)
_DATE_TIME = WithJsonSchema({"type": "string", "format": "date-time"})
_OPTIONAL_DATE_TIME = WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]})
Timestamp = Annotated[int, BeforeValidator(validate_timestamp), _DATE_TIME]
ClampedTimestamp = Annotated[int | None, BeforeValidator(validate_clamped_timestamp), _OPTIONAL_DATE_TIME]
# An identity: not blank, and short enough for a key in every store.
Id = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(not_blank)]
OptionalId = Annotated[Id | None, EMPTY_TO_NONE]
