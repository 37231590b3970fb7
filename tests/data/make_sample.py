"""Cuts the sample out of the whole file: `python make_sample.py incidents.jsonl.gz` writes incidents-sample.jsonl.gz.

All events of the workspaces with fewer than SMALL, and every STEP-th case of the largest one, whole: a case's events
stay together, because an escalation without its opening would show nothing. Same input, same bytes.
"""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

SMALL = 1500  # events
STEP = 28  # of about 9,000 cases


def case_of(value: dict) -> str:
    """Some closes name no case, but their subjects do: a case's id, with a prefix for its actions."""
    return value["data"].get("case_id") or value["subject"].removeprefix("q_")


def main(source: Path) -> None:
    with gzip.open(source, "rt") as file:
        lines = [(line, json.loads(line)["value"]) for line in file]
    sizes = Counter(value["workspaceid"] for _, value in lines)
    largest = sizes.most_common(1)[0][0]
    cases: dict[str, int] = {}
    for _, value in lines:
        if value["workspaceid"] == largest:
            cases.setdefault(case_of(value), len(cases))
    kept = [
        line for line, value in lines
        if sizes[value["workspaceid"]] < SMALL
        or (value["workspaceid"] == largest and cases[case_of(value)] % STEP == 0)
    ]
    target = Path(__file__).parent / "incidents-sample.jsonl.gz"
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write("".join(kept).encode())
    sys.stdout.write(f"{len(kept)} events, {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
