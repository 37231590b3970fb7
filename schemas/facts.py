"""Records of `attn.facts`: one fact per accepted event or changed item, and the outcomes of commands.

The id of a fact is the position of its pack (log offset + shift) and its index within that. The same log yields the
same facts, so consumers recognise a repeated record by its id (law 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from schemas.versions import versioned_decoder

__all__ = ["FACT_VERSION", "Fact", "Outcome", "decode_fact", "decode_facts", "encode_fact"]

# Raise it for a change that an older history would store wrongly, or an older edge would publish wrongly. Version 2:
# facts of decisions (`decision` and the fields after it).
FACT_VERSION = 2


class Fact(Struct, tag="fact", tag_field="t", omit_defaults=True, kw_only=True):
    """One accepted event or changed item. Times in microseconds; `seconds_open` is set if it closed an open item."""

    ws: str
    pos: int
    index: int
    event_id: str  # name of the event or command: streams.core.domain.keys.event_name
    time: int
    type: str
    subject: str
    at: int = 0  # the log clock: when attn accepted it
    item: str | None = None
    kind: str | None = None
    priority: str | None = None
    title: str | None = None
    cluster: str | None = None
    stack: str | None = None
    case_id: str | None = None
    session_id: str | None = None
    state: str | None = None  # new state of a case
    proof_id: str | None = None
    task_id: str | None = None
    actor: str | None = None
    resolved_action: str | None = None
    seconds_open: float | None = None
    target_user_id: str | None = None
    target_role: str | None = None
    opened: bool = False  # it opened its item; False in facts of attn before this field existed
    stale: bool = False  # older than the newest event of its case: for the history only
    # Facts `decision.*` (CONTRACT §7) and `vote.cast`:
    decision: str | None = None
    option: str | None = None
    does: str | None = None
    reason: str | None = None
    role: str | None = None  # of the actor
    viewed: float | None = None  # seconds for which the actor's page had shown the item in full; None: not shown
    seconds_to_decide: float | None = None  # from the opening of the item to the decision, of `decision.made`
    seconds_to_apply: float | None = None  # from the decision to its effect, of `decision.applied`
    derived: bool = False  # emitted by a timer, not by an event: streams publish it, the history does not count it
    v: int = 1  # version 1 is not written; `FoldContext.emit` sets the current one


class Outcome(Struct, tag="outcome", tag_field="t", omit_defaults=True, kw_only=True):
    """Outcome of a command. `status`: the HTTP status for the caller; `body`: the JSON of the response."""

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
# Raises UnsupportedVersion if a newer attn wrote the record; ValueError or RecursionError if it is not a fact.
decode_fact = versioned_decoder("a fact of attn.facts", FACT_VERSION, _decode)


def decode_facts(raws: Sequence[bytes]) -> list[Fact | Outcome]:
    """Returns `decode_fact` of each record, in less time. Raises what `decode_fact` raises."""
    try:
        facts = [_decode(raw) for raw in raws]
    except (ValueError, RecursionError):
        return [decode_fact(raw) for raw in raws]
    if any([fact.v > FACT_VERSION for fact in facts]):  # noqa: C419 - a generator takes three times as long
        return [decode_fact(raw) for raw in raws]
    return facts
