"""The dashboard of metrics is current, and its expressions use metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.metric_names import ADDED, check_expression

from ops.deploy.grafana.metrics_dashboard import FILE, PANELS, metrics_dashboard

SERIES = [(title, legend, expression) for title, _, series in PANELS for legend, expression in series]


def test_the_file_is_current() -> None:
    assert json.loads(FILE.read_text()) == metrics_dashboard(), "run python -m ops.deploy.grafana.metrics_dashboard"


@pytest.mark.parametrize(("title", "legend", "expression"), SERIES, ids=lambda value: value[:40])
def test_a_series_uses_existing_metrics_and_labels(title: str, legend: str, expression: str) -> None:
    labels, grouped = check_expression(expression)
    assert set(re.findall(r"{{(\w+)}}", legend)) <= (grouped or labels | ADDED), title


def test_prometheus_reads_the_expressions(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = [{"record": f"attn:{number}".replace("-", "_"), "expr": expression}
             for number, (_, _, expression) in enumerate(SERIES)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
