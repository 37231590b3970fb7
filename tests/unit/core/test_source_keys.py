"""Keys of sources: their text, and the fold of the commands that create and revoke them."""

from __future__ import annotations

import re
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fold.fold_driver import NOON, Folding

from schemas.facts import Fact, Outcome
from schemas.log import CreateKey, KeyUsed, RevokeKey
from schemas.scalars import DAY, HOUR
from schemas.views import SourceKeyRow, decode_row
from streams.core.fold.access.key_handlers import MAX_KEYS
from streams.runtime.source_keys import ENTROPY_BYTES, covers_source, key_digest, key_id_of, looks_like_key, new_key

ENTROPY = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(ENTROPY)
def test_a_key_is_what_a_secret_scanner_looks_for(entropy: bytes) -> None:
    key = new_key(entropy)
    assert re.fullmatch(r"attn_[0-9A-Za-z]{16}_[0-9A-Za-z]{49}", key.text)
    # Computes the checksum independently: base62 of the CRC-32 of the preceding text.
    number = 0
    for digit in key.text[-6:]:
        number = number * 62 + DIGITS.index(digit)
    assert number == zlib.crc32(key.text[:-6].encode())
    assert looks_like_key(key.text)
    assert key_id_of(key.text) == key.id
    assert key_digest(key.text) == key.digest


@given(ENTROPY, ENTROPY)
def test_each_random_bit_of_the_secret_is_in_the_key(first: bytes, second: bytes) -> None:
    assert (new_key(first).text == new_key(second).text) == (
        first[12:] == second[12:] and new_key(first).id == new_key(second).id)


@given(ENTROPY, st.data())
def test_a_key_with_one_wrong_character_is_no_key(entropy: bytes, data: st.DataObject) -> None:
    text = new_key(entropy).text
    at = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.characters().filter(lambda char: char != text[at]))
    assert key_id_of(text[:at] + wrong + text[at + 1:]) is None


def test_too_little_randomness_is_an_error() -> None:
    with pytest.raises(ValueError, match="44 random bytes, not 43"):
        new_key(b"x" * 43)


@pytest.mark.parametrize(("scope", "source", "covered"), [
    (None, "/anything", True), ("/ci", "/ci", True), ("/ci", "/ci/deploy", True), ("/ci", "/ci2", False),
    ("/ci/", "/ci/deploy", True), ("/ci/", "/ci", False), ("/ci", "/c", False), ("/ci", "", False),
    ("urn:a", "urn:a/b", True), ("urn:a", "urn:ab", False),
])
def test_a_scope_covers_itself_and_what_is_below_it(scope: str | None, source: str, covered: bool) -> None:
    assert covers_source(scope, source) is covered


_serial = 0


def command(kind: type[Any], key: str = "k1", ws: str = "ws", role: str = "OWNER", **more: Any) -> Any:
    global _serial
    _serial += 1
    fields = {"ws": ws, "id": f"command-{_serial}", "time": NOON, "user": "ann", "roles": (role,), "key": key, **more}
    if kind is CreateKey:
        fields = {"digest": f"digest of {key}", "name": "CI", "topics": ("waitpoints",), **fields}
    return kind(**fields)


def outcome(worker: Folding, entry: Any, clock: float = 0) -> tuple[int, Any]:
    before = len(worker.facts)
    worker.pack(entry, clock=clock)
    [fact_of_command] = [fact for fact in worker.facts[before:] if isinstance(fact, Outcome)]
    return fact_of_command.status, msgspec.json.decode(fact_of_command.body)


def keys(worker: Folding) -> dict[str, SourceKeyRow]:
    rows = {key: decode_row(key, raw) for key, raw in worker.rows.items() if key.startswith(b"x:")}
    return {row.id: row for row in rows.values() if isinstance(row, SourceKeyRow)}


