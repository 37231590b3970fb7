"""A sealed reply token opens for its question only, with any configured key, and does not reveal the token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.sealing import Sealer, SealError

OLD, NEW = b"o" * 32, b"n" * 32
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=50)
QUESTIONS = st.lists(TEXT, min_size=1, max_size=4)


@given(TEXT, QUESTIONS)
def test_a_token_opens_after_a_rotation(token: str, question: list[str]) -> None:
    sealed = Sealer([OLD]).seal(token, question)
    assert Sealer([NEW, OLD]).open(sealed, question) == token
    with pytest.raises(SealError, match="no configured key"):
        Sealer([NEW]).open(sealed, question)


@given(TEXT, QUESTIONS, QUESTIONS)
def test_a_token_does_not_open_for_another_question(token: str, question: list[str], other: list[str]) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(token, question)
    if other != question:
        with pytest.raises(SealError):
            sealer.open(sealed, other)


def test_the_same_event_has_the_same_sealed_token_in_each_replay() -> None:
    assert Sealer([OLD]).seal("t", ["ws", "q"]) == Sealer([OLD, NEW]).seal("t", ["ws", "q"])
    assert Sealer([OLD]).seal("t", ["ws", "q"]) != Sealer([OLD]).seal("t", ["ws", "r"])


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_refused(at: int, change: int) -> None:
    sealer = Sealer([OLD])
    sealed = bytearray(sealer.seal("token", ["q"]), "ascii")
    at %= len(sealed)
    sealed[at] ^= change
    try:
        # some bits of the last base64 character carry no data
        assert sealer.open(sealed.decode("latin-1"), ["q"]) == "token"
        assert at == len(sealed) - 1
    except SealError:
        pass


@pytest.mark.parametrize("text", ["", "s1", "s1.", "s1..", "s2.00000000.AAAA", "s1.00000000.", "plain token"])
def test_text_that_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(SealError):
        Sealer([OLD]).open(text, ["q"])


@pytest.mark.parametrize("keys", [[], [b"short"], [OLD, b""]])
def test_keys_have_32_bytes(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="keys of 32 bytes"):
        Sealer(keys)
