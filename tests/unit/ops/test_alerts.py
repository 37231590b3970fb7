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
from prometheus_client.metrics import MetricWrapperBase

import api.metrics
import streams.delivery.metrics
import streams.history.metrics
import streams.kafka.dead_letters
import streams.runtime.lag
import streams.runtime.metrics

OPS = Path(__file__).parents[3] / "ops"
RULES = yaml.safe_load((OPS / "deploy" / "prometheus" / "alerts.yml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
MODULES = (
    api.metrics, streams.delivery.metrics, streams.history.metrics, streams.kafka.dead_letters, streams.runtime.metrics,
    streams.runtime.lag,
)

# What Prometheus itself and its client add.
ADDED = {"job", "instance", "le"}
THEIRS = {"up", "process_start_time_seconds"}
SUFFIXES = ("_bucket", "_count", "_sum")
SECTIONS = ("## What it means", "## What users see", "## What to check", "## What to do", "## When it is over")


def ours() -> dict[str, set[str]]:
    """Name as scraped -> labels, of all metrics that the code declares."""
    found: dict[str, set[str]] = {}
    for metric in (one for module in MODULES for one in vars(module).values() if isinstance(one, MetricWrapperBase)):
        labels = set(metric._labelnames)
        kind = metric._type
        names = {"counter": [f"{metric._name}_total"], "histogram": [metric._name + end for end in SUFFIXES]}
        found.update(dict.fromkeys(names.get(kind, [metric._name]), labels))
    return found


def asked(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics of an expression, and the labels it selects by."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=|!)", selector or "")))
        for name, selector in re.findall(r"\b(attn_\w+|up|process_\w+)(?:\{([^}]*)\})?", expression)
    ]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_uses_existing_metrics_and_labels(name: str) -> None:
    metrics = ours()
    found = asked(ALERTS[name]["expr"])
    assert found
    labels: set[str] = set()
    for metric, selected in found:
        assert metric in metrics or metric in THEIRS, f"nobody declares {metric}"
        labels |= metrics.get(metric, set())
        assert selected <= metrics.get(metric, set()) | ADDED, f"{metric} has no label {selected}"
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", ALERTS[name]["expr"]) for label in by.split(",")}
    assert grouped <= labels | ADDED
    told = set(re.findall(r"\$labels\.(\w+)", ALERTS[name]["annotations"]["summary"]))
    assert told <= (grouped or labels | ADDED)


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
    for metric, _ in asked("\n".join(re.findall(r"`([^`]*attn_[^`]*)`", text))):
        assert metric in ours() | dict.fromkeys(THEIRS), f"{runbook.name}: nobody declares {metric}"


def test_every_runbook_has_its_alert() -> None:
    assert {path.stem for path in (OPS / "runbooks").glob("*.md")} - {"README"} == set(ALERTS)


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((OPS / "deploy" / "prometheus" / "alerts_test.yml").read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == set(ALERTS)


def test_counters_of_rejects_start_at_zero() -> None:
    """`increase` does not see a counter's first value."""
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
