"""Generates the Grafana dashboard of metrics: `python -m ops.deploy.grafana.metrics_dashboard` writes
dashboards/attn-metrics.json. A test checks that the file is current, and that its metrics and labels exist.

The dashboard has a variable for the Prometheus data source, so that it can be imported without a change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["FILE", "PANELS", "metrics_dashboard"]

FILE = Path(__file__).parent / "dashboards" / "attn-metrics.json"
SOURCE = {"type": "prometheus", "uid": "${prometheus}"}
_WIDTH, _HEIGHT = 12, 8  # of a panel in Grafana's grid of 24 columns

# Title, unit, (legend, expression) of each series.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Delivery: oldest decision that waits", "s", [
        ("{{endpoint}}", "max by (endpoint) (attn_delivery_oldest_seconds)")]),
    ("Delivery: waiting decisions", "short", [("{{endpoint}}", "sum by (endpoint) (attn_delivery_waiting)")]),
    ("Delivery: attempts by result", "reqps", [
        ("{{endpoint}} {{result}}", "sum by (endpoint, result) (rate(attn_delivery_attempts_total[5m]))")]),
    ("Delivery: seconds of an attempt, median and p99", "s", [
        (f"p{name}", f"histogram_quantile({quantile}, sum by (le) (rate(attn_delivery_post_seconds_bucket[5m])))")
        for name, quantile in (("50", 0.5), ("99", 0.99))]),
    ("Delivery: refused and given up", "short", [
        ("{{endpoint}} refused {{reason}}", "sum by (endpoint, reason) (increase(attn_delivery_refused_total[1h]))"),
        ("{{endpoint}} given up: {{reason}}",
         "sum by (endpoint, reason) (increase(attn_delivery_undeliverable_total[1h]))")]),
    ("Delivery: open circuits, invalid files of endpoints", "short", [
        ("{{endpoint}} circuit open", "max by (endpoint) (attn_delivery_circuit_open)"),
        ("endpoints invalid", "max(attn_delivery_endpoints_invalid)")]),
    ("Connectors: system answers", "short", [("{{connector}}", "min by (connector) (attn_connector_peer_up)")]),
    ("Connectors: sweeps by result", "short", [
        ("{{connector}} {{result}}", "sum by (connector, result) (increase(attn_connector_sweeps_total[5m]))")]),
    ("Connectors: decisions by outcome", "short", [
        ("{{connector}} {{outcome}}", "sum by (connector, outcome) (increase(attn_connector_decisions_total[5m]))")]),
    ("Connectors: oldest decision that is not reported", "s", [
        ("{{connector}}", "max by (connector) (attn_connector_oldest_seconds)")]),
    ("Events over HTTP by result", "reqps", [
        ("{{result}}", "sum by (result) (rate(attn_edge_intake_events_total[5m]))")]),
    ("Requests that wait for a change", "short", [("{{instance}}", "attn_edge_long_polls")]),
    ("Streams of an edge, and how many its open files allow", "short", [
        ("{{instance}}", "attn_edge_streams"), ("{{instance}} limit", "attn_edge_streams_limit")]),
    ("Streams deferred or refused", "short", [
        ("{{instance}} deferred", "increase(attn_edge_streams_deferred_total[5m])"),
        ("{{instance}} refused, limit per user", "increase(attn_edge_streams_refused_total[5m])")]),
]


def metrics_dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana imports it."""
    columns = 24 // _WIDTH
    panels = [
        {
            "id": number + 1, "title": title, "type": "timeseries", "datasource": SOURCE,
            "gridPos": {"x": number % columns * _WIDTH, "y": number // columns * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {},
            "targets": [
                {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                for index, (legend, expression) in enumerate(series)],
        }
        for number, (title, unit, series) in enumerate(PANELS)
    ]
    return {
        "uid": "attn-metrics", "title": "attn: delivery, sources and streams", "tags": ["attn"], "editable": True,
        "schemaVersion": 39, "version": 1, "timezone": "utc", "refresh": "30s", "time": {"from": "now-6h", "to": "now"},
        "annotations": {"list": []}, "panels": panels,
        "templating": {"list": [
            {"name": "prometheus", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}]},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(metrics_dashboard(), indent=2) + "\n")
