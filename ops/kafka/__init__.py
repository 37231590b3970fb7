"""Apache Kafka (KRaft) on this machine without Docker: for trying, for tests, for measuring. Not for production."""

from ops.kafka.cluster import Cluster
from ops.kafka.jars import missing
from ops.kafka.node import Node

__all__ = ["Cluster", "Node", "missing"]
