"""Prometheus metrics of `attn deliver`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ATTEMPTS", "CIRCUIT_OPEN", "ENDPOINTS_INVALID", "OLDEST_SECONDS", "POST_SECONDS", "REFUSED", "UNDELIVERABLE",
    "UNKNOWN_ENDPOINT", "UNREADABLE", "WAITING", "start_counters",
]

# Label of all endpoint names that the file does not have: an event may name anything.
UNKNOWN_ENDPOINT = "(unknown)"

ATTEMPTS = Counter(
    "attn_delivery_attempts_total",
    "Attempts to post a decision, by result: 2xx, 409, 410, 422, 4xx, 5xx, redirect, timeout, connect, dns, tls, "
    "address, protocol",
    ["endpoint", "result"])
REFUSED = Counter("attn_delivery_refused_total", "Decisions that a receiver refused, by status", ["endpoint", "reason"])
UNDELIVERABLE = Counter(
    "attn_delivery_undeliverable_total",
    "Decisions that were given up, by reason: unknown_endpoint, expired, time_limit, record_missing",
    ["endpoint", "reason"])
UNREADABLE = Counter("attn_delivery_unreadable_total", "Records of the topic decisions that could not be read")
WAITING = Gauge("attn_delivery_waiting", "Decisions that are read and not delivered", ["endpoint"])
OLDEST_SECONDS = Gauge(
    "attn_delivery_oldest_seconds", "Age of the oldest decision that could be delivered and is not; 0 if there is none",
    ["endpoint"])
CIRCUIT_OPEN = Gauge(
    "attn_delivery_circuit_open", "1 while attn only probes an endpoint because its last attempts failed", ["endpoint"])
ENDPOINTS_INVALID = Gauge(
    "attn_delivery_endpoints_invalid", "1 while the file of endpoints is invalid and an earlier version is in use")
POST_SECONDS = Histogram(
    "attn_delivery_post_seconds", "Seconds of one attempt", ["endpoint"],
    buckets=(.01, .05, .1, .25, .5, 1, 2, 5, 15, 60))


def start_counters(endpoint: str) -> None:
    """Creates the series of an endpoint at 0: `increase` of Prometheus does not see a counter's first value."""
    for reason in ("409", "410", "422"):
        REFUSED.labels(endpoint, reason)
    for reason in ("unknown_endpoint", "expired", "time_limit", "record_missing"):
        UNDELIVERABLE.labels(endpoint, reason)
