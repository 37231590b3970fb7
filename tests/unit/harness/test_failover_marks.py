"""The bench of failover reads the timeline of a fault from log lines and from the times of news."""

from __future__ import annotations

import json

import pytest

from bench.failover.marks import marks_of, silence


def _line(at: float, text: str, who: str = "worker-1") -> tuple[float, str, str]:
    return at, who, json.dumps({"event": text, "level": "info"})


def test_lines_of_one_kind_are_one_mark_at_the_last_of_them() -> None:
    lines = [
        _line(9.0, "folding partitions 9 of the log"),
        _line(10.5, "folding partitions 0, 2 of the log"),
        _line(10.6, "attn.views/0: fenced at offset 3, epoch 1"),
        _line(10.8, "attn.views/2: fenced at offset 9, epoch 4"),
        _line(10.9, "attn.views/1: fenced at offset 9, epoch 4", "worker-2"),
        _line(13.0, "attn.views/0: fenced at offset 5, epoch 2"),
        (13.1, "worker-1", "no JSON"),
    ]
    found = [(round(mark.at, 3), mark.who, mark.what) for mark in marks_of(lines, 10.0, 20.0)]
    assert found == [
        (0.5, "worker-1", "partitions assigned 0, 2"),
        (0.8, "worker-1", "fenced 0, 2"),
        (0.9, "worker-2", "fenced 1"),
        (3.0, "worker-1", "fenced 0"),
    ]
    assert marks_of(lines, 20.0, 30.0) == []


@pytest.mark.parametrize(("seen", "longest"), [
    ([9.8, 10.0, 10.2, 13.2, 13.4], 3.0),
    ([9.0, 13.0, 13.2], 4.0),  # the silence began before the fault
    ([9.9, 10.1], 3.9),  # nothing came until the end
    ([], 4.0),
])
def test_the_silence_of_a_reader_is_its_longest_pause_around_the_fault(seen: list[float], longest: float) -> None:
    assert silence(seen, 10.0, 14.0) == pytest.approx(longest)


