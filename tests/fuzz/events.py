"""Fuzzer of source records (CloudEvents): what is read, folded, served and fed of records made at random.

Of every record: `normalise` gives an event or raises `Rejected`; with and without its fast path the same;
a valid one is accepted; what is accepted crosses every codec, folds, is served and fed; and its JSON is the record's,
digit for digit. A reply token is in nothing that attn writes. What is found is printed as a line for
tests/fuzz/seeds/events.jsonl, which a test runs again.
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
_BATCH = 40  # events folded into one view


# --- one record ---

def check(record: Record) -> Event | None:
    """The event, if it is accepted. AssertionError or any other error: something does not hold."""
    found = _outcome(record)
    with _without_the_fast_path():
        assert _outcome(record) == found, "the fast path and the model differ"
    if isinstance(found, Event):
        _says_the_same(record, found)
        pack = encode_pack(Pack(1, [found]))
        assert decode_pack(pack) == Pack(1, [found])
        assert SECRET not in exact_text(pack), "an accepted event shows its token"
    else:
        assert not record.valid or found[1] == "size", f"a valid record is rejected: {found}"
    _shows_no_token(record, found)
    _on_dead_letters(record, found)
    _by_the_command_line(record, found)
    return found if isinstance(found, Event) else None


def _outcome(record: Record) -> Event | tuple[str, str]:
    try:
        return normalise(record.topic, record.value, record.headers, sealer=SEALER)
    except Rejected as rejected:
        found = str(rejected), rejected.cause
    assert found[1] in CAUSES
    assert 0 < len(found[0]) < 1000
    return found


@contextmanager
def _without_the_fast_path() -> Iterator[None]:
    validate_fast = module.validate_fast
    module.validate_fast = lambda *_: None  # type: ignore[assignment]
    try:
        yield
    finally:
        module.validate_fast = validate_fast


def _says_the_same(record: Record, event: Event) -> None:
    """Against Python's own parser, with numbers as they are written."""
    told = exact(record.value or b"null")
    names = {name.lower(): (raw or b"").decode("utf-8", "replace") for name, raw in record.headers}
    if "ce_specversion" in names and not names.get("content-type", "").lower().startswith("application/cloudevents"):
        attributes = {name.removeprefix("ce_"): text for name, text in names.items() if name.startswith("ce_")}
        told = attributes | {"data": told}
    elif told.get("data") is None and "data_base64" in told:
        told["data"] = exact(base64.b64decode(told["data_base64"]))
    assert (event.id, event.subject, event.ws, event.source) == (
        told["id"], told["subject"], told["workspaceid"], told["source"])
    data = told.get("data") or {}
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
    """What is kept of an ask, without the token."""
    kept = {name: value for name, value in ask.items() if name in Ask.model_fields and value is not None}
    if "reply" in kept:
        kept["reply"] = {name: value for name, value in kept["reply"].items()
                         if name in Reply.model_fields and name != "token" and value is not None}
    return kept


def exact_text(raw: bytes) -> str:
    """The JSON text without escapes that could hide a word."""
    return json.dumps(json.loads(raw, parse_int=str), ensure_ascii=False)


def _shows_no_token(record: Record, found: Event | tuple[str, str]) -> None:
    """The dead letter of the record, which another attn might reject, has no token that anybody could read."""
    reason = found[0] if isinstance(found, tuple) else "r"
    assert SECRET not in reason, "the reason shows the token"
    raw = SimpleNamespace(topic=record.topic, partition=0, offset=1, key=None, value=record.value,
                          headers=[(name, value or b"") for name, value in record.headers])
    letter = to_dead_letter(raw, reason, "other", 1)  # type: ignore[arg-type]
    left = [token for token in tokens_of(letter.value or b"") if token != ""]
    assert not left, f"the dead letter has {left}"
    assert bool(letter.blanked) == (letter.value != record.value)
    if not letter.blanked:
        assert letter.value is record.value


def tokens_of(value: bytes, inside: tuple[str, ...] = ()) -> list[Any]:
    """The values of all members that Python's parser reads as the token, repeated names included."""
    try:
        parsed = json.loads(value, object_pairs_hook=lambda pairs: ("object", pairs), parse_int=str)
    except (ValueError, RecursionError):
        return []
    found: list[Any] = []
    nodes = [(inside, parsed)]
    while nodes:
        path, node = nodes.pop()
        if path in (("data", "ask", "reply", "token"), ("ask", "reply", "token")):
            found.append(node)
        elif isinstance(node, tuple):
            nodes += [((*path, name.casefold())[-4:], one) for name, one in node[1]]
        elif isinstance(node, list):
            nodes += [(path, one) for one in node]
        elif isinstance(node, str) and path[-1:] == ("data_base64",):
            with suppress(ValueError):
                found += tokens_of(base64.b64decode(node), ("data",))
    return found


def exact(raw: bytes) -> Any:
    """JSON in Python's words; a number is ("number", its text), half a surrogate pair U+FFFD."""
    number = lambda digits: ("number", digits)  # noqa: E731
    return _whole(json.loads(raw.decode("utf-8-sig"), parse_int=number, parse_float=number))


def _whole(node: Any) -> Any:
    if isinstance(node, str):
        return node.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(node, dict):
        return {_whole(name): _whole(one) for name, one in node.items()}
    return [_whole(one) for one in node] if isinstance(node, list) else node


