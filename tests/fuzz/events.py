"""Fuzzer of source records (CloudEvents): sends random records through ingest, fold, pages and feeds.

Checks for every record: `normalise` returns an event or raises `Rejected`, with the same result with and without its
fast path. It accepts every valid record. An accepted event passes every codec, the fold, pages and feeds, and keeps its
JSON with all digits. Nothing that attn writes contains a reply token. A failure is printed as a line for
tests/fuzz/seeds/events.jsonl; a test runs these seeds.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace
from support.clients.feed import Copy, frames
from support.fold.fold_driver import Folding
from support.fold.pipeline_driver import SEALER

from api.contract.serializers import crewship_item, zero_item
from api.live.case_events import case_event_of
from api.live.frames import FrameEncoder
from api.readmodel.pages import PageRenderer, PageRequest
from api.readmodel.readers import Reader
from api.readmodel.replica import Replica
from api.readmodel.window import Window
from fuzz.cloudevents import SECRET, Record, make
from ops.cli.data.dead_letters import DeadLetterRecord, export_line
from ops.cli.data.event_files import parse_line, retime, time_of, workspace_of
from schemas.asking.ask import Ask, Reply
from schemas.dead_letters import CAUSES, DeadLetter
from schemas.facts import Fact, decode_fact, encode_fact
from schemas.log import NO_PAYLOAD, Event, Pack, decode_pack, encode_pack
from schemas.scalars import parse_clamped_timestamp
from schemas.topics import DECISION_REPORTS
from schemas.views import ItemRow, PositionRow, decode_row
from streams.core import normalise as module
from streams.core.normalise import Rejected, normalise
from streams.history.clickhouse.columns import columns
from streams.ingest.rejects import to_dead_letter

__all__ = ["SEEDS", "check", "main", "of_line", "run"]

SEEDS = Path(__file__).parent / "seeds" / "events.jsonl"
READER = Reader("w1", "ann", frozenset({"OWNER"}))
_BATCH = 40  # events of one view, before a new one starts


# --- one record ---

def check(record: Record) -> Event | None:
    """Checks one record. Returns the event, or None if it is rejected. Raises any exception if a check fails."""
    outcome = _outcome(record)
    with _without_the_fast_path():
        assert _outcome(record) == outcome, "the fast path and the model differ"
    if isinstance(outcome, Event):
        _check_content(record, outcome)
        pack = encode_pack(Pack(1, [outcome]))
        assert decode_pack(pack) == Pack(1, [outcome])
        assert SECRET not in exact_text(pack), "the pack of an accepted event contains the token"
    else:
        assert not record.valid or outcome[1] == "size", f"a valid record is rejected: {outcome}"
    _check_tokens(record, outcome)
    _check_dead_letter(record, outcome)
    _check_commands(record, outcome)
    return outcome if isinstance(outcome, Event) else None


def _outcome(record: Record) -> Event | tuple[str, str]:
    try:
        return normalise(record.topic, record.value, record.headers, sealer=SEALER)
    except Rejected as rejected:
        outcome = str(rejected), rejected.cause
    assert outcome[1] in CAUSES
    assert 0 < len(outcome[0]) < 1000
    return outcome


@contextmanager
def _without_the_fast_path() -> Iterator[None]:
    validate_fast = module.validate_fast
    module.validate_fast = lambda *_: None  # type: ignore[assignment]
    try:
        yield
    finally:
        module.validate_fast = validate_fast


def _check_content(record: Record, event: Event) -> None:
    """Compares the event with the record, parsed by Python's JSON parser with the digits of numbers."""
    parsed = exact(record.value or b"null")
    names = {name.lower(): (raw or b"").decode("utf-8", "replace") for name, raw in record.headers}
    if "ce_specversion" in names and not names.get("content-type", "").lower().startswith("application/cloudevents"):
        attributes = {name.removeprefix("ce_"): text for name, text in names.items() if name.startswith("ce_")}
        parsed = attributes | {"data": parsed}
    elif parsed.get("data") is None and "data_base64" in parsed:
        parsed["data"] = exact(base64.b64decode(parsed["data_base64"]))
    assert (event.id, event.subject, event.ws, event.source) == (
        parsed["id"], parsed["subject"], parsed["workspaceid"], parsed["source"])
    data = parsed.get("data") or {}
    if event.type in DECISION_REPORTS:
        assert event.data.decision == (data.get("decision") or None)
        assert event.data.reason == (data.get("reason") or data.get("error") or None)
        return
    ask = data.get("ask")
    assert (None if event.data.ask is NO_PAYLOAD else _shown(exact(bytes(event.data.ask)))) == (
        None if ask is None else _shown(ask))
    for name in ("title", "body_md", "case_title", "stack", "error"):
        if hasattr(event.data, name) and (name != "error" or event.type.startswith("run.")):
            assert getattr(event.data, name) == data.get(name)
    payload = data.get("payload")
    assert (None if event.data.payload is NO_PAYLOAD else exact(bytes(event.data.payload))) == payload


