"""The results of `bench.latency.bench` as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.latency.times import Hops
from bench.writes import quantile

__all__ = ["Turn", "costs", "table"]

_STEPS = ("→ log", "→ facts", "→ views", "→ frame")
_SHARES = (0.5, 0.99)


class Turn(NamedTuple):
    """`hops` of the events that count; `cpu`: seconds of each process in the whole turn, for `events` events."""

    candidate: str
    rate: int
    hops: Hops
    events: int
    cpu: dict[str, float]


def _durations(hops: Hops) -> list[list[float]]:
    """Seconds of each hop, of source → views, and of the whole way."""
    steps = [[each[n + 1] - each[n] for each in hops] for n in range(len(_STEPS))]
    return [*steps, [each[3] - each[0] for each in hops], [each[-1] - each[0] for each in hops]]


def _of(turns: Iterable[Turn], candidate: str, rate: int) -> list[Turn]:
    return [turn for turn in turns if (turn.candidate, turn.rate) == (candidate, rate)]


def table(turns: Sequence[Turn]) -> str:
    """p50 / p99 in milliseconds of each hop and in all, and the ratio of attn to the relay."""
    lines = [f"| events/s | p50 / p99, ms | {' | '.join(_STEPS)} | source → views | source → frame |",
             f"|{' --- |' * 8}"]
    for rate in dict.fromkeys(turn.rate for turn in turns):
        found = []
        for candidate in ("attn", "relay"):
            hops = [each for turn in _of(turns, candidate, rate) for each in turn.hops]
            found.append([[quantile(values, share) for share in _SHARES] for values in _durations(hops)])
            cells = " | ".join(" / ".join(f"{value * 1e3:.1f}" for value in pair) for pair in found[-1])
            lines.append(f"| {rate:,} | {candidate}, {len(hops):,} events | {cells} |")
        ratios = [" / ".join(f"{a / b:.2f}" for a, b in zip(mine, bare, strict=True))
                  for mine, bare in zip(found[0][-2:], found[1][-2:], strict=True)]
        lines.append(f"| {rate:,} | **× relay** | | | | | **{ratios[0]}** | {ratios[1]} |")
    return "\n".join(lines)


def costs(turns: Sequence[Turn]) -> str:
    """CPU in µs per event of each process, while it or the other candidate works."""
    names = list(turns[0].cpu)
    lines = [f"| events/s | CPU µs/event | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 2)}"]
    for rate in dict.fromkeys(turn.rate for turn in turns):
        for candidate in ("attn", "relay"):
            mine = _of(turns, candidate, rate)
            events = sum(turn.events for turn in mine)
            cells = " | ".join(f"{sum(turn.cpu[name] for turn in mine) / events * 1e6:,.0f}" for name in names)
            lines.append(f"| {rate:,} | {candidate} | {cells} |")
    return "\n".join(lines)
