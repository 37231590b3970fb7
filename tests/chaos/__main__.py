"""`python -m chaos --seed N --minutes M` injects faults into a running attn, then compares it with a reference model.

Exits with 1 if anything differs, and prints the differences and the directory of logs and topics.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog

from chaos.faults.schedule import KINDS
from chaos.report import Report
from chaos.run import Plan, run
from ops.errors import UserError
from ops.kafka import missing

__all__ = ["main"]


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="attn under faults, against a model.")
    parser.add_argument("--seed", type=int, default=1, help="seed of the schedule and of the load")
    parser.add_argument("--minutes", type=float, default=2.0, help="minutes with faults, without pauses for recovery")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--workers", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--edges", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between faults, on average")
    parser.add_argument(
        "--only", action="append", default=[], choices=list(KINDS), metavar="KIND",
        help="only this kind of fault; may be repeated")
    parser.add_argument("--rate", type=float, default=25.0, help="generated events per second")
    parser.add_argument("--load", type=Path, metavar="FILE", help="JSON lines of real events (also .gz), sent evenly")
    parser.add_argument("--at-most", type=float, metavar="MINUTES", help="no fault begins after this time")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there, .md or .json")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep all state and logs there")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Returns 0 if nothing differs, 1 if something does or the run failed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each started process would compile all modules, 1 s of CPU
    asked = _arguments(given)
    if why := missing():
        raise SystemExit(f"chaos needs Apache Kafka: {why}")
    _quiet()
    home = asked.home or Path(tempfile.mkdtemp(prefix="attn-chaos-"))
    home.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        asked.seed, asked.minutes, asked.brokers, asked.workers, asked.edges, asked.every, asked.rate, asked.load,
        asked.at_most, tuple(asked.only))
    report = Report(
        plan.seed, "python -m chaos " + " ".join(given or sys.argv[1:]), _commit(), plan.minutes, plan.brokers,
        plan.workers, plan.edges)
    done = asyncio.run(run(plan, home, report))
    if asked.report:
        report.write(asked.report)
    print(report.markdown())
    if report.differences:
        done.keep_topics()
        print(f"{len(report.differences)} differences; logs and topics are in {home}", file=sys.stderr)
        return 1
    if not asked.home:
        shutil.rmtree(home, ignore_errors=True)
    return 0


def _quiet() -> None:
    """Silences the warnings of clients about killed brokers. Each process has its own log file."""
    logging.basicConfig(level=logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False)
    return done.stdout.strip() or "an installed version"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