def _shown(ask: dict[str, Any]) -> dict[str, Any]:
    """Returns the members of an ask that attn keeps, without the token."""
    kept = {name: value for name, value in ask.items() if name in Ask.model_fields and value is not None}
    if "reply" in kept:
        kept["reply"] = {name: value for name, value in kept["reply"].items()
                         if name in Reply.model_fields and name != "token" and value is not None}
    return kept


def exact_text(raw: bytes) -> str:
    """Returns JSON text without escapes, so that a text search finds every word."""
    return json.dumps(json.loads(raw, parse_int=str), ensure_ascii=False)


def _check_tokens(record: Record, outcome: Event | tuple[str, str]) -> None:
    """Fails if the dead letter of the record contains the token. An accepted record gets one too: another version of
    attn may reject it."""
    reason = outcome[0] if isinstance(outcome, tuple) else "r"
    assert SECRET not in reason, "the reason contains the token"
    raw = SimpleNamespace(topic=record.topic, partition=0, offset=1, key=None, value=record.value,
                          headers=[(name, value or b"") for name, value in record.headers])
    letter = to_dead_letter(raw, reason, "other", 1)  # type: ignore[arg-type]
    left = [token for token in tokens_of(letter.value or b"") if token != ""]
    assert not left, f"the dead letter contains tokens: {left}"
    assert bool(letter.blanked) == (letter.value != record.value)
    if not letter.blanked:
        assert letter.value is record.value


def tokens_of(value: bytes, inside: tuple[str, ...] = ()) -> list[Any]:
    """Returns the values of all members that Python's parser reads as the token, repeated names included."""
    try:
        parsed = json.loads(value, object_pairs_hook=lambda pairs: ("object", pairs), parse_int=str)
    except (ValueError, RecursionError):
        return []
    tokens: list[Any] = []
    nodes = [(inside, parsed)]
    while nodes:
        path, node = nodes.pop()
        if path in (("data", "ask", "reply", "token"), ("ask", "reply", "token")):
            tokens.append(node)
        elif isinstance(node, tuple):
            nodes += [((*path, name.casefold())[-4:], child) for name, child in node[1]]
        elif isinstance(node, list):
            nodes += [(path, child) for child in node]
        elif isinstance(node, str) and path[-1:] == ("data_base64",):
            with suppress(ValueError):
                tokens += tokens_of(base64.b64decode(node), ("data",))
    return tokens


def exact(raw: bytes) -> Any:
    """Parses JSON. A number becomes ("number", its text), an unpaired surrogate U+FFFD."""
    number = lambda digits: ("number", digits)  # noqa: E731
    return _whole(json.loads(raw.decode("utf-8-sig"), parse_int=number, parse_float=number))


def _whole(node: Any) -> Any:
    if isinstance(node, str):
        return node.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(node, dict):
        return {_whole(name): _whole(child) for name, child in node.items()}
    return [_whole(child) for child in node] if isinstance(node, list) else node


def _check_dead_letter(record: Record, outcome: Event | tuple[str, str]) -> None:
    """Fails unless the dead letter of the record keeps its value over writing, reading and exporting."""
    reason, cause = outcome if isinstance(outcome, tuple) else ("sent by hand", "other")
    letter = DeadLetter(
        topic=record.topic, partition=0, offset=1, reason=reason, at=1, key=b"k", value=record.value, cause=cause,
        headers=[(name, raw or b"") for name, raw in record.headers if not name.startswith("attn-")]).fit(64 << 20)
    written = [(name.encode(), raw) for name, raw in letter.record_headers()]  # as a producer encodes them
    kept = DeadLetter.from_record(letter.key, letter.value, [(name.decode(), raw) for name, raw in written])
    assert kept.cut == letter.cut
    assert (kept.reason, kept.value, kept.headers) == (reason, record.value, letter.headers)
    if record.value:
        again = parse_line(msgspec.json.encode(export_line(DeadLetterRecord((0, 1), SimpleNamespace(), kept))))  # type: ignore[arg-type]
        assert (again.bytes_of_value, again.all_headers) == (record.value, kept.headers)


def _check_commands(record: Record, outcome: Event | tuple[str, str]) -> None:
    """Fails unless `attn emit` and `attn replay` read the same workspace and time as ingest."""
    value = record.value or b""
    workspace, at, shifted = workspace_of(value), time_of(value), retime(value, 0)
    if isinstance(outcome, Event) and not record.headers:
        assert (workspace, at) == (outcome.ws.encode(), outcome.time)
        again = _outcome(record._replace(value=shifted))
        if isinstance(again, tuple):
            assert again[1] == "size", again
        else:  # the shift formats times again, so the expiry is compared as a number
            assert _with_parsed_expiry(again) == _with_parsed_expiry(outcome), "a shift by 0 s changed the event"


def _with_parsed_expiry(event: Event) -> tuple[Event, Any]:
    if event.data.ask is NO_PAYLOAD:
        return event, None
    ask = exact(bytes(event.data.ask))
    if ask.get("expires_at"):
        ask["expires_at"] = parse_clamped_timestamp(ask["expires_at"])
    return replace(event, data=replace(event.data, ask=NO_PAYLOAD)), ask


