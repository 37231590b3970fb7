"""Fuzzer of fetched record batches, which knows their format. `make fuzz ARGS=records` runs it for MINUTES.

Each case is the log of a partition. It has batches of all codecs, transactions, control records, and messages of
formats 0 and 1. Some are broken in fields, varints, CRC, lengths or bytes, or are decompression bombs. The case fetches
the log as a consumer does, parses it with `streams.kafka.records.batches`, and passes the records to ingest. Checks:

- Parser and ingest raise no exception, and memory is bounded.
- Each fetch advances the position, at most to the end of the log.
- The records of valid batches arrive once and unchanged. No other records of these batches arrive.
- Each offset of a broken batch is in a record or in an `Unreadable`. Exceptions: the damage made it a control batch, an
  aborted batch, or one with missing offsets.
- Each dead letter fits its topic, and reading it returns the same dead letter.

A seed determines a case. Seeds of past failures are in tests/data/fuzz-records.json;
`tests/unit/harness/test_fuzz_records.py` runs them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from support.kafka.record_batches import CODECS, Batch, Rec, control, legacy, varint

from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from schemas.topics import record_size
from streams.consumer.gap_filler import GapFiller
from streams.ingest.agent import Ingestor
from streams.kafka.records.batches import MAX_BODY, Buffer, Partition, Unreadable

__all__ = ["SEEDS", "case", "main", "odd_batch"]

SEEDS = Path(__file__).parents[1] / "data" / "fuzz-records.json"
TP = TopicPartition("plans", 0)
FETCH_BYTES = 4096  # limit of a response; the broker cuts it off there, but never within the first batch
LETTER_BYTES = 4096 + 20_000  # small: many dead letters must be truncated
MEMORY = 1 << 30  # limit of the growth of the process, in bytes
ODD_NUMBERS = (-(2**63), -(2**31), -300, -2, -1, 0, 1, 2, 63, 64, 127, 128, 2**15, 2**31 - 1, 2**31, 2**40, 2**63 - 1)

VALUE = b'{"specversion":"1.0","id":"%d","source":"/f","type":"plan.proposed","subject":"p%d","time":' \
        b'"2026-05-20T08:14:00Z","workspaceid":"w","data":{"title":"Go?"}}'


@dataclass
class Entry:
    """A batch of the log with the offsets `first` to `last`.

    `good`: offset -> key and value of the records that must arrive; None for a broken batch. `hidden`: a broken batch
    may have become one whose records a consumer skips.
    """

    raw: bytes
    first: int
    last: int
    good: dict[int, tuple[bytes | None, bytes | None]] | None
    hidden: bool = False


@dataclass
class Log:
    entries: list[Entry] = field(default_factory=list)
    aborted: list[tuple[int, int, int]] = field(default_factory=list)  # producer, first offset, marker

    @property
    def end(self) -> int:
        return self.entries[-1].last + 1 if self.entries else 0

    def fetch(self, at: int) -> bytes:
        """Returns the response of a broker: the batches from the one with offset `at` on, cut off at FETCH_BYTES."""
        raws = [entry.raw for entry in self.entries if entry.last >= at]
        return b"".join(raws)[:max(FETCH_BYTES, len(raws[0]) if raws else 0)]


def case(seed: int) -> dict[str, int]:
    """Runs one case and returns counts. Every 50th case has decompression bombs. Raises AssertionError."""
    rng = random.Random(seed)
    log = _log(rng, slow=seed % 50 == 0)
    records = _fetched(log)
    _check(log, records)
    letters = _ingested(records)
    return {"batches": len(log.entries), "records": len(records), "letters": len(letters),
            "unreadable": sum(isinstance(record, Unreadable) for record in records)}


# --- the log ---


def _log(rng: random.Random, slow: bool) -> Log:
    log = Log()
    for _ in range(rng.randint(1, 12)):
        kind = rng.choices(["good", "odd", "transaction", "legacy", "bytes"], [5, 6, 2, 1, 1])[0]
        if kind == "transaction":
            _transaction(rng, log)
        elif kind == "legacy":
            values = [_value(rng, number) for number in range(rng.randint(1, 4))]
            raw = legacy(values, rng.randint(0, 1), rng.choice([0, 1, 2]), log.end)
            entry = Entry(raw, log.end, log.end + len(values) - 1, {
                log.end + number: (b"k", value) for number, value in enumerate(values)})
            log.entries.append(_corrupted(rng, entry) if rng.random() < 0.4 else entry)
        else:
            batch = Batch(_records(rng), log.end, rng.choice([0, 0, 1, 2, 3, 4]))
            entry = _sound(batch)
            if kind == "odd":
                entry = replace(entry, raw=odd_batch(rng, batch, slow).encode(), good=None, hidden=True)
            elif kind == "bytes":
                entry = _corrupted(rng, entry)
            log.entries.append(entry)
    return log


def _sound(batch: Batch) -> Entry:
    good = {batch.base + number: (record.key, record.value) for number, record in enumerate(batch.records)}
    return Entry(batch.encode(), batch.base, batch.last, good)


def _transaction(rng: random.Random, log: Log) -> None:
    producer, abort, first = rng.randint(1, 3), rng.random() < 0.5, log.end
    for _ in range(rng.randint(1, 3)):
        entry = _sound(Batch(_records(rng), log.end, rng.randint(0, 4), attributes=0x10, producer=(producer, 0, 0)))
        log.entries.append(replace(entry, good={}) if abort else entry)
        if rng.random() < 0.3:  # a batch of another producer within the transaction
            log.entries.append(_sound(Batch(_records(rng), log.end)))
    if abort:
        log.aborted.append((producer, first, log.end))
    key = None if rng.random() < 0.9 else rng.randbytes(rng.randint(0, 3))
    kind = 0 if abort else rng.choice([1, 1, 7])
    log.entries.append(replace(_sound(control(kind, producer, log.end, key if not abort else None)), good={}))


def _records(rng: random.Random) -> list[Rec]:
    records = []
    for number in range(rng.randint(1, 5)):
        headers = [
            (rng.choice([b"ce_id", b"content-type", b"attn-topic", "ключ".encode(), rng.randbytes(rng.randint(0, 6))]),
             rng.choice([None, b"", rng.randbytes(rng.choice([1, 20, 3000]))]))
            for _ in range(rng.choice([0, 0, 1, 3]))
        ]
        key = rng.choice([None, b"", b"k", rng.randbytes(rng.choice([3, 30, 9000]))])
        records.append(Rec(key, _value(rng, number), headers, rng.choice([0, 1, -5, *ODD_NUMBERS])))
    return records


def _value(rng: random.Random, number: int) -> bytes | None:
    plain = VALUE % (number, number)
    return rng.choice([
        plain, plain, None, b"", plain[:rng.randrange(len(plain))], rng.randbytes(rng.choice([1, 40, 20_000]))])


def odd_batch(rng: random.Random, batch: Batch, slow: bool = False) -> Batch:
    """Returns the batch with one random defect. Its CRC is correct in most cases."""
    ways: list[Callable[[], Batch]] = [
        lambda: replace(batch, crc=rng.getrandbits(32)),
        lambda: replace(batch, codec=rng.choice([5, 7])),
        lambda: replace(batch, magic=rng.choice([-1, 0, 1, 3, 127, -128])),
        lambda: replace(batch, last_delta=_number(rng, 31)),
        lambda: replace(batch, count=_number(rng, 31)),
        lambda: replace(batch, length=_number(rng, 31)),
        lambda: replace(batch, timestamps=(_number(rng, 63), _number(rng, 63))),
        lambda: replace(batch, attributes=rng.getrandbits(15) & ~7),
        lambda: replace(batch, producer=(_number(rng, 63), rng.randint(-9, 9), _number(rng, 31))),
        lambda: replace(batch, body=_mutated(rng, b"".join(each.encode(n) for n, each in enumerate(batch.records)))),
        lambda: replace(batch, packed=_mutated(rng, CODECS[batch.codec](b"x" * rng.randint(0, 300)))),
        lambda: replace(batch, records=[_odd_record(rng, each) for each in batch.records]),
        lambda: replace(batch, records=[_odd_record(rng, each) for each in batch.records]),
        lambda: replace(batch, codec=rng.choice([1, 3, 4]), body=varint(rng.choice(ODD_NUMBERS)) * rng.randint(1, 40)),
    ]
    if slow:
        ways.append(lambda: replace(batch, codec=rng.choice([1, 3, 4]), body=bytes(MAX_BODY + rng.randint(-3, 3))))
        ways.append(lambda: replace(batch, codec=rng.randint(1, 4), records=[
            Rec(headers=[(b"", None)] * rng.choice([9_999, 10_001, 700_000]))] * len(batch.records)))
    return rng.choice(ways)()


def _number(rng: random.Random, bits: int) -> int:
    number = rng.choice([*ODD_NUMBERS, rng.randint(-5, 20)])
    return number if -(2**bits) <= number < 2**bits else rng.randint(-5, 20)


def _odd_record(rng: random.Random, record: Rec) -> Rec:
    if rng.random() < 0.4:
        return record
    ways: list[Callable[[], Rec]] = [
        lambda: replace(record, delta=rng.choice(ODD_NUMBERS)),
        lambda: replace(record, timestamp=rng.choice(ODD_NUMBERS)),
        lambda: replace(record, header_count=rng.choice(ODD_NUMBERS)),
        lambda: replace(record, length=rng.choice(ODD_NUMBERS)),
        lambda: replace(record, raw=_mutated(rng, record.encode(0)[1:])),
        lambda: replace(record, raw=b"\0" + b"".join(
            varint(rng.choice(ODD_NUMBERS)) + rng.randbytes(rng.randint(0, 5)) for _ in range(rng.randint(0, 8)))),
        lambda: replace(record, headers=[(rng.randbytes(rng.randint(0, 9)), None)] * rng.randint(1, 50)),
    ]
    return rng.choice(ways)()


def _mutated(rng: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(changed))
        way = rng.randrange(4)
        if way == 0 and changed:
            changed[at % len(changed)] = rng.choice([0, 0x7F, 0x80, 0xFF, rng.getrandbits(8)])
        elif way == 1:
            changed[at:at] = rng.randbytes(rng.randint(1, 8))
        elif way == 2:
            del changed[at:at + rng.randint(1, 20)]
        else:
            changed[at:at] = b"\xff" * rng.randint(1, 12)
    return bytes(changed)


def _corrupted(rng: random.Random, entry: Entry) -> Entry:
    """Changes random bytes, as a corrupt disk does. Keeps the offset and length of each batch or message: the broker
    finds the next one by them."""
    changed = bytearray(entry.raw)
    frames: set[int] = set()
    start = 0
    while start < len(changed):
        frames.update(range(start, start + 12))
        start += 12 + int.from_bytes(changed[start + 8:start + 12], "big")
    for _ in range(rng.randint(1, 5)):
        at, flipped = rng.randrange(12, len(changed)), rng.randint(1, 255)
        if at not in frames:
            changed[at] ^= flipped
    return replace(entry, raw=bytes(changed), good=None, hidden=changed[16] in (0, 1))


# --- the checks ---


def _fetched(log: Log) -> list[Any]:
    at, records = 0, []
    while at < log.end:
        aborted = [(producer, first) for producer, first, marker in log.aborted if marker >= at]
        fetched = Partition(TP, Buffer(log.fetch(at)), aborted, at, None, None, True, 1)
        fetched.limit = log.end
        records += list(fetched)
        assert at < fetched.next_fetch_offset <= log.end, f"from {at} to {fetched.next_fetch_offset} of {log.end}"
        at = fetched.next_fetch_offset
    return records


def _check(log: Log, records: list[ConsumerRecord]) -> None:
    seen: dict[int, Any] = {}
    covered: set[int] = set()
    for record in records:
        if isinstance(record, Unreadable):
            covered.update(range(record.first, record.offset + 1))
        else:
            assert record.offset not in seen, f"offset {record.offset} arrived twice"
            seen[record.offset] = (record.key, record.value)
            covered.add(record.offset)
    for entry in log.entries:
        offsets = range(entry.first, entry.last + 1)
        if entry.good is not None:
            arrived = {offset: seen[offset] for offset in offsets if offset in seen}
            assert arrived == entry.good, f"offsets {entry.first} to {entry.last}: {sorted(arrived)}"
        elif not entry.hidden:
            assert covered >= set(offsets), f"offsets {sorted(set(offsets) - covered)} are lost"


class _NoProducer:
    """A producer without methods: the checks read packs and dead letters from ingest, which never writes."""


def _ingested(records: list[ConsumerRecord]) -> list[DeadLetter]:
    ingestor = Ingestor(Settings(_env_file=None), _NoProducer(), GapFiller(None))  # type: ignore[arg-type]
    for record in records:
        ingestor._process_record(record)
    packs = sum(pack.entries for pack in ingestor._packer.drain(0))
    assert packs + len(ingestor._rejects) == len(records)
    for letter in ingestor._rejects:
        assert letter.cause != "fault", letter.reason
        fitted = letter.fit(LETTER_BYTES)
        headers = fitted.record_headers()
        assert record_size(fitted.key, fitted.value, headers) <= LETTER_BYTES
        again = DeadLetter.from_record(fitted.key, fitted.value, headers)
        assert again == replace(
            fitted, headers=[(name, raw) for name, raw in fitted.headers if not name.startswith("attn-")],
            key_size=again.key_size, headers_size=again.headers_size, header_count=again.header_count)
        assert again.truncated or (again.key, again.value or b"") == (letter.key, letter.value or b"")
    return ingestor._rejects


# --- the command ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="seed of the first case; each later case adds 1")
    parser.add_argument("--only", type=int, default=None, help="run only the case of this seed")
    parser.add_argument("--broker", action="store_true", help="send batches to an embedded broker with a worker")
    given = parser.parse_args()
    logging.disable()
    if given.only is not None:
        print(case(given.only))
        return
    if given.broker:
        from fuzz.broker import run

        sys.exit(asyncio.run(run(given.minutes, given.seed or 1)))
    sys.exit(_run(given.minutes, int(time.time()) if given.seed is None else given.seed))


def _run(minutes: float, seed: int) -> int:
    began, before, deadline = time.monotonic(), _memory(), time.monotonic() + minutes * 60
    totals: dict[str, int] = {}
    failed: list[int] = []
    number = 0
    while time.monotonic() < deadline and len(failed) < 20:
        try:
            for name, count in case(seed + number).items():
                totals[name] = totals.get(name, 0) + count
            assert _memory() - before < MEMORY, f"memory grew by {_memory() - before} bytes"
        except Exception as error:
            failed.append(seed + number)
            print(f"seed {seed + number}: {type(error).__name__}: {error}", flush=True)
        number += 1
    print(json.dumps({
        "cases": number, "seconds": round(time.monotonic() - began), "first_seed": seed, **totals,
        "memory_mib": (_memory() - before) >> 20, "failed_seeds": failed}))
    return 1 if failed else 0


def _memory() -> int:
    """Returns the maximum resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
