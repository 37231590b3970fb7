"""`Edge`: composition of the replica, the hubs, the command log and the history client of one edge process.

`api.edge.follower` writes records of Kafka into it. The routes of `api.http` read from it.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import structlog

from api import metrics
from api.commands.args_checker import ArgsChecker
from api.commands.command_log import CommandLog
from api.commands.key_usage import KeyUsage
from api.commands.rate_limiter import RateLimiter, ReadLimiter
from api.commands.visibility_barrier import VisibilityBarrier
from api.contract.errors import ApiError, Misdirected, NotReady
from api.edge.broker_health import BrokerHealth
from api.edge.index_builder import IndexBuilder
from api.edge.session_usage import SessionUsage
from api.history.client import HistoryClient
from api.intake.sender import EventSender
from api.live.access_watch import AccessWatch
from api.live.case_events import CaseEventHub
from api.live.connections import ConnectionRegistry
from api.live.feed_hub import FeedHub
from api.live.long_polls import LongPolls
from api.live.notifications import NotificationHub
from api.open_files import file_limit, stream_capacity
from api.readmodel.pages import PageRenderer
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.workspace import Workspace
from schemas.facts import Fact, Outcome
from schemas.scalars import HOUR, SECOND
from schemas.settings import Settings
from schemas.views import PositionRow
from streams.connectors.hooks.hooks_file import HooksFile
from streams.core.config import FoldConfig
from streams.core.domain.visibility import Targets
from streams.core.receipts import ReceiptSigner
from streams.core.sealing import KEY_BYTES, Sealer
from streams.runtime.keys import receipt_keys, retired_receipt_keys, session_keys
from streams.runtime.lag import LagTracker

__all__ = ["Edge", "parse_partitions"]

_log = structlog.get_logger("attn.edge")
_LOADING_SECONDS = 10.0  # for which a request waits for the facts of the past
_LAST_INDEX = 1 << 62  # above that of any fact


def parse_partitions(text: str, partitions: int) -> Collection[int]:
    """Parses a list of partitions such as `0-3,7`. An empty text means all partitions.

    Raises ValueError if the text is not such a list or names a partition that does not exist.
    """
    if not text.strip():
        return range(partitions)
    parsed: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None or not int(match[1]) <= int(match[2] or match[1]) < partitions:
            raise ValueError(f"partitions {text!r}: must be among 0-{partitions - 1}, written as 0-3,7")
        parsed.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return parsed


class Edge:
    """State and services of one edge process. `clock` returns seconds since the epoch. Raises HooksError if the file
    ATTN_HOOKS is invalid."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        partitions = settings.log_partitions
        # A quarter of the bytes for resume goes to the case events, which are small.
        room = settings.resume_bytes // 4
        self.replica = Replica(
            partitions, parse_partitions(settings.partitions, partitions), settings.resume_bytes - room)
        self.pages = PageRenderer(
            int(settings.activity_window_hours * HOUR), decider_roles=settings.decider_roles)
        self.feed_hub = FeedHub(self.replica, self.pages, settings.stream_buffer)
        self.case_events = CaseEventHub(partitions, self.replica.position_of, room, self._targets_of)
        self.long_polls = LongPolls()
        self.connections = ConnectionRegistry(
            settings, lambda: int(clock() * SECOND), stream_capacity(file_limit()))
        self.command_log = CommandLog(partitions, clock, settings.write_seconds)
        self.key_usage = KeyUsage(self.command_log)
        self.session_usage = SessionUsage(self.command_log, self.replica.access.sessions)
        self.access_watch = AccessWatch(self.replica.access, clock, self.session_usage.note_credential)
        keys = session_keys(settings)
        self.session_sealer = Sealer(keys) if keys else None  # seals the issuers' refresh tokens
        self.notifications = NotificationHub(self.replica)
        self.event_sender = EventSender(settings.event_buffer, settings.event_seconds)
        self._barrier = VisibilityBarrier(self.replica.position_of)
        self.fold_config = FoldConfig.from_settings(settings)
        self.rate_limiter = RateLimiter(settings.write_rate, settings.write_burst)
        self.read_limiter = ReadLimiter()
        self.event_limiter = RateLimiter(settings.event_rate, settings.event_burst)
        self.event_requests = ReadLimiter(waiting=32)  # requests with events in progress, per key
        self.args_checker = ArgsChecker()
        self.hooks = HooksFile(settings.hooks)
        self.history = HistoryClient(settings)
        self.receipt_signer = ReceiptSigner(receipt_keys(settings), retired_receipt_keys(settings))
        # Validates events with reply tokens. The result is dropped: only workers have the keys that seal tokens.
        self.sealer = Sealer([secrets.token_bytes(KEY_BYTES)])
        self.broker_health = BrokerHealth(settings.kafka)
        self.lag = LagTracker(settings, time.monotonic())  # lag of the topics that the follower reads
        self.ready = False
        self._last: dict[int, tuple[int, int]] = {}  # position and index of the last fact, by partition
        self._loaded_positions: dict[int, int] = {}  # of the view at `begin_loading_facts`, by partition
        self._builders = IndexBuilder()
        self._stale = 0

    def apply_batch(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], position: PositionRow) -> None:
        """Applies one batch of the view and renders its frames. Ignores a batch that is not above the position.

        `publish` must follow before the event loop runs another task. Use `publishing()` to ensure it.
        """
        at = self.replica.position_of(partition)
        if position.position <= at:
            self._skip_stale_batch(partition, position.position, at)
            return
        updates = self.replica.apply(partition, rows, position)
        self.feed_hub.render(updates)
        for update in updates:
            if update.changes.concerns_sources:
                self.long_polls.touch(update.workspace.workspace_id)
        metrics.BATCHES.inc()

    def publish(self) -> None:
        """Sends the frames of the batches since the last call, and what waited for these batches.

        Connections whose credential these batches took away end first: they get none of it.
        """
        self.access_watch.check_changed()
        self.feed_hub.send()
        self.long_polls.wake()
        self.release_pending()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publishes the batches that the block applied. A block that fails does not publish."""
        yield
        self.publish()

    def add_fact(self, partition: int, fact: Fact | Outcome) -> None:
        """Adds one record of `attn.facts`. Ignores a repeat, which a restarted worker may write.

        `release_pending` must follow once the records of a poll are added.
        """
        if self._last.get(partition, (-1, -1)) >= (fact.pos, fact.index):
            return
        self._last[partition] = (fact.pos, fact.index)
        if isinstance(fact, Fact):
            self.case_events.add(partition, fact)
        self._hold(partition, fact)

    def begin_loading_facts(self) -> None:
        """Notes that `add_past_fact` adds the records of `attn.facts` so far, and `add_fact` those after them."""
        self._loaded_positions = {number: self.replica.position_of(number) for number in self.replica.served}
        self._last = {number: (at - 1, _LAST_INDEX) for number, at in self._loaded_positions.items()}
        self.case_events.begin_loading()

    def add_past_fact(self, partition: int, fact: Fact | Outcome) -> None:
        """Adds one record of `attn.facts` that was written before `begin_loading_facts`."""
        if isinstance(fact, Fact):
            self.case_events.add_past(partition, fact)
        if fact.pos >= self._loaded_positions.get(partition, 0):  # its rows were not in the view yet
            self._hold(partition, fact)

    def _hold(self, partition: int, fact: Fact | Outcome) -> None:
        """Holds a fact or outcome that somebody waits for until the view shows it."""
        if isinstance(fact, Fact):
            if self.notifications.wants_fact(fact):
                self._barrier.add(partition, fact)
        elif self.command_log.is_waiting(fact) or self.notifications.wants(fact):
            self._barrier.add(partition, fact)

    def release_pending(self) -> None:
        """Sends the case events and notifications, and resolves the outcomes, whose position the view has reached."""
        self.case_events.release()
        facts = []
        for found in self._barrier.pop_visible():
            if isinstance(found, Fact):
                facts.append(found)
            else:
                self.command_log.on_outcome(found)
                self.notifications.push(found)
        self.notifications.push_decisions(facts)

    def _skip_stale_batch(self, partition: int, position: int, at: int) -> None:
        """Counts a batch of a worker that lost the partition. Fencing rejects most such writes at the broker."""
        metrics.STALE.inc()
        self._stale += 1
        if self._stale == 1:
            _log.warning("stale batch of attn.views ignored: its position is not above that of the partition; see "
                         "attn_edge_stale_batches_total for further ones",
                         partition=partition, position=position, at=at)

    def _targets_of(self, ws: str, item: str) -> Targets | None:
        workspace = self.replica.find_workspace(ws)
        return workspace.targets_of(item) if workspace is not None else None

    def not_ready_reason(self) -> str:
        """Returns why a load balancer should not send requests to this edge; "" if the edge is ready."""
        problem = "the edge stops" if self.connections.closed else self.broker_health.problem()
        if problem or not self.ready:
            return problem or "the view has not caught up yet"
        return self.lag.not_ready_reason(time.monotonic(), self.clock()) or ""

    async def recent_case_events(self) -> CaseEventHub:
        """Returns the case events once the facts of the past are loaded. Raises ApiError 503 if that takes longer than
        10 s."""
        try:
            async with asyncio.timeout(_LOADING_SECONDS):
                await self.case_events.wait_loaded()
        except TimeoutError:
            raise ApiError(503, "recent case events are still being loaded", {"retry-after": "5"}) from None
        return self.case_events

    def require_served(self, workspace_id: str) -> None:
        """Raises Misdirected if another edge serves the workspace."""
        if not self.replica.serves(workspace_id):
            raise Misdirected(self.replica.partition(workspace_id))

    async def workspace(self, reader: Reader, *families: str) -> Workspace:
        """Returns the reader's workspace with indexes of these families (`api.readmodel.indexes`).

        Raises NotReady if the view has not caught up yet, and Misdirected if another edge serves the workspace.
        """
        if not self.ready:
            raise NotReady
        self.require_served(reader.workspace_id)
        while (known := self.replica.find_workspace(reader.workspace_id)) is not None:
            known.last_read = time.monotonic()  # `api.edge.index_eviction` keeps the indexes
            await self._builders.build(known, frozenset(families))
            # Otherwise the workspace became empty and was created again.
            if self.replica.find_workspace(reader.workspace_id) is known:
                break
        workspace = self.replica.workspace(reader.workspace_id)
        workspace.last_read = time.monotonic()
        return workspace
