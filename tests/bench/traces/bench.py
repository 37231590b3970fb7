"""`python -m bench traces`: CPU per event of ingest, fold and edge with traces off, sampled at 1 % and at 100 %.

Each variant is a process. The processes run their rounds in turn, so that all variants see the same machine. `--before`
names a checkout without traces: its ratio to "off" is the cost of the hooks. A ratio is the median of the ratios of
neighbouring rounds, with a bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table
from support.tracing.collector import collector

__all__ = ["main"]

_ROOT = Path(__file__).parents[3]
_STAGES = ("ingest", "fold", "edge")
_WARM_UP = 3  # rounds


class Variant:
    """A process that runs rounds. `sampled`: the share of source records with a sampled context."""

    def __init__(self, name: str, root: Path, sampled: float, env: dict[str, str]) -> None:
        self.name = name
        self.rounds: list[dict[str, float]] = []
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("stages.py")), str(sampled)], cwd=root, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith(("ATTN_", "OTEL_"))}
            | {"PYTHONPATH": str(root)} | env)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def round(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        spent: dict[str, float] = json.loads(self.process.stdout.readline())
        return spent | {"all": sum(spent.values())}

    def end(self) -> None:
        self.process.communicate("end\n", timeout=20)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--before", type=Path, help="a checkout without traces")
    parser.add_argument("--off", action="store_true", help="only the variants without traces, for a narrower interval")
    given = parser.parse_args()
    with ExitStack() as stack:
        spans = stack.enter_context(collector())
        on = {"ATTN_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": spans.endpoint}
        variants = [Variant("off", _ROOT, 1, {}), Variant("off again", _ROOT, 1, {})]
        if not given.off:
            variants += [Variant("1 %", _ROOT, 0.01, on), Variant("100 %", _ROOT, 1, on)]
        if given.before is not None:
            variants.insert(0, Variant("before", given.before.resolve(), 1, {}))
        for variant in variants:
            stack.callback(variant.end)
        for number in range(_WARM_UP + given.rounds):
            for variant in random.sample(variants, len(variants)):
                spent = variant.round()
                if number >= _WARM_UP:
                    variant.rounds.append(spent)
        _report(variants, Console(width=120))


def _report(variants: list[Variant], console: Console) -> None:
    base = next(variant for variant in variants if variant.name == "off")
    table = Table(title="CPU, µs per event; median, and ratio to off with 95 % interval")
    for column in ("variant", *_STAGES, "all", "all / off"):
        table.add_column(column)
    for variant in variants:
        ratio, low, high = interval([one["all"] / off["all"] for one, off in
                                     zip(variant.rounds, base.rounds, strict=True)])
        medians = [f"{statistics.median(one[stage] for one in variant.rounds):.1f}" for stage in (*_STAGES, "all")]
        table.add_row(variant.name, *medians, f"{ratio:.4f} ({low:.4f} to {high:.4f})")
    console.print(table)


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Returns the median and the bounds of its 95 % bootstrap interval."""
    drawn = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), drawn[50], drawn[-51]


if __name__ == "__main__":
    main()
