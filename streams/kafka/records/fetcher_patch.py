"""Makes all consumers of this process parse fetched records with `streams.kafka.records.batches` (decision 0044).

aiokafka has no setting and no hook for its parser, and Faust creates its consumer itself. `install` therefore replaces
the names that aiokafka's fetcher looks up. A test fails if a new aiokafka no longer has these names.
"""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException

from schemas.topics import VIEWS
from streams.kafka.records.batches import Buffer, Partition, Record, Unreadable

__all__ = ["install"]


class _Partition(Partition):
    def __next__(self) -> Record:
        record = super().__next__()
        # Unreadable rows must not be skipped, because the view would be wrong: readers of attn.views stop.
        if isinstance(record, Unreadable) and record.topic == VIEWS:
            raise CorruptRecordException(f"{VIEWS}/{record.partition} offset {record.first}: {record.reason}")
        return record


class _Result(fetcher.FetchResult):  # type: ignore[misc]
    def __init__(self, tp: TopicPartition, *, assignment: Any, partition_records: Partition, backoff: float) -> None:
        super().__init__(tp, assignment=assignment, partition_records=partition_records, backoff=backoff)
        partition_records.limit = assignment.state_value(tp).highwater


def install() -> None:
    """Replaces the parser of all consumers of this process; idempotent."""
    fetcher.MemoryRecords = Buffer
    fetcher.PartitionRecords = _Partition
    fetcher.FetchResult = _Result
