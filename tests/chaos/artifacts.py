"""What a run leaves behind for whoever looks for a cause."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path

from chaos.checks.topics import Records

__all__ = ["dump", "said_at_the_end"]


def dump(path: Path, records: Records) -> None:
    """All records as JSON lines."""
    with gzip.open(path, "wt", compresslevel=1) as file:
        for partition, own in records.items():
            for record in own:
                key = None if record.key is None else record.key.decode(errors="replace")
                value = None if record.value is None else record.value.decode(errors="replace")
                file.write(json.dumps([partition, record.offset, record.timestamp, key, value]) + "\n")


def said_at_the_end(directory: Path) -> dict[str, int]:
    """What parts said when they ended by themselves, and how often: numbers are left out, so that alike is alike."""
    found: Counter[str] = Counter()
    for path in sorted(directory.glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            if '"event": "failed"' in line:
                error = str(json.loads(line).get("exception", "")).strip().splitlines()
                said = re.sub(r"\d+", "N", error[-1] if error else "nothing")[:200]
                found[f"{path.stem.partition('-')[0]}: {said}"] += 1
    return dict(found.most_common())
