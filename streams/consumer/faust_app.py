"""Creates a Faust app with the settings that attn needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from schemas.settings import Settings
from streams.consumer.chunks import ChunkScheduler
from streams.consumer.consumer_thread import Consumer, LoopConsumer
from streams.consumer.table_manager import LoadedTableManager
from streams.kafka.connection import client_arguments

__all__ = ["ReadCommittedConsumer", "create_app"]

_NEVER = 10.0**9
# The worker reads partitions that are added to a source topic after at most this time. Kafka's default is 5 minutes.
_METADATA_SECONDS = 10
# A member notices a rebalance with its next heartbeat; until then the partitions of a member that left have no owner.
# Four requests per second cost 0.1 % of a core.
_HEARTBEAT_SECONDS = 0.25


class _NoReadOffsets(dict[TP, int | None]):
    """Disables Faust's check for duplicates, which drops every record before the last offset seen: all records of a
    topic that was deleted and created again. `GapFiller` drops duplicates instead."""

    def __getitem__(self, tp: TP) -> None:
        return None


class _ReadCommittedThread(LoopConsumer):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust sets this only for apps that write in transactions themselves, and has no setting for it.
        consumer._isolation_level = "read_committed"
        return consumer


class ReadCommittedConsumer(Consumer):
    """Faust's consumer with `read_committed`, for topics that transactional producers may write to. Its end offsets are
    last stable offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoReadOffsets()

    def _new_consumer_thread(self) -> _ReadCommittedThread:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)


def create_app(name: str, settings: Settings) -> faust.App:
    """Creates a Faust app without web server, leader election, reply topics, standbys and topic creation."""
    data = Path(tempfile.gettempdir()) / f"attn-faust-{settings.instance}"  # Faust requires it; it stays empty
    return faust.App(
        name, broker=[f"kafka://{host.strip()}" for host in settings.kafka.split(",")],
        broker_credentials=_credentials(settings), datadir=data, store="memory://",
        web_enabled=False, topic_disable_leader=True, topic_allow_declare=False, table_standby_replicas=0,
        topic_partitions=settings.log_partitions, topic_replication_factor=settings.replication,
        ConsumerScheduler=ChunkScheduler, TableManager=LoadedTableManager,
        broker_max_poll_records=500, consumer_max_fetch_size=1 << 20,
        stream_buffer_maxsize=8,  # chunks; more are queued by ingest and fold, bounded in bytes
        stream_recovery_delay=0.0, recovery_consistency_check=False,
        # Static membership: a process that restarts after a kill gets its partitions back without a rebalance.
        consumer_group_instance_id=f"attn-{settings.instance}", consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_seconds, broker_heartbeat_interval=_HEARTBEAT_SECONDS,
        broker_rebalance_timeout=40.0,  # longer than a write (30 s, streams.kafka.producer), which is finished first
        broker_request_timeout=max(15.0, settings.session_seconds),
        consumer_metadata_max_age_ms=_METADATA_SECONDS * 1000,
        # Disables Faust's warnings about partitions without new records; `watch_progress` compares offsets instead.
        stream_processing_timeout=_NEVER, broker_commit_livelock_soft_timeout=_NEVER,
    )


def _credentials(settings: Settings) -> faust.types.auth.CredentialsT | None:
    """Converts the result of `client_arguments` to Faust's type."""
    arguments = client_arguments(settings)
    context = arguments.get("ssl_context")
    if "sasl_mechanism" in arguments:
        return faust.SASLCredentials(
            username=arguments["sasl_plain_username"], password=arguments["sasl_plain_password"], ssl_context=context,
            mechanism=arguments["sasl_mechanism"])
    return faust.SSLCredentials(context) if context is not None else None
