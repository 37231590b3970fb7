"""Makes all consumers of this process parse fetched records with `streams.kafka.records.batches` (decision 0044).

aiokafka has no setting and no hook for its parser, and Faust makes its consumer itself. So the names that aiokafka's
fetcher looks up are replaced, once. A test fails where aiokafka does not have them any more.
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
        found = super().__next__()
        # Rows that can't be read can't be passed over: the view would be wrong. Its readers stop, as they always did.
        if isinstance(found, Unreadable) and found.topic == VIEWS:
            raise CorruptRecordException(f"{VIEWS}/{found.partition} offset {found.first}: {found.reason}")
        return found


class _Result(fetcher.FetchResult):  # type: ignore[misc]
    def __init__(self, tp: TopicPartition, *, assignment: Any, partition_records: Partition, backoff: float) -> None:
        super().__init__(tp, assignment=assignment, partition_records=partition_records, backoff=backoff)
        partition_records.limit = assignment.state_value(tp).highwater


def install() -> None:
    """For all consumers of this process; calling it again does nothing."""
    fetcher.MemoryRecords = Buffer
    fetcher.PartitionRecords = _Partition
    fetcher.FetchResult = _Result
