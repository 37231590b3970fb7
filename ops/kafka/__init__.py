"""Runs Apache Kafka (KRaft) locally without Docker, for evaluation, tests and benchmarks. Not for production."""

from ops.kafka.cluster import Cluster
from ops.kafka.jars import missing
from ops.kafka.node import Node

__all__ = ["Cluster", "Node", "missing"]
