"""Pure parts of a rebuild: read the rows batch by batch, fold the log again, compare, write the repairs."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support import events
from support.examples import law
from support.fold.pipeline_driver import Worker, event_of, packs
from support.processes.version1_data import comparable_rows, version1_state

from schemas.log import Pack, decode_pack, encode_pack
from schemas.scalars import HOUR
from schemas.topics import LOG, VIEWS
from schemas.views import (
    VIEW_VERSION,
    FenceRow,
    PositionRow,
    apply_changes,
    decode_row,
    encode_row,
    fence_key,
    position_key,
)
from streams.core.config import FoldConfig
from streams.core.fold.fold import POSITION_JUMP
from streams.rebuild.comparison import Comparison, replacement_batch
from streams.rebuild.partition_view import PartitionView
from streams.rebuild.replay import Replay

LAST = position_key(0)
few = law(25, suppress_health_check=list(HealthCheck))
END = 1_800_000_000_000_000


def log_of(seed: int, size: int = 60) -> list[bytes]:
    rng = random.Random(seed)
    accepted = [event_of(line) for line in events.generate(seed, size)]
    rng.shuffle(accepted)
    log = packs(accepted, [rng.randint(0, 6) for _ in range(size // 4)], lambda number: END + number * HOUR)
    return [*log, b"not a pack", encode_pack(Pack(END + 400 * HOUR))]


def view_of(records: list[tuple[bytes, bytes | None]]) -> PartitionView:
    view = PartitionView(0)
    for key, value in records:
        view.add(key, value)
    return view


def moved(rows: dict[bytes, bytes], shift: int) -> dict[bytes, bytes]:
    """Returns the view with a position that jumped before the first pack: revisions and keys differ."""
    moved_rows = {}
    for key, value in rows.items():
        row: Any = decode_row(key, value)
        if key[:2] == b"e:":
            key = b"e:0:%d" % (int(key.split(b":")[2]) + shift)
        elif key == LAST:
            row.shift += shift
        elif hasattr(row, "rev"):
            row.rev += shift
        moved_rows[key] = encode_row(row)
    return moved_rows


def split(rows: dict[bytes, bytes]) -> tuple[dict[bytes, bytes], PositionRow]:
    position = decode_row(LAST, rows[LAST])
    assert isinstance(position, PositionRow)
    return {key: value for key, value in rows.items() if key != LAST}, position


def refold(log: list[bytes], upto: PositionRow, rules: FoldConfig, rows: dict[bytes, bytes] | None = None) -> Replay:
    fold = Replay(0, rules, rows)
    for offset, value in enumerate(log[:upto.next]):
        fold.add(offset, value)
    if upto.part:
        fold.add_part(upto.next, log[upto.next], upto.part)
    fold.flush()
    return fold


def put(rows: dict[bytes, bytes], batch: list[tuple[bytes, bytes | None]]) -> None:
    apply_changes(rows, batch)


def corrupt(rows: dict[bytes, bytes], rng: random.Random) -> set[bytes]:
    """Returns the rows with some removed, some added and some changed."""
    keys = sorted(rows)
    lost, other = rng.sample(keys, 2)
    del rows[lost]
    rows[other] = rows[other].replace(b":", b": ", 1)
    rows[b"i:made-up"] = b'{"id":"made-up","ws":"ws_01","kind":"message","source_id":"x","state":"unread"}'
    return {lost, other, b"i:made-up"}


@few
@given(st.integers(0, 2**32), st.sampled_from([0, 5, POSITION_JUMP]))
def test_only_differing_rows_are_reported_and_replaced(seed: int, shift: int) -> None:
    log, rng = log_of(seed), random.Random(seed)
    worker = Worker()
    for value in log:  # a worker skips values that are no pack as well
        worker.log.append(value)
        if value == b"not a pack":
            worker.fold.skip(len(worker.log) - 1)
            worker.write()
        else:
            worker.run()
    have, now = split(moved(worker.rows, shift))
    fold = refold(log, now, FoldConfig())
    compared = Comparison(have, fold.rows, now.shift == fold.position.shift)
    compared.update_all()
    assert not compared.count_by_type(), "an unchanged view equals the fold of the log, at any position"
    assert compared.exact == (shift == 0)

    wrong = corrupt(have, rng)
    compared.update(wrong)
    differing = compared.differing | set(compared.unmatched_seen_rows()[0])
    assert differing <= wrong
    assert {key for key in wrong if key[:2] != b"e:"} == compared.differing - {key for key in wrong if key[:2] == b"e:"}
    assert sum(sum(kind.values()) for kind in compared.count_by_type().values()) >= 3
    kept = {key: value for key, value in have.items() if key not in wrong}
    rows = replacement_batch(compared, 0, now, fold.position, stale_keys={b"i:loose", LAST})
    assert rows[-1][0] == LAST
    assert len({key for key, _ in rows}) == len(rows) <= 8
    put(have, rows)
    after = decode_row(LAST, have.pop(LAST))
    assert isinstance(after, PositionRow)
    assert (after.next, after.part, after.clock) == (now.next, now.part, now.clock)
    assert after.position == now.position + POSITION_JUMP
    again = Comparison(have, fold.rows, False)
    again.update_all()
    assert not again.count_by_type()
    assert kept.items() <= have.items(), "correct rows keep their bytes and revisions"


def test_a_replaced_row_gets_an_unused_revision() -> None:
    worker = Worker(log_of(3)[:-2]).run()
    have, now = split(worker.rows)
    key = next(key for key in have if key[:2] == b"i:")
    row: Any = decode_row(key, have[key])
    have[key] = encode_row(row).replace(b'"band":', b'"band":7,"x":') if b'"band"' in have[key] else have[key] + b" "
    fold = refold(worker.log, now, FoldConfig())
    compared = Comparison(have, fold.rows, True)
    compared.update_all()
    (first, value), _ = replacement_batch(compared, 0, now, fold.position)
    assert first == key
    assert json.loads(value or b"")["rev"] == now.position + POSITION_JUMP - 1


@few
@given(st.integers(0, 2**32), st.data())
def test_a_fold_from_a_checkpoint_is_a_fold_from_the_start(seed: int, data: Any) -> None:
    """At any offset of the checkpoint, also within a pack that is folded in parts."""
    log = log_of(seed)[:-2]
    whole = Worker(log).run()
    rows, now = split(whole.rows)
    cut = data.draw(st.integers(0, len(log)))
    base = Worker(log[:cut]).run()
    base.write()
    fold = refold(log, now, FoldConfig(), base.rows)
    assert {key: value for key, value in fold.rows.items() if key != LAST} == rows
    assert fold.position == now


@few
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_pack_is_folded_up_to_the_part_of_the_view(seed: int, size: int) -> None:
    accepted = [event_of(line) for line in events.generate(seed, size + 20)][:size]
    log = [encode_pack(Pack(END, [])), *packs(accepted, [], lambda _: END)]
    parts = Worker(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streams.core.fold.fold.MAX_PART_BYTES", 4_000)
        patch.setattr("streams.rebuild.replay.MAX_PART_BYTES", 4_000)
        parts.step()
        parts.write()
        on, whole = Replay(0, FoldConfig()), False
        on.add(0, log[0])
        while not whole:
            whole = parts.fold.apply(decode_pack(log[1]), 1)
            parts.write()
            rows, now = split(parts.rows)
            fold = refold(log, now, FoldConfig())
            assert {key: value for key, value in fold.rows.items() if key != LAST} == rows
            assert fold.position == now
            if whole:  # part by part, as a worker that catches up
                on.add(1, log[1])
            else:
                on.add_part(1, log[1], now.part)
        on.flush()
    assert on.rows == parts.rows


def test_a_rebuilt_view_uses_the_current_rules() -> None:
    log = log_of(5, 200)[:-2]
    old, new = FoldConfig(), FoldConfig(targets={"urgent": 1, "high": 2, "normal": 3, "low": 1000 * 24 * HOUR})
    have, now = split(Worker(log, old).run().rows)
    wanted, _ = split(Worker(log, new).run().rows)
    fold = refold(log, now, new)
    compared = Comparison(have, fold.rows, now.shift == fold.position.shift)
    compared.update_all()
    assert compared.count_by_type()["item"]["other"] > 5
    put(have, replacement_batch(compared, 0, now, fold.position))
    del have[LAST]
    assert not Comparison(have, wanted, False).count_by_type()
    again = Comparison(have, wanted, False)
    again.update_all()
    assert not again.count_by_type()


def test_batches_of_former_owners_and_without_an_end_are_left_out() -> None:
    def at(position: int) -> tuple[bytes, bytes]:
        return LAST, encode_row(PositionRow(next=position))

    view = view_of([
        (b"i:a", b"1"), (b"i:b", b"1"), at(3),
        (b"i:a", b"2"), at(2),  # a former owner of the partition wrote this batch
        (b"i:b", None), at(3),
        (b"f:0", encode_row(FenceRow("1", 1, 1))), (b"?:x", b"no row"),
        (b"i:c", b"1"), at(4), (b"i:c", b"2"), (b"i:d", b"2"),
    ])
    assert (view.rows, view.stale_keys) == ({b"i:a": b"1", b"i:b": b"1", b"i:c": b"1"}, {b"i:a", b"i:b"})
    assert view.position == PositionRow(next=4)
    view.discard_incomplete_batch()
    assert view.stale_keys == {b"i:a", b"i:b", b"i:c", b"i:d"}
    view.add(fence_key(0), encode_row(FenceRow("2", 2, 2)))
    for key, value in [(b"i:a", b"1"), (b"i:b", b"1"), (b"i:c", b"1"), (b"i:d", None), at(5)]:
        view.add(key, value)
    assert (view.rows, view.stale_keys) == ({b"i:a": b"1", b"i:b": b"1", b"i:c": b"1"}, set())


def test_the_version_1_view_equals_the_fold_of_its_log() -> None:
    data = version1_state()
    for partition in range(3):
        view = PartitionView(partition)
        for key, value, _ in data.topics[VIEWS][partition]:
            view.add(key, value)
        assert view.position is not None
        fold = Replay(partition, data.rules)
        for offset, (_, value, _) in enumerate(data.topics[LOG][partition][:view.position.next]):
            fold.add(offset, value)
        fold.flush()
        compared = Comparison(comparable_rows(view.rows), comparable_rows(fold.rows), True)
        compared.update_all()
        assert not compared.count_by_type()
        assert view.position.v == 1
        assert fold.position == msgspec.structs.replace(view.position, v=VIEW_VERSION)
