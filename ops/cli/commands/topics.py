"""`attn topics`: create what is missing, check what is there."""

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

_PATIENCE = 10.0  # seconds; a person waits


def topics(kafka: Kafka = None, data_dir: DataDir = None) -> None:
    """Create the topics attn needs. Safe to repeat; fails when one is there with other partitions."""
    settings = config.load_settings(kafka=kafka, data_dir=data_dir)
    with kafka_errors(settings):
        try:
            asyncio.run(ensure_topics(settings, _PATIENCE))
        except TopicError as error:
            raise UserError(str(error)) from None
    table = Table("topic", "key", "partitions", "cleanup", "holds")
    for topic in TOPICS:
        table.add_row(topic.name, topic.key, str(partitions(topic, settings)), topic.cleanup, topic.holds)
    Console().print(table)
    typer.echo(f"all there at {settings.kafka}", err=True)
