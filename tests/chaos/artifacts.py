"""Files that a run keeps for the search for a cause."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

from chaos.checks.topics import Records

__all__ = ["dump", "last_errors"]


def dump(path: Path, records: Records) -> None:
    """Writes all records as JSON lines."""
    with gzip.open(path, "wt", compresslevel=1) as file:
        for partition, own in records.items():
            for record in own:
                key = None if record.key is None else record.key.decode(errors="replace")
                value = None if record.value is None else record.value.decode(errors="replace")
                file.write(json.dumps([partition, record.offset, record.timestamp, key, value]) + "\n")


def last_errors(directory: Path) -> dict[str, int]:
    """Returns the last errors of processes that ended by themselves, with their counts.

    Numbers become `N`, so that equal errors count as one.
    """
    found: Counter[str] = Counter()
    for path in sorted(directory.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if '"event": "failed"' in line:
                error = str(json.loads(line).get("exception", "")).strip().splitlines()
                message = re.sub(r"\d+", "N", error[-1] if error else "nothing")[:200]
                found[f"{path.stem.partition('-')[0]}: {message}"] += 1
    return dict(found.most_common())
