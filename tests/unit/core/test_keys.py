"""Two identities never share a key, with any characters."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from streams.core.domain.keys import (
    command_digest,
    command_name,
    event_digest,
    event_name,
    legacy_event_name,
    parse_event_name,
    proof_expiring_name,
)

PART = st.text(st.sampled_from("a7 \0:\n%é"), min_size=1, max_size=8) | st.sampled_from(
    ["command", "proof.expiring", "ci deploy", "/pipelines/deploy", "\0command", " 1 a", "command 7"])


@given(PART, PART, PART, PART)
@example("ci deploy", "7", "ci", "deploy 7")
@example("command", "7 ibx_1", "command 7", "ibx_1")
@example(" 1 a", "b", "a", "b")
def test_two_events_have_two_names_and_two_digests(source: str, event: str, other: str, another: str) -> None:
    same = (source, event) == (other, another)
    assert (event_name(source, event) == event_name(other, another)) == same
    assert (event_digest("w", source, event) == event_digest("w", other, another)) == same
    assert parse_event_name(event_name(source, event)) == (source, event)


@given(PART, PART, st.text(st.sampled_from("0f-"), min_size=1), st.sampled_from([(), ("ibx_1",), ("ibx_1", "ibx_2")]))
def test_no_event_is_named_as_a_command_or_a_tick_is(
    source: str, event: str, command: str, items: tuple[str, ...]
) -> None:
    assert event_name(source, event) not in (command_name(command, *items), proof_expiring_name("ibx_1", 7))
    assert event_digest("w", source, event) != command_digest("w", command)


@given(PART, PART)
def test_an_older_attn_named_an_event_by_source_space_and_id(source: str, event: str) -> None:
    """Names of older versions stay where they are unambiguous, so repeated events match their old rows."""
    assert legacy_event_name(event_name(source, event)) == f"{source} {event}"
    if " " not in source and source not in ("command", "proof.expiring"):
        assert event_name(source, event) == f"{source} {event}"
