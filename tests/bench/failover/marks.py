"""What happened after a fault: log lines of the parts by their meaning, and when readers saw news. Pure."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Mark", "marks_of", "silence", "table"]

# What a line of a part's log means for a takeover. The first group of the pattern, if any, is a detail.
_MEANINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple((name, re.compile(pattern)) for name, pattern in (
    ("ingests", r"^ingesting (\d+) partitions"),
    ("partitions assigned", r"^folding partitions ([\d, ]+|none) of the log"),
    ("fenced", r"^attn\.views/(\d+): fenced"),
    ("rows loaded", r"^attn\.views/(\d+): .* loaded"),
    ("started", r"^worker started"),
    ("edge serves", r"serving"),
))

_TOGETHER = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Mark:
    """`at`: seconds after the fault. `who`: the part, or what was observed from outside."""

    at: float
    who: str
    what: str


def marks_of(lines: Iterable[tuple[float, str, str]], begun: float, ended: float) -> list[Mark]:
    """The marks in the log lines (time, part, line) from `begun` to `ended`. Lines of one kind and one part within
    0.5 s are one mark, at the last of them, because the slowest partition decides; their details are joined."""
    found: list[tuple[float, str, str, list[str]]] = []
    for at, who, line in lines:
        if begun <= at <= ended:
            text = _event(line)
            for name, pattern in _MEANINGS:
                if match := pattern.search(text):
                    _add(found, at, who, name, list(match.groups()))
    return [Mark(at - begun, who, f"{name} {', '.join(details)}".strip()) for at, who, name, details in found]


def _add(found: list[tuple[float, str, str, list[str]]], at: float, who: str, name: str, details: list[str]) -> None:
    for index, (before, other, kind, known) in enumerate(found):
        if (other, kind) == (who, name) and at - before < _TOGETHER:
            found[index] = at, who, name, known + details
            return
    found.append((at, who, name, details))


def _event(line: str) -> str:
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return line


def silence(seen: Sequence[float], begun: float, ended: float) -> float:
    """The longest time without news that touches begun..ended. `seen`: ascending times of news."""
    first = max(0, bisect_right(seen, begun) - 1)
    times = [at for at in seen[first:] if at <= ended]
    if not times:
        return ended - begun
    return max((later - earlier for earlier, later in zip(times, [*times[1:], ended], strict=True)), default=0.0)


def table(marks: Iterable[Mark]) -> str:
    return "\n".join(f"    {mark.at:7.2f} s  {mark.who:14}  {mark.what}" for mark in marks)
