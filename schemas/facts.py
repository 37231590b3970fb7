"""What `attn.facts` holds: one fact per accepted event or command, and the outcomes that edges wait for.

A fact's id is its place: the position of its pack (log offset + shift) and its index in it. The same log gives the
same facts, so a record seen twice is recognised by its id alone (law 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from schemas.versions import versioned_decoder

__all__ = ["FACT_VERSION", "Fact", "Outcome", "decode_fact", "decode_facts", "encode_fact"]

# To be raised by what an older history would keep wrongly, or an older edge tell wrongly.
FACT_VERSION = 1


class Fact(Struct, tag="fact", tag_field="t", omit_defaults=True, kw_only=True):
    """One accepted fact. Times in microseconds; `seconds_open` is set where it closed something that was open."""

    ws: str
    pos: int
    index: int
    event_id: str  # of the event by source and id, or of the command: streams.core.domain.keys.event_name
    time: int
    type: str
    subject: str
    at: int = 0  # the log's clock: when attn accepted it
    item: str | None = None
    kind: str | None = None
    priority: str | None = None
    title: str | None = None
    cluster: str | None = None
    stack: str | None = None
    case_id: str | None = None
    session_id: str | None = None
    state: str | None = None  # of a case
    proof_id: str | None = None
    task_id: str | None = None
    actor: str | None = None
    resolved_action: str | None = None
    seconds_open: float | None = None
    target_user_id: str | None = None
    target_role: str | None = None
    opened: bool = False  # it opened its item; not told before it came (a fact of then says no)
    stale: bool = False  # older than what the view already knew: history, not news
    derived: bool = False  # came of the clock, not of an event: told to streams, not counted in the history
    v: int = 1  # the first version is not written; `FoldContext.emit` sets the one of today


class Outcome(Struct, tag="outcome", tag_field="t", omit_defaults=True, kw_only=True):
    """What became of a command. `status` is the HTTP status its caller gets, `body` the answer's JSON."""

    ws: str
    pos: int
    index: int
    command: str
    edge: str
    user: str
    status: int
    body: msgspec.Raw
    items: list[str] = []
    state: str | None = None
    bulk: bool = False
    v: int = 1


encode_fact = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Fact | Outcome] = msgspec.json.Decoder(Fact | Outcome).decode
# UnsupportedVersion: of a newer attn. ValueError or RecursionError: not a fact.
decode_fact = versioned_decoder("a fact of attn.facts", FACT_VERSION, _decode)


def decode_facts(raws: Sequence[bytes]) -> list[Fact | Outcome]:
    """`decode_fact` of each, in less time. Raises what it raises, if not of the first that is to blame."""
    try:
        found = [_decode(raw) for raw in raws]
    except (ValueError, RecursionError):
        return [decode_fact(raw) for raw in raws]
    if any([fact.v > FACT_VERSION for fact in found]):  # noqa: C419 - a generator takes three times as long
        return [decode_fact(raw) for raw in raws]
    return found
