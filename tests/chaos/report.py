"""The result of a run, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.checks.feed_gaps import Figures

__all__ = ["Report"]


@dataclass
class Report:
    """`silent`: for each kind of fault, its count and how long readers received nothing new, in seconds."""

    seed: int
    command: str
    commit: str
    minutes: float  # with faults
    brokers: int
    workers: int
    edges: int
    faults: int = 0
    silent: dict[str, Figures] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)  # further figures by their name
    ends: Mapping[str, int] = field(default_factory=dict)  # last errors of ended processes, with their counts
    differences: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(self.markdown() if path.suffix == ".md" else json.dumps(asdict(self), indent=2) + "\n")

    def markdown(self) -> str:
        rows = [f"| {kind} | {one.count} | {one.measured} | {_seconds(one)} |" for kind, one in self.silent.items()]
        lines = [
            f"### Seed {self.seed}: {self.faults} faults, {len(self.differences)} differences", "",
            f"`{self.command}` at {self.commit}: {self.minutes:.0f} minutes of faults, {self.brokers} brokers, "
            f"{self.workers} workers, {self.edges} edges.", "",
            "| | |", "| --- | --- |", *(f"| {name} | {_text(value)} |" for name, value in self.numbers.items()), "",
            "| fault | how often | measured | nothing new: p50 | max |", "| --- | --- | --- | --- | --- |", *rows,
        ]
        if self.skipped:
            lines += ["", *(f"Not done: {kind}: {why}." for kind, why in self.skipped.items())]
        if self.ends:
            lines += ["", "Processes that ended by themselves and were restarted:", ""]
            lines += [f"- {count} × {error}" for error, count in self.ends.items()]
        if self.differences:
            lines += ["", "Differences:", "", "```", *self.differences, "```"]
        return "\n".join(lines) + "\n"


def _seconds(one: Figures) -> str:
    return f"{one.p50:.1f} s | {one.most:.1f} s" if one.measured else "– | –"


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)
