"""The server's clock, as its responses show it. The clock of this machine does not matter: it may be years off."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

__all__ = ["ServerClock", "parse_time"]

_STEPPED = 10.0  # seconds: a larger difference means that the server's clock was set back
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")
_LEAST = timedelta(milliseconds=1)


def parse_time(text: str) -> datetime:
    """Parses an RFC 3339 time. Python 3.10 reads neither `Z` nor fractions of other lengths than 3 and 6 digits."""
    if (found := _TIME.fullmatch(text)) is None:
        raise ValueError(f"{text!r:.100} is no RFC 3339 time with an offset")
    whole, fraction, zone = found.groups()
    return datetime.fromisoformat(f"{whole}.{(fraction or '')[:6]:0<6}{'+00:00' if zone in 'Zz' else zone}")


class ServerClock:
    """Estimates the server's time by the `Date` of responses and the monotonic clock of this machine.

    `Date` is in whole seconds and never ahead of the server's time. The estimate is the largest lower bound so far:
    it is at most a second or two behind, and not ahead.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None  # Unix time minus monotonic time
        self._last = datetime.min.replace(tzinfo=timezone.utc)

    @property
    def known(self) -> bool:
        """Whether a response has shown the server's time."""
        return self._offset is not None

    def observe(self, date: str | None) -> None:
        """Reads the header `Date` of a response that has just arrived. A missing or invalid header changes nothing."""
        try:
            at = parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError):
            return
        offset = at - self._monotonic()
        if self._offset is None or offset > self._offset or offset < self._offset - _STEPPED:
            self._offset = offset

    def estimate(self) -> datetime:
        """Returns the server's time; without any `Date`, that of this machine."""
        seconds = time.time() if self._offset is None else self._monotonic() + self._offset
        return datetime.fromtimestamp(seconds, timezone.utc)

    def now(self, after: datetime | None = None) -> datetime:
        """Returns the time for the next event: later than that of the event before, and than `after`."""
        at = self.estimate()
        for earlier in (self._last, after):
            if earlier is not None and at <= earlier:
                at = earlier + _LEAST
        self._last = at
        return at
