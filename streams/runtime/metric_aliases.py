"""Exports renamed metrics under their old names as well, for one release."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

__all__ = ["MetricAlias"]


class MetricAlias(Collector):
    """A second name of `metric` in the registry: every sample is exported under `old_name` too.

    `old_name` is without the suffix `_total`. `labels` maps label names to their old names, where they differ.
    """

    def __init__(self, old_name: str, metric: MetricWrapperBase, labels: dict[str, str] | None = None) -> None:
        self._old_name, self._metric, self._labels = old_name, metric, labels or {}
        REGISTRY.register(self)

    def collect(self) -> Iterator[Metric]:
        for family in self._metric.collect():
            alias = Metric(self._old_name, f"Deprecated: use {family.name}", family.type)
            for sample in family.samples:
                alias.samples.append(sample._replace(
                    name=sample.name.replace(family.name, self._old_name, 1),
                    labels={self._labels.get(name, name): value for name, value in sample.labels.items()}))
            yield alias
