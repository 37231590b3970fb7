"""Alerts use metrics and labels that exist; each has a runbook, and each has a test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from support.metric_names import ADDED, FOREIGN, check_expression, declared_metrics, metrics_of

import api.metrics
import streams.history.metrics
import streams.runtime.metrics

OPS = Path(__file__).parents[3] / "ops"
RULES = yaml.safe_load((OPS / "deploy" / "prometheus" / "alerts.yml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
SECTIONS = ("## What it means", "## What users see", "## What to check", "## What to do", "## When it is over")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_uses_existing_metrics_and_labels(name: str) -> None:
    labels, grouped = check_expression(ALERTS[name]["expr"])
    named_labels = set(re.findall(r"\$labels\.(\w+)", ALERTS[name]["annotations"]["summary"]))
    assert named_labels <= (grouped or labels | ADDED)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_severity_and_a_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    runbook = OPS.parent / rule["annotations"]["runbook_url"]
    assert runbook == OPS / "runbooks" / f"{name}.md"
    text = runbook.read_text()
    assert text.startswith(f"# {name}\n")
    places = [text.find(f"\n{section}\n") for section in SECTIONS]
    assert all(place > 0 for place in places), f"needs {SECTIONS}"
    assert places == sorted(places)
    for metric, _ in metrics_of("\n".join(re.findall(r"`([^`]*attn_[^`]*)`", text))):
        assert metric in declared_metrics() | dict.fromkeys(FOREIGN), (
            f"{runbook.name}: no module declares metric {metric}")


def test_every_runbook_has_its_alert() -> None:
    assert {path.stem for path in (OPS / "runbooks").glob("*.md")} - {"README"} == set(ALERTS)


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((OPS / "deploy" / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(ALERTS)


def test_counters_of_rejects_start_at_zero() -> None:
    """PromQL's `increase` ignores the first value of a counter, so each counter must export 0 first."""
    for topic, cause in (("plans", "fault"), ("attn.log", "pack"), ("attn.log", "row"), ("attn.facts", "insert")):
        assert REGISTRY.get_sample_value("attn_dead_letters_total", {"topic": topic, "cause": cause}) is not None


@pytest.mark.parametrize(("metric", "labels", "name", "old_name", "old_labels"), [
    (streams.runtime.metrics.CIRCUIT_OPEN, {"topic": "alias"},
     "attn_ingest_circuit_open", "attn_ingest_stopped", {"topic": "alias"}),
    (streams.runtime.metrics.REREAD_RECORDS, {"topic": "alias"},
     "attn_reread_records_total", "attn_skipped_records_total", {"topic": "alias"}),
    (streams.history.metrics.DUPLICATES, {"kind": "alias"},
     "attn_history_duplicates_total", "attn_history_skipped_total", {"why": "alias"}),
    (api.metrics.BROKER_UP, {}, "attn_edge_broker_up", "attn_edge_broker_answers", {}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_renamed_metric_is_exported_under_both_names(
    metric: Any, labels: dict[str, str], name: str, old_name: str, old_labels: dict[str, str]
) -> None:
    child = metric.labels(**labels) if labels else metric
    child.inc(3)
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    assert REGISTRY.get_sample_value(old_name, old_labels) == value
    child.inc(-3) if name.endswith(("open", "up")) else metric.remove(*labels.values())


@pytest.mark.parametrize("arguments", [
    ["test", "rules", "alerts_test.yml"], ["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"],
], ids=["tests", "rules", "config"])
def test_promtool_agrees(arguments: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([promtool, *arguments], cwd=OPS / "deploy" / "prometheus", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
