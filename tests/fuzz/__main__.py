"""`python -m fuzz NAME --minutes M [--seed N]`. NAME: `events` (source records) or `records` (Kafka record batches)."""

from __future__ import annotations

import importlib
import sys

FUZZERS = {"events": "fuzz.events", "records": "fuzz.records"}


def main() -> int:
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name not in FUZZERS:
        print(f"{__doc__}\n{name!r} is none of {', '.join(FUZZERS)}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m fuzz {name}", *rest]
    return importlib.import_module(FUZZERS[name]).main() or 0


if __name__ == "__main__":
    sys.exit(main())
