"""Fuzzer of source records (tests/fuzz): some random records, and all seeds that once failed."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Iterator

import pytest
from fuzz import cloudevents, events
from fuzz.cloudevents import Record, make
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law

from streams.core import json_text, normalise

LINES = events.SEEDS.read_text().splitlines()


@pytest.fixture(autouse=True)
def restored_digits_limit() -> Iterator[None]:
    """The fuzzer lifts Python's limit on the digits of an integer; other tests of this process rely on the limit."""
    limit = sys.get_int_max_str_digits()
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_records_of_past_failures_pass(line: str) -> None:
    record = events.of_line(line)
    assert events.line_of(record) == line
    event = events.check(record)
    if event is not None:
        view = events.View()
        view.pack(event)
        view.served()


@law(10)
@given(st.integers(0, 1 << 32))
def test_records_at_random(seed: int) -> None:
    """`make fuzz` runs many more records."""
    failures = list(events.run(random.Random(seed), 20))
    assert not failures, f"{failures[0][1]}\n{events.line_of(failures[0][0])}"


def test_the_fuzzer_makes_records_of_all_kinds() -> None:
    rng = random.Random(1)
    records = [make(rng) for _ in range(300)]
    kinds = {(record.valid, bool(record.headers), _accepted(record)) for record in records}
    assert {(True, False, True), (True, True, True), (False, False, True), (False, False, False)} <= kinds


def test_the_fuzzer_writes_its_secret_to_replies_only() -> None:
    """attn shows the arguments of an action unchanged, so a secret there would be a false finding."""
    rng = random.Random(3)
    changed = [copy.deepcopy(ask) for ask in cloudevents.ASKS for _ in range(300)]
    for ask in changed:
        cloudevents._spoil_ask(rng, ask)
    texts = [json.dumps({name: value for name, value in ask.items() if name not in ("reply", "token", "to", "REPLY")
                         and value != {"token": cloudevents.SECRET}}, default=str) for ask in changed]
    assert not [text for text in texts if cloudevents.SECRET in text]
    assert any(cloudevents.SECRET in json.dumps(ask.get("reply"), default=str) for ask in changed)


def _accepted(record: Record) -> bool:
    try:
        normalise.normalise(record.topic, record.value, record.headers)
    except normalise.Rejected:
        return False
    return True


def test_the_fuzzer_finds_a_parser_that_is_too_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(value: bytes) -> tuple[bytes, object]:
        return value, json_text.orjson.loads(value)

    monkeypatch.setattr(normalise, "read_json", strict)
    assert list(events.run(random.Random(1), 100))