def _on_dead_letters(record: Record, found: Event | tuple[str, str]) -> None:
    reason, cause = found if isinstance(found, tuple) else ("sent by hand", "other")
    letter = DeadLetter(
        topic=record.topic, partition=0, offset=1, reason=reason, at=1, key=b"k", value=record.value, cause=cause,
        headers=[(name, raw or b"") for name, raw in record.headers if not name.startswith("attn-")]).fit(64 << 20)
    written = [(name.encode(), raw) for name, raw in letter.record_headers()]  # as a producer does
    kept = DeadLetter.from_record(letter.key, letter.value, [(name.decode(), raw) for name, raw in written])
    assert kept.cut == letter.cut
    assert (kept.reason, kept.value, kept.headers) == (reason, record.value, letter.headers)
    if record.value:
        again = parse_line(msgspec.json.encode(export_line(DeadLetterRecord((0, 1), SimpleNamespace(), kept))))  # type: ignore[arg-type]
        assert (again.bytes_of_value, again.all_headers) == (record.value, kept.headers)


def _by_the_command_line(record: Record, found: Event | tuple[str, str]) -> None:
    value = record.value or b""
    workspace, at, shifted = workspace_of(value), time_of(value), retime(value, 0)
    if isinstance(found, Event) and not record.headers:
        assert (workspace, at) == (found.ws.encode(), found.time)
        again = _outcome(record._replace(value=shifted))
        if isinstance(again, tuple):
            assert again[1] == "size", again
        else:  # the text of times is written anew
            assert _with_parsed_expiry(again) == _with_parsed_expiry(found), "shifted by nothing it is another"


def _with_parsed_expiry(event: Event) -> tuple[Event, Any]:
    if event.data.ask is NO_PAYLOAD:
        return event, None
    ask = exact(bytes(event.data.ask))
    if ask.get("expires_at"):
        ask["expires_at"] = parse_clamped_timestamp(ask["expires_at"])
    return replace(event, data=replace(event.data, ask=NO_PAYLOAD)), ask


# --- what is accepted ---

class View(Folding):
    """A view and one reader's feed, snapshot first; every batch is served and fed."""

    def __init__(self) -> None:
        self.replica, self.answers, self.copy = Replica(1), PageRenderer(), Copy()
        self.frames = FrameEncoder(self.answers)
        self.window = Window(READER, 1000, self.replica.workspace(READER.workspace_id))
        super().__init__()
        self._tell([self.frames.encode_snapshot(self.replica.workspace(READER.workspace_id), self.window, 0)])

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
                self._tell(self.frames.encode_batch(update, self.window))

    def _tell(self, new: list[bytes]) -> None:
        for raw in new:
            _one_line(raw)
            assert SECRET not in raw.decode(), "a frame shows a token"
        for frame in frames(b"".join(new)):
            self.copy.apply(frame)

    def served(self) -> None:
        """What is asked for is what was fed, and what the rows say."""
        space = self.replica.workspace(READER.workspace_id)
        page = self.answers.inbox_page(space, READER, 0, PageRequest(1000))
        assert {one["id"]: one for one in json.loads(page)["items"]} == self.copy.items
        rows = {row.id: row for row in self.all(ItemRow)}
        for one in exact(page)["items"]:
            payload = rows[one["id"]].data.payload
            assert one.get("payload") == (None if payload is NO_PAYLOAD else exact(bytes(payload)))
        for row in rows.values():
            if row.state != "hidden":
                assert exact(crewship_item(row))["source_id"] == row.source_id
                orjson.dumps(zero_item(row))


def _one_line(raw: bytes) -> None:
    """A frame: its fields, one line each, for whatever a client takes for the end of a line."""
    lines = raw.decode().removesuffix("\n\n").splitlines()
    assert [line.partition(":")[0] for line in lines] in (["id", "event", "data"], ["id", "data"]), lines
    json.loads(lines[-1].partition(": ")[2])


def run(rng: random.Random, records: int) -> Iterator[tuple[Record, str]]:
    """Tries so many records; yields those of which something does not hold, with the traceback."""
    sys.set_int_max_str_digits(0)  # Python's own limit, of the client that keeps the copy
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


# --- as a command ---

def line_of(record: Record) -> str:
    headers = [(name, None if raw is None else base64.b64encode(raw).decode()) for name, raw in record.headers]
    value = None if record.value is None else base64.b64encode(record.value).decode()
    return json.dumps({"topic": record.topic, "value": value, "headers": headers, "valid": record.valid})


def of_line(line: str) -> Record:
    found = json.loads(line)
    headers = [(name, None if raw is None else base64.b64decode(raw)) for name, raw in found["headers"]]
    value = None if found["value"] is None else base64.b64decode(found["value"])
    return Record(found["topic"], value, headers, found["valid"])


def main() -> int:
    """1: something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="all follow from it")
    given = parser.parse_args()
    minutes, seed = given.minutes, given.seed
    print(f"--seed {seed}", flush=True)
    begun, rounds, found = time.monotonic(), 0, Counter[str]()
    while time.monotonic() - begun < minutes * 60:
        for record, trace in run(random.Random(f"{seed} {rounds}"), 500):
            where = trace.strip().splitlines()[-1][:200]
            found[where] += 1
            if found[where] <= 3:
                print(f"{trace}{record!r:.2000}\n{line_of(record)}\n", flush=True)
        rounds += 1
        if rounds % 20 == 0:
            print(f"{rounds * 500} records, {sum(found.values())} faults of {len(found)} kinds", flush=True)
    print(f"{rounds * 500} records in {time.monotonic() - begun:.0f} s, {sum(found.values())} faults", file=sys.stderr)
    for where, times in found.most_common():
        print(f"{times}: {where}", file=sys.stderr)
    return int(bool(found))
