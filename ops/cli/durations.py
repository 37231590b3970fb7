"""Durations on the command line and in policy files: a number and a unit, such as 30s, 15m, 2h, 3d."""

from __future__ import annotations

import re

__all__ = ["parse_duration"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)([smhd])", re.ASCII)


def parse_duration(text: str, fractions: bool = False) -> float | None:
    """Returns the seconds of a duration such as `15m`, with `fractions` also of `1.5h`; None if `text` is not one."""
    match = _DURATION.fullmatch(text)
    if match is None or ("." in match[1] and not fractions):
        return None
    return float(match[1]) * _SECONDS[match[2]]
