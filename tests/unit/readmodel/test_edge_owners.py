"""An edge holds the rows that the owners of a partition wrote: live and after a load, from a compacted or complete log.

The log has writes of owners, late writes of former owners, and batches that end before their last row.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from support.edge.feeds import Edge
from support.edge.random_rows import World
from support.examples import law
from support.kafka.compaction import Record, compact

from api.edge.initial_state import BatchAssembler, InitialState
from api.readmodel.replica import Replica
from schemas.views import FenceRow, PositionRow, encode_row, fence_key, position_key

Rows = list[tuple[bytes, bytes | None]]
SEEDS = st.integers(0, 2**32)
FENCE = encode_row(FenceRow("other", 1, 0))


@dataclass
class Log:
    """The records of one partition, one millisecond per step, and the true rows at each position."""

    world: World
    records: list[Record] = field(default_factory=list)
    truth: dict[int, dict[bytes, bytes]] = field(default_factory=lambda: {0: {}})
    intended: list[tuple[Rows, PositionRow]] = field(default_factory=list)
    wrong: set[bytes] = field(default_factory=set)
    torn: bool = False  # the last rows have no position record: their writer died
    spoilt: list[int] = field(default_factory=list)  # times at which wrong rows were written
    repaired: list[tuple[int, int]] = field(default_factory=list)  # (time of the wrong rows, time of their repair)
    at: int = 0

    def step(self, chance: random.Random) -> None:
        self.at += 1
        owner, zombie, death = (0, 0, 0) if self.torn else (8, 2 * bool(self.intended), 2)
        getattr(self, chance.choices(("own", "claim", "stray", "die"), (owner, 3, zombie, death))[0])()

    def own(self) -> None:
        self._write(*self.world.batch())

    def claim(self) -> None:
        """Another owner fences the partition, and repairs wrong rows (streams/fold/views_table.py)."""
        self.records.append((fence_key(0), FENCE, self.at))
        self.at += self.world.random.randrange(2)
        if self.wrong:
            last = self.world.position
            self.world.position = PositionRow(last.next, last.clock, last.shift + 1)
            rows = sorted(self.wrong - {position_key(0)})
            self._write([(key, self.world.rows.get(key)) for key in rows], self.world.position)
        self.repaired += [(begin, self.at) for begin in self.spoilt[len(self.repaired):]]
        self.wrong, self.torn = set(), False

    def stray(self) -> None:
        """A former owner writes an earlier batch again. Its position record alone is wrong too."""
        rows, position = self.world.random.choice(self.intended)
        last = (position_key(0), encode_row(position))
        self._put([*rows, last])
        self._spoil([*rows, last])

    def die(self) -> None:
        """A writer dies after the rows of a batch and before its position record, or during a repair."""
        rows, _ = copy.deepcopy(self.world).batch()
        self._put(rows)
        self._spoil(rows)
        self.torn = bool(rows)

    def _write(self, rows: Rows, position: PositionRow) -> None:
        self._put(rows)
        self.records.append((position_key(0), encode_row(position), self.at))
        self.intended.append((rows, position))
        self.truth[position.position] = dict(self.world.rows)

    def _put(self, rows: Rows) -> None:
        self.records += [(key, raw, self.at) for key, raw in rows]

    def _spoil(self, rows: Rows) -> None:
        self.wrong.update(key for key, _ in rows)
        if rows:
            self.spoilt.append(self.at)


def log_of(seed: int, steps: int) -> Log:
    """Returns a random log. Its last writer is an owner that has repaired all wrong rows."""
    log = Log(World(seed))
    chance = random.Random(seed)
    for _ in range(steps):
        log.step(chance)
    log.at += 1
    log.claim()
    return log


@law(80)
@given(SEEDS)
def test_a_live_edge_has_the_rows_of_the_owners(seed: int) -> None:
    log = log_of(seed, 25)
    edge, other = Edge(limits=(3,)), Edge(limits=(3,))
    assembler = BatchAssembler(0)
    for record in log.records:
        batch = assembler.add(*record)
        if batch is not None:
            edge.apply(batch.rows, batch.position)
            assert edge.replica._partitions[0].rows == log.truth[edge.replica.position_of(0)]
    assert edge.replica.position_of(0) == log.world.position.position
    for rows, position in log.intended:
        other.apply(rows, position)
    for name, (_, sent, _) in other.feeds.items():
        assert edge.feeds[name][1] == sent


def begin(records: list[Record], room: int, horizon: int) -> tuple[Replica, BatchAssembler, bool]:
    """Returns an edge that has loaded these records, and whether its state may be shown to readers."""
    assembler, loading = BatchAssembler(0), InitialState(room, horizon)
    for record in records:
        batch = assembler.add(*record)
        if batch is not None:
            loading.add(batch)
    sure = not loading.advance_horizon(horizon) and not assembler.has_unfinished_batch_before(horizon)
    replica = Replica(1)
    state, batches = loading.finish()
    for partition, (rows, position) in state.items():
        replica.load(partition, rows, position)
    for batch in batches:
        replica.apply(0, batch.rows, batch.position)
    return replica, assembler, sure


@law(200)
@given(SEEDS, st.integers(0, 25), st.integers(0, 25), st.sampled_from([0, 3_000, 10**9]))
def test_a_loaded_edge_has_the_rows_of_the_owners(seed: int, compacted: int, read: int, room: int) -> None:
    """The edge loads records up to a random moment, and then follows."""
    log = log_of(seed, 25)
    left = compact(log.records, compacted, random.Random(seed))
    first = [record for record in left if record[2] <= max(read, compacted)]
    replica, assembler, sure = begin(first, room, compacted)
    # Compaction may have kept a wrong row that was not repaired before.
    whole = max(read, compacted) >= log.at or not any(at < compacted for at in log.spoilt)
    event(f"sure {sure}, whole {whole}")
    assert sure or not whole
    if whole:
        assert replica._partitions[0].rows == log.truth[replica.position_of(0)]
    if not sure:
        replica, assembler, sure = begin(left, room, compacted)
        assert sure, "the edge reads on until the owner has written"
        first = left
    for record in left[len(first):]:
        batch = assembler.add(*record)
        if batch is not None:
            replica.apply(0, batch.rows, batch.position)
    assert replica._partitions[0].rows == log.world.rows
    assert replica.position_of(0) == log.world.position.position


@law(100)
@given(SEEDS, st.integers(0, 25))
@example(5862, 9)  # a wrong position record without rows
def test_a_loaded_edge_resumes_earlier_feeds(seed: int, compacted: int) -> None:
    log, live = log_of(seed, 25), Edge(limits=(3,))
    for rows, position in log.intended:
        live.apply(rows, position)
    replica, _, sure = begin(compact(log.records, compacted, random.Random(seed)), 10**9, compacted)
    assert sure
    # Compaction kept wrong rows in place of right ones: the state is that of the repair, the frames before it are
    # unknown.
    assume(not any(since < compacted <= until for since, until in log.repaired))
    for (reader, limit), (_, sent, _) in live.feeds.items():
        for number, frame in enumerate(sent):
            missed = replica.missed_since(reader.workspace_id, int(frame.split(b"\n", 1)[0].removeprefix(b"id: ")))
            if missed is not None:
                assert live.frames.encode_missed(missed, reader, limit, 1 << 30) == (sent[number + 1:], None)