# --- accepted events ---

class View(Folding):
    """A view, and the feed of one reader that begins with a snapshot. Each batch is applied to both."""

    def __init__(self) -> None:
        self.replica, self.answers, self.copy = Replica(1), PageRenderer(), Copy()
        self.frames = FrameEncoder(self.answers)
        self.window = Window(READER, 1000, self.replica.workspace(READER.workspace_id))
        super().__init__()
        self._receive([self.frames.encode_snapshot(self.replica.workspace(READER.workspace_id), self.window, 0)])

    def commit(self) -> None:
        batch = self.fold.pending_batch()
        super().commit()
        for fact in batch.facts:
            assert decode_fact(encode_fact(fact)) == fact
            if isinstance(fact, Fact) and (event := case_event_of(fact)) is not None:
                _one_line(event.chunk.raw)
        columns([fact for fact in batch.facts if isinstance(fact, Fact)], [0] * len(batch.facts))
        position = decode_row(*batch.rows[-1])  # type: ignore[arg-type]
        assert isinstance(position, PositionRow)
        for update in self.replica.apply(0, batch.rows, position):
            if update.workspace.workspace_id == READER.workspace_id:
                self._receive(self.frames.encode_batch(update, self.window))

    def _receive(self, new: list[bytes]) -> None:
        for raw in new:
            _one_line(raw)
            assert SECRET not in raw.decode(), "a frame contains a token"
        for frame in frames(b"".join(new)):
            self.copy.apply(frame)

    def served(self) -> None:
        """Fails unless the inbox page equals the copy built from the feed, and payloads equal those of the rows."""
        space = self.replica.workspace(READER.workspace_id)
        page = self.answers.inbox_page(space, READER, 0, PageRequest(1000))
        assert {item["id"]: item for item in json.loads(page)["items"]} == self.copy.items
        rows = {row.id: row for row in self.all(ItemRow)}
        for item in exact(page)["items"]:
            payload = rows[item["id"]].data.payload
            assert item.get("payload") == (None if payload is NO_PAYLOAD else exact(bytes(payload)))
        for row in rows.values():
            if row.state != "hidden":
                assert exact(crewship_item(row))["source_id"] == row.source_id
                orjson.dumps(zero_item(row))


def _one_line(raw: bytes) -> None:
    """Fails unless each field of the frame is on one line, by all line ends that a client may recognise."""
    lines = raw.decode().removesuffix("\n\n").splitlines()
    assert [line.partition(":")[0] for line in lines] in (["id", "event", "data"], ["id", "data"]), lines
    json.loads(lines[-1].partition(": ")[2])


def run(rng: random.Random, records: int) -> Iterator[tuple[Record, str]]:
    """Checks `records` random records. Yields those that fail, with the traceback."""
    sys.set_int_max_str_digits(0)  # the copy parses numbers with more digits than Python allows by default
    view, folded = View(), 0
    for _ in range(records):
        record = make(rng)
        try:
            event = check(record)
            if event is None:
                continue
            view.pack(event, clock=rng.randint(0, 60))
            folded += 1
            if folded % 10 == 0:
                view.served()
        except Exception:
            yield record, traceback.format_exc()
            folded = _BATCH
        if folded >= _BATCH:
            view, folded = View(), 0


# --- the command ---

def line_of(record: Record) -> str:
    headers = [(name, None if raw is None else base64.b64encode(raw).decode()) for name, raw in record.headers]
    value = None if record.value is None else base64.b64encode(record.value).decode()
    return json.dumps({"topic": record.topic, "value": value, "headers": headers, "valid": record.valid})


def of_line(line: str) -> Record:
    seed = json.loads(line)
    headers = [(name, None if raw is None else base64.b64decode(raw)) for name, raw in seed["headers"]]
    value = None if seed["value"] is None else base64.b64decode(seed["value"])
    return Record(seed["topic"], value, headers, seed["valid"])


def main() -> int:
    """Returns 1 if a check failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="of all records")
    given = parser.parse_args()
    minutes, seed = given.minutes, given.seed
    print(f"--seed {seed}", flush=True)
    begun, rounds, faults = time.monotonic(), 0, Counter[str]()
    while time.monotonic() - begun < minutes * 60:
        for record, trace in run(random.Random(f"{seed} {rounds}"), 500):
            where = trace.strip().splitlines()[-1][:200]
            faults[where] += 1
            if faults[where] <= 3:
                print(f"{trace}{record!r:.2000}\n{line_of(record)}\n", flush=True)
        rounds += 1
        if rounds % 20 == 0:
            print(f"{rounds * 500} records, {sum(faults.values())} faults of {len(faults)} kinds", flush=True)
    print(f"{rounds * 500} records in {time.monotonic() - begun:.0f} s, {sum(faults.values())} faults", file=sys.stderr)
    for where, times in faults.most_common():
        print(f"{times}: {where}", file=sys.stderr)
    return int(bool(faults))
