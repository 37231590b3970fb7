"""`python -m bench NAME`: what attn costs, compared with named baselines in the same run.

Machines are noisy. Compare ratios and CPU per event; rates by wall time vary much.
"""

from __future__ import annotations

import importlib
import os
import sys

BENCHES = {
    "pipeline": "bench.pipeline.bench", "recovery": "bench.recovery.bench", "feed": "bench.feed.bench",
    "edge": "bench.edge.bench", "events": "bench.events", "writes": "bench.writes", "decisions": "bench.decisions",
    "latency": "bench.latency.bench", "history": "bench.history", "insights": "bench.insights",
    "sessions": "bench.sessions", "idle": "bench.idle.bench", "traces": "bench.traces.bench",
    "large": "bench.large.bench", "failover": "bench.failover.bench", "capacity": "bench.capacity",
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHES:
        raise SystemExit(f"usage: python -m bench {'|'.join(BENCHES)} [options]")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each started process would compile all modules, 1 s of CPU
    name = sys.argv.pop(1)
    importlib.import_module(BENCHES[name]).main()


if __name__ == "__main__":
    main()
