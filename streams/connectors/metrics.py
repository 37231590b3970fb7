"""Prometheus metrics of `attn connect`. The label `connector` is the name of the peer."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["DECISIONS", "EVENTS", "OLDEST_SECONDS", "PEER_UP", "SWEEPS", "SWEEP_SECONDS", "WAITING", "start_counters"]

SWEEPS = Counter(
    "attn_connector_sweeps_total", "Sweeps of the system, by result: ok, peer (no answer), attn (events not accepted), "
    "error", ["connector", "result"])
SWEEP_SECONDS = Histogram(
    "attn_connector_sweep_seconds", "Seconds of one sweep that succeeded", ["connector"],
    buckets=(.01, .05, .1, .25, .5, 1, 2, 5, 15, 60))
EVENTS = Counter("attn_connector_events_total", "Events of sweeps that attn accepted, repeats included", ["connector"])
DECISIONS = Counter(
    "attn_connector_decisions_total", "Attempts to apply a decision, by outcome: applied, refused, not_yet, peer (no "
    "answer), error", ["connector", "outcome"])
WAITING = Gauge("attn_connector_waiting", "Decisions that are read and not reported", ["connector"])
OLDEST_SECONDS = Gauge(
    "attn_connector_oldest_seconds", "Seconds since the oldest decision that is not reported was read; 0 if none",
    ["connector"])
PEER_UP = Gauge("attn_connector_peer_up", "1 while the last sweep of the system succeeded", ["connector"])


def start_counters(connector: str) -> None:
    """Creates the series of a connector at 0: `increase` of Prometheus does not see a counter's first value."""
    for result in ("ok", "peer", "attn", "error"):
        SWEEPS.labels(connector, result)
    for outcome in ("applied", "refused", "not_yet", "peer", "error"):
        DECISIONS.labels(connector, outcome)
    EVENTS.labels(connector)
    PEER_UP.labels(connector).set(0)
