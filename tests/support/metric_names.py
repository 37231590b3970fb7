"""The metrics that attn declares, and those that a Prometheus expression uses."""

from __future__ import annotations

import re

from prometheus_client.metrics import MetricWrapperBase

import api.metrics
import streams.connectors.metrics
import streams.delivery.metrics
import streams.history.metrics
import streams.kafka.dead_letters
import streams.runtime.lag
import streams.runtime.metrics

__all__ = ["ADDED", "FOREIGN", "check_expression", "declared_metrics", "metrics_of"]

ADDED = {"job", "instance", "le"}  # labels that Prometheus and its client add
FOREIGN = {"up", "process_start_time_seconds"}  # metrics of Prometheus and its client

_MODULES = (
    api.metrics, streams.connectors.metrics, streams.delivery.metrics, streams.history.metrics,
    streams.kafka.dead_letters, streams.runtime.metrics, streams.runtime.lag,
)
_SUFFIXES = ("_bucket", "_count", "_sum")


def declared_metrics() -> dict[str, set[str]]:
    """Returns the labels of each metric, by its name as scraped."""
    labels_of: dict[str, set[str]] = {}
    for metric in (one for module in _MODULES for one in vars(module).values() if isinstance(one, MetricWrapperBase)):
        names = {"counter": [f"{metric._name}_total"], "histogram": [metric._name + end for end in _SUFFIXES]}
        labels_of.update({name: set(metric._labelnames) for name in names.get(metric._type, [metric._name])})
    return labels_of


def metrics_of(expression: str) -> list[tuple[str, set[str]]]:
    """Returns the metrics of an expression, and the labels by which it selects."""
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=|!)", selector or "")))
        for name, selector in re.findall(r"\b(attn_\w+|up|process_\w+)(?:\{([^}]*)\})?", expression)
    ]


def check_expression(expression: str) -> tuple[set[str], set[str]]:
    """Fails unless the metrics and labels of an expression exist. Returns the labels of its metrics, and the labels by
    which it groups."""
    metrics, labels = declared_metrics(), set[str]()
    used = metrics_of(expression)
    assert used
    for metric, selected in used:
        assert metric in metrics or metric in FOREIGN, f"attn does not declare {metric}"
        labels |= metrics.get(metric, set())
        assert selected <= metrics.get(metric, set()) | ADDED, f"{metric} has no label {selected}"
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
    assert grouped <= labels | ADDED
    return labels, grouped
