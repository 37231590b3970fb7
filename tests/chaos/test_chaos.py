"""A short run of the chaos harness on real Kafka: the long ones are in docs/reliability.md."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes.cli import clean_env

from ops.kafka import missing

TESTS = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow, pytest.mark.broker, pytest.mark.clickhouse, pytest.mark.timeout(1200),
    pytest.mark.skipif(missing() is not None, reason=f"no Apache Kafka here: {missing()}"),
    pytest.mark.skipif(importlib.util.find_spec("chdb") is None, reason="chdb is not installed"),
]


@pytest.mark.parametrize("seed", [20_261_123])
def test_nothing_differs_after_a_minute_of_faults(tmp_path: Path, seed: int) -> None:
    report = tmp_path / "report.json"
    flags = ["--seed", str(seed), "--minutes", "1", "--brokers", "1", "--every", "3", "--rate", "20"]
    places = ["--home", str(tmp_path / "home"), "--report", str(report)]
    command = [sys.executable, "-m", "chaos", *flags, *places]
    done = subprocess.run(command, cwd=tmp_path, env=clean_env({"PYTHONPATH": str(TESTS)}),
                          capture_output=True, text=True, timeout=1100)
    assert report.exists(), done.stderr[-3000:]
    found = json.loads(report.read_text())
    assert found["differences"] == []
    assert done.returncode == 0, done.stderr[-3000:]
    assert found["faults"] >= 10
    assert found["numbers"]["events"] > 1000
    assert found["numbers"]["writes of people"] > 20
    answers = found["numbers"]["answers of deciders"]
    assert all(f"POST {status}: " in answers for status in (201, 202, 409)), answers
    assert "applied: " in found["numbers"]["decisions, by state"]
    assert "taken_back: " in found["numbers"]["decisions, by state"]
    assert found["numbers"]["decisions applied over Kafka"] > 10
    assert found["numbers"]["decisions applied over HTTP"] > 0
    assert found["numbers"]["claims of a partition"] > 6, "partitions changed hands"
