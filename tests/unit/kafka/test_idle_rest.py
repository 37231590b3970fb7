"""How long an idle consumer waits between two fetches of a broker that does not hold them."""

from __future__ import annotations

import pytest

from streams.kafka.doorbell import SOURCES, bell_of
from streams.kafka.idle_fetch import rest


def test_a_record_that_follows_closely_is_hardly_delayed() -> None:
    for bells, woken in (({SOURCES}, True), ({"attn.log"}, False)):
        assert rest(0.01, bells, woken) == pytest.approx(0.001)


def test_a_consumer_that_writes_wake_sends_few_fetches_between_two_records() -> None:
    """20 records per second: four fetches between two of them instead of the 48 that a wait of 10 % needs."""
    silence, fetches = 0.001, 0
    while silence < 0.05:
        silence += rest(silence, {"attn.log"}, woken=True)
        fetches += 1
    assert fetches <= 4


@pytest.mark.parametrize(("bells", "woken", "longest"), [
    ({"attn.log"}, True, 0.25), ({SOURCES}, True, 0.03), ({"attn.log", SOURCES}, True, 0.03),
    ({"attn.log"}, False, 0.02), ({SOURCES}, False, 0.02),
], ids=["own-topics", "sources", "both", "no-bell", "sources-no-bell"])
def test_the_longest_wait_depends_on_who_writes(bells: set[str], woken: bool, longest: float) -> None:
    assert rest(3600.0, bells, woken) == longest


def test_source_topics_share_a_bell_and_others_have_their_own() -> None:
    assert {bell_of("waitpoints"), bell_of("plans")} == {SOURCES}
    assert bell_of("attn.views") == "attn.views"
