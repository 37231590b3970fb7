"""Fuzzer of record batches (tests/fuzz): all seeds that once failed, and some new ones."""

from __future__ import annotations

import json

import pytest
from fuzz.records import SEEDS, case


@pytest.mark.parametrize("seed", json.loads(SEEDS.read_text()))
def test_seeds_of_past_failures_pass(seed: int) -> None:
    case(seed)


def test_other_cases() -> None:
    totals = [case(seed) for seed in range(1, 40)]
    assert sum(counts["unreadable"] for counts in totals) > 20
    assert sum(counts["records"] for counts in totals) > 200