@pytest.mark.parametrize("role", ["OWNER", "ADMIN"])
def test_a_key_is_created_listed_and_revoked(role: str) -> None:
    worker = Folding()
    status, body = outcome(worker, command(CreateKey, role=role, source="/ci", expires_at=NOON + HOUR))
    assert status == 201
    assert body["key"] == {
        "id": "k1", "name": "CI", "topics": ["waitpoints"], "source": "/ci", "created_at": "2026-05-20T12:00:00Z",
        "created_by": "ann", "expires_at": "2026-05-20T13:00:00Z"}
    assert keys(worker)["k1"].digest == "digest of k1"
    assert outcome(worker, command(RevokeKey, role=role)) == (200, {"id": "k1", "revoked": True})
    assert not [key for key in worker.rows if key[:2] in (b"x:", b"n:")]
    assert outcome(worker, command(RevokeKey, role=role)) == (404, {"error": "not found"})
    facts = [fact for fact in worker.facts if isinstance(fact, Fact)]
    assert [(fact.type, fact.subject, fact.actor) for fact in facts] == [
        ("key.created", "k1", "ann"), ("key.revoked", "k1", "ann")]


@pytest.mark.parametrize("role", ["MANAGER", "MEMBER", "VIEWER"])
def test_other_roles_manage_no_keys(role: str) -> None:
    worker = Folding()
    assert outcome(worker, command(CreateKey, role=role))[0] == 403
    outcome(worker, command(CreateKey))
    assert outcome(worker, command(RevokeKey, role=role))[0] == 403
    assert set(keys(worker)) == {"k1"}


def test_a_key_of_another_workspace_is_404() -> None:
    worker = Folding()
    outcome(worker, command(CreateKey))
    assert outcome(worker, command(RevokeKey, ws="other"))[0] == 404
    assert outcome(worker, command(CreateKey, ws="other"))[0] == 409  # the id exists already
    assert keys(worker)["k1"].ws == "ws"


def test_an_expiry_in_the_past_is_refused() -> None:
    worker = Folding()
    assert outcome(worker, command(CreateKey, expires_at=NOON))[0] == 400
    assert not keys(worker)


def test_a_workspace_has_a_limited_number_of_keys() -> None:
    worker = Folding()
    for number in range(MAX_KEYS):
        worker.pack(command(CreateKey, f"k{number}"))
    status, body = outcome(worker, command(CreateKey, "one more"))
    assert (status, body["limit"]) == (409, MAX_KEYS)
    assert outcome(worker, command(CreateKey, "elsewhere", ws="w2"))[0] == 201
    outcome(worker, command(RevokeKey, "k7"))
    assert outcome(worker, command(CreateKey, "one more"))[0] == 201


def test_an_expired_key_goes_after_the_retention() -> None:
    worker = Folding()
    outcome(worker, command(CreateKey, expires_at=NOON + HOUR))
    worker.pack(clock=60 * 24 * 29)
    assert "k1" in keys(worker)
    worker.restart()  # the timer is stored in the row
    worker.pack(clock=60 * 24 * 30 + 60)
    assert worker.rules.retention == 30 * DAY
    assert not [key for key in worker.rows if key[:2] in (b"x:", b"n:")]


def test_the_same_request_again_creates_one_key() -> None:
    worker = Folding()
    first = outcome(worker, command(CreateKey, "k1", digest="d1", idempotency_key="once"))
    # The edge generates another key for the repeat, so key and digest differ.
    assert outcome(worker, command(CreateKey, "k2", digest="d2", idempotency_key="once")) == first
    assert set(keys(worker)) == {"k1"}
    assert outcome(worker, command(CreateKey, "k3", name="Other", idempotency_key="once"))[0] == 422
    revoked = outcome(worker, command(RevokeKey, idempotency_key="away"))
    assert revoked == (200, {"id": "k1", "revoked": True})
    assert outcome(worker, command(RevokeKey, idempotency_key="away")) == revoked


def test_the_newest_hour_of_use_is_kept() -> None:
    worker = Folding()
    outcome(worker, command(CreateKey))
    for hour in (5, 7, 6):
        worker.pack(KeyUsed("ws", f"use k1 {hour}", "k1", NOON + hour * HOUR))
    worker.pack(KeyUsed("other", "use of another workspace", "k1", NOON + 9 * HOUR))
    worker.pack(KeyUsed("ws", "use of no key", "k9", NOON + 9 * HOUR))
    assert keys(worker)["k1"].last_used == NOON + 7 * HOUR
    revision = keys(worker)["k1"].rev
    worker.pack(KeyUsed("ws", "use k1 7", "k1", NOON + 7 * HOUR))  # another edge reports the same use
    assert keys(worker)["k1"].rev == revision
