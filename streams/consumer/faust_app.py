"""Creates a Faust app with the settings that attn needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from schemas.settings import Settings
from streams.consumer.chunks import ChunkScheduler
from streams.consumer.consumer_thread import Consumer, RebalanceThread
from streams.kafka.connection import client_arguments

_NEVER = 10.0**9
# Partitions that are added to a source topic are read after this time at most. Kafka's clients ask every 5 minutes.
_METADATA_SECONDS = 10


class _NoReadOffsets(dict[TP, int | None]):
    """Faust drops what is delivered before the last offset that it has seen: all of a topic that was created again.
    `GapFiller` drops repeats."""

    def __getitem__(self, tp: TP) -> None:
        return None


class _ReadCommittedThread(RebalanceThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads only committed records where it writes in transactions itself, and has no setting for it.
        consumer._isolation_level = "read_committed"
        return consumer


class ReadCommittedConsumer(Consumer):
    """Faust's consumer of topics that producers in transactions may write to. Its ends are last stable offsets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _NoReadOffsets()

    def _new_consumer_thread(self) -> _ReadCommittedThread:
        return _ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)


def create_app(name: str, settings: Settings) -> faust.App:
    """A Faust app with nothing that attn does not use: no web, no leader, no replies, no standbys, no topics made."""
    data = Path(tempfile.gettempdir()) / f"attn-faust-{settings.instance}"  # stays empty; Faust wants to have one
    return faust.App(
        name, broker=[f"kafka://{host.strip()}" for host in settings.kafka.split(",")],
        broker_credentials=_credentials(settings), datadir=data, store="memory://",
        web_enabled=False, topic_disable_leader=True, topic_allow_declare=False, table_standby_replicas=0,
        topic_partitions=settings.log_partitions, topic_replication_factor=settings.replication,
        ConsumerScheduler=ChunkScheduler, broker_max_poll_records=500, consumer_max_fetch_size=1 << 20,
        stream_buffer_maxsize=8,  # chunks; more wait in our own queues, bounded in bytes
        stream_recovery_delay=0.0, recovery_consistency_check=False,
        # A member that was killed keeps its place: its successor gets the same partitions without waiting.
        consumer_group_instance_id=f"attn-{settings.instance}", consumer_auto_offset_reset="earliest",
        broker_session_timeout=10.0, broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=40.0,  # who gives a partition up ends its write first (streams.kafka.producer)
        broker_request_timeout=15.0, consumer_metadata_max_age_ms=_METADATA_SECONDS * 1000,
        # Faust's own complaints about partitions that are merely quiet; `watch` looks at offsets instead.
        stream_processing_timeout=_NEVER, broker_commit_livelock_soft_timeout=_NEVER,
    )


def _credentials(settings: Settings) -> faust.types.auth.CredentialsT | None:
    """What `client_arguments` says, in Faust's words."""
    given = client_arguments(settings)
    context = given.get("ssl_context")
    if "sasl_mechanism" in given:
        return faust.SASLCredentials(
            username=given["sasl_plain_username"], password=given["sasl_plain_password"], ssl_context=context,
            mechanism=given["sasl_mechanism"])
    return faust.SSLCredentials(context) if context is not None else None
