"""Faust's table manager without its recovery and without its delays (faust-streaming 0.15).

Three of Faust's steps make a takeover slower, and none of them does anything for attn:

- `TableManager.on_start` sleeps for 1 s before the app subscribes to its topics.
- Recovery asks for offsets through the consumer, several times in sequence. On a consumer that is fetching, each such
  request waits up to 1.5 s behind the fetch.
- Recovery resumes the partitions of the changelog, so the consumer fetches every row that this worker writes.

`ViewsTable.load` reads the rows instead.
"""

from __future__ import annotations

from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.types import TP

__all__ = ["LoadedTableManager"]


class LoadedTableManager(TableManager):  # type: ignore[misc]
    """A table manager whose tables load their own rows. For Faust's recovery it has no tables: recovery then only
    resumes the streams. The partitions of the changelog are assigned with those of the log, and never fetched."""

    def __bool__(self) -> bool:
        return False

    async def on_start(self) -> None:
        """As Faust's, without the sleep before it."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        # Faust pauses partitions by not asking for their records: aiokafka then still buffers 1 MiB of each.
        consumer = self.app.consumer._thread._consumer
        with suppress(IllegalStateError):  # the next rebalance has begun
            consumer.pause(*(TopicPartition(*tp) for tp in assigned if tp.topic in self.changelog_topics))
