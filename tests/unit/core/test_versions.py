"""Older and equal versions of packs, rows and facts are read with unknown fields ignored; newer ones are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from support.fold.fold_driver import cloud_event
from support.fold.pipeline_driver import Worker, event_of

from api.edge.initial_state import BatchAssembler
from schemas import facts, log, views
from schemas.log import Pack, decode_pack, encode_pack
from schemas.versions import UnsupportedVersion, versioned_decoder
from schemas.views import PositionRow, decode_row, encode_row, position_key
from streams.core.config import FoldConfig
from streams.core.fold.fold import Fold
from streams.history.writer import facts_of

POSITION = position_key(0)


def raw(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def folded() -> Worker:
    event = event_of({"topic": "waitpoints", "value": cloud_event("waitpoint.created", title="T")})
    return Worker([encode_pack(Pack(event.time, [event]))]).run()


def test_a_pack_of_a_newer_version_is_rejected_in_any_shape() -> None:
    for newer in (raw(at=1, entries=[], v=4), raw(at=1, entries=[{"t": "not yet known"}], v=4), raw(v=9),
                  raw(v=4, at="x")):
        with pytest.raises(UnsupportedVersion, match=r"a pack of attn\.log has version \d.* up to 3; upgrade"):
            decode_pack(newer)


def test_a_newer_version_is_not_a_bad_record() -> None:
    """A newer version stops the process; the handler that dead-letters bad records must not catch the exception."""
    assert not issubclass(UnsupportedVersion, ValueError | RecursionError | msgspec.MsgspecError)


@pytest.mark.parametrize("bad", [
    b"", b"\xff", b"null", b"[" * 5000, raw(v="2"), raw(at="now"), raw(at=1, entries=[{"t": "what"}]), raw(v=3)[:-1],
    raw(at=1, entries=[{"t": "what"}], v=1), raw(at="now", v=-3),
])
def test_bytes_that_are_no_pack_of_any_version_are_rejected(bad: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        decode_pack(bad)


def test_unknown_fields_of_the_same_version_are_ignored() -> None:
    """A field may be added without a new version."""
    assert decode_pack(raw(at=7, entries=[], v=3, more={"x": 1})) == Pack(7)
    row = decode_row(b"i:x", raw(id="x", ws="w", kind="message", source_id="s", more=[1]))
    assert b"more" not in encode_row(row), "an older worker that writes the row again drops the unknown field"
    position = decode_row(POSITION, raw(next=3, shift=1, v=1, more=True))
    assert position.position == 4  # type: ignore[union-attr]
    fact = raw(t="fact", ws="w", pos=1, index=0, event_id="e", time=1, type="message.posted", subject="s", more=1)
    assert facts.decode_fact(fact).v == 1


def test_a_worker_does_not_fold_a_newer_view() -> None:
    worker = folded()
    worker.rows[POSITION] = raw(next=1, v=views.VIEW_VERSION + 1, unheard_of=[])
    with pytest.raises(UnsupportedVersion, match=r"a view in attn\.views"):
        Fold(worker.rows, 0, FoldConfig()).load()


def test_an_edge_refuses_a_newer_batch() -> None:
    assembler, rows = BatchAssembler(0), folded().rows
    for key, value in rows.items():
        if key != POSITION:
            assert assembler.add(key, value, 0) is None
    with pytest.raises(UnsupportedVersion):
        assembler.add(POSITION, raw(next=1, v=views.VIEW_VERSION + 1), 0)


def test_a_newer_fact_stops_the_history_and_is_no_dead_letter() -> None:
    class Record:
        value = raw(t="prophecy", v=facts.FACT_VERSION + 1)

    letters: list[Any] = []
    with pytest.raises(UnsupportedVersion, match=r"a fact of attn\.facts"):
        facts_of([Record()], letters)
    assert not letters


def test_written_records_have_the_current_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of an older version that is written again gets the current version; version 1 stays readable."""
    monkeypatch.setattr("streams.core.fold.state.VIEW_VERSION", 5)
    monkeypatch.setattr("streams.core.fold.context.FACT_VERSION", 6)
    worker = folded()
    worker.start()  # starts with rows of the older version
    worker.log.append(encode_pack(Pack(worker.fold.context.log_clock + 10**9)))
    event = event_of({"topic": "messages", "value": cloud_event("message.posted", title="T")})
    worker.log.append(encode_pack(Pack(event.time, [event])))
    worker.run()
    assert json.loads(worker.rows[POSITION])["v"] == 5
    assert json.loads(worker.facts[-1])["v"] == 6
    assert json.loads(encode_pack(Pack(1)))["v"] == log.LOG_VERSION


def test_records_of_an_older_version_are_upgraded_when_written_again() -> None:
    class New(msgspec.Struct):
        v: int = 3
        added: str = "default"

    read = versioned_decoder("a thing", 3, msgspec.json.Decoder(New).decode)
    assert read(raw(v=1)).added == "default"
    with pytest.raises(UnsupportedVersion, match=r"version 4.* up to 3"):
        read(raw(v=4))


def test_a_position_has_the_current_view_version() -> None:
    assert json.loads(encode_row(PositionRow(next=1)))["v"] == views.VIEW_VERSION
