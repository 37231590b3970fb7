"""`attn topics`: creates missing topics and checks existing ones."""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console
from rich.table import Table

from ops import config
from ops.cli.data.kafka import kafka_errors
from ops.cli.options import DataDir, Kafka
from ops.errors import UserError
from schemas.topics import TOPICS
from streams.kafka.topics import TopicError, ensure_topics, partitions

__all__ = ["topics"]

_TIMEOUT = 10.0  # seconds


def topics(kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """Create the topics that attn needs. Safe to repeat; fails if a topic exists with another number of partitions."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    with kafka_errors(settings):
        try:
            asyncio.run(ensure_topics(settings, _TIMEOUT))
        except TopicError as error:
            raise UserError(str(error)) from None
    table = Table("topic", "key", "partitions", "cleanup", "holds")
    for topic in TOPICS:
        table.add_row(topic.name, topic.key, str(partitions(topic, settings)), topic.cleanup, topic.holds)
    Console().print(table)
    typer.echo(f"all topics exist at {settings.kafka}", err=True)
